// One cluster of eight blocks per row (sm_90) or one block: the row is read once into shared memory,
// and everything the request asks for happens there, in the order of backend/sampling.h.
//
// All threads of a row's blocks take the same branches: what decides them is reduced over all.
#include "cuda/sample.h"

#include <algorithm>

#include "cuda/launch.h"
#include "cuda/sample_group.cuh"
#include "cuda/sample_gumbel.cuh"
#include "cuda/sample_select.cuh"

namespace lorax::cuda {
namespace {

using namespace sampling;

// ---- reading the row ----

// A value and its token into the greatest so far; what no logit may be (NaN, +inf) becomes the key
// 0, before all others.
struct Greatest {
  float value = -INFINITY;
  int32_t token = 0;
  bool fault = false;

  __device__ __forceinline__ void offer(int32_t t, float x) {
    fault |= !(x < INFINITY);
    if (x > value) {
      value = x;
      token = t;
    }
  }
  __device__ __forceinline__ void offer(int32_t t, float4 x) {
    offer(t, x.x);
    offer(t + 1, x.y);
    offer(t + 2, x.z);
    offer(t + 3, x.w);
  }
  __device__ __forceinline__ uint64_t packed() const {
    return pack(fault ? 0 : key_of(value), token);
  }
};

__device__ __forceinline__ bool usable(uint64_t greatest) {
  return key_part(greatest) >= kKeyOfGreatest && key_part(greatest) < kKeyOfLeast;
}

// Reads logits [size] of this rank; keeps them in slice.values when `keep`.
__device__ Greatest read_slice(const float* logits, const Slice& slice, bool aligned, bool keep) {
  Greatest greatest;
  if (aligned) {  // then size is a multiple of 4
    constexpr int kInFlight = 4;
    constexpr int32_t kStep = kThreads * 4;
    int32_t i = threadIdx.x * 4;
    for (; i + (kInFlight - 1) * kStep < slice.size; i += kInFlight * kStep) {
      float4 x[kInFlight];
#pragma unroll
      for (int j = 0; j < kInFlight; ++j) {
        x[j] = __ldcs(reinterpret_cast<const float4*>(logits + i + j * kStep));
      }
#pragma unroll
      for (int j = 0; j < kInFlight; ++j) {
        if (keep) *reinterpret_cast<float4*>(slice.values + i + j * kStep) = x[j];
        greatest.offer(slice.begin + i + j * kStep, x[j]);
      }
    }
    for (; i < slice.size; i += kStep) {
      const float4 x = __ldcs(reinterpret_cast<const float4*>(logits + i));
      if (keep) *reinterpret_cast<float4*>(slice.values + i) = x;
      greatest.offer(slice.begin + i, x);
    }
    return greatest;
  }
  const int32_t padded = (slice.size + 3) / 4 * 4;
  for (int32_t i = threadIdx.x; i < padded; i += kThreads) {
    const float x = i < slice.size ? logits[i] : -INFINITY;
    if (keep) slice.values[i] = x;
    greatest.offer(slice.begin + i, x);
  }
  if (keep) __syncthreads();  // later a thread reads whole quads
  return greatest;
}

// ---- steps 1 and 2: bias and penalties ----

__device__ bool adjusts(const SampleParameters& row) {
  const bool penalty = row.repetition_penalty != 1.0f || row.frequency_penalty != 0.0f ||
                       row.presence_penalty != 0.0f;
  return row.bias_size > 0 || (penalty && (row.history_size > 0 || row.counts_input != 0));
}

__device__ float penalized(float l, int32_t output_count, const SampleParameters& row) {
  if (row.repetition_penalty != 1.0f) {
    l = l > 0.0f ? __fdiv_rn(l, row.repetition_penalty) : __fmul_rn(l, row.repetition_penalty);
  }
  const float frequency = __fmul_rn(row.frequency_penalty, static_cast<float>(output_count));
  const float presence = output_count > 0 ? row.presence_penalty : __fmul_rn(row.presence_penalty, 0.0f);
  l = __fadd_rn(l, -__fadd_rn(frequency, presence));
  // An extreme penalty must not make a fault of a sound logit; NaN stays.
  return l > 3.402823466e38f ? 3.402823466e38f : l;
}

// Each rank looks at all entries and changes the tokens it holds. `input`: the row's own token when
// the history lacks it, else -1.
__device__ void adjust(const Slice& slice, RowMemory& memory, const SampleParameters& row,
                       const SampleEntry* entries, int32_t input) {
  const auto held = [&](int32_t token) {
    return token >= slice.begin && token - slice.begin < slice.size;
  };
  __syncthreads();
  for (int32_t i = threadIdx.x; i < row.bias_size; i += kThreads) {
    const SampleEntry entry = entries[row.bias_begin + i];
    if (held(entry.token)) atomicAdd(&slice.values[entry.token - slice.begin], entry.bias);
  }
  __syncthreads();
  for (int32_t i = threadIdx.x; i < row.history_size; i += kThreads) {
    const SampleEntry entry = entries[row.history_begin + i];
    const bool is_input = entry.token == input;
    if (is_input) memory.in_history = 1;
    if (!held(entry.token)) continue;
    float& value = slice.values[entry.token - slice.begin];
    value = penalized(value, entry.output_count + (is_input ? 1 : 0), row);
  }
  __syncthreads();
  if (threadIdx.x == 0 && input >= 0 && memory.in_history == 0 && held(input)) {
    float& value = slice.values[input - slice.begin];
    value = penalized(value, 1, row);
  }
  __syncthreads();
}

__device__ Greatest greatest_of(const Slice& slice) {
  Greatest greatest;
  slice.each_quad([&](int32_t token, const float4* quad) { greatest.offer(token, *quad); });
  return greatest;
}

// ---- steps 3 to 7 ----

// 2^n >= x, at least 1, at most 2^100.
__device__ float power_of_two_above(float x) {
  float power = 1.0f;
  while (power < x && power < 0x1p100f) power *= 2.0f;
  return power;
}

// Whether probability >= min_p * the largest, which is exp(0) before it is normalised. The exact
// comparison only where it is near.
struct Likely {
  float min_p;
  float log_min_p;

