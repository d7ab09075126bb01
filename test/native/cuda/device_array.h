// Device memory for tests: filled from a vector or poisoned, read back into a vector.
//
// Poison is 0xFF in every byte: NaN as float32 and bf16, -1 as an integer, so an element that a
// kernel forgot to write fails its comparison.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "cuda/check.h"

namespace lorax::cuda {

template <typename T>
class DeviceArray {
 public:
  DeviceArray() = default;
  explicit DeviceArray(size_t size) : size_(size) {
    LORAX_CUDA(cudaMalloc(&data_, bytes() + 1));
    poison();
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    assign(values);
  }
  DeviceArray(DeviceArray&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~DeviceArray() { cudaFree(data_); }

  void assign(const std::vector<T>& values) {
    LORAX_CUDA(cudaMemcpy(data_, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  void poison() { fill_bytes(0xFF); }
  void fill_bytes(int byte) { LORAX_CUDA(cudaMemset(data_, byte, bytes())); }
  std::vector<T> read() const {
    std::vector<T> out(size_);
    LORAX_CUDA(cudaMemcpy(out.data(), data_, bytes(), cudaMemcpyDeviceToHost));
    return out;
  }
  T* data() const { return static_cast<T*>(data_); }
  size_t size() const { return size_; }
  size_t bytes() const { return size_ * sizeof(T); }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

inline float to_float(__nv_bfloat16 x) {
  return std::bit_cast<float>(static_cast<uint32_t>(std::bit_cast<uint16_t>(x)) << 16);
}
inline float to_float(float x) { return x; }

inline __nv_bfloat16 to_bf16(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  const auto rounded = static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
  return std::bit_cast<__nv_bfloat16>(rounded);
}

inline std::vector<__nv_bfloat16> random_bf16(std::mt19937& random, size_t size, float spread) {
  std::uniform_real_distribution<float> uniform(-spread, spread);
  std::vector<__nv_bfloat16> out(size);
  for (__nv_bfloat16& x : out) x = to_bf16(uniform(random));
  return out;
}

// ||out - expected|| / ||expected||; NaN in `out` gives NaN, which passes no comparison.
template <typename T>
double relative_error(const std::vector<T>& out, const std::vector<double>& expected) {
  double difference = 0.0, norm = 0.0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double d = static_cast<double>(to_float(out[i])) - expected[i];
    difference += d * d;
    norm += expected[i] * expected[i];
  }
  return std::sqrt(difference / norm);
}

}  // namespace lorax::cuda
