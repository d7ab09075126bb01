// Gumbel-max over a row: the token with the greatest s[t] - log(-log u(t)), u from Philox4x32-10 as
// backend/sampling.h says.
//
// Most tokens are out by a bound on their noise, most others by an approximation of it; logarithms
// in double precision are for those that could still win. Pruning changes no result, so it may read
// a mark that is late. Included by sample.cu alone.
#pragma once

#include <cstdint>

#include "cuda/sample_group.cuh"
#include "cuda/sample_slice.cuh"

namespace lorax::cuda::sampling {

struct PhiloxKey {
  uint32_t low, high;
};

// Salmon et al. 2011; the same words as cpu/philox.h.
__device__ __forceinline__ uint4 philox4x32_10(uint4 counter, PhiloxKey key) {
  const auto multiply = [](uint32_t a, uint32_t b, uint32_t& low, uint32_t& high) {
    asm("{\n\t.reg .b64 product;\n\tmul.wide.u32 product, %2, %3;\n\t"
        "mov.b64 {%0, %1}, product;\n\t}"
        : "=r"(low), "=r"(high)
        : "r"(a), "r"(b));
  };
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    uint32_t low0, high0, low1, high1;
    multiply(0xD2511F53u, counter.x, low0, high0);
    multiply(0xCD9E8D57u, counter.z, low1, high1);
    counter = make_uint4(high1 ^ counter.y ^ key.low, low1, high0 ^ counter.w ^ key.high, low0);
    key.low += 0x9E3779B9u;
    key.high += 0xBB67AE85u;
  }
  return counter;
}

// The noise of one row.
struct Noise {
  PhiloxKey key;
  uint32_t position_low, position_high;