  __device__ explicit Likely(float p) : min_p(p), log_min_p(logf(p)) {}
  // Everything below is unlikely.
  __device__ __forceinline__ float least() const { return log_min_p - 1e-3f; }
  __device__ __forceinline__ bool operator()(float s) const {
    if (s < least()) return false;
    if (s > log_min_p + 1e-3f) return true;
    return static_cast<float>(exp(static_cast<double>(s))) >= min_p;
  }
};

// The token, given the adjusted logits in slice.values and their maximum.
template <int kRanks>
__device__ int32_t draw(const Slice& slice, RowMemory& memory, int& turn,
                        const SampleParameters& row, uint64_t greatest) {
  const float max = value_of(key_part(greatest));
  const float temperature = row.temperature;
  // The maximum stays 0 at any temperature: 0 / t = 0.
  const auto scaled = [=](float l) {
    const float difference = __fadd_rn(l, -max);
    return temperature == 1.0f ? difference : __fdiv_rn(difference, temperature);
  };
  const bool limits_count = row.top_k > 0 && row.top_k < slice.vocab;
  const bool limits_mass = row.top_p < 1.0f;
  uint64_t best;
  if (!limits_count && !limits_mass && row.min_p == 0.0f) {
    const float inverse = 1.0f / temperature;
    best = gumbel_max(
        slice, memory, row.seed, row.position, -INFINITY,
        [=](float l) { return (l - max) * inverse; }, [=](int32_t, float l) { return scaled(l); });
  } else {
    slice.each_quad([&](int32_t, float4* quad) {
      const float4 l = *quad;
      *quad = make_float4(scaled(l.x), scaled(l.y), scaled(l.z), scaled(l.w));
    });
    // A high temperature brings the values together: steps follow it.
    const float steps_per_unit = 32.0f * power_of_two_above(temperature);
    Cut cut;
    if (limits_count) {
      cut = select<kRanks, false>(slice, memory, cut, steps_per_unit, row.top_k, 0.0f);
    }
    if (limits_mass) {
      cut = select<kRanks, true>(slice, memory, cut, steps_per_unit, 0, row.top_p);
    }
    const Likely likely(row.min_p);
    const bool limits_ratio = row.min_p > 0.0f;
    // Nothing below may be drawn; without a cut, no number, which nothing is below.
    float floor = value_of(key_part(cut.last));
    if (limits_ratio) floor = fmaxf(floor, likely.least());
    best = gumbel_max(
        slice, memory, row.seed, row.position, floor, [](float s) { return s; },
        [=](int32_t token, float s) {
          const bool allowed = cut.keeps(key_of(s), token) && (!limits_ratio || likely(s));
          return allowed ? s : -INFINITY;
        });
  }
  best = reduce<kRanks, Least>(memory, turn, best);
  return best == kNothing ? token_part(greatest) : token_part(best);
}

// ---- log-softmax of the raw logits ----

// log(sum exp(l - max)); and the alternatives of row `index`, written by rank 0.
template <int kRanks>
__device__ float report(const Slice& slice, RowMemory& memory, int& turn, float max,
                        int32_t num_top, int32_t index, const SampleOutputs& outputs) {
  uint64_t mass = 0;
  slice.each([&](int32_t, float l) { mass += mass_of(l - max); });
  mass = reduce<kRanks, Sum>(memory, turn, mass);
  const auto log_sum = static_cast<float>(log(static_cast<double>(mass) * 0x1p-44));
  num_top = min(num_top, slice.vocab);
  if (num_top <= 0) return log_sum;

  const Cut cut = select_raw<kRanks>(slice, memory, max, num_top);
  slice.each([&](int32_t token, float l) {
    const uint64_t packed = pack(key_of(l), token);
    if (packed > cut.last) return;
    const uint32_t at = atomicAdd(Group<kRanks>::at_rank(&memory.top_count, 0), 1u);
    *Group<kRanks>::at_rank(&memory.top[at % 32], 0) = packed;
  });
  Group<kRanks>::sync();
  if (Group<kRanks>::rank() == 0 && threadIdx.x < 32) {
    const uint64_t own = static_cast<int32_t>(threadIdx.x) < num_top ? memory.top[threadIdx.x]
                                                                     : kNothing;
    int32_t place = 0;
    for (int lane = 0; lane < 32; ++lane) place += __shfl_sync(~0u, own, lane) < own ? 1 : 0;
    if (own != kNothing) {
      outputs.top_tokens[index * kMaxLogprobs + place] = token_part(own);
      outputs.top_logprobs[index * kMaxLogprobs + place] =
          (value_of(key_part(own)) - max) - log_sum;
    }
  }
  return log_sum;
}

// ---- the kernel ----

// So that one block's waiting is another's work: as many as fit with 16K tokens in shared memory.
constexpr int kBlocksPerMultiprocessor = kThreads <= 256 ? 3 : 2;

// What the launch fixes: the layout of a row over its blocks.
struct RowLayout {
  int32_t slice_tokens;  // a multiple of 4
  bool in_shared_memory;
};

template <int kRanks>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    sample_kernel(const SampleArguments a, const RowLayout layout) {
  extern __shared__ float4 dynamic[];
  __shared__ RowMemory memory;
  let_next_start();
  const int rank = Group<kRanks>::rank();
  const int32_t index = blockIdx.x / kRanks;
  if (threadIdx.x == 0) {
    memory.mark = mark_of(-INFINITY);
    memory.top_count = memory.in_history = 0;
  }
  wait_for_previous();
  if (index >= a.arrays.header->num_rows) return;
  Group<kRanks>::arrive();  // all ranks run
  const SampleParameters row = a.arrays.rows[index];

  const float* logits = a.logits + int64_t{index} * a.vocab;  // [vocab]
  Slice slice;
  slice.begin = rank * layout.slice_tokens;
  slice.size = max(0, min(layout.slice_tokens, a.vocab - slice.begin));
  slice.vocab = a.vocab;
  slice.values = layout.in_shared_memory
                     ? reinterpret_cast<float*>(dynamic)
                     : a.workspace + int64_t{index} * layout.slice_tokens * kRanks + slice.begin;
  const bool adjusted = adjusts(row);
  const bool draws = row.temperature > 0.0f;
  const bool reports = row.num_logprobs >= 0;

  uint64_t greatest =
      read_slice(logits + slice.begin, slice, a.vocab % 4 == 0, adjusted || draws || reports)
          .packed();
  Group<kRanks>::wait();
  int turn = 0;
  greatest = reduce<kRanks, Least>(memory, turn, greatest);
  bool sound = usable(greatest);
  const float raw_max = value_of(key_part(greatest));
  float log_sum = 0.0f;
  if (sound && reports) {
    log_sum = report<kRanks>(slice, memory, turn, raw_max, row.num_logprobs, index, a.outputs);
  }
  if (sound && adjusted) {
    const int32_t input = row.counts_input != 0 ? a.input_tokens[a.logits_rows[index]] : -1;
    adjust(slice, memory, row, a.arrays.entries, input);
    greatest = reduce<kRanks, Least>(memory, turn, greatest_of(slice).packed());
    sound = usable(greatest);
  }
  int32_t token = sound ? token_part(greatest) : -1;
  if (sound && draws) token = draw<kRanks>(slice, memory, turn, row, greatest);

  if (rank == 0 && threadIdx.x == 0) {
    a.outputs.tokens[index] = token;
    if (reports) a.outputs.logprobs[index] = sound ? (logits[token] - raw_max) - log_sum : 0.0f;
  }
  // No block leaves while another may still read its histogram.
  if (sound && (reports || draws)) Group<kRanks>::sync();
}

// ---- the launch ----

struct Plan {
  int ranks;
  RowLayout layout;
  size_t shared_bytes;
};

Plan plan_for(int32_t vocab, SampleSplit split) {
  int device = 0, major = 0, shared_limit = 0;
  LORAX_CUDA(cudaGetDevice(&device));
  LORAX_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  LORAX_CUDA(
      cudaDeviceGetAttribute(&shared_limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  const auto available = shared_limit - static_cast<int64_t>(sizeof(RowMemory)) - 1024;
  const auto with_ranks = [&](int ranks) {
    const int32_t tokens = ((vocab + ranks - 1) / ranks + 3) / 4 * 4;
    const int64_t bytes = int64_t{tokens} * 4;
    const bool fits = bytes <= available;
    return Plan{ranks, {tokens, fits}, fits ? static_cast<size_t>(bytes) : 0};
  };
  if (split == SampleSplit::kBlock || (split == SampleSplit::kAuto && major < 9)) {
    return with_ranks(1);
  }
  return with_ranks(kMaxRanks);
}

template <int kRanks>
void launch(const SampleArguments& a, const Plan& plan, cudaStream_t stream) {
  if (plan.shared_bytes > 32 * 1024) {
    LORAX_CUDA(cudaFuncSetAttribute(sample_kernel<kRanks>,
                                    cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(plan.shared_bytes)));
  }
  const LaunchShape shape{.grid = dim3(a.rows * kRanks),
                          .block = dim3(kThreads),
                          .shared_bytes = plan.shared_bytes,
                          .cluster = kRanks};
  launch_overlapping("sample", sample_kernel<kRanks>, shape, stream, a, plan.layout);
}

}  // namespace

int64_t sample_workspace_bytes(int32_t rows, int32_t vocab, SampleSplit split) {
  const Plan plan = plan_for(vocab, split);
  return plan.layout.in_shared_memory
             ? 0
             : int64_t{rows} * plan.layout.slice_tokens * plan.ranks * int64_t{sizeof(float)};
}

void sample(const SampleArguments& a, cudaStream_t stream) {
  if (a.rows == 0) return;
  const Plan plan = plan_for(a.vocab, a.split);
  if (plan.ranks == 1) {
    launch<1>(a, plan, stream);
  } else {
    launch<kMaxRanks>(a, plan, stream);
  }
}

}  // namespace lorax::cuda
