// One block per site; its threads are segments. A scan hands out room for items and units, part by
// part.
#include "cuda/launch.h"
#include "cuda/lora_items.h"
#include "cuda/lora_lookup.cuh"

namespace lorax::cuda {

void LoraLoad::add(int32_t max_groups, std::span<const int32_t> rows) {
  if (rows.empty()) return;
  const auto count = static_cast<int64_t>(rows.size());
  groups += max_groups;
  units += max_groups * ((count + LoraUnit::kMaxRows - 1) / LoraUnit::kMaxRows);
  row_groups += max_groups * count;
}

namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

struct Counts {
  int32_t items = 0;
  int32_t units = 0;
};

__device__ Counts operator+(Counts a, Counts b) { return {a.items + b.items, a.units + b.units}; }

// Exclusive over the block's threads; `total` is the block's. Two barriers.
__device__ Counts exclusive_scan(Counts mine, Counts& total) {
  __shared__ Counts of_warp[kWarps];
  const int lane = threadIdx.x % 32;
  Counts sum = mine;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const Counts below = {__shfl_up_sync(~0u, sum.items, offset),
                          __shfl_up_sync(~0u, sum.units, offset)};
    if (lane >= offset) sum = sum + below;
  }
  __syncthreads();
  if (lane == 31) of_warp[threadIdx.x / 32] = sum;
  __syncthreads();
  Counts before;
  total = {};
  for (int w = 0; w < kWarps; ++w) {
    if (w == static_cast<int>(threadIdx.x / 32)) before = total;
    total = total + of_warp[w];
  }
  return {before.items + sum.items - mine.items, before.units + sum.units - mine.units};
}

__global__ void __launch_bounds__(kThreads)
    lora_items_kernel(const LoraItemLists lists, const StepArrays step) {
  let_next_start();
  wait_for_previous();
  constexpr int kParts = LoraSiteItems::kMaxParts;
  const LoraSiteModules& site = lists.sites[blockIdx.x];
  const int64_t parts_before = lists.parts_before[blockIdx.x];
  LoraItem* items = lists.items + parts_before * lists.capacity.groups;
  LoraUnit* units = lists.units + parts_before * lists.capacity.units;
  const int32_t max_items = site.num_parts * lists.capacity.groups;
  const int32_t max_units = site.num_parts * lists.capacity.units;
  const int32_t num_segments = step.counts->num_segments;
  const int32_t* rows = step.segment_rows;

  LoraSiteItems& range = lists.ranges[blockIdx.x];
  Counts done;
  for (int part = 0; part < kParts; ++part) {
    if (threadIdx.x == 0) range.part_begin[part] = min(done.items, max_items);
    if (part >= site.num_parts) continue;
    for (int32_t first = 0; first < num_segments; first += kThreads) {
      const int32_t s = first + threadIdx.x;
      DeviceSegment segment;
      AdapterEntry entry;
      if (s < num_segments) {
        segment = step.segments[s];
        if (segment.rows_begin < segment.rows_end) {
          entry = find_entry(segment.adapter, site.layer, site.modules[part]);
        }
      }
      Counts mine;
      int32_t first_block = 0;
      int32_t num_blocks = 0;
      int32_t chunks = 0;
      if (entry.num_groups > 0) {
        first_block = rows[segment.rows_begin] / 8;
        num_blocks = rows[segment.rows_end - 1] / 8 - first_block + 1;
        chunks =
            (segment.rows_end - segment.rows_begin + LoraUnit::kMaxRows - 1) / LoraUnit::kMaxRows;
        mine = {entry.num_groups, entry.num_groups * chunks};
      }
      Counts total;
      Counts at = done + exclusive_scan(mine, total);
      done = done + total;
      for (int32_t group = 0; group < entry.num_groups; ++group) {
        if (at.items >= max_items || at.units + chunks > max_units) break;
        const RankGroup slices = entry.groups[group];
        items[at.items] = {slices.b,         entry.scale, segment.rows_begin,
                           segment.rows_end, first_block, num_blocks,
                           at.units};
        for (int32_t chunk = 0; chunk < chunks; ++chunk) {
          const int32_t begin = segment.rows_begin + chunk * LoraUnit::kMaxRows;
          units[at.units + chunk] = {slices.a, begin,
                                     min(LoraUnit::kMaxRows, segment.rows_end - begin)};
        }
        at = at + Counts{1, chunks};
      }
    }
  }
  if (threadIdx.x == 0) {
    range.part_begin[kParts] = min(done.items, max_items);
    lists.num_units[blockIdx.x] = min(done.units, max_units);
  }
}

}  // namespace

void make_lora_items(const LoraItemLists& lists, const StepArrays& step, cudaStream_t stream) {
  if (lists.num_sites == 0) return;
  const LaunchShape shape{.grid = dim3(lists.num_sites), .block = dim3(kThreads)};
  launch_overlapping("make_lora_items", lora_items_kernel, shape, stream, lists, step);
}

}  // namespace lorax::cuda
