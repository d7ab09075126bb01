// Brings tensors from host memory to the device: several threads copy into pinned staging, the
// copy engine moves it, a kernel turns it into bf16 (or float32) and looks for NaN and Inf.
//
// Load time only. Used by the backend's pack_weight and pack_vector.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <memory>
#include <optional>
#include <span>

#include "backend/backend.h"
#include "cuda/device_memory.h"
#include "cuda/stream_gemm.h"

namespace lorax::cuda {

// W [n, k] row-major bf16 and, with a bias, the bias [n] twice, as its two readers want it.
class DeviceWeight final : public Weight {
 public:
  DeviceBuffer values;
  DeviceBuffer bias;                 // float32, for the streaming GEMM
  DeviceBuffer bias_bf16;            // for cuBLASLt
  std::optional<StreamGemm> stream;  // where the device and k allow
};

class DeviceVector final : public Vector {
 public:
  DeviceBuffer values;  // float32 [size]
};

class WeightLoader {
 public:
  explicit WeightLoader(cudaStream_t stream);
  ~WeightLoader();
  WeightLoader(const WeightLoader&) = delete;
  WeightLoader& operator=(const WeightLoader&) = delete;

  // Stacks along rows. Throws MODEL_INVALID naming a tensor with NaN or Inf, or whose shape does
  // not fit the others.
  std::unique_ptr<DeviceWeight> weight(std::span<const TensorView> tensors,
                                       std::span<const TensorView> biases);
  std::unique_ptr<DeviceVector> vector(const TensorView& tensor);

 private:
  static constexpr int kSlots = 2;
  struct Slot {
    PinnedBuffer host;
    DeviceBuffer device;
    cudaEvent_t consumed = nullptr;
  };

  // Appends the tensor's values at `to`, as bf16 or float32.
  void load(const TensorView& tensor, void* to, DType as);

  cudaStream_t stream_;
  std::array<Slot, kSlots> slots_;
  int next_slot_ = 0;
  PinnedBuffer found_bad_;  // int32_t, written by the kernel
};

}  // namespace lorax::cuda
