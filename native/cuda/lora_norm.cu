// lora_add_rms_norm: a block has 8 whole rows at a time, its warps strips of 32 columns of them.
//
// Where rows are short enough a block goes on to further rows: the sums stay in registers, and each
// strip's place in shared memory is filled for the next rows as soon as it is read. Otherwise the
// new residual is stored and, once the rows' sums are known, read back from the cache.
#include <algorithm>

#include "cuda/device_shape.h"
#include "cuda/launch.h"
#include "cuda/lora_async.cuh"
#include "cuda/lora_row_delta.cuh"
#include "cuda/lora_rows.h"

namespace lorax::cuda {
namespace {

constexpr int kWarps = 16;
constexpr int kThreads = kWarps * 32;
constexpr int kRows = 8;       // 16 read B half as often, and were slower
constexpr int kMeetings = 16;  // looked up ahead

// Of 8 rows.
struct Meetings {
  int32_t begin = 0;  // of their pairs
  int32_t end = 0;
  int32_t known = 0;  // of `of`: those of the first kMeetings pairs that these rows are in
  Meeting of[kMeetings];

  __device__ bool any() const { return known > 0 || end > begin + kMeetings; }
  // One rank group for all rows.
  __device__ bool single() const {
    return known == 1 && of[0].slices.num_groups == 1 && end <= begin + kMeetings;
  }
};

// By a warp, in steps so that work can lie between them: each waits for what the one before loads.
class LookUp {
 public:
  __device__ __forceinline__ void find_pairs(const LoraRowLists& lists, int32_t rows_index) {
    const int32_t* from = lists.pair_begin + rows_index * kRows / kTileRows;
    range_ = make_int2(from[0], from[1]);
    first_row_ = rows_index * kRows % kTileRows;
  }
  __device__ __forceinline__ void load_pair(const LoraRowLists& lists) {
    here_ = lane() < kMeetings && range_.x + lane() < range_.y;
    if (here_) meeting_.pair = load_pair_at(lists, range_.x + lane());
  }
  __device__ __forceinline__ void load_slices(const LoraRowLists& lists) {
    if (here_) meeting_.slices = cuda::load_slices(lists, meeting_.pair.segment, 0);
  }
  __device__ __forceinline__ void store(Meetings& out) const {
    const bool here =
        here_ && (meeting_.pair.mask >> first_row_ & 0xffu) != 0 && meeting_.slices.num_groups > 0;
    const uint32_t all = __ballot_sync(~0u, here);
    if (here) out.of[__popc(all & ((1u << lane()) - 1))] = meeting_;
    if (lane() == 0) out.begin = range_.x, out.end = range_.y, out.known = __popc(all);
  }

 private:
  static __device__ __forceinline__ int lane() { return threadIdx.x % 32; }

  int2 range_;
  int first_row_ = 0;
  bool here_ = false;
  Meeting meeting_;
};

__device__ __forceinline__ void look_up_rows(const LoraRowLists& lists, int32_t rows_index,
                                             Meetings& out) {
  LookUp look_up;
  look_up.find_pairs(lists, rows_index);
  look_up.load_pair(lists);
  look_up.load_slices(lists);
  look_up.store(out);
}

// The deltas of one strip on this lane's row and eight columns.
__device__ __forceinline__ void add_deltas(const LoraRowLists& lists, const Meetings& meetings,
                                           int first_row, int32_t first_column, int32_t hidden,
                                           float (&sum)[8]) {
  const int row = first_row + static_cast<int>(threadIdx.x % 32 / 4);
  float delta[4][4] = {};
  const auto add = [&](const Meeting& meeting) {
    for (int32_t group = 0; group < meeting.slices.num_groups; ++group) {
      uint2 b[4];
      load_b(group == 0 ? meeting.slices.first_b : meeting.slices.groups[group].b, first_column,
             hidden, b);
      add_delta(load_v(lists.v, meeting.pair, group, row), make_uint2(0, 0), b, delta);
    }
  };
  for (int32_t m = 0; m < meetings.known; ++m) add(meetings.of[m]);
  for (int32_t i = meetings.begin + kMeetings; i < meetings.end; ++i) {
    const Meeting meeting = look_up(lists, i, 0);
    if ((meeting.pair.mask >> first_row & 0xffu) != 0) add(meeting);
  }
#pragma unroll
  for (int c = 0; c < 8; ++c) sum[c] += delta[c / 2][c % 2];
}

__device__ __forceinline__ float factor_of(const float (&of_warp)[kWarps][kRows], int row,
                                           const LoraNormArguments& args) {
  float total = 0.0f;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) total += of_warp[w][row];
  return 1.0f / sqrtf(total / static_cast<float>(args.hidden) + args.eps);
}

// ---- sums in registers ----

constexpr int kResidualBytes = kRows * kStripColumns * 4;  // of a strip
constexpr int kDeltaBytes = kRows * kStripColumns * 2;
constexpr int kStripBytes = kResidualBytes + kDeltaBytes;

// Lanes 2 i and 2 i + 1 have 16 bytes each of two pieces of 32: after the swap, of one.
__device__ __forceinline__ void swap_with_neighbour(float (&x)[8]) {
  const bool odd = threadIdx.x % 2 == 1;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float theirs = __shfl_xor_sync(~0u, odd ? x[i] : x[4 + i], 1);
    x[i] = odd ? theirs : x[i];
    x[4 + i] = odd ? x[4 + i] : theirs;
  }
}

