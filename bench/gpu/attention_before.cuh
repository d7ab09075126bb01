// attention_decode as it was before its warps took items of their own: for attention_bench --decode
// alone, until the two have been compared.
#pragma once

#include "cuda/attention_decode.h"

// Attention of decode rows: sequences with one row in the step, over their pages.
//
// A sequence's output depends on its own length alone, not on its neighbours or the grid: long
// contexts are split by a rule of the length, and the parts are summed in order by whoever comes
// last. Graph-capturable: the grid is fixed by max_spans, all lengths come from the device.

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/kv_pages.h"
#include "cuda/step_arrays.h"

namespace lorax::cuda::before {

struct Attention {
  const __nv_bfloat16* qkv = nullptr;  // [rows, (num_heads + 2 num_kv_heads) * head_dim]
  __nv_bfloat16* out = nullptr;        // [rows, num_heads * head_dim]
  int32_t rows = 0;                    // of the bucket or step
  int32_t max_spans = 0;               // counts->num_spans never exceeds it; <= rows
  int32_t num_heads = 0;
  KvPages pages;
  float scale = 0.0f;          // on q k^T
  int32_t sliding_window = 0;  // 0 = all; else position p sees (p - window, p]
  float soft_cap = 0.0f;       // 0 = none; else score = cap * tanh(scale q k^T / cap)
  int32_t prefill_from = 2;    // spans of so many rows or more are attention_prefill's
  // Told by attention_decode when its part of `out` is complete (ready.cuh); may be null.
  uint32_t* ready = nullptr;
};

// Device memory attention_decode needs, zeroed once by its owner; steps of one stream may share it.
int64_t attention_decode_workspace_bytes(int32_t max_spans, int32_t num_heads, int32_t num_kv_heads,
                                         int32_t head_dim);

// out[row] = softmax(scale q k^T) v for the rows of spans with num_rows == 1; other rows of `out`
// are left alone. The row's own k and v are in its pages already. KV of earlier steps is read
// before the kernel launched just before has ended: that may be rope_and_store_kv, and nothing else
// may write pages in between. Returns its number of arrivals at args.ready.
uint32_t attention_decode(const Attention& args, const StepArrays& step, void* workspace,
                          cudaStream_t stream);

// Throws MODEL_UNSUPPORTED unless both attention kernels are compiled for `head_dim`.

}  // namespace lorax::cuda::before
// The work of attention_decode as a list of items, made by every block for itself from the spans:
// (sequence, 8 query heads of one kv head, split of the context).
//
// How a context is split depends on its length and the model alone, so a sequence's numbers do not
// depend on its neighbours. Included by attention_decode.cu only.

#include <algorithm>

namespace lorax::cuda::before {

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

}  // namespace lorax::cuda::before
// A page's way from global memory to mma operands: K or V of one kv head and page is contiguous,
// one bulk copy into a slot of the warp's in shared memory, and from there 16 bytes a lane into
// registers.
//
// Before sm_90 the lanes copy with cp.async instead, and a wait is for all copies under way.
// Included by attention_decode.cu only.

#include <cuda_bf16.h>

#include <cstdint>

namespace lorax::cuda::before {

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

#if __CUDA_ARCH__ >= 900
// One lane: `bytes` into a slot, counted by the slot's barrier.
__device__ __forceinline__ void bulk_copy(void* to, const void* from, int bytes,
                                          uint64_t* barrier) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
      "r"(bytes)
      : "memory");
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(barrier))
      : "memory");
}

__device__ __forceinline__ void wait_for_barrier(uint64_t* barrier, int phase) {
  asm volatile(
      "{\n .reg .pred done;\n again:\n"
      " mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      " @!done bra again;\n}" ::"r"(shared_address(barrier)),
      "r"(phase)
      : "memory");
}
#endif

// The slots of one warp: kStages pages, K and V apart. Fills and takes go round in the order K, V.
template <int kDim>
struct Slots {
  static constexpr int kBytes = kPage * kDim * 2;  // of K or V of one page
  static constexpr int kStages = kDim >= 128 ? 1 : kDim >= 64 ? 2 : 4;

  __nv_bfloat16* base;  // [kStages][k|v][16][kDim]
  uint64_t* barriers;   // [kStages][k|v]