  __device__ Noise(uint64_t seed, int64_t position)
      : key{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
        position_low(static_cast<uint32_t>(position)),
        position_high(static_cast<uint32_t>(static_cast<uint64_t>(position) >> 32)) {}

  // Words of tokens [token, token + 4), token a multiple of 4.
  __device__ __forceinline__ uint4 words(int32_t token) const {
    return philox4x32_10(
        make_uint4(static_cast<uint32_t>(token) / 4, position_low, position_high, 0), key);
  }
  __device__ __forceinline__ uint32_t word(int32_t token) const {
    const uint4 four = words(token & ~3);
    const int32_t at = token & 3;
    return at == 0 ? four.x : at == 1 ? four.y : at == 2 ? four.z : four.w;
  }
};
__device__ __forceinline__ uint32_t greatest_of(uint4 words) {
  return max(max(words.x, words.y), max(words.z, words.w));
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

// ---- the race: each thread keeps its leader, the block the mark of the best of them ----

// A leader's noisy value is near its exact one; who comes within kSlack of it is a tie, which only
// exact values decide.
struct Leader {
  float noisy = -INFINITY;
  float value = 0.0f;  // as read
  uint32_t word = 0;
  int32_t token = 0;
};

__device__ __forceinline__ float read_mark(RowMemory& memory) {
  return value_of_mark(*static_cast<volatile uint32_t*>(&memory.mark));
}

// Whether one of four tokens could reach the mark, `greatest` the greatest of their near values and
// `word` of their words. noise <= -log v, for -log(1 - v) >= v = 1 - u: so it takes v <= 2^-k,
// k = floor(needed / ln 2) or 1 less, and a great word. No numbers (before there is a mark) may.
__device__ __forceinline__ bool may_win(float greatest, uint32_t word, float mark) {
  const float needed = mark - greatest - kSlack;
  if (needed > kMaxNoise) return false;
  // 1.5 * 2^23: rounds
  const float rounded = fmaf(fmaxf(needed, 0.0f), 1.44269504f, -0.5f) + 12582912.0f;
  const uint32_t k = __float_as_uint(rounded) & 63u;
  return ~word <= __funnelshift_rc(~0u, 0u, k);
}

// near(value): s, within 1e-4; allowed(token, value); on_tie(token, value, word).
template <typename Near, typename Allowed, typename OnTie>
__device__ __forceinline__ void offer(Leader& leader, RowMemory& memory, float mark, int32_t token,
                                      float4 values, uint4 words, Near&& near, Allowed&& allowed,
                                      OnTie&& on_tie) {
  const auto offer_one = [&](int32_t t, float value, uint32_t word) {
    const float noisy = allowed(t, value) ? nearly_noisy(near(value), word) : -INFINITY;
    if (noisy > leader.noisy + kSlack) {
      leader = {noisy, value, word, t};
    } else if (noisy > leader.noisy - kSlack && noisy >= mark - kSlack) {
      on_tie(t, value, word);
    }
  };
  offer_one(token, values.x, words.x);
  offer_one(token + 1, values.y, words.y);
  offer_one(token + 2, values.z, words.z);
  offer_one(token + 3, values.w, words.w);
  if (leader.noisy > mark) atomicMax(&memory.mark, mark_of(leader.noisy));
}

__device__ __forceinline__ void settle(uint64_t& best, float s, uint32_t word, int32_t token) {
  const uint64_t packed = pack(key_of(noisy(s, word)), token);
  best = packed < best ? packed : best;
}

// The best of this rank's tokens, packed with the key of its noisy value; kNothing when there is
// none. All threads call it; memory.mark is mark_of(-inf) from before a barrier.
//
// exact(value): s; near(value): s within 1e-4; only tokens that are allowed(token, value) may be
// drawn, none with s below `floor` is.
template <typename Near, typename Exact, typename Allowed>
__device__ uint64_t gumbel_max(const Slice& slice, RowMemory& memory, const Noise& noise,
                               float floor, Near&& near, Exact&& exact, Allowed&& allowed) {
  uint64_t best = kNothing;
  Leader leader;
  slice.each_quad([&](int32_t token, const float4* quad) {
    const float4 x = *quad;
    const float greatest = near(fmaxf(fmaxf(x.x, x.y), fmaxf(x.z, x.w)));
    const float mark = read_mark(memory);
    if (greatest < floor || mark - greatest > kMaxNoise + kSlack) return;
    const uint4 words = noise.words(token);
    if (!may_win(greatest, greatest_of(words), mark)) return;
    offer(leader, memory, mark, token, x, words, near, allowed,
          [&](int32_t t, float value, uint32_t word) { settle(best, exact(value), word, t); });
  });
  __syncthreads();
  if (leader.noisy > -INFINITY && leader.noisy >= read_mark(memory) - kSlack) {
    settle(best, exact(leader.value), leader.word, leader.token);
  }
  return best;
}

// ---- the same while the logits are being read, when nothing but the temperature matters ----

// near is l / temperature here: the maximum is not known yet. So large values make it no good.
constexpr float kMaxNear = 1000.0f;

// Reads the row's part once; size is a multiple of 4. The words are drawn while the loads are on
// their way. Ties go to memory.ties.
__device__ __forceinline__ Leader race_while_reading(const float* logits, const Slice& slice,
                                                     RowMemory& memory, const Noise& noise,
                                                     float inverse_temperature,
                                                     Greatest& greatest) {
  constexpr int kInFlight = 2;
  constexpr int32_t kStep = kThreads * 4;
  Leader leader;
  for (int32_t i = threadIdx.x * 4; i < slice.size; i += kInFlight * kStep) {
    float4 x[kInFlight];
    uint32_t word[kInFlight];
#pragma unroll
    for (int j = 0; j < kInFlight; ++j) {
      x[j] = i + j * kStep < slice.size
                 ? __ldcs(reinterpret_cast<const float4*>(logits + i + j * kStep))
                 : make_float4(-INFINITY, -INFINITY, -INFINITY, -INFINITY);
    }
#pragma unroll
    for (int j = 0; j < kInFlight; ++j) {
      word[j] = greatest_of(noise.words(slice.begin + i + j * kStep));
    }
#pragma unroll
    for (int j = 0; j < kInFlight; ++j) {
      const int32_t token = slice.begin + i + j * kStep;
      greatest.offer(token, x[j]);
      const float most = fmaxf(fmaxf(x[j].x, x[j].y), fmaxf(x[j].z, x[j].w));
      const float mark = read_mark(memory);
      if (!may_win(most * inverse_temperature, word[j], mark)) continue;
      offer(
          leader, memory, mark, token, x[j], noise.words(token),
          [=](float l) { return l * inverse_temperature; }, [](int32_t, float) { return true; },
          [&](int32_t t, float, uint32_t) {
            const uint32_t at = atomicAdd(&memory.num_ties, 1u);
            if (at < kMaxTies) memory.ties[at] = t;
          });
    }
  }
  return leader;
}

}  // namespace lorax::cuda::sampling
