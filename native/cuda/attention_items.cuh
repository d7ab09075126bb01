// The work of attention_decode as a list of items, made by every block for itself from the spans:
// (sequence, 8 query heads of one kv head, split of the context); and which warps share an item.
//
// How contexts are split and shared depends on all that a step holds: by what keeps every warp
// busy, so a sequence's sums have another order in another batch. Included by attention_decode.cu
// only.
#pragma once

#include <algorithm>

#include "cuda/attention_decode.h"

namespace lorax::cuda {

inline constexpr int kPage = KvPages::kBlockTokens;
inline constexpr int kHeads = 8;  // query heads of an item: the N side of the mma
inline constexpr int kWarpsLog2 = 3;
inline constexpr int kWarps = 1 << kWarpsLog2;  // of a block
inline constexpr int kMinSplitPages = 16;       // a split is worth its combine from 256 tokens on
inline constexpr unsigned kAllLanes = 0xffffffffu;

// Splits of the longest context: enough that one sequence alone keeps every multiprocessor busy.
inline constexpr int kItemsOfOneSequence = 256;

inline int head_tiles_of(int num_heads, int num_kv_heads) {
  return (num_heads / num_kv_heads + kHeads - 1) / kHeads;
}

inline int max_splits_of(int num_heads, int num_kv_heads) {
  return std::clamp(kItemsOfOneSequence / (num_kv_heads * head_tiles_of(num_heads, num_kv_heads)),
                    8, 128);
}

struct DecodeArgs {
  Attention attention;
  StepArrays step;
  float* partial_out;  // [max_spans, num_heads, max_splits, head_dim]
  float2* partial_ml;  // [max_spans, num_heads, max_splits] maximum (of log2 terms) and sum
  int* arrived;        // [max_spans, num_kv_heads * head_tiles]; zero between launches
  int group;           // query heads of a kv head
  int head_tiles;      // of 8 heads, in a group
  int max_splits;
  float per_tile;       // 1 / (num_kv_heads * head_tiles)
  float per_head_tile;  // 1 / head_tiles
};

// The pages [first, first + count) that a decode of a sequence of `len` positions reads, and how
// they are split.
struct Context {
  int first_page;
  int num_pages;
  int pages_per_split;
  int num_splits;
};

__device__ inline int first_page_of(int len, int window) {
  return window > 0 ? max(0, len - window) / kPage : 0;
}

__device__ inline Context context_of(int len, int window, int max_splits, int min_split_pages) {
  Context context;
  context.first_page = first_page_of(len, window);
  context.num_pages = (len - 1) / kPage - context.first_page + 1;
  context.pages_per_split = context.num_pages;
  context.num_splits = 1;
  if (context.num_pages <= min_split_pages) return context;  // spares three divisions
  const int splits = min(max_splits, (context.num_pages + min_split_pages - 1) / min_split_pages);
  context.pages_per_split = (context.num_pages + splits - 1) / splits;
  context.num_splits = (context.num_pages + context.pages_per_split - 1) / context.pages_per_split;
  return context;
}

// All items of the step, in the order of the spans.
struct Items {
  const int* before;  // [num_spans + 1] of spans before s; in shared memory
  int num_spans;
  int count;
  int min_split_pages;
};

// a / b rounded down, from 1 / b: exact for the few items of a span.
__device__ __forceinline__ int divided(int a, float per_b) {
  return static_cast<int>((static_cast<float>(a) + 0.5f) * per_b);
}

// The sum over the block's kWarps warps, and over those before this one, of a value a warp.
struct BlockSum {
  int before = 0;
  int total = 0;
};
__device__ __forceinline__ BlockSum block_sum(int value, int (&value_of)[kWarps]) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  if (threadIdx.x % 32 == 0) value_of[warp] = value;
  __syncthreads();
  BlockSum sum;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    if (w < warp) sum.before += value_of[w];
    sum.total += value_of[w];
  }
  return sum;
}