  __device__ __forceinline__ __nv_bfloat16* slot(int stage, int v) const {
    return base + (stage * 2 + v) * (kPage * kDim);
  }

  __device__ __forceinline__ void fill(int stage, int v, const __nv_bfloat16* from,
                                       int lane) const {
#if __CUDA_ARCH__ >= 900
    if (lane == 0) bulk_copy(slot(stage, v), from, kBytes, &barriers[stage * 2 + v]);
#else
    for (int i = lane; i < kBytes / 16; i += 32) {
      asm volatile(
          "cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(slot(stage, v) + i * 8)),
          "l"(from + i * 8)
          : "memory");
    }
#endif
  }

  // Until fill number `turn` (of this stage's K or V) is there.
  __device__ __forceinline__ void wait(int stage, int v, int turn) const {
#if __CUDA_ARCH__ >= 900
    wait_for_barrier(&barriers[stage * 2 + v], turn & 1);
#else
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncwarp();
#endif
  }
};

template <int kBytes>
__device__ __forceinline__ void load_shared(const __nv_bfloat16* p, uint32_t* r) {
  if constexpr (kBytes == 16) {
    const uint4 x = *reinterpret_cast<const uint4*>(p);
    r[0] = x.x, r[1] = x.y, r[2] = x.z, r[3] = x.w;
  } else if constexpr (kBytes == 8) {
    const uint2 x = *reinterpret_cast<const uint2*>(p);
    r[0] = x.x, r[1] = x.y;
  } else {
    r[0] = *reinterpret_cast<const uint32_t*>(p);
  }
}

// What lane (g = lane / 4, q = lane % 4) of a warp holds of one page of one kv head.
template <int kDim>
struct PageTile {
  static constexpr int kChunks = (kDim + 31) / 32;    // of 32 dims: 16 bytes a lane, 2 mma steps
  static constexpr int kDimTiles = (kDim + 15) / 16;  // of 16 dims: the M side of O^T
  static constexpr int kWide = kDimTiles / 4 * 4;     // tiles taken 64 dims at a time
  static constexpr int kRest = kDimTiles - kWide;

  // The even one of the two dims that lane group g holds of a tile: O^T's rows g and g + 8.
  static __device__ __forceinline__ int dim_of(int tile, int g) {
    if (tile < kWide) return tile / 4 * 64 + 8 * g + 2 * (tile % 4);
    if (kRest >= 2 && tile < kWide + 2) return kWide * 16 + 4 * g + 2 * (tile - kWide);
    return (kDimTiles - 1) * 16 + 2 * g;
  }

  // keys[t] = token g + 8 t, dims 32 c + 8 q + 0..7
  static __device__ __forceinline__ void load_keys(const __nv_bfloat16* page, int g, int q,
                                                   uint32_t (&keys)[2][kChunks * 4]) {
#pragma unroll
    for (int t = 0; t < 2; ++t) {
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        const int dim = 32 * c + 8 * q;
        uint32_t* r = &keys[t][4 * c];
        if (32 * c + 32 <= kDim || dim < kDim) {
          load_shared<16>(page + (g + 8 * t) * kDim + dim, r);
        } else {
          r[0] = r[1] = r[2] = r[3] = 0;
        }
      }
    }
  }

  // values[t] = token 2 q + t % 2 + t / 2 * 8, dims dim_of(tile, g) and the next
  static __device__ __forceinline__ void load_values(const __nv_bfloat16* page, int g, int q,
                                                     uint32_t (&values)[4][kDimTiles]) {
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      const __nv_bfloat16* row = page + (2 * q + t % 2 + t / 2 * 8) * kDim;
#pragma unroll
      for (int tile = 0; tile < kWide; tile += 4) {
        load_shared<16>(row + dim_of(tile, g), &values[t][tile]);
      }
      if constexpr (kRest >= 2) {
        const int dim = dim_of(kWide, g);
        if (kDim % 32 == 0 || dim < kDim) {
          load_shared<8>(row + dim, &values[t][kWide]);
        } else {
          values[t][kWide] = values[t][kWide + 1] = 0;
        }
      }
      if constexpr (kRest % 2 == 1) {
        load_shared<4>(row + dim_of(kDimTiles - 1, g), &values[t][kDimTiles - 1]);
      }
    }
  }
};

}  // namespace lorax::cuda::before
// One work item is (sequence, 8 query heads of one kv head, split of the context); the blocks of a
// fixed grid take items in turns, and the warps of a block take the pages of an item in turns.
//
// A page's K (or V) of one head is contiguous: one bulk copy into the warp's slots in shared
// memory, issued as soon as the slot's bytes are in registers, so pages of this item and the next
// are always under way. Both products have the tokens or dims as the M side of the mma and the
// heads as N, so a group of up to 8 heads wastes little: S^T [16 tokens, 8] = K Q^T, O^T [dims, 8]
// += V^T P^T (Dao et al. 2022 for the online softmax). Dims are permuted so that a lane's operands
// are 16 consecutive bytes: a sum over dims has no order to keep, and an output dim is put back
// when it is written.
#include <algorithm>
#include <cmath>
#include <string>

