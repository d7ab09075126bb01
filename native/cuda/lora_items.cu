// One block per site; a thread has four places of segment_rows. Scans over the block hand out
// chunks, units and rows, part by part.
#include "cuda/launch.h"
#include "cuda/lora_items.h"
#include "cuda/lora_lookup.cuh"

namespace lorax::cuda {

void LoraLoad::add(int32_t max_groups, std::span<const int32_t> of_segment) {
  const auto count = static_cast<int64_t>(of_segment.size());
  int32_t block = -1;
  for (const int32_t row : of_segment) {
    if (row / LoraChunk::kRows != block) chunks += max_groups;
    block = row / LoraChunk::kRows;
  }
  rows += count;
  slices += max_groups;
  units += max_groups * ((count + LoraUnit::kMaxRows - 1) / LoraUnit::kMaxRows);
  row_groups += max_groups * count;
}

namespace {

constexpr int kMaxPlaces = LoraItemsCapacity::kSegmentRows;
constexpr int kMaxChunks = LoraItemsCapacity::kChunks;
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kPerThread = kMaxPlaces / kThreads;
constexpr int kChunksPerThread = kMaxChunks / kThreads;
constexpr int kPairs = LoraItemsCapacity::kMaxStepRows / LoraChunk::kRows;  // of blocks of 8 rows

// Exclusive over the block's threads, by `combine`; `total` is the block's.
template <typename T, typename Combine>
__device__ T exclusive_scan(T mine, T zero, Combine combine, T& total) {
  __shared__ T of_warp[kWarps];
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  T sum = mine;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const T below = __shfl_up_sync(~0u, sum, offset);
    if (lane >= offset) sum = combine(below, sum);
  }
  const T before_lane = __shfl_up_sync(~0u, sum, 1);
  __syncthreads();
  if (lane == 31) of_warp[warp] = sum;
  __syncthreads();
  T before = zero;
  total = zero;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    if (w == warp) before = total;
    total = combine(total, of_warp[w]);
  }
  return lane == 0 ? before : combine(before, before_lane);
}

template <typename T>
__device__ T exclusive_sum(T mine, T& total) {
  return exclusive_scan(mine, T{}, [](T a, T b) { return a + b; }, total);
}
__device__ int exclusive_max(int mine) {
  int total;
  return exclusive_scan(mine, -1, [](int a, int b) { return max(a, b); }, total);
}

// Numbers of chunks by their rows of x, four of 16 bits a word.
struct ChunkCounts {
  uint64_t words[kPairs / 4] = {};
  __device__ void add(int pair, int chunks) {
#pragma unroll
    for (int w = 0; w < kPairs / 4; ++w) {
      if (w == pair / 4) words[w] += static_cast<uint64_t>(chunks) << pair % 4 * 16;
    }
  }
  __device__ int of(int pair) const {
    int chunks = 0;
#pragma unroll
    for (int w = 0; w < kPairs / 4; ++w) {
      if (w == pair / 4) chunks = static_cast<int>(words[w] >> pair % 4 * 16 & 0xffff);
    }
    return chunks;
  }
  __device__ int before(int pair) const {
    int chunks = 0;
#pragma unroll
    for (int p = 0; p < kPairs; ++p) chunks += p < pair ? of(p) : 0;
    return chunks;
  }
};

// One place of segment_rows.
struct Place {
  int segment = -1;     // none
  int in_segment = 0;   // its number there
  int row = 0;          // of x
  int chunk_start = 0;  // the place that begins its chunk
  AdapterEntry entries[LoraSiteItems::kMaxParts];
  __device__ int pair() const { return row / LoraChunk::kRows; }
};

struct Shared {
  int chunk[kMaxPlaces];     // of a place that begins one: the first rank group's
  int unit[kMaxPlaces];      // likewise
  int num_rows[kMaxChunks];  // of a chunk
  int first_row[kMaxChunks + 1];
};

// Which segment each of this thread's places is in, and where its chunk begins.
__device__ void find_places(const StepArrays& step, Shared& shared, Place (&places)[kPerThread]) {
  const int first = threadIdx.x * kPerThread;
  int* segment_at = shared.chunk;  // that begins at a place
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) segment_at[first + i] = -1;
  __syncthreads();
  for (int s = threadIdx.x; s < step.counts->num_segments; s += kThreads) {
    const DeviceSegment& segment = step.segments[s];
    if (segment.rows_begin < segment.rows_end && segment.rows_begin < kMaxPlaces) {
      segment_at[segment.rows_begin] = s;
    }
  }
  __syncthreads();
  int last = -1;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) last = max(last, segment_at[first + i]);
  int segment = exclusive_max(last);
  int start = -1;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const int at = first + i;
    Place& place = places[i];
    segment = max(segment, segment_at[at]);
    place.chunk_start = -1;
    if (segment < 0) continue;
    const DeviceSegment& found = step.segments[segment];
    if (at >= found.rows_end) continue;
    place.row = step.segment_rows[at];
    if (place.row >= LoraItemsCapacity::kMaxStepRows) continue;
    place.segment = segment;
    place.in_segment = at - found.rows_begin;
    if (place.in_segment == 0 || step.segment_rows[at - 1] / LoraChunk::kRows != place.pair()) {
      start = place.chunk_start = at;
    }
  }
  int before = exclusive_max(start);
  for (Place& place : places) before = place.chunk_start = max(before, place.chunk_start);
}

