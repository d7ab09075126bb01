// A block has 16 rows, a warp every eighth head of them, in strips of 32 columns: strip s of the
// first half and strip s of the second lie in the same lanes, which rotate them. The next head's
// columns are on their way into shared memory; each thread copies what it will read itself. cos and
// sin are computed once a row, while the first heads arrive, and lie in the order of the lanes.
// Where one segment has the rows, with one rank group, the next head's B is on its way too.
#include "cuda/device_shape.h"
#include "cuda/launch.h"
#include "cuda/lora_async.cuh"
#include "cuda/lora_rope.h"
#include "cuda/lora_row_delta.cuh"

namespace lorax::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kMeetings = 16;  // looked up for all heads
constexpr int kParts = 3;

// kStrips: of half a head.
constexpr int table_floats(int strips) { return strips * 2 * 16 * 32; }
constexpr int ring_bytes(int strips) { return 2 * strips * 4 * kThreads * 16; }
constexpr int b_bytes(int strips) { return strips * 64 * 32; }  // of a head
constexpr int shared_bytes(int strips) {
  return table_floats(strips) * 4 + ring_bytes(strips) + kWarps * b_bytes(strips);
}

struct Head {
  int index = 0;
  bool is_q = false;
  bool is_v = false;
  int part = 0;
  int32_t column = 0;  // in the part

  __device__ Head(int head, const RopeKv& args)
      : index(head),
        is_q(head < args.num_heads),
        is_v(head >= args.num_heads + args.pages.num_kv_heads),
        part(is_q   ? 0
             : is_v ? 2
                    : 1),
        column((head - (is_q   ? 0
                        : is_v ? args.num_heads + args.pages.num_kv_heads
                               : args.num_heads)) *
               args.pages.head_dim) {}
};

