// The first k of a row in descending order (ties: lowest id first), or the fewest that hold a
// probability mass, without sorting: histograms narrow down the one token at which to cut.
//
// Every step of it counts in integers. Included by sample.cu alone.
#pragma once

#include <cstdint>

#include "cuda/sample_group.cuh"
#include "cuda/sample_slice.cuh"

namespace lorax::cuda::sampling {

// ---- probability mass ----

// exp(x) for x <= 0, the operations of cpu/sample.cc one by one, so the same bits: e^x = 2^k e^r,
// k = round(x / ln 2), a polynomial for e^r (Cephes); below -87 it stays at 1.6e-38.
__device__ __forceinline__ float exp_of_negative(float x) {
  const auto mul = [](float a, float b) { return __fmul_rn(a, b); };
  const auto add = [](float a, float b) { return __fadd_rn(a, b); };
  const float clamped = fmaxf(x, -87.0f);
  const float shifted = add(mul(clamped, 1.44269504f), 12582912.0f);  // 1.5 * 2^23: rounds
  const float k = add(shifted, -12582912.0f);
  const float r = add(add(clamped, -mul(k, 0.693359375f)), mul(k, 2.12194440e-4f));
  float p = 1.9875691500e-4f;
  p = add(mul(p, r), 1.3981999507e-3f);
  p = add(mul(p, r), 8.3334519073e-3f);
  p = add(mul(p, r), 4.1665795894e-2f);
  p = add(mul(p, r), 1.6666665459e-1f);
  p = add(mul(p, r), 5.0000001201e-1f);
  const float e = add(add(mul(mul(p, r), r), r), 1.0f);
  return mul(e, __uint_as_float((__float_as_uint(shifted) << 23) + 0x3F800000u));
}

// exp(x) in units of 2^-44: a million tokens of probability 1 still add up within 64 bits, and a
// row's rounding stays below 1e-7 of its mass.
__device__ __forceinline__ uint64_t mass_of(float x) {
  return __float2ull_rz(__fmul_rn(exp_of_negative(x), 0x1p44f));
}

// ---- a histogram over all ranks ----

struct Boundary {
  int32_t bin;       // in which the target is reached
  uint64_t before;   // count or mass of the bins before it
  uint64_t inside;   // of the bin
  uint32_t members;  // tokens in the bin
};

template <int kRanks, bool kMass>
struct Histogram {
  RowMemory& memory;

  // Between begin() and boundary() threads add.
  __device__ void begin() {
    memory.count[threadIdx.x] = 0;
    if constexpr (kMass) memory.mass_low[threadIdx.x] = memory.mass_high[threadIdx.x] = 0;
    __syncthreads();
  }

  __device__ __forceinline__ void add(int32_t bin, uint32_t count, uint64_t mass) {
    atomicAdd(&memory.count[bin], count);
    if constexpr (kMass) {
      const auto low = static_cast<uint32_t>(mass);
      auto high = static_cast<uint32_t>(mass >> 32);
      if (low != 0) high += atomicAdd(&memory.mass_low[bin], low) > ~low ? 1u : 0u;  // the carry
      if (high != 0) atomicAdd(&memory.mass_high[bin], high);
    }
  }

  // The bin in which the running sum over bins reaches target(total) > 0; total >= target.
  template <typename Target>
  __device__ Boundary boundary(Target&& target_of) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    Group<kRanks>::sync();
    uint32_t members = 0;
    uint64_t own = 0;
#pragma unroll
    for (int rank = 0; rank < kRanks; ++rank) {
      members += *Group<kRanks>::at_rank(&memory.count[threadIdx.x], rank);
      if constexpr (kMass) {
        const uint32_t low = *Group<kRanks>::at_rank(&memory.mass_low[threadIdx.x], rank);
        const uint32_t high = *Group<kRanks>::at_rank(&memory.mass_high[threadIdx.x], rank);
        own += static_cast<uint64_t>(high) << 32 | low;
      }
    }
    if constexpr (!kMass) own = members;
    Group<kRanks>::arrive();  // this rank has read all others'