// What the places' adapters have at the site: of all parts at once, for each takes three trips to
// L2.
__device__ void find_entries(const StepArrays& step, const LoraSiteModules& site,
                             Place (&places)[kPerThread]) {
#pragma unroll
  for (Place& place : places) {
    if (place.segment < 0) continue;
    const AdapterTable* adapter = step.segments[place.segment].adapter;
#pragma unroll
    for (int part = 0; part < LoraSiteItems::kMaxParts; ++part) {
      if (part < site.num_parts) {
        place.entries[part] = find_entry(adapter, site.layer, site.modules[part]);
      }
    }
  }
}

// Where the lists of a site stand.
struct Done {
  int chunks = 0;
  int rows = 0;
  int units = 0;
  int sets = 0;
};

__device__ void write_unit(const StepArrays& step, const Place& place, int at, SliceAddress a,
                           LoraUnit& unit) {
  unit.a = a;
  const int left = step.segments[place.segment].rows_end - at;
  for (int i = 0; i < LoraUnit::kMaxRows; ++i) {
    unit.rows[i] = i < left ? static_cast<uint8_t>(step.segment_rows[at + i]) : LoraUnit::kNoRow;
  }
}

// Appends a part of the site.
__device__ __forceinline__ void add_part(const StepArrays& step, int part,
                                         const Place (&places)[kPerThread], Shared& shared,
                                         const LoraSiteLists& lists, Done& done) {
  const int first = threadIdx.x * kPerThread;
  ChunkCounts chunks;  // of this thread's places, then of those before it
  int units = 0;       // likewise
  for (int i = 0; i < kChunksPerThread; ++i) {
    shared.num_rows[threadIdx.x * kChunksPerThread + i] = 0;
  }
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const Place& place = places[i];
    if (place.segment < 0) continue;
    const int groups = place.entries[part].num_groups;
    if (place.chunk_start == first + i) chunks.add(place.pair(), groups);
    if (place.in_segment % LoraUnit::kMaxRows == 0) units += groups;
  }
  int num_units = 0;
  units = exclusive_sum(units, num_units);
  ChunkCounts all_chunks;
