// One block per row: cos and sin once per row into shared memory, before the wait for the linear
// (positions are no kernel's output), then a power-of-two group of lanes per head, four elements of
// each half a lane.
#include <algorithm>
#include <string>

#include "cuda/device_ops.cuh"
#include "cuda/launch.h"
#include "cuda/rope_kv.h"

namespace lorax::cuda {
namespace {

constexpr int kMaxHalf = 128;
constexpr int kVector = 4;  // elements a lane takes of each half

struct alignas(8) Bf16x4 {
  __nv_bfloat162 pair[2];
};

__device__ __forceinline__ void load4(const __nv_bfloat16* from, float (&x)[kVector]) {
  const Bf16x4 packed = *reinterpret_cast<const Bf16x4*>(from);
  const float2 lo = __bfloat1622float2(packed.pair[0]);
  const float2 hi = __bfloat1622float2(packed.pair[1]);
  x[0] = lo.x, x[1] = lo.y, x[2] = hi.x, x[3] = hi.y;
}

__device__ __forceinline__ void store4(__nv_bfloat16* to, const float (&x)[kVector]) {
  Bf16x4 packed;
  packed.pair[0] = __floats2bfloat162_rn(x[0], x[1]);
  packed.pair[1] = __floats2bfloat162_rn(x[2], x[3]);
  *reinterpret_cast<Bf16x4*>(to) = packed;
}

// kLanes: lanes per head, the power of two at or above head_dim / 8.
template <int kLanes>
__global__ void __maxnreg__(40) rope_kv_kernel(RopeKv args, StepArrays step) {
  __shared__ float cos_of[kMaxHalf];
  __shared__ float sin_of[kMaxHalf];
  let_next_start();

  const int row = static_cast<int>(blockIdx.x);
  const int head_dim = args.pages.head_dim;
  const int half = head_dim / 2;
  const bool real = row < step.counts->num_rows;
  int64_t page_offset = 0;
  int slot = 0;
  if (real) {
    const int position = step.positions[row];
    const int block =
        step.spans[step.row_span[row]].block_table_begin + position / KvPages::kBlockTokens;
    page_offset = step.block_tables[block] * args.pages.page_bytes / int64_t{sizeof(__nv_bfloat16)};
    slot = position % KvPages::kBlockTokens;
    for (int i = static_cast<int>(threadIdx.x); i < half; i += static_cast<int>(blockDim.x)) {
      float sin;
      float cos;
      sincosf(__fmul_rn(static_cast<float>(position), args.inv_freq[i]), &sin, &cos);
      cos_of[i] = cos * args.magnitude;
      sin_of[i] = sin * args.magnitude;
    }
  }
  __syncthreads();
  wait_for_previous();
  if (!real) return;

  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const int i = lane * kVector;
  const bool active = i < half;
  const int num_kv_heads = args.pages.num_kv_heads;
  const int heads = args.num_heads + 2 * num_kv_heads;
  const int64_t row_begin = int64_t{row} * heads * head_dim;
  __nv_bfloat16* qkv = args.qkv + row_begin;

  // All lanes of a warp stay for the shuffles of the norm: the bound is the warp's first head.
  const int groups = static_cast<int>(blockDim.x) / kLanes;
  const int group = static_cast<int>(threadIdx.x) / kLanes;
  const int first_of_warp = static_cast<int>(threadIdx.x) / 32 * 32 / kLanes;
  for (int base = 0; base + first_of_warp < heads; base += groups) {
    const int head = base + group;
    const bool here = active && head < heads;
    const bool is_q = head < args.num_heads;
    const bool is_v = head >= args.num_heads + num_kv_heads;
    __nv_bfloat16* in = qkv + head * head_dim;
    float a[kVector] = {};  // of the first half
    float b[kVector] = {};  // of the second
    if (here && args.split.parts == 0) {
      load4(in + i, a);
      load4(in + i + half, b);
    } else if (here) {
      load_split<kVector>(args.split, row_begin + head * head_dim + i, a);
      load_split<kVector>(args.split, row_begin + head * head_dim + i + half, b);
    }
    const float* gain = is_q ? args.q_gain : args.k_gain;
    if (args.q_gain != nullptr || args.k_gain != nullptr) {
      float sum = 0.0f;
#pragma unroll
      for (int e = 0; e < kVector; ++e) sum += a[e] * a[e] + b[e] * b[e];
#pragma unroll
      for (int step_lanes = kLanes / 2; step_lanes > 0; step_lanes /= 2) {
        sum += __shfl_xor_sync(0xffffffffu, sum, step_lanes);
      }
      if (here && !is_v && gain != nullptr) {
        const float inverse = 1.0f / sqrtf(sum / static_cast<float>(head_dim) + args.eps);
#pragma unroll
        for (int e = 0; e < kVector; ++e) {
          a[e] *= inverse * gain[i + e];
          b[e] *= inverse * gain[i + half + e];
        }
      }
    }
    if (!here) continue;
    if (!is_v) {
#pragma unroll
      for (int e = 0; e < kVector; ++e) {
        const float cos = cos_of[i + e];
        const float sin = sin_of[i + e];
        const float rotated = a[e] * cos - b[e] * sin;
        b[e] = b[e] * cos + a[e] * sin;
        a[e] = rotated;
      }
    }
    __nv_bfloat16* out = in;
    if (is_v) {
      out = args.pages.values(head - args.num_heads - num_kv_heads) + page_offset + slot * head_dim;
    } else if (!is_q) {
      out = args.pages.keys(head - args.num_heads) + page_offset + slot * head_dim;
    }
    store4(out + i, a);
    store4(out + i + half, b);
  }
}

}  // namespace

void rope_and_store_kv(const RopeKv& args, const StepArrays& step, cudaStream_t stream) {
  const int32_t head_dim = args.pages.head_dim;
  if (head_dim % 8 != 0 || head_dim < 8 || head_dim > 2 * kMaxHalf) {
    throw Error("MODEL_UNSUPPORTED", "head_dim " + std::to_string(head_dim) +
                                         " on cuda: multiples of 8 up to 256 are supported");
  }
  if (args.rows == 0) return;
  int lanes = 1;
  while (lanes * 2 * kVector < head_dim) lanes *= 2;
  // Few rows: every head at once, for the shortest way. Many: two turns, for fewer idle threads.
  const int heads = args.num_heads + 2 * args.pages.num_kv_heads;
  const int turns = args.rows <= 256 ? 1 : 2;
  const int threads = std::clamp((heads * lanes / turns + 31) / 32 * 32, 32, 1024);
  const auto launch = [&](auto kernel) {
    const LaunchShape shape{.grid = dim3(static_cast<unsigned>(args.rows)),
                            .block = dim3(static_cast<unsigned>(threads))};
    launch_overlapping("rope_kv", kernel, shape, stream, args, step);
  };
  switch (lanes) {
    case 1:
      return launch(rope_kv_kernel<1>);
    case 2:
      return launch(rope_kv_kernel<2>);
    case 4:
      return launch(rope_kv_kernel<4>);
    case 8:
      return launch(rope_kv_kernel<8>);
    case 16:
      return launch(rope_kv_kernel<16>);
    default:
      return launch(rope_kv_kernel<32>);
  }
}

}  // namespace lorax::cuda