// By all threads of the block. `before`: [max_spans + 1].
__device__ inline Items count_items(const DecodeArgs& args, int* before) {
  __shared__ int of_warp[2][kWarps];
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int threads = static_cast<int>(blockDim.x);
  const int window = args.attention.sliding_window;
  const int tiles = args.attention.pages.num_kv_heads * args.head_tiles;
  const auto len_of = [&](int s) {  // 0: the span is not this kernel's
    const DeviceSpan& span = args.step.spans[s];
    return span.num_rows == 1 ? span.first_position + 1 : 0;
  };
  // The first spans are loaded beside their count, not after it: the array has max_spans entries,
  // if only num_spans mean something.
  const int first_len = thread < args.attention.max_spans ? len_of(thread) : 0;
  const int num_spans = args.step.counts->num_spans;

  // What is no longer than a warp's part of the whole needs no splitting.
  int pages = 0;
#pragma unroll 1
  for (int s = thread; s < num_spans; s += threads) {
    const int len = s == thread ? first_len : len_of(s);
    if (len > 0) pages += (len - 1) / kPage - first_page_of(len, window) + 1;
  }
  pages = block_sum(__reduce_add_sync(kAllLanes, pages), of_warp[0]).total;
  const float part =
      __fdividef(static_cast<float>(pages * tiles), static_cast<float>(gridDim.x * kWarps));
  Items items;
  items.before = before;
  items.num_spans = num_spans;
  items.count = 0;
  items.min_split_pages = max(kMinSplitPages, static_cast<int>(ceilf(part)));

#pragma unroll 1
  for (int base = 0; base < num_spans; base += threads) {
    const int s = base + thread;
    int count = 0;
    if (s < num_spans) {
      const int len = base == 0 ? first_len : len_of(s);
      if (len > 0) {
        count = context_of(len, window, args.max_splits, items.min_split_pages).num_splits * tiles;
      }
    }
    int in_warp = count;  // up to this lane
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
      const int other = __shfl_up_sync(kAllLanes, in_warp, d);
      if (lane >= d) in_warp += other;
    }
    if (base > 0) __syncthreads();
    const BlockSum sum = block_sum(__shfl_sync(kAllLanes, in_warp, 31), of_warp[1]);
    if (s < num_spans) before[s] = items.count + sum.before + in_warp - count;
    items.count += sum.total;
  }
  if (thread == 0) before[num_spans] = items.count;
  __syncthreads();
  return items;
}

// An item as one of its warps needs it.
struct Item {
  int span;
  int row;
  int kv_tile;  // kv_head * head_tiles + head tile
  int kv_head;
  int first_head;
  int num_heads;  // 1..8
  int split;
  int num_splits;
  int width;       // warps that share the item: a power of two, from a multiple of itself on
  int first_page;  // this warp takes first_page + i * width < end_page, perhaps none
  int end_page;
  int stored_pages;  // the context's first that no kernel of this step writes to
  int lo;            // the row sees positions [lo, len)
  int len;
  int block_table_begin;
};

// The items of a block. As long as there are as many as warps, each warp takes one; what is left
// over is shared, four by pairs, two by fours, one by all eight: every warp has its part of all but
// the last few pages.
class BlockItems {
 public:
  explicit __device__ __forceinline__ BlockItems(const Items& all) : all_(all) {
    const int grid = static_cast<int>(gridDim.x);
    const int block = static_cast<int>(blockIdx.x);
    count_ = all.count > block ? (all.count - block + grid - 1) / grid : 0;
  }

  // Of each warp, in the order in which it takes them.
  __device__ __forceinline__ int per_warp() const {
    return count_ / kWarps + __popc(count_ % kWarps);
  }

  // Number `turn` < per_warp() of warp `warp`.
  __device__ Item find(const DecodeArgs& args, int warp, int turn) const {
    int at_once_log2 = kWarpsLog2;
    const int full_turns = count_ >> at_once_log2;
    int begin = turn << at_once_log2;
    if (turn >= full_turns) {
      begin = full_turns << at_once_log2;
      const int rest = count_ - begin;
#pragma unroll 1
      for (int left = turn - full_turns; --at_once_log2 > 0;) {
        if ((rest >> at_once_log2 & 1) == 0) continue;
        if (left-- == 0) break;
        begin += 1 << at_once_log2;
      }
    }
    const int width_log2 = kWarpsLog2 - at_once_log2;
    const int item = begin + (warp >> width_log2);
    const int index = static_cast<int>(blockIdx.x) + item * static_cast<int>(gridDim.x);
    return find(args, index, warp, 1 << width_log2);
  }

