// Gumbel-max over a row: the token with the greatest s[t] - log(-log u(t)), u from Philox4x32-10 as
// backend/sampling.h says.
//
// A logarithm in double precision is drawn only where a cheap upper bound can still win. Pruning
// changes no result, so it may read a mark that is late. Included by sample.cu alone.
#pragma once

#include <cstdint>

#include "cuda/sample_group.cuh"
#include "cuda/sample_select.cuh"

namespace lorax::cuda::sampling {

struct PhiloxKey {
  uint32_t low, high;
};

// Salmon et al. 2011; the same words as cpu/philox.h.
__device__ __forceinline__ uint4 philox4x32_10(uint4 counter, PhiloxKey key) {
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * counter.x;
    const uint64_t product1 = uint64_t{0xCD9E8D57u} * counter.z;
    counter = make_uint4(static_cast<uint32_t>(product1 >> 32) ^ counter.y ^ key.low,
                         static_cast<uint32_t>(product1),
                         static_cast<uint32_t>(product0 >> 32) ^ counter.w ^ key.high,
                         static_cast<uint32_t>(product0));
    key.low += 0x9E3779B9u;
    key.high += 0xBB67AE85u;
  }
  return counter;
}

// s - log(-log u), u = (word + 0.5) * 2^-32: exact, and so is its distance from 1.
__device__ __forceinline__ float noisy(float s, uint32_t word) {
  const double u = (static_cast<double>(word) + 0.5) * 0x1p-32;
  return __fadd_rn(s, static_cast<float>(-log(-log(u))));
}

// Not below noisy(), but for 1e-4: -log(1 - v) >= v, so -log(-log u) <= -log v where v = 1 - u.
__device__ __forceinline__ float noisy_bound(float s, uint32_t word) {
  const float v = fmaf(static_cast<float>(~word), 0x1p-32f, 0x1p-33f);
  return s - __logf(v);
}
constexpr float kSlack = 1e-3f;
constexpr float kMaxNoise = 22.9f;  // -log(-log u) < 22.88 for the largest u

// The best of this rank's tokens, packed with the key of its noisy value; kNothing when there is
// none. scaled(token, value): s, or -inf for a token that may not be drawn. memory.mark was set to
// 0 before a barrier.
template <typename Scaled>
__device__ uint64_t gumbel_max(const Slice& slice, RowMemory& memory, uint64_t seed,
                               int64_t position, Scaled&& scaled) {
  const PhiloxKey key = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  const auto low = static_cast<uint32_t>(position);
  const auto high = static_cast<uint32_t>(static_cast<uint64_t>(position) >> 32);
  uint64_t best = kNothing;
  slice.each_quad([&](int32_t token, const float4* quad) {
    const float4 x = *quad;
    float s0 = scaled(token, x.x), s1 = scaled(token + 1, x.y);
    float s2 = scaled(token + 2, x.z), s3 = scaled(token + 3, x.w);
    const float greatest = fmaxf(fmaxf(s0, s1), fmaxf(s2, s3));
    float mark = value_of(~*static_cast<volatile uint32_t*>(&memory.mark));
    // The first mark is no number: neither comparison holds.
    if (greatest == -INFINITY || greatest <= mark - kMaxNoise) return;
    const uint4 words =
        philox4x32_10(make_uint4(static_cast<uint32_t>(token) / 4, low, high, 0), key);
    float b0 = noisy_bound(s0, words.x), b1 = noisy_bound(s1, words.y);
    float b2 = noisy_bound(s2, words.z), b3 = noisy_bound(s3, words.w);
    while (true) {
      const float bound = fmaxf(fmaxf(b0, b1), fmaxf(b2, b3));
      if (bound == -INFINITY || bound <= mark - kSlack) return;
      float s;
      uint32_t word;
      int32_t at;
      if (bound == b0) {
        s = s0, word = words.x, at = 0, b0 = -INFINITY;
      } else if (bound == b1) {
        s = s1, word = words.y, at = 1, b1 = -INFINITY;
      } else if (bound == b2) {
        s = s2, word = words.z, at = 2, b2 = -INFINITY;
      } else {
        s = s3, word = words.w, at = 3, b3 = -INFINITY;
      }
      const uint32_t value = key_of(noisy(s, word));
      best = min(static_cast<unsigned long long>(best),
                 static_cast<unsigned long long>(pack(value, token + at)));
      atomicMax(&memory.mark, ~value);
      mark = value_of(~*static_cast<volatile uint32_t*>(&memory.mark));
    }
  });
  return best;
}

}  // namespace lorax::cuda::sampling