// kStrips: of a warp; hidden <= kStrips * kWarps * 32, a multiple of 8.
template <int kStrips>
__global__ void __launch_bounds__(kThreads, 1)
    lora_norm_in_registers(const __grid_constant__ LoraRowLists lists,
                           const __grid_constant__ LoraNormArguments args) {
  extern __shared__ __align__(128) uint8_t shared[];  // [kStrips][kWarps][kStripBytes]
  __shared__ float of_warp[2][kWarps][kRows];
  __shared__ Meetings meetings[2];
  let_next_start();
  wait_for_previous();
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int g = lane / 4;
  const int t = lane % 4;
  const int32_t count = (args.rows + kRows - 1) / kRows;
  const auto first_column = [&](int s) { return (s * kWarps + warp) * kStripColumns; };
  // This lane's residual, two pieces of 16 bytes, and delta, one.
  const auto slot = [&](int s) { return shared + (s * kWarps + warp) * kStripBytes; };
  const auto residual_at = [&](int row, int piece) { return row * 128 + (piece ^ (row % 2)) * 16; };
  const auto fetch = [&](int s, int32_t index) {
    if (index < count) {
      // Whole rows of 128 bytes of the residual: other lanes read what this one copies.
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int row = lane / 8 + 4 * i;
        const int32_t at = index * kRows + row;
        const int32_t column = first_column(s) + lane % 8 * 4;
        if (at < args.rows && column < args.hidden) {
          copy_async(slot(s) + residual_at(row, lane % 8),
                     args.residual + int64_t{at} * args.hidden + column);
        }
      }
      const int32_t at = index * kRows + g;
      const int32_t column = first_column(s) + t * 8;
      if (at < args.rows && column < args.hidden) {
        copy_async(slot(s) + kResidualBytes + lane * 16,
                   args.delta + int64_t{at} * args.hidden + column);
      }
    }
    commit_copies();
  };

  int32_t index = blockIdx.x;