template <int kStrips>
__global__ void __launch_bounds__(kThreads, kStrips <= 2 ? 2 : 1)
    lora_rope_kernel(const __grid_constant__ LoraRowLists lists,
                     const __grid_constant__ RopeKv args, const __grid_constant__ StepArrays step) {
  // cos and sin: [kStrips][rows g, g + 8][cos 0-3, cos 4-7, sin 0-3, sin 4-7][32 lanes][4]
  extern __shared__ __align__(16) float table[];
  __shared__ int64_t page_offset[kTileRows];  // elements, with the slot's; of real rows
  __shared__ Meeting meetings[kParts][kMeetings];
  __shared__ uint2 kept_v[kParts][kTileRows][4];  // of the only segment
  uint4* const ring =
      reinterpret_cast<uint4*>(table + table_floats(kStrips)) + threadIdx.x;  // this thread's
  let_next_start();
  wait_for_previous();
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  uint8_t* const kept_b = reinterpret_cast<uint8_t*>(table) + table_floats(kStrips) * 4 +
                          ring_bytes(kStrips) + warp * b_bytes(kStrips);
  const int g = lane / 4;
  const int t = lane % 4;
  const int32_t tile = blockIdx.x;
  const int head_dim = args.pages.head_dim;
  const int half = head_dim / 2;
  const int heads = args.num_heads + 2 * args.pages.num_kv_heads;
  const auto qkv_at = [&](int h, int head) {  // this lane's row g + 8 h
    return args.qkv + (int64_t{row_of(tile, h)} * heads + head) * head_dim;
  };
  const auto fetch = [&](int head, int turn) {
    if (head < heads) {
#pragma unroll
      for (int s = 0; s < kStrips; ++s) {
        const int column = s * 32 + t * 8;
        if (column >= half) continue;
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          if (row_of(tile, h) >= args.rows) continue;
          const __nv_bfloat16* from = qkv_at(h, head) + column;
          uint4* const to = ring + ((turn * kStrips + s) * 4 + h) * kThreads;
          copy_async(to, from);
          copy_async(to + 2 * kThreads, from + half);
        }
      }
    }
    commit_copies();
  };
  fetch(warp, 0);
  const int32_t num_rows = min(step.counts->num_rows, args.rows);
  for (int i = threadIdx.x; i < kTileRows * kStrips * 32; i += kThreads) {
    const int column = i % (kStrips * 32);
    const int row = i / (kStrips * 32);
    if (column >= half || tile * kTileRows + row >= num_rows) continue;
    float sin;
    float cos;
    sincosf(__fmul_rn(static_cast<float>(step.positions[tile * kTileRows + row]),
                      args.inv_freq[column]),
            &sin, &cos);
    float* const to = table + (column / 32 * 2 + row / 8) * 512 +
                      (column % 8 / 4 * 32 + row % 8 * 4 + column % 32 / 8) * 4 + column % 4;
    to[0] = cos * args.magnitude;
    to[256] = sin * args.magnitude;
  }
  if (threadIdx.x < kTileRows && tile * kTileRows + static_cast<int>(threadIdx.x) < num_rows) {
    const int32_t row = tile * kTileRows + static_cast<int>(threadIdx.x);
    const int32_t position = step.positions[row];
    const int32_t block =
        step.spans[step.row_span[row]].block_table_begin + position / KvPages::kBlockTokens;
    page_offset[threadIdx.x] =
        step.block_tables[block] * args.pages.page_bytes / int64_t{sizeof(__nv_bfloat16)} +
        position % KvPages::kBlockTokens * head_dim;
  }
  const int32_t begin = lists.pair_begin[tile];
  const int32_t end = lists.pair_begin[tile + 1];
  const int known = min(end - begin, kMeetings);
  for (int i = threadIdx.x; i < kParts * kMeetings; i += kThreads) {
    if (i % kMeetings < known) {
      meetings[i / kMeetings][i % kMeetings] = look_up(lists, begin + i % kMeetings, i / kMeetings);
    }
  }
  const bool alone = end - begin == 1;
  if (alone && threadIdx.x < kParts * kTileRows * 4) {
    const int part = threadIdx.x / (kTileRows * 4);
    const int row = threadIdx.x / 4 % kTileRows;
    const Meeting meeting = look_up(lists, begin, part);
    if (meeting.slices.num_groups == 1) {
      kept_v[part][row][t] = load_v(v_of_part(lists, part), meeting.pair, 0, row);
    }
  }
  __syncthreads();
  const auto is_single = [&](int part) {
    return alone && meetings[part][0].slices.num_groups == 1;
  };
  const auto fetch_b = [&](int index) {
    if (index < heads) {
      const Head head(index, args);
      if (is_single(head.part)) {
        copy_b_tiles<kStrips * 4>(kept_b, meetings[head.part][0].slices.first_b, head.column / 16,
                                  head_dim / 16, lane);
      }
    }
    commit_copies();
  };
  fetch_b(warp);

  int turn = 0;
  for (int at = warp; at < heads; at += kWarps, turn ^= 1) {
    const Head head(at, args);
    fetch(at + kWarps, turn ^ 1);
    const bool single = is_single(head.part);
    wait_for_copies<1>();
    __syncwarp();               // B is copied by other lanes
    float x[2][kStrips][4][4];  // halves; of a strip as add_delta has it
#pragma unroll
    for (int p = 0; p < 2; ++p) {
#pragma unroll
      for (int s = 0; s < kStrips; ++s) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          uint4 raw = make_uint4(0, 0, 0, 0);
          if (s * 32 + t * 8 < half && row_of(tile, h) < num_rows) {
            raw = ring[((turn * kStrips + s) * 4 + 2 * p + h) * kThreads];
          }
#pragma unroll
          for (int c = 0; c < 8; ++c) x[p][s][c / 2][2 * h + c % 2] = eight_at(raw, c);
        }
      }
    }

    if (single) {
      const uint2 upper = kept_v[head.part][g][t];
      const uint2 lower = kept_v[head.part][g + 8][t];
#pragma unroll
      for (int p = 0; p < 2; ++p) {
#pragma unroll
        for (int s = 0; s < kStrips; ++s) {
          uint2 b[4];
          load_shared_b(kept_b, p * half + s * 32, (p + 1) * half, b);
          add_delta(upper, lower, b, x[p][s]);
        }
      }
    }
    __syncwarp();
    fetch_b(at + kWarps);
    const __nv_bfloat16* part_v = v_of_part(lists, head.part);
    for (int32_t m = single ? 1 : 0; m < end - begin; ++m) {
      const Meeting meeting =
          m < known ? meetings[head.part][m] : look_up(lists, begin + m, head.part);
      for (int32_t group = 0; group < meeting.slices.num_groups; ++group) {
        const SliceAddress slice =
            group == 0 ? meeting.slices.first_b : meeting.slices.groups[group].b;
        const uint2 upper = load_v(part_v, meeting.pair, group, g);
        const uint2 lower = load_v(part_v, meeting.pair, group, g + 8);
#pragma unroll
        for (int p = 0; p < 2; ++p) {
#pragma unroll
          for (int s = 0; s < kStrips; ++s) {
            uint2 b[4];
            load_b(slice, head.column + p * half + s * 32, head.column + (p + 1) * half, b);
            add_delta(upper, lower, b, x[p][s]);
          }
        }
      }
    }

    const float* gain = head.is_q ? args.q_gain : args.k_gain;
    if (!head.is_v && gain != nullptr) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float sum = 0.0f;