#include "cuda/device_ops.cuh"
#include "cuda/launch.h"
#include "cuda/ready.cuh"

namespace lorax::cuda::before {
namespace {

// What a part's sums weigh beside those of the largest maximum; 0 for a part without tokens.
__device__ __forceinline__ float rescale(float max_part, float max_all) {
  return max_part == -INFINITY ? 0.0f : exp2_fast(max_part - max_all);
}

// Of a part's [8 heads][kDim] floats in a slot: where 4 dims lie, spread over the banks by head.
template <int kDim>
__device__ __forceinline__ int part_index(int head, int dim) {
  const int piece = dim / 4;
  const int spread = (head >> 1 & 1) | (head >> 2 & 1) << 2;
  const int moved = kDim % 32 == 0 ? piece ^ spread : piece;
  return head * kDim + moved * 4 + dim % 4;
}

// One block a multiprocessor leaves 28 K registers and all but 72 KB (head_dim 128) of shared
// memory to the linear that is launched early behind this kernel.
template <int kDim>
constexpr int kMaxRegisters = kDim > 128 ? 255 : 144;

template <int kDim, int kWarps>
__global__ void __maxnreg__(kMaxRegisters<kDim>) attention_decode_kernel(DecodeArgs args) {
  using Tile = PageTile<kDim>;
  constexpr int kStages = Slots<kDim>::kStages;
  extern __shared__ __align__(128) uint8_t dynamic_shared[];
  auto* const slots_base = reinterpret_cast<__nv_bfloat16*>(dynamic_shared);
  int* const items_before =
      reinterpret_cast<int*>(dynamic_shared + kWarps * kStages * 2 * Slots<kDim>::kBytes);
  __shared__ Item items[2 * kItemsAhead];  // a ring
  __shared__ uint64_t barriers[kWarps][kStages * 2];
  __shared__ float max_part[kWarps][kHeads];
  __shared__ float sum_part[kWarps][kHeads];
  __shared__ const float* part_of[kWarps];
  __shared__ bool is_last;
  let_next_start();

  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int warp = thread / 32;
  const int g = lane / 4;
  const int q = lane % 4;
  const Attention& attention = args.attention;
  const KvPages& pages = attention.pages;
  const int64_t page_elements = pages.page_bytes / int64_t{sizeof(__nv_bfloat16)};
  const int64_t value_distance = pages.values(0) - pages.keys(0);
  const int qkv_cols = (attention.num_heads + 2 * pages.num_kv_heads) * kDim;
  constexpr float kLog2E = 1.4426950408889634f;
  // Scores in units of log2: p = 2^(score - max).
  const float to_log2 = (attention.soft_cap > 0.0f ? 1.0f : attention.scale) * kLog2E;
  const Slots<kDim> slots = {slots_base + warp * kStages * 2 * kPage * kDim, barriers[warp]};

#if __CUDA_ARCH__ >= 900
  if (lane < kStages * 2) {
    asm volatile(
        "mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(&barriers[warp][lane]))
        : "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  }
  __syncwarp();
#endif

  // This block's items are number blockIdx.x + i * gridDim.x, i < num_items.
  const int all_items = count_items(args, items_before);
  const int first_item = static_cast<int>(blockIdx.x);
  const int grid = static_cast<int>(gridDim.x);
  const int num_items = all_items > first_item ? (all_items - first_item + grid - 1) / grid : 0;
  const auto find_items = [&](int begin, int count) {
    const int i = begin + thread;
    if (thread < count && i < num_items) {
      items[i % (2 * kItemsAhead)] = find_item(args, items_before, first_item + i * grid);
    }
  };
  find_items(0, 2 * kItemsAhead);
  __syncthreads();

  // Page number n of the warp goes through stage n % kStages. Items from item_limit on are not
  // looked at yet.
  PageCursor<kWarps> next(items, args.step.block_tables, warp, lane);
  int item_limit = min(num_items, kItemsAhead);
  int num_fetched = 0;
  int num_taken = 0;
  const auto keys_of_next = [&] {
    return pages.keys(next.item().kv_head) + next.number() * page_elements;
  };
  const auto fetch_next = [&] {
    const __nv_bfloat16* keys = keys_of_next();
    slots.fill(num_fetched % kStages, 0, keys, lane);
    slots.fill(num_fetched % kStages, 1, keys + value_distance, lane);
    ++num_fetched;
    next.pass();
  };
  // Before the wait: pages that earlier steps have completed, that is, not a context's last.
  while (num_fetched < kStages && next.find(item_limit) &&
         next.page() < (next.item().len - 1) / kPage) {
    fetch_next();
  }
  wait_for_previous();

  // Q^T as mma operand b, dims permuted as the keys'; heads past the group are zero.
  uint32_t query[Tile::kChunks * 4];
  const auto load_query = [&](const Item& item) {
    const int head = item.first_head + g;
    const __nv_bfloat16* from = attention.qkv + int64_t{item.row} * qkv_cols + head * kDim + 8 * q;
#pragma unroll
    for (int c = 0; c < Tile::kChunks; ++c) {
      uint4 x = {};
      if (g < item.num_heads && 32 * c + 8 * q < kDim) {
        x = *reinterpret_cast<const uint4*>(from + 32 * c);
      }
      query[4 * c] = x.x, query[4 * c + 1] = x.y, query[4 * c + 2] = x.z, query[4 * c + 3] = x.w;
    }
  };
  if (num_items > 0) load_query(items[0]);

  for (int i = 0; i < num_items; ++i) {
    const Item& item = items[i % (2 * kItemsAhead)];
    const int num_heads = item.num_heads;
    const int num_splits = item.num_splits;
    item_limit = min(num_items, i + kItemsAhead);
    while (num_fetched < num_taken + kStages && next.find(item_limit)) fetch_next();

    float out[Tile::kDimTiles][4];  // O^T: dims dim_of(tile, g) and the next, heads 2q, 2q + 1
#pragma unroll
    for (int t = 0; t < Tile::kDimTiles; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) out[t][e] = 0.0f;
    }
    float max_of[2] = {-INFINITY, -INFINITY};  // heads 2q, 2q + 1
    float sum_of[2] = {0.0f, 0.0f};            // of this lane's tokens

    // The V slot of the item's last page is filled again only when the item is done: until then it
    // holds this warp's part.
    bool has_part = false;
    int part_stage = 0;
    const __nv_bfloat16* values_after = nullptr;

    for (int page = item.begin_page + warp; page < item.end_page; page += kWarps) {
      const int stage = num_taken % kStages;
      const int turn = num_taken / kStages;
      ++num_taken;

      // S^T = K Q^T in two chains
      slots.wait(stage, 0, turn);
      uint32_t keys[2][Tile::kChunks * 4];
      Tile::load_keys(slots.slot(stage, 0), g, q, keys);
      const __nv_bfloat16* keys_next = next.find(item_limit) ? keys_of_next() : nullptr;
      float score[4] = {};
      float score_odd[4] = {};
#pragma unroll
      for (int c = 0; c < Tile::kChunks; ++c) {
        const uint32_t* k0 = &keys[0][4 * c];
        const uint32_t* k1 = &keys[1][4 * c];
        mma_16x8x16(score, k0[0], k1[0], k0[1], k1[1], query[4 * c], query[4 * c + 1]);
        mma_16x8x16(score_odd, k0[2], k1[2], k0[3], k1[3], query[4 * c + 2], query[4 * c + 3]);
      }
      // Not before the products: an ordinary load is only known to be over once its value is used.
      if (keys_next != nullptr) {
        slots.fill(stage, 0, keys_next, lane);
        ++num_fetched;
        next.pass();
      }

      // score[e]: token g + 8 (e / 2), head 2q + e % 2
      const int lo = item.lo - page * kPage;
      const int hi = item.len - page * kPage;
      const bool inside = lo <= 0 && hi >= kPage;
#pragma unroll
      for (int e = 0; e < 4; ++e) score[e] += score_odd[e];
      if (attention.soft_cap > 0.0f) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          score[e] = soft_capped(score[e] * attention.scale, attention.soft_cap);
        }
      }
#pragma unroll
      for (int e = 0; e < 4; ++e) score[e] *= to_log2;
      if (!inside) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int token = g + 8 * (e / 2);
          if (token < lo || token >= hi) score[e] = -INFINITY;
        }
      }
      float max_new[2];
#pragma unroll
      for (int h = 0; h < 2; ++h) max_new[h] = fmaxf(score[h], score[h + 2]);
#pragma unroll
      for (int d = 4; d < 32; d *= 2) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          max_new[h] = fmaxf(max_new[h], __shfl_xor_sync(kAllLanes, max_new[h], d));
        }
      }
      // A page has a visible token, so the maximum is never -inf from here on.
      if (__any_sync(kAllLanes, max_new[0] > max_of[0] || max_new[1] > max_of[1])) {
        max_new[0] = fmaxf(max_new[0], max_of[0]);
        max_new[1] = fmaxf(max_new[1], max_of[1]);
        const float scale0 = exp2_fast(max_of[0] - max_new[0]);
        const float scale1 = exp2_fast(max_of[1] - max_new[1]);
        sum_of[0] *= scale0;
        sum_of[1] *= scale1;
#pragma unroll
        for (int t = 0; t < Tile::kDimTiles; ++t) {
          out[t][0] *= scale0;
          out[t][1] *= scale1;
          out[t][2] *= scale0;
          out[t][3] *= scale1;
        }
        max_of[0] = max_new[0];
        max_of[1] = max_new[1];
      }
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        score[e] = exp2_fast(score[e] - max_of[e % 2]);
        sum_of[e % 2] += score[e];
      }
      // P^T as operand b: two 8x8 transposes across the warp
      uint32_t p0 = pack_bf16(score[0], score[1]);
      uint32_t p1 = pack_bf16(score[2], score[3]);
      asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %0;" : "+r"(p0));
      asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %0;" : "+r"(p1));

      slots.wait(stage, 1, turn);
      uint32_t values[4][Tile::kDimTiles];
      Tile::load_values(slots.slot(stage, 1), g, q, values);
      if (!inside) {  // p = 0 there, but 0 * NaN is NaN
#pragma unroll
        for (int t = 0; t < 4; ++t) {
          const int token = 2 * q + t % 2 + t / 2 * 8;
          if (token < lo || token >= hi) {
#pragma unroll
            for (int tile = 0; tile < Tile::kDimTiles; ++tile) values[t][tile] = 0;
          }
        }
      }
      // O^T += V^T P^T: rows of a tile are the even and the odd dims, so pairs of tokens interleave
