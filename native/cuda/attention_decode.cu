// One work item is (sequence, 8 query heads of one kv head, split of the context). A warp takes
// items of its own where there are many, and shares them with 1, 3 or 7 neighbours where there are
// few, in turns page by page (attention_items.cuh): no barrier stands between warps but where the
// parts of a shared item are summed.
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

#include "cuda/attention_decode.h"
#include "cuda/attention_items.cuh"
#include "cuda/attention_parts.cuh"
#include "cuda/device_ops.cuh"
#include "cuda/launch.h"
#include "cuda/page_slots.cuh"

namespace lorax::cuda {
namespace {

// One block a multiprocessor. With so many registers it fits beside a block of rope_kv (768 threads
// of 40), whose time it can spend on its first pages.
template <int kDim>
constexpr int kMaxRegisters = kDim > 128 ? 255 : 136;

template <int kDim>
__global__ void __maxnreg__(kMaxRegisters<kDim>) attention_decode_kernel(DecodeArgs args) {
  using Tile = PageTile<kDim>;
  constexpr int kStages = Slots<kDim>::kStages;
  extern __shared__ __align__(128) uint8_t dynamic_shared[];
  __shared__ Item rings[kWarps][2 * kItemsAhead];
  __shared__ uint64_t barriers[kWarps][kStages * 2];
  __shared__ float max_part[kWarps][kHeads];
  __shared__ float sum_part[kWarps][kHeads];
  __shared__ const float* part_of[kWarps];
  __shared__ bool is_last[kWarps];
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
  const Slots<kDim> slots = {
      reinterpret_cast<__nv_bfloat16*>(dynamic_shared) + warp * kStages * 2 * kPage * kDim,
      barriers[warp]};

#if __CUDA_ARCH__ >= 900
  if (lane < kStages * 2) {
    asm volatile(
        "mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(&barriers[warp][lane]))
        : "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  }
  __syncwarp();
#endif

  const BlockItems block_items(count_items(
      args, reinterpret_cast<int*>(dynamic_shared + kWarps * kStages * 2 * Slots<kDim>::kBytes)));
  const int num_items = block_items.per_warp();
  Item* const ring = rings[warp];
  const auto find_items = [&](int begin, int count) {
    const int i = begin + lane;
    if (lane < count && i < num_items) {
      ring[i % (2 * kItemsAhead)] = block_items.find(args, warp, i);
    }
    __syncwarp();
  };
  find_items(0, 2 * kItemsAhead);

  // The warp's pages go through its stages in turns. Items from item_limit on are not looked at
  // yet.
  PageCursor next(ring, args.step.block_tables, lane);
  int item_limit = min(num_items, kItemsAhead);
  Stage stage;  // of the page at hand
  int free_stages = kStages;
  const auto keys_of_next = [&] {
    return pages.keys(next.item().kv_head) + next.number() * page_elements;
  };
  const auto fetch_next = [&] {
    const __nv_bfloat16* keys = keys_of_next();
    const int tokens = next.tokens();
    const int to = (stage.index + kStages - free_stages) % kStages;
    slots.fill(to, 0, keys, tokens, lane);
    slots.fill(to, 1, keys + value_distance, tokens, lane);
    --free_stages;
    next.pass();
  };
  // Before the wait: pages that earlier steps have completed.
#pragma unroll 1
  while (free_stages > 0 && next.find(item_limit) && next.page() < next.item().stored_pages) {
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
  if (num_items > 0) load_query(ring[0]);

  for (int i = 0; i < num_items; ++i) {
    const Item& item = ring[i % (2 * kItemsAhead)];
    const int width = item.width;
    item_limit = min(num_items, i + kItemsAhead);
#pragma unroll 1
    while (free_stages > 0 && next.find(item_limit)) fetch_next();

    float out[Tile::kDimTiles][4];  // O^T: dims dim_of(tile, g) and the next, heads 2q, 2q + 1
#pragma unroll
    for (int t = 0; t < Tile::kDimTiles; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) out[t][e] = 0.0f;
    }
    float max_of[2] = {-INFINITY, -INFINITY};  // heads 2q, 2q + 1
    float sum_of[2] = {0.0f, 0.0f};            // of this lane's tokens

    // The V slot of a shared item's last page is filled again only when the item is done: until
    // then it holds this warp's part.
    bool has_part = false;
    int part_stage = 0;
    const __nv_bfloat16* values_after = nullptr;
    int tokens_after = 0;

    for (int page = item.first_page; page < item.end_page; page += width) {
      // S^T = K Q^T in two chains
      slots.wait(stage, 0);
      uint32_t keys[2][Tile::kChunks * 4];
      Tile::load_keys(slots.slot(stage.index, 0), g, q, keys);
      // If there is one, all stages are under way, so its stage is this one.
      const __nv_bfloat16* keys_next = nullptr;
      int tokens_next = 0;
      if (next.find(item_limit)) {
        keys_next = keys_of_next();
        tokens_next = next.tokens();
      }
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
        slots.fill(stage.index, 0, keys_next, tokens_next, lane);
        next.pass();
      } else {
        ++free_stages;
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

      slots.wait(stage, 1);
      uint32_t values[4][Tile::kDimTiles];
      Tile::load_values(slots.slot(stage.index, 1), g, q, values);
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
      if (width > 1 && page + width >= item.end_page) {
        has_part = true;
        part_stage = stage.index;
        values_after = values_next;
        tokens_after = tokens_next;
      } else if (values_next != nullptr) {
        slots.fill(stage.index, 1, values_next, tokens_next, lane);
      }
      stage.pass(kStages);
    }
    if (i + 1 < num_items) load_query(ring[(i + 1) % (2 * kItemsAhead)]);
#pragma unroll
    for (int d = 4; d < 32; d *= 2) {
      sum_of[0] += __shfl_xor_sync(kAllLanes, sum_of[0], d);
      sum_of[1] += __shfl_xor_sync(kAllLanes, sum_of[1], d);
    }

    const int num_heads = item.num_heads;
    const int num_splits = item.num_splits;
    const int64_t part_row = int64_t{item.span} * attention.num_heads + item.first_head;
    __nv_bfloat16* const out_row =
        attention.out + (int64_t{item.row} * attention.num_heads + item.first_head) * kDim;
    if (width == 1) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int head = 2 * q + h;
        if (head >= num_heads) continue;
        if (num_splits == 1) {
          const float scale = __fdividef(1.0f, sum_of[h]);
          for_each_piece<kDim>(out, h, g, [&](int dim, auto x) {
            store_bf16(out_row + head * kDim + dim, x, scale);
          });
        } else {
          const int64_t p = (part_row + head) * args.max_splits + item.split;
          for_each_piece<kDim>(out, h, g, [&](int dim, auto x) {
            store_floats(args.partial_out + p * kDim + dim, x);
          });
          if (g == 0) args.partial_ml[p] = make_float2(max_of[h], sum_of[h]);
        }
      }
      if (num_splits > 1) __threadfence();
    } else {
      // The warps' parts, summed in the order of the warps.
      auto* const part = reinterpret_cast<float*>(slots.slot(part_stage, 1));
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int head = 2 * q + h;
        if (g == 0) {
          max_part[warp][head] = max_of[h];
          sum_part[warp][head] = sum_of[h];
        }
        if (has_part && head < num_heads) {
          for_each_piece<kDim>(out, h, g, [&](int dim, auto x) {
            store_floats(part + part_index<kDim>(head, dim), x);
          });
        }
      }
      if (lane == 0) part_of[warp] = part;
      sync_warps(warp, width);

      const int first_warp = warp & -width;
#pragma unroll 1
      for (int e = 2 * (thread - first_warp * 32); e < num_heads * kDim; e += 2 * width * 32) {
        const int head = e / kDim;
        const int dim = e % kDim;
        float max_of_warp[kWarps];
        float max_all = -INFINITY;
#pragma unroll
        for (int w = 0; w < kWarps; ++w) {
          max_of_warp[w] = w < width ? max_part[first_warp + w][head] : -INFINITY;
          max_all = fmaxf(max_all, max_of_warp[w]);
        }
        float2 acc = {};
        float sum = 0.0f;
#pragma unroll
        for (int w = 0; w < kWarps; ++w) {
          if (max_of_warp[w] == -INFINITY) continue;  // no page, nothing written
          const float weight = exp2_fast(max_of_warp[w] - max_all);
          const float2 x = *reinterpret_cast<const float2*>(part_of[first_warp + w] +
                                                            part_index<kDim>(head, dim));
          sum += weight * sum_part[first_warp + w][head];
          acc.x += weight * x.x;
          acc.y += weight * x.y;
        }
        if (num_splits == 1) {
          store_bf16(out_row + e, acc, __fdividef(1.0f, sum));
        } else {
          const int64_t p = (part_row + head) * args.max_splits + item.split;
          store_floats(args.partial_out + p * kDim + dim, acc);
          if (dim == 0) args.partial_ml[p] = make_float2(max_all, sum);
        }
      }
      if (num_splits > 1) __threadfence();
#if __CUDA_ARCH__ >= 900
      // The parts were written and read as ordinary memory; copies overwrite them next.
      asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
    }
    if (width > 1 || num_splits > 1) sync_warps(warp, width);
    if (values_after != nullptr) slots.fill(part_stage, 1, values_after, tokens_after, lane);

    if (num_splits > 1) {
      // The last to arrive finds all parts written, and leaves the counter as it was found. The
      // next write of is_last lies behind the next item's first barrier.
      const int leader = warp & -width;
      if (thread == leader * 32) {
        int* arrived =
            args.arrived + item.span * pages.num_kv_heads * args.head_tiles + item.kv_tile;
        is_last[leader] = atomicAdd(arrived, 1) == num_splits - 1;
        if (is_last[leader]) *arrived = 0;
      }
      sync_warps(warp, width);
      if (is_last[leader]) {
        __threadfence();
        combine_splits<kDim>(args, item, warp, lane);
      }
    }
    if (i % kItemsAhead == kItemsAhead - 1) {  // the ring's older half is done with
      __syncwarp();
      find_items(i + 1 + kItemsAhead, kItemsAhead);
    }
  }
}

template <int kDim>
void launch(const DecodeArgs& args, cudaStream_t stream) {
  static const int multiprocessors = [] {
    int device = 0;
    int count = 0;
    int shared_bytes = 0;  // a block's
    LORAX_CUDA(cudaGetDevice(&device));
    LORAX_CUDA(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
    LORAX_CUDA(
        cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
    cudaFuncAttributes attributes{};
    LORAX_CUDA(cudaFuncGetAttributes(&attributes, attention_decode_kernel<kDim>));
    LORAX_CUDA(cudaFuncSetAttribute(attention_decode_kernel<kDim>,
                                    cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    shared_bytes - static_cast<int>(attributes.sharedSizeBytes)));
    return count;
  }();
  const Attention& attention = args.attention;
  const int64_t items = int64_t{attention.max_spans} * attention.pages.num_kv_heads *
                        args.head_tiles * args.max_splits;
  const auto grid = static_cast<unsigned>(std::min<int64_t>(items, multiprocessors));
  constexpr size_t kSlotBytes = size_t{kWarps} * Slots<kDim>::kStages * 2 * Slots<kDim>::kBytes;
  const size_t counts_bytes = (static_cast<size_t>(attention.max_spans) + 1) * sizeof(int);
  const LaunchShape shape{
      .grid = dim3(grid), .block = dim3(kWarps * 32), .shared_bytes = kSlotBytes + counts_bytes};
  launch_overlapping("attention_decode", attention_decode_kernel<kDim>, shape, stream, args);
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
  throw Error("MODEL_UNSUPPORTED",
              "head_dim " + std::to_string(head_dim) +
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
  decode.per_tile = 1.0f / static_cast<float>(kv_heads * decode.head_tiles);
  decode.per_head_tile = 1.0f / static_cast<float>(decode.head_tiles);
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

}  // namespace lorax::cuda
