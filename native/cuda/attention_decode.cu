// One work item is (sequence, 8 query heads of one kv head, split of the context); the blocks of a
// fixed grid take items in turns, and the warps of a block take the pages of an item in turns.
//
// K and V go from global memory straight into mma operand registers, no shared memory between. Both
// products have the tokens or dims as the M side and the heads as N, so a group of up to 8 heads
// wastes little: S^T [16 tokens, 8] = K Q^T, O^T [dims, 8] += V^T P^T (Dao et al. 2022 for the
// online softmax). K's and V's dims are permuted so that a lane's operands are 16 consecutive
// bytes: a sum over dims has no order to keep, and an output dim is put back when it is written.
#include <algorithm>
#include <cmath>
#include <string>

#include "cuda/attention_decode.h"
#include "cuda/device_ops.cuh"

namespace lorax::cuda {
namespace {

constexpr int kPage = KvPages::kBlockTokens;
constexpr int kHeads = 8;           // query heads of an item: the N side of the mma
constexpr int kMinSplitPages = 16;  // a split is worth its combine from 256 tokens on
constexpr unsigned kAllLanes = 0xffffffffu;

// Splits of the longest context: enough that one sequence alone keeps every multiprocessor busy.
constexpr int kItemsOfOneSequence = 256;

int head_tiles_of(int num_heads, int num_kv_heads) {
  return (num_heads / num_kv_heads + kHeads - 1) / kHeads;
}

int max_splits_of(int num_heads, int num_kv_heads) {
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

__device__ Context context_of(int len, int window, int max_splits) {
  Context context;
  const int lo = window > 0 ? max(0, len - window) : 0;
  context.first_page = lo / kPage;
  context.num_pages = (len - 1) / kPage - context.first_page + 1;
  const int splits = min(max_splits, (context.num_pages + kMinSplitPages - 1) / kMinSplitPages);
  context.pages_per_split = (context.num_pages + splits - 1) / splits;
  context.num_splits =
      (context.num_pages + context.pages_per_split - 1) / context.pages_per_split;
  return context;
}

struct Item {
  int span;
  int row;
  int kv_tile;  // kv_head * head_tiles + head tile
  int split;
  int num_splits;
  int begin_page;
  int end_page;
  int lo;   // the row sees positions [lo, len)
  int len;
  const int32_t* block_table;
};

// items_before[s] = items of spans before s, in shared memory; [max_spans + 1].
__device__ int count_items(const DecodeArgs& args, int* items_before) {
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

__device__ Item find_item(const DecodeArgs& args, const int* items_before, int index) {
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
  item.num_splits = context.num_splits;
  item.begin_page = context.first_page + item.split * context.pages_per_split;
  item.end_page = min(item.begin_page + context.pages_per_split,
                      context.first_page + context.num_pages);
  item.block_table = args.step.block_tables + span.block_table_begin;
  return item;
}

// Two blocks of 128 threads leave 27 K registers of a multiprocessor to the linear that is
// launched early behind this kernel.
template <int kDim>
constexpr int kMaxRegisters = kDim > 128 ? 255 : 144;

template <int kBytes>
struct Load;
template <>
struct Load<16> {
  static __device__ __forceinline__ void from(const __nv_bfloat16* p, bool valid, uint32_t* r) {
    asm volatile(
        "{ .reg .pred v; setp.ne.b32 v, %5, 0; mov.u32 %0, 0; mov.u32 %1, 0; mov.u32 %2, 0; "
        "mov.u32 %3, 0; @v ld.global.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4]; }"
        : "=&r"(r[0]), "=&r"(r[1]), "=&r"(r[2]), "=&r"(r[3])
        : "l"(p), "r"(static_cast<int>(valid))
        : "memory");
  }
};
template <>
struct Load<8> {
  static __device__ __forceinline__ void from(const __nv_bfloat16* p, bool valid, uint32_t* r) {
    asm volatile(
        "{ .reg .pred v; setp.ne.b32 v, %3, 0; mov.u32 %0, 0; mov.u32 %1, 0; "
        "@v ld.global.L1::no_allocate.v2.u32 {%0,%1}, [%2]; }"
        : "=&r"(r[0]), "=&r"(r[1])
        : "l"(p), "r"(static_cast<int>(valid))
        : "memory");
  }
};
template <>
struct Load<4> {
  static __device__ __forceinline__ void from(const __nv_bfloat16* p, bool valid, uint32_t* r) {
    asm volatile(
        "{ .reg .pred v; setp.ne.b32 v, %2, 0; mov.u32 %0, 0; "
        "@v ld.global.L1::no_allocate.u32 %0, [%1]; }"
        : "=&r"(r[0])
        : "l"(p), "r"(static_cast<int>(valid))
        : "memory");
  }
};

// A lane (g = lane / 4, q = lane % 4) of a warp, for one page of one kv head.
template <int kDim>
struct PageTile {
  static constexpr int kChunks = (kDim + 31) / 32;     // of 32 dims: 16 bytes a lane, 2 mma steps
  static constexpr int kDimTiles = (kDim + 15) / 16;   // of 16 dims: the M side of O^T
  static constexpr int kWide = kDimTiles / 4 * 4;      // tiles loaded 64 dims at a time

  uint32_t keys[2][kChunks * 4];       // tokens g and g + 8, dims 32 c + 8 q + 0..7
  uint32_t values[4][kDimTiles];       // tokens 2q, 2q + 1, 2q + 8, 2q + 9, dims dim_of(tile, g)

  // The even one of the two dims that lane group g holds of a tile; O^T's rows g and g + 8.
  static __device__ __forceinline__ int dim_of(int tile, int g) {
    if (tile < kWide) return tile / 4 * 64 + 8 * g + 2 * (tile % 4);
    if (kDimTiles - kWide >= 2 && tile < kWide + 2) return kWide * 16 + 4 * g + 2 * (tile - kWide);
    return (kDimTiles - 1) * 16 + 2 * g;
  }

  // Tokens outside [lo, hi) of the page are not read.
  __device__ __forceinline__ void load_keys(const __nv_bfloat16* page, int lo, int hi, int g,
                                            int q) {
#pragma unroll
    for (int t = 0; t < 2; ++t) {
      const int token = g + 8 * t;
      const bool valid = token >= lo && token < hi;
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        const int dim = 32 * c + 8 * q;
        Load<16>::from(page + token * kDim + dim, valid && dim < kDim, &keys[t][4 * c]);
      }
    }
  }

  __device__ __forceinline__ void load_values(const __nv_bfloat16* page, int lo, int hi, int g,
                                              int q) {
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      const int token = 2 * q + t % 2 + t / 2 * 8;
      const bool valid = token >= lo && token < hi;  // p = 0 there, but 0 * NaN is NaN
      const __nv_bfloat16* row = page + token * kDim;
#pragma unroll
      for (int tile = 0; tile < kWide; tile += 4) {
        Load<16>::from(row + dim_of(tile, g), valid, &values[t][tile]);
      }
      constexpr int kRest = kDimTiles - kWide;
      if constexpr (kRest >= 2) {
        const int dim = dim_of(kWide, g);
        Load<8>::from(row + dim, valid && dim < kDim, &values[t][kWide]);
      }
      if constexpr (kRest % 2 == 1) {
        const int dim = dim_of(kDimTiles - 1, g);
        Load<4>::from(row + dim, valid && dim < kDim, &values[t][kDimTiles - 1]);
      }
    }
  }
};

template <int kDim, int kWarps>
struct CombineBuffers {
  static constexpr int kPitch = kDim + 4;  // spreads a column over the banks
  float out[kWarps][kHeads][kPitch];
  float max[kWarps][kHeads];
  float sum[kWarps][kHeads];
};

// What a part's sums weigh beside those of the largest maximum; 0 for a part without tokens.
__device__ __forceinline__ float rescale(float max_part, float max_all) {
  return max_part == -INFINITY ? 0.0f : exp2_fast(max_part - max_all);
}

template <int kDim, int kWarps>
__global__ void __maxnreg__(kMaxRegisters<kDim>) attention_decode_kernel(DecodeArgs args) {
  using Tile = PageTile<kDim>;
  using Buffers = CombineBuffers<kDim, kWarps>;
  extern __shared__ int items_before[];  // [max_spans + 1]
  __shared__ Buffers buffers;
  __shared__ bool is_last;
  launch_dependents();

  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int g = lane / 4;
  const int q = lane % 4;
  const Attention& attention = args.attention;
  const KvPages& pages = attention.pages;
  const int64_t page_elements = pages.page_bytes / int64_t{sizeof(__nv_bfloat16)};
  const int qkv_cols = (attention.num_heads + 2 * pages.num_kv_heads) * kDim;
  constexpr float kLog2E = 1.4426950408889634f;
  // Scores in units of log2: p = 2^(score - max).
  const float to_log2 = (attention.soft_cap > 0.0f ? 1.0f : attention.scale) * kLog2E;

  const int num_items = count_items(args, items_before);
  bool waited = false;
  for (int index = static_cast<int>(blockIdx.x); index < num_items;
       index += static_cast<int>(gridDim.x)) {
    const Item item = find_item(args, items_before, index);
    const int kv_head = item.kv_tile / args.head_tiles;
    const int first_head = kv_head * args.group + item.kv_tile % args.head_tiles * kHeads;
    const int num_heads = min(kHeads, (kv_head + 1) * args.group - first_head);
    const __nv_bfloat16* keys = pages.keys(kv_head);
    const __nv_bfloat16* values = pages.values(kv_head);

    Tile tile;
    int page = item.begin_page + warp;
    const auto load_keys = [&](int64_t offset) {
      tile.load_keys(keys + offset, item.lo - page * kPage, item.len - page * kPage, g, q);
    };
    const auto load_values = [&](int64_t offset) {
      tile.load_values(values + offset, item.lo - page * kPage, item.len - page * kPage, g, q);
    };
    const auto offset_of = [&](int p) { return item.block_table[p] * page_elements; };

    int64_t next_offset = 0;
    if (page < item.end_page) next_offset = offset_of(page);
    // Only the context's last page waits for this step's k and v.
    const bool early = !waited && page < (item.len - 1) / kPage;
    if (early && page < item.end_page) {
      load_keys(next_offset);
      load_values(next_offset);
    }
    if (!waited) wait_for_previous();
    waited = true;
    if (!early && page < item.end_page) {
      load_keys(next_offset);
      load_values(next_offset);
    }

    // Q^T as mma operand b, dims permuted as in load_keys; heads past the group are zero.
    uint32_t query[Tile::kChunks * 4];
#pragma unroll
    for (int c = 0; c < Tile::kChunks; ++c) {
      const int dim = 32 * c + 8 * q;
      Load<16>::from(attention.qkv + int64_t{item.row} * qkv_cols + (first_head + g) * kDim + dim,
                     g < num_heads && dim < kDim, &query[4 * c]);
    }

    float out[Tile::kDimTiles][4];  // O^T: dims dim_of(tile, g) and the next, heads 2q, 2q + 1
#pragma unroll
    for (int t = 0; t < Tile::kDimTiles; ++t) {
#pragma unroll
      for (int i = 0; i < 4; ++i) out[t][i] = 0.0f;
    }
    float max_of[2] = {-INFINITY, -INFINITY};  // heads 2q, 2q + 1
    float sum_of[2] = {0.0f, 0.0f};            // of this lane's tokens

    while (page < item.end_page) {
      const int next = page + kWarps;
      const bool more = next < item.end_page;
      if (more) next_offset = offset_of(next);

      // S^T = K Q^T in two chains
      float score[4] = {};
      float score_odd[4] = {};
#pragma unroll
      for (int c = 0; c < Tile::kChunks; ++c) {
        const uint32_t* k0 = &tile.keys[0][4 * c];
        const uint32_t* k1 = &tile.keys[1][4 * c];
        mma_16x8x16(score, k0[0], k1[0], k0[1], k1[1], query[4 * c], query[4 * c + 1]);
        mma_16x8x16(score_odd, k0[2], k1[2], k0[3], k1[3], query[4 * c + 2], query[4 * c + 3]);
      }
      const int page_now = page;
      page = next;
      if (more) load_keys(next_offset);

      // c[i]: token g + 8 (i / 2), head 2q + i % 2
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float s = score[i] + score_odd[i];
        if (attention.soft_cap > 0.0f) s = soft_capped(s * attention.scale, attention.soft_cap);
        const int position = page_now * kPage + g + 8 * (i / 2);
        score[i] = position >= item.lo && position < item.len ? s * to_log2 : -INFINITY;
      }
      float max_new[2];
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float m = fmaxf(score[h], score[h + 2]);
        m = fmaxf(m, __shfl_xor_sync(kAllLanes, m, 4));
        m = fmaxf(m, __shfl_xor_sync(kAllLanes, m, 8));
        m = fmaxf(m, __shfl_xor_sync(kAllLanes, m, 16));
        max_new[h] = fmaxf(max_of[h], m);  // a page has a visible token: never -inf
      }
      if (__any_sync(kAllLanes, max_new[0] > max_of[0] || max_new[1] > max_of[1])) {
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
      for (int i = 0; i < 4; ++i) {
        score[i] = exp2_fast(score[i] - max_of[i % 2]);
        sum_of[i % 2] += score[i];
      }
      // P^T as operand b: two 8x8 transposes across the warp
      uint32_t p0 = pack_bf16(score[0], score[1]);
      uint32_t p1 = pack_bf16(score[2], score[3]);
      asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %0;" : "+r"(p0));
      asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %0;" : "+r"(p1));
      // O^T += V^T P^T: rows of a tile are the even and the odd dims, so pairs of tokens interleave
#pragma unroll
      for (int t = 0; t < Tile::kDimTiles; ++t) {
        const uint32_t a0 = __byte_perm(tile.values[0][t], tile.values[1][t], 0x5410);
        const uint32_t a1 = __byte_perm(tile.values[0][t], tile.values[1][t], 0x7632);
        const uint32_t a2 = __byte_perm(tile.values[2][t], tile.values[3][t], 0x5410);
        const uint32_t a3 = __byte_perm(tile.values[2][t], tile.values[3][t], 0x7632);
        mma_16x8x16(out[t], a0, a1, a2, a3, p0, p1);
      }
      if (more) load_values(next_offset);
    }

    // The warps' parts of the item, summed in the order of the warps.
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float sum = sum_of[h];
      sum += __shfl_xor_sync(kAllLanes, sum, 4);
      sum += __shfl_xor_sync(kAllLanes, sum, 8);
      sum += __shfl_xor_sync(kAllLanes, sum, 16);
      const int head = 2 * q + h;
      if (g == 0) {
        buffers.max[warp][head] = max_of[h];
        buffers.sum[warp][head] = sum;
      }
      if (head < num_heads) {
#pragma unroll
        for (int t = 0; t < Tile::kDimTiles; ++t) {
          const int dim = Tile::dim_of(t, g);
          if (kDim % 16 == 0 || dim < kDim) {
            *reinterpret_cast<float2*>(&buffers.out[warp][head][dim]) =
                make_float2(out[t][h], out[t][h + 2]);
          }
        }
      }
    }
    __syncthreads();