#pragma unroll
  for (int s = 0; s < kStrips; ++s) fetch(s, index);
  if (warp == 0) look_up_rows(lists, index, meetings[0]);
  __syncthreads();
  for (int turn = 0; index < count; turn ^= 1, index += gridDim.x) {
    const int32_t next = index + gridDim.x;
    const int32_t row = index * kRows + g;
    float x[kStrips][8];
    const Meetings& met = meetings[turn];
    const bool single = met.single();
    if (met.any() && !single) {  // added to the residual where it lies, with few registers
      wait_for_copies<0>();
      __syncwarp();
#pragma unroll 1
      for (int s = 0; s < kStrips; ++s) {
        float4* const pieces[2] = {reinterpret_cast<float4*>(slot(s) + residual_at(g, 2 * t)),
                                   reinterpret_cast<float4*>(slot(s) + residual_at(g, 2 * t + 1))};
        const float4 low = *pieces[0], high = *pieces[1];
        float sums[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
        add_deltas(lists, met, index * kRows % kTileRows, first_column(s), args.hidden, sums);
        *pieces[0] = make_float4(sums[0], sums[1], sums[2], sums[3]);
        *pieces[1] = make_float4(sums[4], sums[5], sums[6], sums[7]);
      }
    }
    uint2 v = make_uint2(0, 0);
    if (single) v = load_v(lists.v, met.of[0].pair, 0, index * kRows % kTileRows + g);
    LookUp look_up;
    const bool looks_up = warp == 0 && next < count;
    float sum = 0.0f;
#pragma unroll
    for (int s = 0; s < kStrips; ++s) {
      uint2 b[4];
      if (single) load_b(met.of[0].slices.first_b, first_column(s), args.hidden, b);
      if (looks_up) {
        if (s == 0) look_up.find_pairs(lists, next);
        if (s == 1) look_up.load_pair(lists);
        if (s == 2) look_up.load_slices(lists);
        if (s == 3) look_up.store(meetings[turn ^ 1]);
      }
      wait_for_copies<kStrips - 1>();
      __syncwarp();
      const int32_t column = first_column(s) + t * 8;
      const bool valid = row < args.rows && column < args.hidden;
#pragma unroll
      for (int c = 0; c < 8; ++c) x[s][c] = 0.0f;
      if (valid) {
        const uint4 delta = *reinterpret_cast<const uint4*>(slot(s) + kResidualBytes + lane * 16);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const float4 old = *reinterpret_cast<const float4*>(slot(s) + residual_at(g, 2 * t + i));
          x[s][4 * i] = old.x + eight_at(delta, 4 * i);
          x[s][4 * i + 1] = old.y + eight_at(delta, 4 * i + 1);
          x[s][4 * i + 2] = old.z + eight_at(delta, 4 * i + 2);
          x[s][4 * i + 3] = old.w + eight_at(delta, 4 * i + 3);
        }
      }
      __syncwarp();
      fetch(s, next);
      if (single) {
        float delta[4][4] = {};
        add_delta(v, make_uint2(0, 0), b, delta);
#pragma unroll
        for (int c = 0; c < 8; ++c) x[s][c] += delta[c / 2][c % 2];
      }
#pragma unroll
      for (int c = 0; c < 8; ++c) sum += x[s][c] * x[s][c];
      // 32 bytes of two lanes at a time.
      float out[8];
#pragma unroll
      for (int c = 0; c < 8; ++c) out[c] = x[s][c];
      swap_with_neighbour(out);
      const int32_t pair = column - t % 2 * 8;  // both lanes' first column
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int32_t to = pair + 8 * i + t % 2 * 4;
        if (row < args.rows && to < args.hidden) {
          *reinterpret_cast<float4*>(args.residual + int64_t{row} * args.hidden + to) =
              make_float4(out[4 * i], out[4 * i + 1], out[4 * i + 2], out[4 * i + 3]);
        }
      }
    }
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    if (t == 0) of_warp[turn][warp][g] = sum;
    // The next turn writes the other halves of of_warp and meetings.
    __syncthreads();
    const float factor = factor_of(of_warp[turn], g, args);
#pragma unroll
    for (int s = 0; s < kStrips; ++s) {
      const int32_t column = first_column(s) + t * 8;
      if (row >= args.rows || column >= args.hidden) continue;
      const float4 low = __ldg(reinterpret_cast<const float4*>(args.gain + column));
      const float4 high = __ldg(reinterpret_cast<const float4*>(args.gain + column) + 1);
      const float gain[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
      for (int c = 0; c < 8; ++c) x[s][c] = x[s][c] * factor * gain[c];
      store_eight<true>(x[s], 8, args.y + int64_t{row} * args.hidden + column);
    }
  }
}

// ---- sums read back ----

struct Place {  // of a lane in its row
  int64_t at = 0;
  int32_t column = 0;
  int32_t valid = 0;  // columns from there on that exist; <= 0: none, or no such row
};

template <bool kAligned>
__device__ __forceinline__ void load_floats(const float* from, int32_t valid, float (&out)[8]) {
  if constexpr (kAligned) {
    const float4 low = reinterpret_cast<const float4*>(from)[0];
    const float4 high = reinterpret_cast<const float4*>(from)[1];
    out[0] = low.x, out[1] = low.y, out[2] = low.z, out[3] = low.w;
    out[4] = high.x, out[5] = high.y, out[6] = high.z, out[7] = high.w;
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) out[i] = i < valid ? from[i] : 0.0f;
  }
}

template <bool kAligned>
__device__ __forceinline__ void store_floats(const float (&x)[8], int32_t valid, float* to) {
  if constexpr (kAligned) {
    reinterpret_cast<float4*>(to)[0] = make_float4(x[0], x[1], x[2], x[3]);
    reinterpret_cast<float4*>(to)[1] = make_float4(x[4], x[5], x[6], x[7]);
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (i < valid) to[i] = x[i];
    }
  }
}