#pragma unroll
      for (int t = 0; t < Tile::kDimTiles; ++t) {
        const uint32_t a0 = __byte_perm(values[0][t], values[1][t], 0x5410);
        const uint32_t a1 = __byte_perm(values[0][t], values[1][t], 0x7632);
        const uint32_t a2 = __byte_perm(values[2][t], values[3][t], 0x5410);
        const uint32_t a3 = __byte_perm(values[2][t], values[3][t], 0x7632);
        mma_16x8x16(out[t], a0, a1, a2, a3, p0, p1);
      }
      const __nv_bfloat16* values_next =
          keys_next == nullptr ? nullptr : keys_next + value_distance;
      if (page + kWarps >= item.end_page) {
        has_part = true;
        part_stage = stage;
        values_after = values_next;
      } else if (values_next != nullptr) {
        slots.fill(stage, 1, values_next, lane);
      }
    }
    if (i + 1 < num_items) load_query(items[(i + 1) % (2 * kItemsAhead)]);

    // The warps' parts of the item, summed in the order of the warps.
    auto* const part = reinterpret_cast<float*>(slots.slot(part_stage, 1));
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float sum = sum_of[h];
#pragma unroll
      for (int d = 4; d < 32; d *= 2) sum += __shfl_xor_sync(kAllLanes, sum, d);
      const int head = 2 * q + h;
      if (g == 0) {
        max_part[warp][head] = max_of[h];
        sum_part[warp][head] = sum;
      }
      if (has_part && head < num_heads) {
#pragma unroll
        for (int t = 0; t < Tile::kWide; t += 2) {
          *reinterpret_cast<float4*>(part + part_index<kDim>(head, Tile::dim_of(t, g))) =
              make_float4(out[t][h], out[t][h + 2], out[t + 1][h], out[t + 1][h + 2]);
        }
#pragma unroll
        for (int t = Tile::kWide; t < Tile::kDimTiles; ++t) {
          const int dim = Tile::dim_of(t, g);
          if (kDim % 16 == 0 || dim < kDim) {
            *reinterpret_cast<float2*>(part + part_index<kDim>(head, dim)) =
                make_float2(out[t][h], out[t][h + 2]);
          }
        }
      }
    }
    if (lane == 0) part_of[warp] = part;
    __syncthreads();

    const int64_t part_row = int64_t{item.span} * attention.num_heads + item.first_head;
    __nv_bfloat16* const out_row =
        attention.out + (int64_t{item.row} * attention.num_heads + item.first_head) * kDim;
    for (int e = 2 * thread; e < num_heads * kDim; e += 2 * kWarps * 32) {
      const int head = e / kDim;
      const int dim = e % kDim;
      float max_all = -INFINITY;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) max_all = fmaxf(max_all, max_part[w][head]);
      float2 acc = {};
      float sum = 0.0f;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
        if (max_part[w][head] == -INFINITY) continue;  // no page, nothing written
        const float weight = rescale(max_part[w][head], max_all);
        const float2 x = *reinterpret_cast<const float2*>(part_of[w] + part_index<kDim>(head, dim));
        sum += weight * sum_part[w][head];
        acc.x += weight * x.x;
        acc.y += weight * x.y;
      }
      if (num_splits == 1) {
        *reinterpret_cast<__nv_bfloat162*>(out_row + e) =
            __floats2bfloat162_rn(acc.x / sum, acc.y / sum);
      } else {
        const int64_t p = (part_row + head) * args.max_splits + item.split;
        *reinterpret_cast<float2*>(args.partial_out + p * kDim + dim) = acc;
        if (dim == 0) args.partial_ml[p] = make_float2(max_all, sum);
      }
    }
    if (num_splits > 1) __threadfence();