#pragma unroll
        for (int p = 0; p < 2; ++p) {
#pragma unroll
          for (int s = 0; s < kStrips; ++s) {
#pragma unroll
            for (int c = 0; c < 8; ++c) {
              const float value = x[p][s][c / 2][2 * h + c % 2];
              sum += value * value;
            }
          }
        }
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        const float inverse = 1.0f / sqrtf(sum / static_cast<float>(head_dim) + args.eps);
#pragma unroll
        for (int p = 0; p < 2; ++p) {
#pragma unroll
          for (int s = 0; s < kStrips; ++s) {
            if (s * 32 + t * 8 >= half) continue;
            const auto* from = reinterpret_cast<const float4*>(gain + p * half + s * 32 + t * 8);
#pragma unroll
            for (int i = 0; i < 2; ++i) {
              const float4 four = __ldg(from + i);
              x[p][s][2 * i][2 * h] *= inverse * four.x;
              x[p][s][2 * i][2 * h + 1] *= inverse * four.y;
              x[p][s][2 * i + 1][2 * h] *= inverse * four.z;
              x[p][s][2 * i + 1][2 * h + 1] *= inverse * four.w;
            }
          }
        }
      }
    }

#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int32_t row = row_of(tile, h);
      if (row >= num_rows) continue;
      __nv_bfloat16* out = qkv_at(h, head.index);
      if (!head.is_q) {
        const int kv_head = head.column / head_dim;
        out = (head.is_v ? args.pages.values(kv_head) : args.pages.keys(kv_head)) +
              page_offset[g + 8 * h];
      }
#pragma unroll
      for (int s = 0; s < kStrips; ++s) {
        const int column = s * 32 + t * 8;
        if (column >= half) continue;
        float a[8], b[8];
#pragma unroll
        for (int c = 0; c < 8; ++c) {
          a[c] = x[0][s][c / 2][2 * h + c % 2];
          b[c] = x[1][s][c / 2][2 * h + c % 2];
        }
        if (!head.is_v) {
          const float* of = table + (s * 2 + h) * 512 + lane * 4;
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            const float4 cos4 = *reinterpret_cast<const float4*>(of + i * 128);
            const float4 sin4 = *reinterpret_cast<const float4*>(of + 256 + i * 128);
            const float cos[4] = {cos4.x, cos4.y, cos4.z, cos4.w};
            const float sin[4] = {sin4.x, sin4.y, sin4.z, sin4.w};
#pragma unroll
            for (int e = 0; e < 4; ++e) {
              const float first = a[4 * i + e];
              a[4 * i + e] = first * cos[e] - b[4 * i + e] * sin[e];
              b[4 * i + e] = b[4 * i + e] * cos[e] + first * sin[e];
            }
          }
        }
        store_eight<true>(a, 8, out + column);
        store_eight<true>(b, 8, out + column + half);
      }
    }
  }
}

template <int kStrips>
void launch(const LoraRowLists& lists, const RopeKv& args, const StepArrays& step,
            cudaStream_t stream) {
  const auto kernel = lora_rope_kernel<kStrips>;
  LORAX_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  shared_bytes(kStrips)));
  const LaunchShape shape{.grid = dim3((args.rows + kTileRows - 1) / kTileRows),
                          .block = dim3(kThreads),
                          .shared_bytes = shared_bytes(kStrips)};
  launch_overlapping("lora_rope_kv", kernel, shape, stream, lists, args, step);
}

}  // namespace

bool lora_rope_takes(int32_t head_dim) {
  if (head_dim % 16 != 0 || head_dim > 256) return false;
  return head_dim <= 64 || device_shape().major >= 9;  // more than 100 KB of shared memory
}

void lora_rope_and_store_kv(const LoraRowLists& lists, const RopeKv& args, const StepArrays& step,
                            cudaStream_t stream) {
  if (args.rows == 0) return;
  const int32_t half = args.pages.head_dim / 2;
  (half <= 32 ? launch<1> : half <= 64 ? launch<2> : launch<4>)(lists, args, step, stream);
}

}  // namespace lorax::cuda
