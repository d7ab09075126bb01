// The kernels on the processor's own tiles; see amx_gemm.h, amx_attention.h and amx_lora.h.
//
// Tiles are configured at the start of a call and released at its end, so any thread may call and a
// thread that is put aside between calls has no tile state to save.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // see vec_avx512.h
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

// Each is written on those before it.
// clang-format off
#include "cpu/vec_avx512.h"
#include "cpu/exp_impl.h"
#include "cpu/amx_gemm.h"
#include "cpu/amx_attention.h"
#include "cpu/amx_lora.h"
// clang-format on

namespace lorax::cpu {
namespace {

struct HardwareTiles {
  // Tile rows: m0 for the first tiles of x and y, m1 for the second, 16 pairs for the weights.
  static void configure(int m0, int m1) {
    struct alignas(64) Config {
      uint8_t palette = 1;
      uint8_t start_row = 0;
      uint8_t reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    static_assert(sizeof(Config) == 64);
    const int rows[8] = {m0, m0, m1, m1, m0, m1, 16, 16};
    for (int i = 0; i < 8; ++i) {
      config.row_bytes[i] = 64;
      config.rows[i] = static_cast<uint8_t>(rows[i]);
    }
    __asm__ volatile("ldtilecfg %0" : : "m"(config));
  }
  static void release() { __asm__ volatile("tilerelease" : : : "memory"); }
  // Own asm: GCC 12's intrinsics take literal tile numbers only and do not name the memory.
  template <int T>
  static void zero() {
    __asm__ volatile("tilezero %%tmm%c0" : : "i"(T));
  }
  template <int T>
  static void load(const void* p, int64_t stride) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(stride), "i"(T) : "memory");
  }
  template <int T>
  static void store(void* p, int64_t stride) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(p), "r"(stride), "i"(T) : "memory");
  }
  template <int C, int A, int B>
  static void multiply() {
    __asm__ volatile("tdpbf16ps %%tmm%c0, %%tmm%c1, %%tmm%c2" : : "i"(B), "i"(A), "i"(C));
  }
  static void store_bf16(Vec a, uint16_t* p) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(a.v)));
  }
  static void prefetch(const uint8_t* p) {
    for (int i = 0; i < 16; ++i) {
      _mm_prefetch(reinterpret_cast<const char*>(p) + i * 64, _MM_HINT_T0);
    }
  }
};

void convert(const float* x, int32_t n, int32_t n_padded, uint16_t* y) {
  int32_t i = 0;
  for (; i + 16 <= n; i += 16) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + i),
                        reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_loadu_ps(x + i))));
  }
  if (i < n_padded) {
    for (; i < n_padded; i += 16) {
      const int32_t left = n - i < 0 ? 0 : n - i;
      const __mmask16 mask = left >= 16 ? 0xffff : static_cast<__mmask16>((1u << left) - 1);
      _mm256_storeu_si256(
          reinterpret_cast<__m256i*>(y + i),
          reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, x + i))));
    }
  }
}

}  // namespace

const AmxKernels& amx_kernels() {
  static constexpr AmxKernels kKernels = {amx_gemm_on<HardwareTiles>, amx_shrink_on<HardwareTiles>,
                                          amx_expand_on<HardwareTiles>,
                                          amx_attention_on<HardwareTiles>, convert};
  return kKernels;
}

}  // namespace lorax::cpu