template <bool kAligned>
__global__ void __launch_bounds__(kThreads, 2)
    lora_norm_in_memory(const __grid_constant__ LoraRowLists lists,
                        const __grid_constant__ LoraNormArguments args) {
  __shared__ float of_warp[kWarps][kRows];
  __shared__ Meetings meetings;
  let_next_start();
  wait_for_previous();
  const int warp = threadIdx.x / 32;
  const int g = threadIdx.x % 32 / 4;
  const int t = threadIdx.x % 4;
  const int32_t strips = (args.hidden + kStripColumns - 1) / kStripColumns;
  const auto place = [&](int32_t strip) {
    const int32_t row = blockIdx.x * kRows + g;
    const int32_t column = strip * kStripColumns + t * 8;
    return Place{int64_t{row} * args.hidden + column, column,
                 row < args.rows ? args.hidden - column : 0};
  };
  if (warp == 0) look_up_rows(lists, blockIdx.x, meetings);
  __syncthreads();
  const bool any = meetings.any();

  float sum = 0.0f;
  for (int32_t strip = warp; strip < strips; strip += kWarps) {
    const Place p = place(strip);
    float x[8] = {};
    uint4 delta = make_uint4(0, 0, 0, 0);
    if (p.valid > 0) {
      load_floats<kAligned>(args.residual + p.at, p.valid, x);
      delta = load_eight<kAligned>(args.delta + p.at, p.valid);
    }
#pragma unroll
    for (int c = 0; c < 8; ++c) x[c] += eight_at(delta, c);
    if (any) {
      add_deltas(lists, meetings, blockIdx.x * kRows % kTileRows, strip * kStripColumns,
                 args.hidden, x);
    }
    if (p.valid > 0) store_floats<kAligned>(x, p.valid, args.residual + p.at);
#pragma unroll
    for (int c = 0; c < 8; ++c) sum += c < p.valid ? x[c] * x[c] : 0.0f;
  }
  sum += __shfl_xor_sync(~0u, sum, 1);
  sum += __shfl_xor_sync(~0u, sum, 2);
  if (t == 0) of_warp[warp][g] = sum;
  __syncthreads();
  const float factor = factor_of(of_warp, g, args);
  // Each thread reads back what it wrote itself.
  for (int32_t strip = warp; strip < strips; strip += kWarps) {
    const Place p = place(strip);
    if (p.valid <= 0) continue;
    float x[8], gain[8];
    load_floats<kAligned>(args.residual + p.at, p.valid, x);
    load_floats<kAligned>(args.gain + p.column, p.valid, gain);
#pragma unroll
    for (int c = 0; c < 8; ++c) x[c] = x[c] * factor * gain[c];
    store_eight<kAligned>(x, p.valid, args.y + p.at);
  }
}

template <int kStrips>
void launch_in_registers(const LoraRowLists& lists, const LoraNormArguments& args,
                         int32_t multiprocessors, cudaStream_t stream) {
  constexpr int kSharedBytes = kStrips * kWarps * kStripBytes;
  const auto kernel = lora_norm_in_registers<kStrips>;
  LORAX_CUDA(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes));
  const int32_t count = (args.rows + kRows - 1) / kRows;
  const LaunchShape shape{.grid = dim3(std::min(count, multiprocessors)),
                          .block = dim3(kThreads),
                          .shared_bytes = kSharedBytes};
  launch_overlapping("lora_add_rms_norm", kernel, shape, stream, lists, args);
}

}  // namespace

void lora_add_rms_norm(const LoraRowLists& lists, const LoraNormArguments& args,
                       cudaStream_t stream) {
  if (args.rows == 0) return;
  const DeviceShape device = device_shape();
  const bool aligned = args.hidden % 8 == 0;
  // 24 KB of shared memory a strip: what devices from sm_90 on have.
  if (device.major >= 9 && aligned && args.hidden <= 8 * kWarps * kStripColumns) {
    return args.hidden <= 4 * kWarps * kStripColumns
               ? launch_in_registers<4>(lists, args, device.multiprocessors, stream)
               : launch_in_registers<8>(lists, args, device.multiprocessors, stream);
  }
  const LaunchShape shape{.grid = dim3((args.rows + kRows - 1) / kRows), .block = dim3(kThreads)};
  const auto kernel = aligned ? lora_norm_in_memory<true> : lora_norm_in_memory<false>;
  launch_overlapping("lora_add_rms_norm", kernel, shape, stream, lists, args);
}

}  // namespace lorax::cuda