    uint64_t until = own;  // inclusive running sum
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
      const uint64_t left = __shfl_up_sync(~0u, until, offset);
      if (lane >= offset) until += left;
    }
    if (lane == 31) memory.of_warp[warp] = until;
    __syncthreads();
    uint64_t total = 0, before = until - own;
#pragma unroll
    for (int i = 0; i < kWarps; ++i) {
      const uint64_t sum = memory.of_warp[i];
      total += sum;
      if (i < warp) before += sum;
    }
    const uint64_t target = target_of(total);
    if (before < target && target <= before + own) {
      memory.found[0] = threadIdx.x;
      memory.found[1] = before;
      memory.found[2] = own;
      memory.found[3] = members;
    }
    __syncthreads();
    const Boundary found = {static_cast<int32_t>(memory.found[0]), memory.found[1], memory.found[2],
                            static_cast<uint32_t>(memory.found[3])};
    Group<kRanks>::wait();
    return found;
  }
};

// ---- the cut ----

// Keeps the tokens at or before `last` in the order of pack().
struct Cut {
  uint64_t last = kNothing;
  __device__ __forceinline__ bool keeps(uint32_t key, int32_t token) const {
    return pack(key, token) <= last;
  }
};
constexpr int32_t kAnyToken = 0x7FFFFFFF;

// The least shift by which a distance becomes a bin.
__device__ __forceinline__ int shift_for(uint32_t distance) {
  int shift = 0;
  while ((distance >> shift) >= kBins) ++shift;
  return shift;
}

// Narrows keys [low, high], which hold the boundary of `remaining` > 0 (count or mass). Where the
// cut is a whole interval, it may reach beyond `within`.
template <int kRanks, bool kMass>
__device__ Cut narrow(const Slice& slice, RowMemory& memory, Cut within, uint32_t low,
                      uint32_t high, uint64_t remaining) {
  Histogram<kRanks, kMass> histogram{memory};
  const auto reaches = [&](uint64_t) { return remaining; };
  Boundary found;
  bool known = false;
  while (low < high) {
    const int shift = shift_for(high - low);
    histogram.begin();
    slice.each([&](int32_t token, float x) {
      const uint32_t key = key_of(x);
      if (key < low || key > high || !within.keeps(key, token)) return;
      histogram.add(static_cast<int32_t>((key - low) >> shift), 1, kMass ? mass_of(x) : 0);
    });
    found = histogram.boundary(reaches);
    known = true;
    remaining -= found.before;
    low += static_cast<uint32_t>(found.bin) << shift;
    const uint32_t width = (1u << shift) - 1;
    if (high - low > width) high = low + width;
    const bool all = kMass ? remaining == found.inside : remaining == found.members;
    if (found.members == 1 || all) return {pack(high, kAnyToken)};
  }
  // Ties: the first `ties` of them by token.
  uint64_t ties = remaining;
  if constexpr (kMass) {
    const uint64_t each = mass_of(value_of(low));
    ties = each == 0 ? 1 : (remaining + each - 1) / each;
  }
  if (known && ties >= found.members) return {pack(low, kAnyToken)};
  Histogram<kRanks, false> tokens{memory};
  uint32_t first = 0, last = slice.vocab;
  while (first < last) {
    const int shift = shift_for(last - first);
    tokens.begin();
    slice.each([&](int32_t token, float x) {
      const auto t = static_cast<uint32_t>(token);
      if (key_of(x) != low || t < first || t > last || !within.keeps(low, token)) return;
      tokens.add(static_cast<int32_t>((t - first) >> shift), 1, 0);
    });
    found = tokens.boundary([&](uint64_t) { return ties; });
    ties -= found.before;
    first += static_cast<uint32_t>(found.bin) << shift;
    const uint32_t width = (1u << shift) - 1;
    if (last - first > width) last = first + width;
    if (ties == found.members) break;
  }
  return {pack(low, static_cast<int32_t>(last))};
}

