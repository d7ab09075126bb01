// Gumbel-max over a row: the token with the greatest s[t] - log(-log u(t)), u from Philox4x32-10 as
// backend/sampling.h says.
//
// Most tokens are out by a bound on their noise, most others by an approximation of it; logarithms
// in double precision are for those that could still win. Pruning changes no result, so it may read
// a mark that is late. Included by sample.cu alone.
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

// noisy() within 1e-4: w = -log u, a series of v = 1 - u where that is small.
__device__ __forceinline__ float nearly_noisy(float s, uint32_t word) {
  const float v = fmaf(static_cast<float>(~word), 0x1p-32f, 0x1p-33f);
  const float series = v * fmaf(v, fmaf(v, fmaf(v, 0.25f, 0.33333333f), 0.5f), 1.0f);
  const float u = fmaf(static_cast<float>(word), 0x1p-32f, 0x1p-33f);
  const float w = v < 0.03125f ? series : -__logf(u);
  return s - __logf(w);
}
constexpr float kSlack = 1e-3f;
constexpr float kMaxNoise = 22.9f;  // -log(-log u) < 22.88 for the largest u

// The best of this rank's tokens, packed with the key of its noisy value; kNothing when there is
// none. All threads call it; memory.mark was set to mark_of(-inf) before a barrier.
//
// near(value): s within 1e-5 of its size; exact(token, value): s, or -inf for a token that may not
// be drawn; tokens with s below `floor` may not.
template <typename Near, typename Exact>
__device__ uint64_t gumbel_max(const Slice& slice, RowMemory& memory, uint64_t seed,
                               int64_t position, float floor, Near&& near, Exact&& exact) {
  const PhiloxKey key = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  const auto low = static_cast<uint32_t>(position);
  const auto high = static_cast<uint32_t>(static_cast<uint64_t>(position) >> 32);
  uint64_t best = kNothing;
  // This thread's leader, not yet computed exactly.
  float leader = -INFINITY, leader_s = 0.0f;
  uint32_t leader_word = 0;
  int32_t leader_token = 0;
  const auto settle = [&](float s, uint32_t word, int32_t token) {
    const uint64_t packed = pack(key_of(noisy(s, word)), token);
    best = packed < best ? packed : best;
  };
  slice.each_quad([&](int32_t token, const float4* quad) {
    const float4 x = *quad;
    const float greatest = near(fmaxf(fmaxf(x.x, x.y), fmaxf(x.z, x.w)));
    // The noise one of the four needs, at least.
    const float mark = value_of_mark(*static_cast<volatile uint32_t*>(&memory.mark));
    const float needed = mark - greatest - kSlack;
    if (greatest < floor || needed > kMaxNoise) return;
    const uint4 words =
        philox4x32_10(make_uint4(static_cast<uint32_t>(token) / 4, low, high, 0), key);
    // noise <= -log v, for -log(1 - v) >= v = 1 - u: so v <= 2^-k, k = floor(needed / ln 2) or 1
    // less, and a great word.
    const float rounded = fmaf(fmaxf(needed, 0.0f), 1.44269504f, -0.5f) + 12582912.0f;
    const uint32_t k = __float_as_uint(rounded) & 63u;
    const uint32_t word = max(max(words.x, words.y), max(words.z, words.w));
    if (~word > __funnelshift_rc(~0u, 0u, k)) return;
    const auto offer = [&](int32_t at, float value, uint32_t own_word) {
      const float s = exact(token + at, value);
      const float noisy_s = nearly_noisy(s, own_word);
      if (noisy_s > leader + kSlack) {
        leader = noisy_s;
        leader_s = s;
        leader_word = own_word;
        leader_token = token + at;
      } else if (noisy_s > leader - kSlack) {
        settle(s, own_word, token + at);
      }
    };
    offer(0, x.x, words.x);
    offer(1, x.y, words.y);
    offer(2, x.z, words.z);
    offer(3, x.w, words.w);
    if (leader > mark) atomicMax(&memory.mark, mark_of(leader));
  });
  __syncthreads();
  if (leader > -INFINITY && leader >= value_of_mark(memory.mark) - kSlack) {
    settle(leader_s, leader_word, leader_token);
  }
  return best;
}

}  // namespace lorax::cuda::sampling
