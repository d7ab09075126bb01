// Plain loops of constant length that the compiler turns into vector code, once for each
// instruction set named below.
#include "cuda/bf16_rows.h"

#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__) && defined(__gnu_linux__)
#define LORAX_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define LORAX_CLONES
#endif

namespace lorax::cuda {
namespace {

#define LORAX_INLINE inline __attribute__((always_inline))

// Each converts N values and returns not 0 if one was not finite.
template <int N>
LORAX_INLINE uint32_t convert_f32(const uint8_t* from, uint16_t* to) {
  uint32_t bits[N];
  std::memcpy(bits, from, sizeof bits);
  uint32_t bad = 0;
  for (int i = 0; i < N; ++i) {
    bad |= (bits[i] & 0x7f800000u) == 0x7f800000u ? 1u : 0u;
    to[i] = static_cast<uint16_t>((bits[i] + 0x7fffu + ((bits[i] >> 16) & 1u)) >> 16);
  }
  return bad;
}

template <int N>
LORAX_INLINE uint32_t convert_bf16(const uint8_t* from, uint16_t* to) {
  uint16_t bits[N];
  std::memcpy(bits, from, sizeof bits);
  uint16_t bad = 0;
  for (int i = 0; i < N; ++i) bad |= (bits[i] & 0x7f80u) == 0x7f80u ? 1 : 0;
  std::memcpy(to, bits, sizeof bits);
  return bad;
}

template <int N>
LORAX_INLINE uint32_t convert_f16(const uint8_t* from, uint16_t* to) {
  uint16_t half[N];
  std::memcpy(half, from, sizeof half);
  uint32_t bad = 0;
  for (int i = 0; i < N; ++i) {
    bad |= (half[i] & 0x7c00u) == 0x7c00u ? 1u : 0u;
    // The exponent's bias goes from 15 to 127 by a product, which is right for subnormals too.
    const uint32_t shifted = (half[i] & 0x7fffu) << 13;
    float x;
    std::memcpy(&x, &shifted, sizeof x);
    x *= 0x1p112f;
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    bits |= (half[i] & 0x8000u) << 16;
    to[i] = static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
  }
  return bad;
}

template <int N>
LORAX_INLINE uint32_t convert(const uint8_t* from, DType dtype, uint16_t* to) {
  if (dtype == DType::kBF16) return convert_bf16<N>(from, to);
  if (dtype == DType::kF32) return convert_f32<N>(from, to);
  return convert_f16<N>(from, to);
}

// Two rows r and r + 8 at a time: their words of ranks 4 t and 4 t + 2 alternate.
template <int kRanks>
LORAX_INLINE void interleave(const uint16_t* values, uint8_t* to) {
  constexpr int kWords = kRanks / 2;  // of two ranks, a row
  uint32_t rows[16 * kWords];
  std::memcpy(rows, values, sizeof rows);
  uint32_t lanes[16 * kWords];
  for (int r = 0; r < 8; ++r) {
    for (int w = 0; w < kWords; ++w) {
      lanes[(r * kWords + w) * 2] = rows[r * kWords + w];
      lanes[(r * kWords + w) * 2 + 1] = rows[(r + 8) * kWords + w];
    }
  }
  std::memcpy(to, lanes, sizeof lanes);
}

template <int kRanks>
LORAX_INLINE uint32_t convert_tile(const uint8_t* from, DType dtype, int64_t row_bytes,
                                   uint8_t* to) {
  alignas(64) uint16_t rows[16 * kRanks];
  uint32_t bad = 0;
  for (int r = 0; r < 16; ++r) {
    bad |= convert<kRanks>(from + r * row_bytes, dtype, rows + r * kRanks);
  }
  interleave<kRanks>(rows, to);
  return bad;
}

}  // namespace

LORAX_CLONES bool to_bf16_row(const uint8_t* from, DType dtype, int32_t count, uint16_t* to) {
  uint32_t bad = 0;
  const int64_t element = dtype_bytes(dtype);
  for (int32_t i = 0; i < count; ++i) bad |= convert<1>(from + i * element, dtype, to + i);
  return bad == 0;
}

LORAX_CLONES bool to_bf16_block(const uint8_t* from, DType dtype, int64_t row_bytes, int32_t ranks,
                                uint8_t* to) {
  uint32_t bad = 0;
  for (int r = 0; r < ranks; ++r) {
    bad |= convert<32>(from + r * row_bytes, dtype, reinterpret_cast<uint16_t*>(to) + r * 32);
  }
  return bad == 0;
}

LORAX_CLONES bool to_bf16_tile(const uint8_t* from, DType dtype, int64_t row_bytes, int32_t ranks,
                               uint8_t* to) {
  return (ranks == 8 ? convert_tile<8>(from, dtype, row_bytes, to)
                     : convert_tile<16>(from, dtype, row_bytes, to)) == 0;
}

LORAX_CLONES void interleave_tile(const uint16_t* rows, int32_t ranks, uint8_t* to) {
  ranks == 8 ? interleave<8>(rows, to) : interleave<16>(rows, to);
}

}  // namespace lorax::cuda
