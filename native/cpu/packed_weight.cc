// See packed_weight.h.
#include "cpu/packed_weight.h"

#include <atomic>
#include <cmath>
#include <cstring>
#include <string>

#include "backend/tensor_fault.h"
#include "backend/tensor_values.h"
#include "cpu/kernels.h"

namespace lorax::cpu {
namespace {

[[noreturn]] void fail(const TensorView& tensor, const std::string& what) {
  fail_tensor("MODEL_INVALID", tensor, what);
}

void check_shapes(std::span<const TensorView> tensors, std::span<const TensorView> biases) {
  if (tensors.empty()) throw Error("MODEL_INVALID", "a weight without tensors");
  for (const TensorView& t : tensors) {
    if (t.data == nullptr || t.rows <= 0 || t.cols <= 0) fail(t, "is empty");
    if (t.cols != tensors[0].cols) {
      fail(t, "has " + std::to_string(t.cols) + " columns; " + tensors[0].name +
                  ", stacked with it, has " + std::to_string(tensors[0].cols));
    }
  }
  if (biases.empty()) return;
  if (biases.size() != tensors.size()) fail(biases[0], "is not one bias per tensor");
  for (size_t i = 0; i < biases.size(); ++i) {
    if (biases[i].rows * biases[i].cols != tensors[i].rows) {
      fail(biases[i], "has " + std::to_string(biases[i].rows * biases[i].cols) + " values; " +
                          tensors[i].name + " has " + std::to_string(tensors[i].rows) + " rows");
    }
  }
}

}  // namespace

uint16_t to_bf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

bool read_row(const TensorView& tensor, int64_t row, float* out) {
  const char* data = static_cast<const char*>(tensor.data);
  const char* from = data + row * tensor.cols * dtype_bytes(tensor.dtype);
  return read_floats(from, tensor.dtype, tensor.cols, out);
}

void read_values(const uint8_t* from, int64_t at, int64_t count, bool bf16, float* out) {
  if (!bf16) {
    std::memcpy(out, from + at * 4, static_cast<size_t>(count) * sizeof(float));
    return;
  }
  const auto* bits = reinterpret_cast<const uint16_t*>(from) + at;
  for (int64_t j = 0; j < count; ++j) out[j] = float_of_bf16(bits[j]);
}

std::unique_ptr<PackedWeight> pack_weight(std::span<const TensorView> tensors,
                                          std::span<const TensorView> biases, bool bf16,
                                          ThreadPool& pool) {
  check_shapes(tensors, biases);
  auto packed = std::make_unique<PackedWeight>();
  packed->k = tensors[0].cols;
  for (const TensorView& t : tensors) packed->n += t.rows;
  const int64_t k = packed->k;
  packed->k_padded = static_cast<int32_t>(bf16 ? (k + 31) / 32 * 32 : k);
  packed->panel_bytes = int64_t{packed->k_padded} * kPanel * (bf16 ? 2 : 4);
  packed->data = HostBuffer(packed->num_panels() * packed->panel_bytes);

  std::vector<float> rows(static_cast<size_t>(pool.size()) * k);  // [threads, k]
  std::atomic<int> bad{-1};
  pool.run(packed->num_panels(), [&](int64_t panel, int thread) {
    float* row = rows.data() + thread * k;
    uint8_t* to = packed->data.as<uint8_t>() + panel * packed->panel_bytes;
    for (int64_t lane = 0; lane < kPanel; ++lane) {
      int64_t r = panel * kPanel + lane;
      if (r >= packed->n) break;
      size_t t = 0;
      while (r >= tensors[t].rows) r -= tensors[t++].rows;
      if (!read_row(tensors[t], r, row)) bad.store(static_cast<int>(t));
      for (int64_t j = 0; j < k; ++j) {
        if (bf16) {
          reinterpret_cast<uint16_t*>(to)[(j / 2 * kPanel + lane) * 2 + j % 2] = to_bf16(row[j]);
        } else {
          reinterpret_cast<float*>(to)[j * kPanel + lane] = row[j];
        }
      }
    }
  });
  if (bad.load() >= 0) {
    fail(tensors[bad.load()], "holds NaN or Inf: the file is damaged or training diverged");
  }
  for (const TensorView& bias : biases) {
    TensorView flat = bias;
    flat.cols = bias.rows * bias.cols;
    flat.rows = 1;
    const size_t begin = packed->bias.size();
    packed->bias.resize(begin + static_cast<size_t>(flat.cols));
    if (!read_row(flat, 0, packed->bias.data() + begin)) {
      fail(bias, "holds NaN or Inf: the file is damaged or training diverged");
    }
  }
  return packed;
}

std::unique_ptr<FloatVector> pack_vector(const TensorView& tensor) {
  if (tensor.data == nullptr || tensor.rows * tensor.cols <= 0) fail(tensor, "is empty");
  auto packed = std::make_unique<FloatVector>();
  TensorView flat = tensor;
  flat.cols = tensor.rows * tensor.cols;
  flat.rows = 1;
  packed->size = flat.cols;
  packed->values.resize(static_cast<size_t>(flat.cols));
  if (!read_row(flat, 0, packed->values.data())) {
    fail(tensor, "holds NaN or Inf: the file is damaged or training diverged");
  }
  return packed;
}

void unpack_row(const PackedWeight& weight, int64_t row, bool bf16, float* out) {
  const uint8_t* panel = weight.data.as<uint8_t>() + row / kPanel * weight.panel_bytes;
  const int64_t lane = row % kPanel;
  for (int64_t j = 0; j < weight.k; ++j) {
    out[j] = bf16 ? float_of_bf16(reinterpret_cast<const uint16_t*>(
                        panel)[(j / 2 * kPanel + lane) * 2 + j % 2])
                  : reinterpret_cast<const float*>(panel)[j * kPanel + lane];
  }
}

}  // namespace lorax::cpu
