// Norm, rotary embedding and silu on Vec. Included after one vec_*.h (kernels.h says why).
#pragma once

#include <cmath>

#include "cpu/exp_impl.h"
#include "cpu/kernels.h"

namespace lorax::cpu {
namespace {

// Calls op(begin, count) over [0, n); the last count may be less than a vector.
template <typename Op>
void over(int32_t n, Op&& op) {
  for (int32_t i = 0; i < n; i += Vec::kWidth) op(i, n - i < Vec::kWidth ? n - i : Vec::kWidth);
}

inline Vec load_some(const float* p, int32_t count) {
  if (count == Vec::kWidth) return Vec::load(p);
  float edge[Vec::kWidth] = {};
  for (int32_t i = 0; i < count; ++i) edge[i] = p[i];
  return Vec::load(edge);
}

inline void store_some(Vec v, float* p, int32_t count) {
  if (count == Vec::kWidth) return v.store(p);
  float edge[Vec::kWidth];
  v.store(edge);
  for (int32_t i = 0; i < count; ++i) p[i] = edge[i];
}

void add_scaled(const float* d, float s, int32_t n, float* y) {
  const Vec scale = Vec::set(s);
  over(n, [&](int32_t i, int32_t count) {
    store_some(Vec::fma(load_some(d + i, count), scale, load_some(y + i, count)), y + i, count);
  });
}

void rms_norm(float* x, const float* delta, const float* gain, float eps, int32_t n, float* y) {
  Vec squares = Vec::zero();
  over(n, [&](int32_t i, int32_t count) {
    Vec v = load_some(x + i, count);
    if (delta != nullptr) {
      v = v + load_some(delta + i, count);
      store_some(v, x + i, count);
    }
    squares = Vec::fma(v, v, squares);
  });
  if (y == nullptr) return;
  const Vec factor = Vec::set(1.0f / std::sqrt(squares.sum() / static_cast<float>(n) + eps));
  over(n, [&](int32_t i, int32_t count) {
    store_some(load_some(x + i, count) * factor * load_some(gain + i, count), y + i, count);
  });
}

void silu_mul(const float* gate, const float* up, int32_t n, float* y) {
  const Vec one = Vec::set(1.0f);
  over(n, [&](int32_t i, int32_t count) {
    const Vec g = load_some(gate + i, count);
    const Vec silu = g / (one + exp(Vec::zero() - g));
    store_some(silu * load_some(up + i, count), y + i, count);
  });
}

void rope(float* x, const float* cos, const float* sin, int32_t half) {
  over(half, [&](int32_t i, int32_t count) {
    const Vec x1 = load_some(x + i, count);
    const Vec x2 = load_some(x + half + i, count);
    const Vec c = load_some(cos + i, count);
    const Vec s = load_some(sin + i, count);
    store_some(x1 * c - x2 * s, x + i, count);
    store_some(x2 * c + x1 * s, x + half + i, count);
  });
}

}  // namespace
}  // namespace lorax::cpu