    const int64_t part_row = int64_t{item.span} * attention.num_heads + first_head;
    for (int e = 2 * static_cast<int>(threadIdx.x); e < num_heads * kDim; e += 2 * kWarps * 32) {
      const int head = e / kDim;
      const int dim = e % kDim;
      float max_all = -INFINITY;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) max_all = fmaxf(max_all, buffers.max[w][head]);
      float2 acc = {};
      float sum = 0.0f;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
        const float weight = rescale(buffers.max[w][head], max_all);
        const float2 part = *reinterpret_cast<const float2*>(&buffers.out[w][head][dim]);
        sum += weight * buffers.sum[w][head];
        acc.x += weight * part.x;
        acc.y += weight * part.y;
      }
      if (item.num_splits == 1) {
        *reinterpret_cast<__nv_bfloat162*>(
            attention.out + (int64_t{item.row} * attention.num_heads + first_head) * kDim + e) =
            __floats2bfloat162_rn(acc.x / sum, acc.y / sum);
      } else {
        const int64_t part = (part_row + head) * args.max_splits + item.split;
        *reinterpret_cast<float2*>(args.partial_out + part * kDim + dim) = acc;
        if (dim == 0) args.partial_ml[part] = make_float2(max_all, sum);
      }
    }
    if (item.num_splits > 1) {
      // The last to arrive finds all parts written, and leaves the counter as it was found.
      __threadfence();
      __syncthreads();
      if (threadIdx.x == 0) {
        int* arrived = args.arrived + item.span * pages.num_kv_heads * args.head_tiles +
                       item.kv_tile;
        is_last = atomicAdd(arrived, 1) == item.num_splits - 1;
        if (is_last) *arrived = 0;
      }
      __syncthreads();
      if (is_last) {
        __threadfence();
        for (int e = 2 * static_cast<int>(threadIdx.x); e < num_heads * kDim;
             e += 2 * kWarps * 32) {
          const int64_t part = (part_row + e / kDim) * args.max_splits;
          const float2* ml = args.partial_ml + part;
          const float* parts = args.partial_out + part * kDim + e % kDim;
          float max_all = -INFINITY;
          for (int s = 0; s < item.num_splits; ++s) max_all = fmaxf(max_all, __ldcg(&ml[s]).x);
          float2 acc = {};
          float sum = 0.0f;
#pragma unroll 4
          for (int s = 0; s < item.num_splits; ++s) {
            const float2 ml_s = __ldcg(&ml[s]);
            const float2 o =
                __ldcg(reinterpret_cast<const float2*>(parts + int64_t{s} * kDim));
            const float weight = rescale(ml_s.x, max_all);
            sum += weight * ml_s.y;
            acc.x += weight * o.x;
            acc.y += weight * o.y;
          }
          *reinterpret_cast<__nv_bfloat162*>(
              attention.out + (int64_t{item.row} * attention.num_heads + first_head) * kDim + e) =
              __floats2bfloat162_rn(acc.x / sum, acc.y / sum);
        }
      }
    }
    __syncthreads();  // before the next item overwrites the buffers
  }
  if (!waited) wait_for_previous();
}

