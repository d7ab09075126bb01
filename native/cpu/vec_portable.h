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
  static constexpr int kDotRows = 4;  // of a dot tile

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
  // To bf16, to nearest, ties to even; NaN stays NaN.
  void store(uint16_t* p) const {
    const Words bits = (Words)v;
    const Words rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const Words to = v == v ? rounded : (bits >> 16) | 0x40u;
    for (int i = 0; i < kWidth; ++i) p[i] = static_cast<uint16_t>(to[i]);
  }

  friend Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
  friend Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
  friend Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
  friend Vec operator/(Vec a, Vec b) { return {a.v / b.v}; }
  static Vec fma(Vec a, Vec b, Vec c) { return {a.v * b.v + c.v}; }
  // b where either is NaN.
  static Vec max(Vec a, Vec b) { return {a.v > b.v ? a.v : b.v}; }
  static Vec min(Vec a, Vec b) { return {a.v < b.v ? a.v : b.v}; }
  // The float whose exponent field is a's low bits: 2^n for low bits of n + 127, 0 for n = -127.
  static Vec power_of_low_bits(Vec a) { return {(Floats)((Words)a.v << 23)}; }
  // Pairs of bf16 as one: to [16, 16] = the transpose of from [16, 16], its rows `stride` bytes
  // apart.
  static void transpose_pairs(const uint8_t* from, int64_t stride, uint8_t* to) {
    for (int r = 0; r < 16; ++r) {
      for (int c = 0; c < 16; ++c) std::memcpy(to + c * 64 + r * 4, from + r * stride + c * 4, 4);
    }
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