#if __CUDA_ARCH__ >= 900
    // The parts were written and read as ordinary memory; copies overwrite them next.
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
    __syncthreads();
    if (values_after != nullptr) slots.fill(part_stage, 1, values_after, lane);

    if (num_splits > 1) {
      // The last to arrive finds all parts written, and leaves the counter as it was found.
      if (thread == 0) {
        int* arrived =
            args.arrived + item.span * pages.num_kv_heads * args.head_tiles + item.kv_tile;
        is_last = atomicAdd(arrived, 1) == num_splits - 1;
        if (is_last) *arrived = 0;
      }
      __syncthreads();
      if (is_last) {
        __threadfence();
        for (int e = 2 * thread; e < num_heads * kDim; e += 2 * kWarps * 32) {
          const int64_t p = (part_row + e / kDim) * args.max_splits;
          const float2* ml = args.partial_ml + p;
          const float* parts = args.partial_out + p * kDim + e % kDim;
          float max_all = -INFINITY;
#pragma unroll 8
          for (int s = 0; s < num_splits; ++s) max_all = fmaxf(max_all, __ldcg(&ml[s]).x);
          float2 acc = {};
          float sum = 0.0f;
#pragma unroll 8
          for (int s = 0; s < num_splits; ++s) {
            const float2 ml_s = __ldcg(&ml[s]);
            const float2 x = __ldcg(reinterpret_cast<const float2*>(parts + int64_t{s} * kDim));
            const float weight = rescale(ml_s.x, max_all);
            sum += weight * ml_s.y;
            acc.x += weight * x.x;
            acc.y += weight * x.y;
          }
          *reinterpret_cast<__nv_bfloat162*>(out_row + e) =
              __floats2bfloat162_rn(acc.x / sum, acc.y / sum);
        }
      }
      __syncthreads();  // before is_last is another item's
    }
    if (i % kItemsAhead == kItemsAhead - 1) {  // the ring's older half is done with
      __syncthreads();
      find_items(i + 1 + kItemsAhead, kItemsAhead);
      __syncthreads();
    }
  }
  signal_ready(attention.ready);
}