// Of scaled logits s <= 0, s = 0 among them: the first `k` (kMass false), or the fewest whose mass
// reaches p of the mass of `within`. The result is within `within`.
//
// First by steps of equal width, 1 / `steps_per_unit`, a power of 2, so that a step's ends are
// exact: values spread over bins better than bit patterns do, and bins that many threads add to at
// once are slow. What lies beyond the last bin is counted in registers, and narrowed later if the
// boundary is there.
template <int kRanks, bool kMass>
__device__ Cut select(const Slice& slice, RowMemory& memory, Cut within, float steps_per_unit,
                      uint64_t k, float p) {
  Histogram<kRanks, kMass> histogram{memory};
  constexpr int32_t kRest = kBins - 1;
  const auto steps_of = [=](float x) { return __float2int_rz(__fmul_rn(-x, steps_per_unit)); };
  uint64_t remaining = k;
  Boundary found;
  int32_t first = 0;  // step of the first bin
  int shift = 0;      // a bin is 2^shift steps
  for (int level = 0; level < 2; ++level) {
    histogram.begin();
    uint32_t rest_count = 0;
    uint64_t rest_mass = 0;
    slice.each([&](int32_t token, float x) {
      const int32_t steps = steps_of(x);
      if (steps < first || !within.keeps(key_of(x), token)) return;
      const int32_t bin = min((steps - first) >> shift, kRest);
      const uint64_t mass = kMass ? mass_of(x) : 0;
      if (bin < kRest) return histogram.add(bin, 1, mass);
      ++rest_count;
      rest_mass += mass;
    });
    rest_count = __reduce_add_sync(~0u, rest_count);
    if constexpr (kMass) rest_mass = Sum::over_warp(rest_mass);
    if (threadIdx.x % 32 == 0 && rest_count > 0) histogram.add(kRest, rest_count, rest_mass);

    found = histogram.boundary([&](uint64_t total) {
      if constexpr (kMass) {
        if (level == 0) {
          // mass < p * total goes on, as in cpu/sample.cc; one token at least.
          const uint64_t part =
              __double2ull_ru(static_cast<double>(p) * static_cast<double>(total));
          remaining = part < 1 ? 1 : part < total ? part : total;
        }
      }
      return remaining;
    });
    remaining -= found.before;
    if (found.bin < kRest) break;
    if (level == 0) first = kRest, shift = 1;
  }
  // -x in [begin, end) / steps_per_unit
  const bool rest = found.bin == kRest;
  const int32_t begin = first + (found.bin << shift), end = begin + (1 << shift);
  const uint32_t low = key_of(-static_cast<float>(begin) / steps_per_unit);
  const uint32_t high = rest ? kKeyOfLeast : key_of(-static_cast<float>(end) / steps_per_unit) - 1;
  const bool all = kMass ? remaining == found.inside : remaining == found.members;
  Cut cut{pack(high, kAnyToken)};
  if (found.members != 1 && !all) {
    cut = narrow<kRanks, kMass>(slice, memory, within, low, high, remaining);
  }
  if (within.last < cut.last) cut = within;
  return cut;
}

// Of raw logits with maximum `max`: the first k. Differences to the maximum are rounded, so bins of
// them only say below which value to look.
template <int kRanks>
__device__ Cut select_raw(const Slice& slice, RowMemory& memory, float max, uint64_t k) {
  constexpr float kBinsPerUnit = 32.0f;
  constexpr int32_t kRest = kBins - 1;
  Histogram<kRanks, false> histogram{memory};
  histogram.begin();
  uint32_t rest = 0;
  slice.each([&](int32_t, float x) {
    const int32_t bin = min(__float2int_rz((max - x) * kBinsPerUnit), kRest);
    if (bin < kRest) return histogram.add(bin, 1, 0);
    ++rest;
  });
  rest = __reduce_add_sync(~0u, rest);
  if (threadIdx.x % 32 == 0 && rest > 0) histogram.add(kRest, rest, 0);
  const Boundary found = histogram.boundary([&](uint64_t) { return k; });
  const uint32_t high = found.bin == kRest
                            ? kKeyOfLeast
                            : key_of(max - static_cast<float>(found.bin + 2) / kBinsPerUnit);
  return narrow<kRanks, false>(slice, memory, {}, key_of(max), high, k);
}

}  // namespace lorax::cuda::sampling
