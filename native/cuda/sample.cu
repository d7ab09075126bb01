// One cluster of eight blocks per row (sm_90) or one block: the row is read once into shared
// memory, and everything the request asks for happens there, in the order of backend/sampling.h.
//
// All threads of a row's blocks take the same branches: what decides them is reduced over all.
#include <algorithm>

#include "cuda/launch.h"
#include "cuda/sample.h"
#include "cuda/sample_group.cuh"
#include "cuda/sample_gumbel.cuh"
#include "cuda/sample_select.cuh"
#include "cuda/sample_slice.cuh"

namespace lorax::cuda {
namespace {

using namespace sampling;

// ---- steps 1 and 2: bias, penalties, mask ----

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
  const float presence =
      output_count > 0 ? row.presence_penalty : __fmul_rn(row.presence_penalty, 0.0f);
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

// mask [mask_words(vocab)]. Each thread changes the quads it will read.
__device__ void apply_mask(const Slice& slice, const uint32_t* mask) {
  slice.each_quad([&](int32_t token, float4* quad) {
    const uint32_t allowed = __ldg(mask + token / 32) >> (token % 32) & 15u;
    if (allowed == 15u) return;
    float4 x = *quad;
    x.x = allowed & 1u ? x.x : -INFINITY;
    x.y = allowed & 2u ? x.y : -INFINITY;
    x.z = allowed & 4u ? x.z : -INFINITY;
    x.w = allowed & 8u ? x.w : -INFINITY;
    *quad = x;
  });
}

__device__ Greatest greatest_in(const Slice& slice) {
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

__device__ bool limits_count(const SampleParameters& row, int32_t vocab) {
  return row.top_k > 0 && row.top_k < vocab;
}
__device__ bool limits_any(const SampleParameters& row, int32_t vocab) {
  return limits_count(row, vocab) || row.top_p < 1.0f || row.min_p > 0.0f;
}

// l to s. The maximum stays 0 at any temperature: 0 / t = 0.
struct Scale {
  float max;
  float temperature;

  __device__ __forceinline__ float operator()(float l) const {
    const float difference = __fadd_rn(l, -max);
    return temperature == 1.0f ? difference : __fdiv_rn(difference, temperature);
  }
};

// Over all of this rank's tokens.
__device__ uint64_t draw_from_all(const Slice& slice, RowMemory& memory, const Noise& noise,
                                  const Scale& scale) {
  const float inverse = 1.0f / scale.temperature, max = scale.max;
  return gumbel_max(
      slice, memory, noise, -INFINITY, [=](float l) { return (l - max) * inverse; }, scale,
      [](int32_t, float) { return true; });
}

// Over those that top-k, top-p and min-p leave.
template <int kRanks>
__device__ uint64_t draw_from_some(const Slice& slice, RowMemory& memory, const Noise& noise,
                                   const Scale& scale, const SampleParameters& row) {
  slice.each_quad([&](int32_t, float4* quad) {
    const float4 l = *quad;
    *quad = make_float4(scale(l.x), scale(l.y), scale(l.z), scale(l.w));
  });
  // A high temperature brings the values together: steps follow it.
  const float steps_per_unit = 32.0f * power_of_two_above(row.temperature);
  Cut cut;
  if (limits_count(row, slice.vocab)) {
    cut = select<kRanks, false>(slice, memory, cut, steps_per_unit, row.top_k, 0.0f);
  }
  if (row.top_p < 1.0f) {
    cut = select<kRanks, true>(slice, memory, cut, steps_per_unit, 0, row.top_p);
  }
  const Likely likely(row.min_p);
  const bool limits_ratio = row.min_p > 0.0f;
  // Nothing below may be drawn; without a cut, no number, which nothing is below.
  float floor = value_of(key_part(cut.last));
  if (limits_ratio) floor = fmaxf(floor, likely.least());
  const auto same = [](float s) { return s; };
  return gumbel_max(slice, memory, noise, floor, same, same, [=](int32_t token, float s) {
    return cut.keeps(key_of(s), token) && (!limits_ratio || likely(s));
  });
}

// What race_while_reading left undecided, now that the maximum is known. It was no good (large
// values, too many ties): the row is read again.
__device__ uint64_t finish_race(const float* logits, const Slice& slice, RowMemory& memory,
                                const Noise& noise, const Scale& scale, const Leader& leader) {
  const float mark = read_mark(memory);
  const uint32_t num_ties = memory.num_ties;
  if (!(fabsf(scale.max / scale.temperature) <= kMaxNear) || num_ties > kMaxTies) {
    read_slice(logits, slice, true, true);
    __syncthreads();
    if (threadIdx.x == 0) memory.mark = mark_of(-INFINITY);
    __syncthreads();
    return draw_from_all(slice, memory, noise, scale);
  }
  uint64_t best = kNothing;
  if (leader.noisy > -INFINITY && leader.noisy >= mark - kSlack) {
    settle(best, scale(leader.value), leader.word, leader.token);
  }
  if (threadIdx.x < num_ties) {
    const int32_t token = memory.ties[threadIdx.x];
    settle(best, scale(logits[token - slice.begin]), noise.word(token), token);
  }
  return best;
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
    const uint64_t own =
        static_cast<int32_t>(threadIdx.x) < num_top ? memory.top[threadIdx.x] : kNothing;
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

// One block's waiting is another's work: as many as fit with 16K tokens in shared memory.
constexpr int kBlocksPerMultiprocessor = 3;
constexpr size_t kReservedSharedBytes = 1024;  // the system's, per block

// kShared: the row lies in shared memory, else in the workspace. slice_tokens: of a rank, a
// multiple of 4.
template <int kRanks, bool kShared>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    sample_kernel(const SampleArguments a, const int32_t slice_tokens) {
  extern __shared__ float4 dynamic[];
  __shared__ RowMemory memory;
  let_next_start();
  const int rank = Group<kRanks>::rank();
  const int32_t index = blockIdx.x / kRanks;
  // The arrays are there before the step's first kernel starts (sample.h).
  if (index >= a.arrays.header->num_rows) {
    wait_for_previous();
    return;
  }
  Group<kRanks>::arrive();  // all ranks run
  if (threadIdx.x == 0) {
    memory.row = a.arrays.rows[index];
    memory.mark = mark_of(-INFINITY);
    memory.top_count = memory.in_history = memory.num_ties = 0;
  }
  __syncthreads();
  const SampleParameters& row = memory.row;
  wait_for_previous();

  Slice slice;
  slice.begin = rank * slice_tokens;
  slice.size = max(0, min(slice_tokens, a.vocab - slice.begin));
  slice.vocab = a.vocab;
  if constexpr (kShared) {
    slice.values = reinterpret_cast<float*>(dynamic);
  } else {
    slice.values = a.workspace + int64_t{index} * slice_tokens * kRanks + slice.begin;
  }
  const float* logits = a.logits + int64_t{index} * a.vocab + slice.begin;  // [slice.size]
  const bool aligned = a.vocab % 4 == 0;
  const bool masked = row.mask >= 0;
  const bool adjusted = adjusts(row) || masked;
  const bool draws = row.temperature > 0.0f;
  const bool reports = row.num_logprobs >= 0;
  const bool limited = draws && limits_any(row, a.vocab);
  const bool races = draws && aligned && !adjusted && !reports && !limited;
  const Noise noise(row.seed, row.position);

  Greatest own;
  Leader leader;
  if (races) {
    leader = race_while_reading(logits, slice, memory, noise, 1.0f / row.temperature, own);
  } else {
    own = read_slice(logits, slice, aligned, adjusted || draws || reports);
  }
  Group<kRanks>::wait();
  int turn = 0;
  uint64_t greatest = reduce<kRanks, Least>(memory, turn, own.packed());
  bool sound = usable(greatest);
  const float raw_max = value_of(key_part(greatest));
  float log_sum = 0.0f;
  if (sound && reports) {
    log_sum = report<kRanks>(slice, memory, turn, raw_max, row.num_logprobs, index, a.outputs);
  }
  if (sound && adjusted) {
    if (adjusts(row)) {
      const int32_t input = row.counts_input != 0 ? a.input_tokens[a.logits_rows[index]] : -1;
      adjust(slice, memory, row, a.arrays.entries, input);
    }
    if (masked) apply_mask(slice, a.masks + int64_t{row.mask} * ((a.vocab + 31) / 32));
    greatest = reduce<kRanks, Least>(memory, turn, greatest_in(slice).packed());
    sound = usable(greatest);
  }
  int32_t token = sound ? token_part(greatest) : -1;
  if (sound && draws) {
    const Scale scale{value_of(key_part(greatest)), row.temperature};
    uint64_t best;
    if (races) {
      best = finish_race(logits, slice, memory, noise, scale, leader);
    } else if (limited) {
      best = draw_from_some<kRanks>(slice, memory, noise, scale, row);
    } else {
      best = draw_from_all(slice, memory, noise, scale);
    }
    best = reduce<kRanks, Least>(memory, turn, best);
    if (best != kNothing) token = token_part(best);
  }

  if (rank == 0 && threadIdx.x == 0) {
    a.outputs.tokens[index] = token;
    if (reports) {
      a.outputs.logprobs[index] =
          sound ? (a.logits[int64_t{index} * a.vocab + token] - raw_max) - log_sum : 0.0f;
    }
  }
  // No block leaves while another may still read its histogram.
  if (reports || limited) Group<kRanks>::sync();
}

// ---- the launch ----

struct Plan {
  int ranks;
  int32_t slice_tokens;
  size_t shared_bytes;  // 0: in the workspace
};

Plan plan_for(int32_t vocab, SampleSplit split) {
  int device = 0, major = 0, shared_limit = 0;
  LORAX_CUDA(cudaGetDevice(&device));
  LORAX_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  LORAX_CUDA(
      cudaDeviceGetAttribute(&shared_limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  const auto available =
      static_cast<size_t>(shared_limit) - sizeof(RowMemory) - kReservedSharedBytes;
  const auto with_ranks = [&](int ranks) {
    const int32_t tokens = ((vocab + ranks - 1) / ranks + 3) / 4 * 4;
    const size_t bytes = static_cast<size_t>(tokens) * sizeof(float);
    return Plan{ranks, tokens, bytes <= available ? bytes : 0};
  };
  const Plan cluster = with_ranks(kMaxRanks);
  const bool can = split != SampleSplit::kBlock && major >= 9 && cluster.shared_bytes > 0;
  return can ? cluster : with_ranks(1);
}

template <int kRanks, bool kShared>
void launch(const SampleArguments& a, const Plan& plan, cudaStream_t stream) {
  if (kShared) {
    LORAX_CUDA(cudaFuncSetAttribute(sample_kernel<kRanks, kShared>,
                                    cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(plan.shared_bytes)));
  }
  const LaunchShape shape{.grid = dim3(a.rows * kRanks),
                          .block = dim3(kThreads),
                          .shared_bytes = plan.shared_bytes,
                          .cluster = kRanks};
  launch_overlapping("sample", sample_kernel<kRanks, kShared>, shape, stream, a, plan.slice_tokens);
}

}  // namespace

int64_t sample_workspace_bytes(int32_t rows, int32_t vocab, SampleSplit split) {
  const Plan plan = plan_for(vocab, split);
  return plan.shared_bytes > 0
             ? 0
             : int64_t{rows} * plan.slice_tokens * plan.ranks * int64_t{sizeof(float)};
}

void sample(const SampleArguments& a, cudaStream_t stream) {
  if (a.rows == 0) return;
  const Plan plan = plan_for(a.vocab, a.split);
  if (plan.ranks > 1) {
    launch<kMaxRanks, true>(a, plan, stream);
  } else if (plan.shared_bytes > 0) {
    launch<1, true>(a, plan, stream);
  } else {
    launch<1, false>(a, plan, stream);
  }
}

}  // namespace lorax::cuda