// Returns the number of blocks.
template <int kDim>
uint32_t launch(const DecodeArgs& args, cudaStream_t stream) {
  constexpr int kWarps = 8;
  constexpr int kSlotBytes = kWarps * Slots<kDim>::kStages * 2 * Slots<kDim>::kBytes;
  static const int multiprocessors = [] {
    int device = 0;
    int count = 0;
    LORAX_CUDA(cudaGetDevice(&device));
    LORAX_CUDA(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
    LORAX_CUDA(cudaFuncSetAttribute(attention_decode_kernel<kDim, kWarps>,
                                    cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    kSlotBytes + 36 * 1024));
    return count;
  }();
  const Attention& attention = args.attention;
  const int64_t items = int64_t{attention.max_spans} * attention.pages.num_kv_heads *
                        args.head_tiles * args.max_splits;
  const auto grid = static_cast<unsigned>(std::min<int64_t>(items, multiprocessors));
  const size_t shared_bytes =
      kSlotBytes + (static_cast<size_t>(attention.max_spans) + 1) * sizeof(int);
  const LaunchShape shape{
      .grid = dim3(grid), .block = dim3(kWarps * 32), .shared_bytes = shared_bytes};
  launch_overlapping("attention_decode", attention_decode_kernel<kDim, kWarps>, shape, stream,
                     args);
  return grid;
}

int64_t rounded(int64_t bytes) { return (bytes + 255) / 256 * 256; }

int64_t num_partials(int32_t max_spans, int32_t num_heads, int32_t num_kv_heads) {
  return int64_t{max_spans} * num_heads * max_splits_of(num_heads, num_kv_heads);
}

}  // namespace

