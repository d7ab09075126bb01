// Values of tensors as they lie in files, as float32.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "backend/backend.h"

namespace lorax {

inline float float_of_bits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

inline float float_of_bf16(uint16_t bits) { return float_of_bits(uint32_t{bits} << 16); }

inline float float_of_f16(uint16_t h) {
  const uint32_t sign = uint32_t{h & 0x8000u} << 16;
  const uint32_t exponent = (h >> 10) & 31u;
  const uint32_t fraction = h & 0x3ffu;
  if (exponent == 31) return float_of_bits(sign | 0x7f800000u | (fraction << 13));
  if (exponent == 0) {  // zero or subnormal: fraction * 2^-24
    const float x = static_cast<float>(fraction) * 5.9604644775390625e-8f;
    return sign != 0 ? -x : x;
  }
  return float_of_bits(sign | ((exponent + 112) << 23) | (fraction << 13));
}

// `count` values from `from` on, which need not be aligned; false when one is NaN or Inf.
inline bool read_floats(const void* from, DType dtype, int64_t count, float* out) {
  const char* bytes = static_cast<const char*>(from);
  if (dtype == DType::kF32) {
    std::memcpy(out, bytes, static_cast<size_t>(count) * sizeof(float));
  } else {
    for (int64_t j = 0; j < count; ++j) {
      uint16_t half;
      std::memcpy(&half, bytes + j * 2, sizeof half);
      out[j] = dtype == DType::kBF16 ? float_of_bf16(half) : float_of_f16(half);
    }
  }
  bool finite = true;
  for (int64_t j = 0; j < count; ++j) finite &= std::fabs(out[j]) <= 3.402823466e38f;
  return finite;
}

}  // namespace lorax
