// AMX tiles in plain C++, so that the loops on tiles are tested on every machine.
//
// They follow the instructions: pairs along k, float32 accumulation, only the configured rows
// loaded and stored. What they cannot show is the processor's own behaviour; the amx_* cases of the
// other suites do, where there is AMX.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace lorax::cpu_test {

struct EmulatedTiles {
  static inline uint8_t data[8][16][64];
  static inline int rows[8];
  static inline bool configured = false;

  static void configure(int m0, int m1) {
    const int r[8] = {m0, m0, m1, m1, m0, m1, 16, 16};
    std::copy(r, r + 8, rows);
    std::memset(data, 0xff, sizeof data);  // NaN: nothing may be read before it is set
    configured = true;
  }
  static void release() { configured = false; }
  template <int T>
  static void zero() {
    EXPECT_TRUE(configured);
    std::memset(data[T], 0, sizeof data[T]);
  }
  template <int T>
  static void load(const void* p, int64_t stride) {
    for (int r = 0; r < rows[T]; ++r) {
      std::memcpy(data[T][r], static_cast<const uint8_t*>(p) + r * stride, 64);
    }
  }
  template <int T>
  static void store(void* p, int64_t stride) {
    for (int r = 0; r < rows[T]; ++r) {
      std::memcpy(static_cast<uint8_t*>(p) + r * stride, data[T][r], 64);
    }
  }
  static float half(const uint8_t* at) {
    uint16_t h;
    std::memcpy(&h, at, 2);
    const uint32_t bits = uint32_t{h} << 16;
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
  }
  template <int C, int A, int B>
  static void multiply() {
    EXPECT_EQ(rows[C], rows[A]);
    for (int m = 0; m < rows[C]; ++m) {
      for (int pair = 0; pair < 16; ++pair) {
        for (int n = 0; n < 16; ++n) {
          float c;
          std::memcpy(&c, data[C][m] + n * 4, 4);
          c += half(data[A][m] + pair * 4) * half(data[B][pair] + n * 4);
          c += half(data[A][m] + pair * 4 + 2) * half(data[B][pair] + n * 4 + 2);
          std::memcpy(data[C][m] + n * 4, &c, 4);
        }
      }
    }
  }
  template <typename Vec>
  static void store_bf16(Vec a, uint16_t* p) {
    a.store(p);
  }
  static void prefetch(const uint8_t*) {}
};

}  // namespace lorax::cpu_test
