// Two staging slots: while one is copied and converted, the next is filled.
#include "cuda/weight_loader.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "backend/tensor_fault.h"
#include "cuda/check.h"
#include "cuda/convert.h"

namespace lorax::cuda {
namespace {

constexpr int64_t kSlotBytes = int64_t{64} << 20;

// Reading a mapped file is bound by page faults: several threads take them side by side.
void copy_in_parallel(uint8_t* to, const uint8_t* from, int64_t bytes) {
  constexpr int64_t kWorth = int64_t{4} << 20;
  const int64_t most = std::clamp<int64_t>(std::thread::hardware_concurrency(), 1, 8);
  const int64_t threads = std::clamp<int64_t>(bytes / kWorth, 1, most);
  const auto part = [&](int64_t i) {
    const int64_t begin = bytes * i / threads;
    std::memcpy(to + begin, from + begin, static_cast<size_t>(bytes * (i + 1) / threads - begin));
  };
  std::vector<std::jthread> helpers;
  try {
    for (int64_t i = 1; i < threads; ++i) helpers.emplace_back(part, i);
  } catch (const std::system_error&) {  // no more threads: the rest is done here
    for (int64_t i = static_cast<int64_t>(helpers.size()) + 1; i < threads; ++i) part(i);
  }
  part(0);
}

[[noreturn]] void fail(const TensorView& tensor, const std::string& what) {
  fail_tensor("MODEL_INVALID", tensor, what);
}

}  // namespace

WeightLoader::WeightLoader(cudaStream_t stream)
    : stream_(stream), found_bad_(sizeof(int32_t), "loading weights") {
  for (Slot& slot : slots_) {
    slot.host = PinnedBuffer(kSlotBytes, "loading weights");
    slot.device = DeviceBuffer(kSlotBytes, "loading weights");
    LORAX_CUDA(cudaEventCreateWithFlags(&slot.consumed, cudaEventDisableTiming));
  }
}

WeightLoader::~WeightLoader() {
  cudaStreamSynchronize(stream_);
  for (Slot& slot : slots_) {
    if (slot.consumed != nullptr) cudaEventDestroy(slot.consumed);
  }
}

void WeightLoader::load(const TensorView& tensor, void* to, DType as) {
  const int64_t element = dtype_bytes(tensor.dtype);
  const int64_t count = tensor.rows * tensor.cols;
  const int64_t per_slot = kSlotBytes / element;
  const auto* from = static_cast<const uint8_t*>(tensor.data);
  auto* out = static_cast<uint8_t*>(to);
  *found_bad_.as<int32_t>() = 0;
  for (int64_t begin = 0; begin < count; begin += per_slot) {
    const int64_t part = std::min(per_slot, count - begin);
    Slot& slot = slots_[next_slot_];
    next_slot_ = (next_slot_ + 1) % kSlots;
    LORAX_CUDA(cudaEventSynchronize(slot.consumed));
    copy_in_parallel(slot.host.as<uint8_t>(), from + begin * element, part * element);
    LORAX_CUDA(cudaMemcpyAsync(slot.device.as<void>(), slot.host.as<void>(),
                               static_cast<size_t>(part * element), cudaMemcpyHostToDevice,
                               stream_));
    convert(slot.device.as<void>(), tensor.dtype, out + begin * dtype_bytes(as), as, part,
            found_bad_.as<int32_t>(), stream_);
    LORAX_CUDA(cudaEventRecord(slot.consumed, stream_));
  }
  LORAX_CUDA(cudaStreamSynchronize(stream_));
  if (*static_cast<volatile int32_t*>(found_bad_.as<int32_t>()) != 0)
    fail(tensor, "holds NaN or Inf: the file is damaged or training diverged");
}

std::unique_ptr<DeviceWeight> WeightLoader::weight(std::span<const TensorView> tensors,
                                                   std::span<const TensorView> biases) {
  auto out = std::make_unique<DeviceWeight>();
  out->k = tensors.front().cols;
  for (const TensorView& tensor : tensors) {
    if (tensor.cols != out->k) {
      fail(tensor, "has " + std::to_string(tensor.cols) + " columns beside one of " +
                       std::to_string(out->k));
    }
    out->n += tensor.rows;
  }
  out->values = DeviceBuffer(out->n * out->k * 2, "the model's weights");
  int64_t row = 0;
  for (const TensorView& tensor : tensors) {
    load(tensor, out->values.as<uint8_t>() + row * out->k * 2, DType::kBF16);
    row += tensor.rows;
  }
  if (biases.empty()) return out;
  out->bias = DeviceBuffer(out->n * 4, "the model's weights");
  out->bias_bf16 = DeviceBuffer(out->n * 2, "the model's weights");
  int64_t at = 0;
  for (const TensorView& bias : biases) {
    const int64_t count = bias.rows * bias.cols;
    if (at + count > out->n) fail(bias, "is longer than the matrix it belongs to");
    load(bias, out->bias.as<float>() + at, DType::kF32);
    load(bias, out->bias_bf16.as<uint16_t>() + at, DType::kBF16);
    at += count;
  }
  if (at != out->n) fail(biases.back(), "leaves rows of its matrix without a bias");
  return out;
}

std::unique_ptr<DeviceVector> WeightLoader::vector(const TensorView& tensor) {
  auto out = std::make_unique<DeviceVector>();
  out->size = tensor.rows * tensor.cols;
  out->values = DeviceBuffer(out->size * 4, "the model's weights");
  load(tensor, out->values.as<void>(), DType::kF32);
  return out;
}

}  // namespace lorax::cuda