#pragma unroll
  for (int w = 0; w < kPairs / 4; ++w) {
    chunks.words[w] = exclusive_sum(chunks.words[w], all_chunks.words[w]);
  }
  const int num_chunks = min(all_chunks.before(kPairs), kMaxChunks);
  num_units = min(num_units, LoraItemsCapacity::kUnits);
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const Place& place = places[i];
    const int at = first + i;
    if (place.segment < 0) continue;
    const int groups = place.entries[part].num_groups;
    if (place.chunk_start == at) {
      const int chunk = all_chunks.before(place.pair()) + chunks.of(place.pair());
      chunks.add(place.pair(), groups);
      shared.chunk[at] = chunk;
      for (int g = 0; g < groups && chunk + g < kMaxChunks; ++g) {
        lists.chunks[done.chunks + chunk + g] = {place.entries[part].groups[g].b,
                                                 place.pair() * LoraChunk::kRows};
      }
    }
    if (place.in_segment % LoraUnit::kMaxRows == 0) {
      shared.unit[at] = units;
      for (int g = 0; g < groups && units + g < LoraItemsCapacity::kUnits; ++g) {
        write_unit(step, place, at, place.entries[part].groups[g].a,
                   lists.units[done.units + units + g]);
      }
      units += groups;
    }
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    if (places[i].segment < 0) continue;
    const int chunk = shared.chunk[places[i].chunk_start];
    for (int g = 0; g < places[i].entries[part].num_groups && chunk + g < kMaxChunks; ++g) {
      atomicAdd(&shared.num_rows[chunk + g], 1);
    }
  }
  __syncthreads();
  const int first_chunk = threadIdx.x * kChunksPerThread;
  int rows = 0;
  for (int i = 0; i < kChunksPerThread; ++i) rows += shared.num_rows[first_chunk + i];
  int num_rows = 0;
  rows = exclusive_sum(rows, num_rows);
  for (int i = 0; i < kChunksPerThread; ++i) {
    shared.first_row[first_chunk + i] = rows;
    rows += shared.num_rows[first_chunk + i];
  }
  if (threadIdx.x == 0) shared.first_row[kMaxChunks] = num_rows;
  num_rows = min(num_rows, LoraItemsCapacity::kRows);
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const Place& place = places[i];
    const int at = first + i;
    if (place.segment < 0) continue;
    const int in_unit = place.in_segment % LoraUnit::kMaxRows;
    const int unit = shared.unit[at - in_unit];
    const int chunk = shared.chunk[place.chunk_start];
    const float factor = step.segment_weights[at] * place.entries[part].scale;
    for (int g = 0; g < place.entries[part].num_groups && chunk + g < kMaxChunks; ++g) {
      const int row = shared.first_row[chunk + g] + at - place.chunk_start;
      if (row >= LoraItemsCapacity::kRows) continue;
      const bool is_half = place.entries[part].groups[g].a.is_half();
      lists.rows[done.rows + row] = {
          (done.units + unit + g) * LoraUnit::kMaxRows + in_unit,
          (chunk + g) % LoraSet::kMaxChunks * LoraChunk::kRows + place.row % LoraChunk::kRows,
          factor, is_half ? 0.0f : factor};
    }
  }
  const int num_sets = (num_chunks + LoraSet::kMaxChunks - 1) / LoraSet::kMaxChunks;
  for (int s = threadIdx.x; s < num_sets; s += kThreads) {
    const int begin = s * LoraSet::kMaxChunks;
    const int end = min(begin + LoraSet::kMaxChunks, num_chunks);
    LoraSet set;
    set.first_chunk = done.chunks + begin;
    set.num_chunks = static_cast<int16_t>(end - begin);
    set.first_row = done.rows + shared.first_row[begin];
    set.num_rows =
        static_cast<int16_t>(min(shared.first_row[end], num_rows) - shared.first_row[begin]);
    lists.sets[done.sets + s] = set;
  }
  done = {done.chunks + num_chunks, done.rows + num_rows, done.units + num_units,
          done.sets + num_sets};
  __syncthreads();
}

template <typename T>
__device__ void warm(const T* from, int count) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(from);
  const int size = count * static_cast<int>(sizeof(T));
  for (int at = threadIdx.x * 128; at < size; at += kThreads * 128) {
    asm volatile("prefetch.global.L2::evict_last [%0];" ::"l"(bytes + at) : "memory");
  }
}

// The lists of a site that are there already, into the second-level cache: a step's weights have
// gone through it since they were read.
__device__ void warm_lists(const LoraSiteLists& lists) {
  const LoraSiteItems items = *lists.items;
  const int num_sets = items.set_begin[LoraSiteItems::kMaxParts];
  warm(lists.items, 1);
  warm(lists.sets, num_sets);
  warm(lists.units, items.num_units);
  if (num_sets == 0) return;
  const LoraSet last = lists.sets[num_sets - 1];
  warm(lists.chunks, last.first_chunk + last.num_chunks);
  warm(lists.rows, last.first_row + last.num_rows);
}

__global__ void __launch_bounds__(kThreads)
    lora_items_kernel(const LoraItemLists lists, const StepArrays step) {
  let_next_start();
  wait_for_previous();
  if (step.counts->keeps_lists != 0) {
    return warm_lists(lists.of_site(blockIdx.x, lists.parts_before[blockIdx.x]));
  }
  __shared__ Shared shared;
  Place places[kPerThread];
  find_places(step, shared, places);
  const LoraSiteModules& site = lists.sites[blockIdx.x];
  find_entries(step, site, places);
  __syncthreads();

  const LoraSiteLists of_site = lists.of_site(blockIdx.x, lists.parts_before[blockIdx.x]);
  LoraSiteItems items;
  Done done;
#pragma unroll
  for (int part = 0; part < LoraSiteItems::kMaxParts; ++part) {
    items.set_begin[part] = done.sets;
    if (part < site.num_parts) add_part(step, part, places, shared, of_site, done);
  }
  items.set_begin[LoraSiteItems::kMaxParts] = done.sets;
  items.num_units = done.units;
  if (threadIdx.x == 0) *of_site.items = items;
}

}  // namespace

void make_lora_items(const LoraItemLists& lists, const StepArrays& step, cudaStream_t stream) {
  if (lists.num_sites == 0) return;
  const LaunchShape shape{.grid = dim3(lists.num_sites), .block = dim3(kThreads)};
  launch_overlapping("make_lora_items", lora_items_kernel, shape, stream, lists, step);
}

}  // namespace lorax::cuda
