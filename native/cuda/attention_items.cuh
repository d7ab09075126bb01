// The work of attention_decode as a list of items, made by every block for itself from the spans:
// (sequence, 8 query heads of one kv head, split of the context).
//
// How a context is split depends on its length and the model alone, so a sequence's numbers do not
// depend on its neighbours. Included by attention_decode.cu only.
#pragma once

#include <algorithm>

#include "cuda/attention_decode.h"

namespace lorax::cuda {

inline constexpr int kPage = KvPages::kBlockTokens;
inline constexpr int kHeads = 8;           // query heads of an item: the N side of the mma
inline constexpr int kMinSplitPages = 16;  // a split is worth its combine from 256 tokens on
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
};

// The pages [first, first + count) a decode at position len - 1 reads, and how they are split.
struct Context {
  int first_page;
  int num_pages;
  int pages_per_split;
  int num_splits;
};

__device__ inline Context context_of(int len, int window, int max_splits) {
  Context context;
  const int lo = window > 0 ? max(0, len - window) : 0;
  context.first_page = lo / kPage;
  context.num_pages = (len - 1) / kPage - context.first_page + 1;
  const int splits = min(max_splits, (context.num_pages + kMinSplitPages - 1) / kMinSplitPages);
  context.pages_per_split = (context.num_pages + splits - 1) / splits;
  context.num_splits = (context.num_pages + context.pages_per_split - 1) / context.pages_per_split;
  return context;
}

// An item as the warps need it; those of a block lie in shared memory, found many at a time.
struct Item {
  int span;
  int row;
  int kv_tile;  // kv_head * head_tiles + head tile
  int kv_head;
  int first_head;
  int num_heads;  // 1..8
  int split;
  int num_splits;
  int begin_page;
  int end_page;
  int lo;  // the row sees positions [lo, len)
  int len;
  int block_table_begin;
};

// items_before[s] = items of spans before s, in shared memory; [max_spans + 1].
__device__ inline int count_items(const DecodeArgs& args, int* items_before) {
  const int num_spans = args.step.counts->num_spans;
  __shared__ int warp_sum[32];
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int num_warps = static_cast<int>(blockDim.x) / 32;
  int total = 0;
  for (int base = 0; base < num_spans; base += static_cast<int>(blockDim.x)) {
    const int s = base + static_cast<int>(threadIdx.x);
    int items = 0;
    if (s < num_spans && args.step.spans[s].num_rows == 1) {
      const int len = args.step.spans[s].first_position + 1;
      items = context_of(len, args.attention.sliding_window, args.max_splits).num_splits *
              args.attention.pages.num_kv_heads * args.head_tiles;
    }
    int sum = items;  // inclusive, within the warp
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
      const int other = __shfl_up_sync(kAllLanes, sum, d);
      if (lane >= d) sum += other;
    }
    if (lane == 31) warp_sum[warp] = sum;
    __syncthreads();
    int before = total;
    for (int w = 0; w < num_warps; ++w) {
      if (w < warp) before += warp_sum[w];
      total += warp_sum[w];
    }
    if (s < num_spans) items_before[s] = before + sum - items;
    __syncthreads();
  }
  if (threadIdx.x == 0) items_before[num_spans] = total;
  __syncthreads();
  return total;
}

__device__ inline Item find_item(const DecodeArgs& args, const int* items_before, int index) {
  int lo = 0;  // items_before[lo] <= index < items_before[hi]
  int hi = args.step.counts->num_spans;
  while (hi - lo > 1) {
    const int mid = (lo + hi) / 2;
    if (items_before[mid] <= index) {
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
  const Context context = context_of(item.len, window, args.max_splits);
  const int within = index - items_before[lo];
  const int tiles = args.attention.pages.num_kv_heads * args.head_tiles;
  item.split = within / tiles;
  item.kv_tile = within % tiles;
  item.kv_head = item.kv_tile / args.head_tiles;
  item.first_head = item.kv_head * args.group + item.kv_tile % args.head_tiles * kHeads;
  item.num_heads = min(kHeads, (item.kv_head + 1) * args.group - item.first_head);
  item.num_splits = context.num_splits;
  item.begin_page = context.first_page + item.split * context.pages_per_split;
  item.end_page =
      min(item.begin_page + context.pages_per_split, context.first_page + context.num_pages);
  item.block_table_begin = span.block_table_begin;
  return item;
}

inline constexpr int kItemsAhead = 32;  // items are found so many at a time

// A warp's pages over the items of its block, in order: those at begin_page + warp + i * kWarps.
// Page numbers are read from the block tables 32 at a time and one such batch ahead: a lookup just
// before the copy would put a second memory latency into the way of every page.
template <int kWarps>
class PageCursor {
 public:
  // `ring` [2 * kItemsAhead] in shared memory; item i lies at i % (2 * kItemsAhead).
  __device__ __forceinline__ PageCursor(const Item* ring, const int32_t* block_tables, int warp,
                                        int lane)
      : ring_(ring), block_tables_(block_tables), warp_(warp), lane_(lane) {}

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
  __device__ __forceinline__ int number() const { return __shfl_sync(kAllLanes, number_, index_); }
  __device__ __forceinline__ void pass() {
    page_ += kWarps;
    ++index_;
    --left_;
  }

 private:
  __device__ __forceinline__ void read_ahead(int limit) {
    ahead_count_ = 0;
    for (; scan_item_ < limit; ++scan_item_, scan_page_ = -1) {
      const Item& item = ring_[scan_item_ % (2 * kItemsAhead)];
      if (scan_page_ < 0) scan_page_ = item.begin_page + warp_;
      if (scan_page_ >= item.end_page) continue;
      ahead_count_ = min(32, (item.end_page - scan_page_ + kWarps - 1) / kWarps);
      ahead_item_ = scan_item_;
      ahead_page_ = scan_page_;
      if (lane_ < ahead_count_) {
        ahead_number_ = block_tables_[item.block_table_begin + scan_page_ + lane_ * kWarps];
      }
      scan_page_ += 32 * kWarps;
      return;
    }
  }

  const Item* ring_;
  const int32_t* block_tables_;
  int warp_;
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