 private:
  __device__ Item find(const DecodeArgs& args, int index, int warp, int width) const {
    int lo = 0;  // before[lo] <= index < before[hi]
    int hi = all_.num_spans;
#pragma unroll 1
    while (hi - lo > 1) {
      const int mid = (lo + hi) / 2;
      if (all_.before[mid] <= index) {
        lo = mid;
      } else {
        hi = mid;
      }
    }
    const DeviceSpan& span = args.step.spans[lo];
    Item item;
    item.span = lo;
    item.row = span.first_row;
    item.len = span.first_position + 1;
    const int window = args.attention.sliding_window;
    item.lo = window > 0 ? max(0, item.len - window) : 0;
    const Context context = context_of(item.len, window, args.max_splits, all_.min_split_pages);
    const int within = index - all_.before[lo];
    item.split = divided(within, args.per_tile);
    item.kv_tile = within - item.split * (args.attention.pages.num_kv_heads * args.head_tiles);
    item.kv_head = divided(item.kv_tile, args.per_head_tile);
    item.first_head =
        item.kv_head * args.group + (item.kv_tile - item.kv_head * args.head_tiles) * kHeads;
    item.num_heads = min(kHeads, (item.kv_head + 1) * args.group - item.first_head);
    item.num_splits = context.num_splits;
    const int begin_page = context.first_page + item.split * context.pages_per_split;
    item.width = width;
    item.first_page = begin_page + (warp & (width - 1));
    item.end_page =
        min(begin_page + context.pages_per_split, context.first_page + context.num_pages);
    item.stored_pages = span.num_stored / kPage;
    item.block_table_begin = span.block_table_begin;
    return item;
  }

  Items all_;
  int count_;  // of the block: every gridDim.x-th of all
};

inline constexpr int kItemsAhead = 8;  // a warp finds its items so many at a time

// A warp's pages over its items, in order. Page numbers are read from the block tables up to 32 at
// a time and one such batch ahead: a lookup just before the copy would put a second memory latency
// into the way of every page.
class PageCursor {
 public:
  // `ring` [2 * kItemsAhead] in shared memory; the warp's item i lies at i % (2 * kItemsAhead).
  __device__ __forceinline__ PageCursor(const Item* ring, const int32_t* block_tables, int lane)
      : ring_(ring), block_tables_(block_tables), lane_(lane) {}

  // Whether there is a page in the items before `limit`.
  __device__ __forceinline__ bool find(int limit) {
    if (left_ > 0) return true;
    if (ahead_count_ == 0) read_ahead(limit);
    if (ahead_count_ == 0) return false;
    item_ = ahead_item_;
    page_ = ahead_page_;
    left_ = ahead_count_;
    number_ = ahead_number_;
    index_ = 0;
    read_ahead(limit);
    return true;
  }

  // Of the page found: its item, its place in the context, its number in the pool.
  __device__ __forceinline__ const Item& item() const { return ring_[item_ % (2 * kItemsAhead)]; }
  __device__ __forceinline__ int page() const { return page_; }
  __device__ __forceinline__ int tokens() const { return min(kPage, item().len - page_ * kPage); }
  __device__ __forceinline__ int number() const { return __shfl_sync(kAllLanes, number_, index_); }
  __device__ __forceinline__ void pass() {
    page_ += item().width;
    ++index_;
    --left_;
  }

 private:
  __device__ __forceinline__ void read_ahead(int limit) {
    ahead_count_ = 0;
    for (; scan_item_ < limit; ++scan_item_, scan_page_ = -1) {
      const Item& item = ring_[scan_item_ % (2 * kItemsAhead)];
      if (scan_page_ < 0) scan_page_ = item.first_page;
      if (scan_page_ >= item.end_page) continue;
      const int width_log2 = __ffs(item.width) - 1;
      ahead_count_ = min(32, ((item.end_page - scan_page_ - 1) >> width_log2) + 1);
      ahead_item_ = scan_item_;
      ahead_page_ = scan_page_;
      if (lane_ < ahead_count_) {
        ahead_number_ = block_tables_[item.block_table_begin + scan_page_ + (lane_ << width_log2)];
      }
      scan_page_ += 32 << width_log2;
      return;
    }
  }

  const Item* ring_;
  const int32_t* block_tables_;
  int lane_;
  int item_ = 0;
  int page_ = 0;
  int left_ = 0;    // pages of the batch that were not passed
  int index_ = 0;   // in the batch
  int number_ = 0;  // lane i: that of page i of the batch
  int ahead_item_ = 0;
  int ahead_page_ = 0;
  int ahead_count_ = 0;
  int ahead_number_ = 0;
  int scan_item_ = 0;   // where the batch after those begins
  int scan_page_ = -1;  // -1: with the item
};

}  // namespace lorax::cuda
