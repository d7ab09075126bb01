// Base weights in panels (kernels.h) and the reading of tensors of any type.
//
// A packed weight never changes. Rows beyond n and, in bf16, columns beyond k (to a multiple of 32,
// a tile's step) are zero.
#pragma once

#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/host_buffer.h"
#include "cpu/thread_pool.h"

namespace lorax::cpu {

struct PackedWeight final : Weight {
  HostBuffer data;  // [panels, panel_bytes]
  int64_t panel_bytes = 0;
  int32_t k_padded = 0;
  std::vector<float> bias;  // [n], empty without

  int32_t num_panels() const { return static_cast<int32_t>((n + 15) / 16); }
};

struct FloatVector final : Vector {
  std::vector<float> values;  // [size]
};

// Row `row` of `tensor` as float32 into out [cols]; false when it holds NaN or Inf.
bool read_row(const TensorView& tensor, int64_t row, float* out);
uint16_t to_bf16(float x);

// Values [at, at + count) of an array in the storage type, as float32.
void read_values(const uint8_t* from, int64_t at, int64_t count, bool bf16, float* out);

// Throws MODEL_INVALID naming the tensor at fault.
std::unique_ptr<PackedWeight> pack_weight(std::span<const TensorView> tensors,
                                          std::span<const TensorView> biases, bool bf16,
                                          ThreadPool& pool);
std::unique_ptr<FloatVector> pack_vector(const TensorView& tensor);

// Row `row` of W as float32 into out [k].
void unpack_row(const PackedWeight& weight, int64_t row, bool bf16, float* out);

}  // namespace lorax::cpu
