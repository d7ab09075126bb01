// make_lora_rows: one block. Segments are scanned for room in v and for shrink tiles; pairs of
// (16 rows, segment) are counted, placed in any order and then sorted by segment, so that sums have
// one order.
#include "cuda/launch.h"
#include "cuda/lora_rows.h"

namespace lorax::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;

__device__ int64_t block_scan(int64_t mine, int64_t& total) {
  __shared__ int64_t of_warp[kWarps];
  const int lane = threadIdx.x % 32;
  int64_t sum = mine;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const int64_t below = __shfl_up_sync(~0u, sum, offset);
    if (lane >= offset) sum += below;
  }
  __syncthreads();
  if (lane == 31) of_warp[threadIdx.x / 32] = sum;
  __syncthreads();
  int64_t before = 0;
  total = 0;
  for (int w = 0; w < kWarps; ++w) {
    if (w == static_cast<int>(threadIdx.x / 32)) before = total;
    total += of_warp[w];
  }
  return before + sum - mine;
}

__global__ void __launch_bounds__(kThreads)
    lora_rows_kernel(const LoraRowLists lists, const StepArrays step, int32_t rows) {
  // The next kernel starts when this one has ended: those after it read its lists before they wait.
  wait_for_previous();
  if (step.counts->keeps_lists != 0) return;
  extern __shared__ int32_t next[];  // [row tiles]: counts, then the next free pair
  const int32_t num_segments = min(step.counts->num_segments, lists.capacity.segments);
  const int32_t row_tiles = (rows + 15) / 16;
  const int32_t* segment_rows = step.segment_rows;
  const auto is_listed = [&](int32_t num_rows) {
    return num_rows >= lists.from_rows && num_rows < lists.to_rows;
  };

  // Room in v and tiles of the shrink: both in one scan, tiles in the low 24 bits.
  constexpr int kTileBits = 24;
  int64_t done = 0;
  for (int32_t base = 0; base < num_segments; base += kThreads) {
    const int32_t s = base + threadIdx.x;
    int32_t begin = 0;
    int32_t end = 0;
    int64_t room = 0;
    const AdapterTable* adapter = nullptr;
    if (s < num_segments) {
      const DeviceSegment segment = step.segments[s];
      adapter = segment.adapter;
      if (adapter != nullptr) {
        begin = segment.rows_begin;
        end = max(begin, segment.rows_end);
        room = int64_t{adapter->max_groups} * (end - begin);
      }
    }
    const int32_t tiles =
        is_listed(end - begin) ? (end - begin + lists.tile_rows - 1) / lists.tile_rows : 0;
    int64_t total;
    const int64_t at = done + block_scan((room << kTileBits) + tiles, total);
    done += total;
    if (s < num_segments) {
      lists.v_begin[s] = at >> kTileBits;
      // A step larger than the buffers is not shrunk at all beyond them.
      const bool fits = (at >> kTileBits) + room <= lists.capacity.row_groups;
      const auto first_tile = static_cast<int32_t>(at & ((1 << kTileBits) - 1));
      for (int32_t i = 0; i < tiles; ++i) {
        const int32_t before = i * lists.tile_rows;
        lists.tiles[first_tile + i] = {fits ? adapter : nullptr,
                                       s,
                                       i,
                                       begin + before,
                                       min(end - begin - before, lists.tile_rows),
                                       end - begin,
                                       static_cast<int32_t>(at >> kTileBits) + before};
      }
    }
  }
  if (threadIdx.x == 0) {
    *lists.num_tiles = static_cast<int32_t>(done & ((1 << kTileBits) - 1));
  }

  // Heads: the first row of a segment in each 16 rows. A warp takes a segment at a time; where
  // there are few, the block does.
  const int32_t together = num_segments < kWarps ? kThreads : 32;
  const auto for_heads = [&](auto&& take) {
    for (int32_t s = threadIdx.x / together; s < num_segments; s += kThreads / together) {
      const DeviceSegment segment = step.segments[s];
      if (segment.adapter == nullptr || !is_listed(segment.rows_end - segment.rows_begin)) continue;
      for (int32_t i = segment.rows_begin + static_cast<int32_t>(threadIdx.x % together);
           i < segment.rows_end; i += together) {
        const int32_t tile = segment_rows[i] / 16;
        if (i > segment.rows_begin && segment_rows[i - 1] / 16 == tile) continue;
        take(s, segment, i, tile);
      }
    }
  };
  for (int32_t i = threadIdx.x; i < row_tiles; i += kThreads) next[i] = 0;
  __syncthreads();
  for_heads([&](int32_t, const DeviceSegment&, int32_t, int32_t tile) {
    if (tile < row_tiles) atomicAdd(&next[tile], 1);
  });
  __syncthreads();
  int64_t pairs = 0;
  for (int32_t base = 0; base < row_tiles; base += kThreads) {
    const int32_t tile = base + threadIdx.x;
    const int32_t mine = tile < row_tiles ? next[tile] : 0;
    int64_t total;
    const auto at = static_cast<int32_t>(pairs + block_scan(mine, total));
    pairs += total;
    if (tile < row_tiles) lists.pair_begin[tile] = next[tile] = at;
  }
  if (threadIdx.x == 0) lists.pair_begin[row_tiles] = static_cast<int32_t>(pairs);
  __syncthreads();
  for_heads([&](int32_t s, const DeviceSegment& segment, int32_t i, int32_t tile) {
    if (tile >= row_tiles) return;
    uint32_t mask = 0;
    for (int32_t j = i; j < min(i + 16, segment.rows_end); ++j) {
      const int32_t row = segment_rows[j];
      if (row / 16 == tile) mask |= 1u << (row % 16);
    }
    const auto v_row = static_cast<int32_t>(lists.v_begin[s]) + i - segment.rows_begin;
    lists.pairs[atomicAdd(&next[tile], 1)] = {s, mask, v_row,
                                              segment.rows_end - segment.rows_begin};
  });
  __syncthreads();
  for (int32_t tile = threadIdx.x; tile < row_tiles; tile += kThreads) {
    const int32_t begin = lists.pair_begin[tile];
    for (int32_t i = begin + 1; i < next[tile]; ++i) {
      const LoraRowPair pair = lists.pairs[i];
      int32_t at = i;
      for (; at > begin && lists.pairs[at - 1].segment > pair.segment; --at) {
        lists.pairs[at] = lists.pairs[at - 1];
      }
      lists.pairs[at] = pair;
    }
  }
  __threadfence();
}

}  // namespace

void make_lora_rows(const LoraRowLists& lists, const StepArrays& step, int32_t rows,
                    cudaStream_t stream) {
  if (rows == 0) return;
  const LaunchShape shape{.grid = dim3(1),
                          .block = dim3(kThreads),
                          .shared_bytes = static_cast<size_t>((rows + 15) / 16) * 4};
  launch_overlapping("make_lora_rows", lora_rows_kernel, shape, stream, lists, step, rows);
}

}  // namespace lorax::cuda