template <int kDim>
void launch(const DecodeArgs& args, cudaStream_t stream) {
  constexpr int kWarps = 4;
  static const int multiprocessors = [] {
    int device = 0;
    int count = 0;
    LORAX_CUDA(cudaGetDevice(&device));
    LORAX_CUDA(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
    return count;
  }();
  const Attention& attention = args.attention;
  const int64_t items = int64_t{attention.max_spans} * attention.pages.num_kv_heads *
                        args.head_tiles * args.max_splits;
  const auto grid = static_cast<unsigned>(std::min<int64_t>(items, 2 * multiprocessors));
  const size_t shared_bytes = (static_cast<size_t>(attention.max_spans) + 1) * sizeof(int);
  launch_dependent("attention_decode_kernel", attention_decode_kernel<kDim, kWarps>, dim3(grid),
                   kWarps * 32, shared_bytes, stream, args);
}

int64_t rounded(int64_t bytes) { return (bytes + 255) / 256 * 256; }

int64_t num_partials(int32_t max_spans, int32_t num_heads, int32_t num_kv_heads) {
  return int64_t{max_spans} * num_heads * max_splits_of(num_heads, num_kv_heads);
}

}  // namespace

void check_attention_head_dim(int32_t head_dim) {
  for (const int32_t supported : {16, 24, 32, 64, 80, 96, 128, 256}) {
    if (head_dim == supported) return;
  }
  throw Error("MODEL_UNSUPPORTED", "head_dim " + std::to_string(head_dim) +
                                       " on cuda: 16, 24, 32, 64, 80, 96, 128 and 256 are "
                                       "supported",
              {{"field", std::string("head_dim")}});
}

int64_t attention_decode_workspace_bytes(int32_t max_spans, int32_t num_heads, int32_t num_kv_heads,
                                         int32_t head_dim) {
  const int64_t partials = num_partials(max_spans, num_heads, num_kv_heads);
  return rounded(partials * head_dim * int64_t{sizeof(float)}) +
         rounded(partials * int64_t{sizeof(float2)}) +
         rounded(int64_t{max_spans} * num_kv_heads * head_tiles_of(num_heads, num_kv_heads) *
                 int64_t{sizeof(int)});
}

void attention_decode(const Attention& args, const StepArrays& step, void* workspace,
                      cudaStream_t stream) {
  check_attention_head_dim(args.pages.head_dim);
  if (args.max_spans == 0) return;
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
    case 16: return launch<16>(decode, stream);
    case 24: return launch<24>(decode, stream);
    case 32: return launch<32>(decode, stream);
    case 64: return launch<64>(decode, stream);
    case 80: return launch<80>(decode, stream);
    case 96: return launch<96>(decode, stream);
    case 128: return launch<128>(decode, stream);
    default: return launch<256>(decode, stream);
  }
}

}  // namespace lorax::cuda
