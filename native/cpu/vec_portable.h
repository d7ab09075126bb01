// 4 floats in whatever the compiler has for them (SSE2, NEON), in the GNU vector extension.
//
// The meaning of the operations every Vec has stands here. fma here is a product and a sum, each
// rounded: not every processor fuses them, and the portable path gives the same bits everywhere.
#pragma once

#include <cstdint>
#include <cstring>

namespace lorax::cpu {
namespace {

struct Vec {
  static constexpr int kWidth = 4;
  // Rows of x kept in registers for 1, 2 and 4 panels at once; 0: too few registers for that.
  static constexpr int kRows1 = 2;
  static constexpr int kRows2 = 0;
  static constexpr int kRows4 = 0;

  using Floats = float __attribute__((vector_size(16)));
  using Ints = int32_t __attribute__((vector_size(16)));
  using Words = uint32_t __attribute__((vector_size(16)));

  Floats v;

  static Vec zero() { return {Floats{}}; }
  static Vec set(float x) { return {Floats{x, x, x, x}}; }
  static Vec load(const float* p) {
    Vec r;
    std::memcpy(&r.v, p, sizeof r.v);
    return r;
  }
  // bf16, consecutive.
  static Vec load(const uint16_t* p) {
    const Words bits = {uint32_t{p[0]} << 16, uint32_t{p[1]} << 16, uint32_t{p[2]} << 16,
                        uint32_t{p[3]} << 16};
    return {(Floats)bits};
  }
  // bf16 in pairs: p[0], p[2], ... and p[1], p[3], ...
  static void load_pairs(const uint16_t* p, Vec& even, Vec& odd) {
    Words raw;
    std::memcpy(&raw, p, sizeof raw);
    even.v = (Floats)(raw << 16);
    odd.v = (Floats)(raw & 0xffff0000u);
  }
  static void prefetch(const void* p) { __builtin_prefetch(p); }
  void store(float* p) const { std::memcpy(p, &v, sizeof v); }

  friend Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
  friend Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
  friend Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
  friend Vec operator/(Vec a, Vec b) { return {a.v / b.v}; }
  static Vec fma(Vec a, Vec b, Vec c) { return {a.v * b.v + c.v}; }
  static Vec max(Vec a, Vec b) { return {a.v > b.v ? a.v : b.v}; }
  static Vec min(Vec a, Vec b) { return {a.v < b.v ? a.v : b.v}; }
  // To the nearest integer, ties to even; |a| < 2^22.
  static Vec round(Vec a) {
    const Vec magic = set(12582912.0f);  // 1.5 * 2^23: no fraction bits left above it
    return (a + magic) - magic;
  }
  // 2^n, n an integer in [-126, 127].
  static Vec pow2(Vec n) { return {(Floats)((__builtin_convertvector(n.v, Ints) + 127) << 23)}; }
  // x < bound ? 0 : y
  static Vec zero_below(Vec x, Vec bound, Vec y) {
    return {(Floats)(~(x.v < bound.v) & (Ints)y.v)};
  }
  float sum() const { return (v[0] + v[2]) + (v[1] + v[3]); }
  float largest() const {
    const float a = v[0] > v[2] ? v[0] : v[2];
    const float b = v[1] > v[3] ? v[1] : v[3];
    return a > b ? a : b;
  }
};

}  // namespace
}  // namespace lorax::cpu
