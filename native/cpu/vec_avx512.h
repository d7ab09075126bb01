// 16 floats in an AVX-512 register, with the operations the kernels are written in (vec_portable.h
// says what each means). Included only by *_avx512.cc.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 takes its own headers' deliberately undefined registers for a mistake of ours (PR 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include <cstdint>

namespace lorax::cpu {
namespace {

struct Vec {
  static constexpr int kWidth = 16;
  // Rows of x kept in registers for 1, 2 and 4 panels.
  static constexpr int kRows1 = 16;
  static constexpr int kRows2 = 12;
  static constexpr int kRows4 = 4;
  static constexpr int kDotRows = 4;  // of a dot tile

  __m512 v;

  static Vec zero() { return {_mm512_setzero_ps()}; }
  static Vec set(float x) { return {_mm512_set1_ps(x)}; }
  static Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Vec load(const uint16_t* p) {
    const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16))};
  }
  static void load_pairs(const uint16_t* p, Vec& even, Vec& odd) {
    const __m512i raw = _mm512_loadu_si512(p);
    even.v = _mm512_castsi512_ps(_mm512_slli_epi32(raw, 16));
    odd.v = _mm512_castsi512_ps(
        _mm512_and_si512(raw, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
  }
  static void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
  void store(uint16_t* p) const {
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i high = _mm512_srli_epi32(bits, 16);
    const __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
    __m512i to = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    to = _mm512_srli_epi32(to, 16);
    to = _mm512_mask_or_epi32(to, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), high,
                              _mm512_set1_epi32(0x40));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(to));
  }

  friend Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
  friend Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
  friend Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
  friend Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
  static Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  static Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
  static Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
  static Vec power_of_low_bits(Vec a) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a.v), 23))};
  }
  static void transpose_pairs(const uint8_t* from, int64_t stride, uint8_t* to) {
    __m512i a[16];
    __m512i b[16];
    for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_si512(from + i * stride);
    // Within a lane of 128 bits: 1 by 1, 2 by 2; then whole lanes.
    for (int i = 0; i < 16; i += 2) {
      b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
      b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
      for (int j = 0; j < 2; ++j) {
        a[i + 2 * j] = _mm512_unpacklo_epi64(b[i + j], b[i + j + 2]);
        a[i + 2 * j + 1] = _mm512_unpackhi_epi64(b[i + j], b[i + j + 2]);
      }
    }
    for (int j = 0; j < 4; ++j) {
      const __m512i low01 = _mm512_shuffle_i32x4(a[j], a[j + 4], 0x88);  // lanes 0 and 2
      const __m512i high01 = _mm512_shuffle_i32x4(a[j], a[j + 4], 0xdd);
      const __m512i low23 = _mm512_shuffle_i32x4(a[j + 8], a[j + 12], 0x88);
      const __m512i high23 = _mm512_shuffle_i32x4(a[j + 8], a[j + 12], 0xdd);
      _mm512_storeu_si512(to + j * 64, _mm512_shuffle_i32x4(low01, low23, 0x88));
      _mm512_storeu_si512(to + (j + 4) * 64, _mm512_shuffle_i32x4(high01, high23, 0x88));
      _mm512_storeu_si512(to + (j + 8) * 64, _mm512_shuffle_i32x4(low01, low23, 0xdd));
      _mm512_storeu_si512(to + (j + 12) * 64, _mm512_shuffle_i32x4(high01, high23, 0xdd));
    }
  }
  float sum() const { return _mm512_reduce_add_ps(v); }
  float largest() const { return _mm512_reduce_max_ps(v); }
};

}  // namespace
}  // namespace lorax::cpu
