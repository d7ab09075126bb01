// AMX tiles in plain C++, so that the loops on tiles are tested on every machine.
//
// They follow the instructions: pairs along k, even and odd apart, float32 accumulation, only the
// configured rows loaded and stored. What they cannot show is the processor's own behaviour.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace lorax::cpu_test {

struct EmulatedTiles {
  static inline thread_local uint8_t data[8][16][64];
  static inline thread_local int rows[8];
  static inline thread_local bool configured = false;

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
  template <int C, int A, int B>
  static void multiply() {
    EXPECT_EQ(rows[C], rows[A]);
    for (int m = 0; m < rows[C]; ++m) {
      float even[16] = {};
      float odd[16] = {};
      uint32_t a[16];
      std::memcpy(a, data[A][m], 64);
      for (int pair = 0; pair < 16; ++pair) {
        uint32_t b[16];
        std::memcpy(b, data[B][pair], 64);
        const float a0 = as_float(a[pair] << 16);
        const float a1 = as_float(a[pair] & 0xffff0000u);
        for (int n = 0; n < 16; ++n) {
          even[n] += a0 * as_float(b[n] << 16);
          odd[n] += a1 * as_float(b[n] & 0xffff0000u);
        }
      }
      float c[16];
      std::memcpy(c, data[C][m], 64);
      for (int n = 0; n < 16; ++n) c[n] += even[n] + odd[n];
      std::memcpy(data[C][m], c, 64);
    }
  }
  template <typename Vec>
  static void store_bf16(Vec a, uint16_t* p) {
    a.store(p);
  }
  static void prefetch(const uint8_t*) {}

 private:
  static float as_float(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
  }
};

}  // namespace lorax::cpu_test