int64_t attention_decode_workspace_bytes(int32_t max_spans, int32_t num_heads, int32_t num_kv_heads,
                                         int32_t head_dim) {
  const int64_t partials = num_partials(max_spans, num_heads, num_kv_heads);
  return rounded(partials * head_dim * int64_t{sizeof(float)}) +
         rounded(partials * int64_t{sizeof(float2)}) +
         rounded(int64_t{max_spans} * num_kv_heads * head_tiles_of(num_heads, num_kv_heads) *
                 int64_t{sizeof(int)});
}

uint32_t attention_decode(const Attention& args, const StepArrays& step, void* workspace,
                          cudaStream_t stream) {
  check_attention_head_dim(args.pages.head_dim);
  if (args.max_spans == 0) return 0;
  const int32_t kv_heads = args.pages.num_kv_heads;
  const int64_t partials = num_partials(args.max_spans, args.num_heads, kv_heads);
  auto* bytes = static_cast<uint8_t*>(workspace);
  DecodeArgs decode{};
  decode.attention = args;
  decode.step = step;
  decode.partial_out = reinterpret_cast<float*>(bytes);
  bytes += rounded(partials * args.pages.head_dim * int64_t{sizeof(float)});
  decode.partial_ml = reinterpret_cast<float2*>(bytes);
  bytes += rounded(partials * int64_t{sizeof(float2)});
  decode.arrived = reinterpret_cast<int*>(bytes);
  decode.group = args.num_heads / kv_heads;
  decode.head_tiles = head_tiles_of(args.num_heads, kv_heads);
  decode.max_splits = max_splits_of(args.num_heads, kv_heads);
  switch (args.pages.head_dim) {
    case 16:
      return launch<16>(decode, stream);
    case 24:
      return launch<24>(decode, stream);
    case 32:
      return launch<32>(decode, stream);
    case 64:
      return launch<64>(decode, stream);
    case 80:
      return launch<80>(decode, stream);
    case 96:
      return launch<96>(decode, stream);
    case 128:
      return launch<128>(decode, stream);
    default:
      return launch<256>(decode, stream);
  }
}

}  // namespace lorax::cuda::before
