// One block is a tile of packed query rows of one kv head: row r of a span is the query of token
// r / group and of head r % group, so a group's heads share every key and value that is loaded.
//
// The tile's queries stay in shared memory; tiles of keys and values come through cp.async, the
// next while this one is multiplied (FlashAttention-2, Dao 2023). Warps own 16 or 32 rows each,
// with scores and output in registers. Shared rows are padded by 16 bytes, so that ldmatrix meets
// no bank twice.
#include <algorithm>
#include <cmath>
#include <utility>

#include "cuda/attention_prefill.h"
#include "cuda/device_ops.cuh"
#include "cuda/launch.h"

namespace lorax::cuda {
namespace {

constexpr int kPage = KvPages::kBlockTokens;
constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// kRowTiles: of 16 rows, of a warp.
template <int kDim, int kRowTiles>
struct PrefillTile {
  static constexpr int kRows = kWarps * kRowTiles * 16;
  static constexpr int kKeys = kDim > 128 ? 32 : 64;  // tokens of a KV tile
  static constexpr int kDimSteps = (kDim + 15) / 16;
  static constexpr int kPitch = kDimSteps * 16 + 8;  // elements between rows in shared memory
  static constexpr int kSharedBytes =
      (kRows + 4 * kKeys) * kPitch * static_cast<int>(sizeof(__nv_bfloat16));
};

struct PrefillArgs {
  Attention attention;
  StepArrays step;
  int group;  // query heads of a kv head
};

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// 16 bytes; zeros where not valid.
__device__ __forceinline__ void copy16(__nv_bfloat16* to, const __nv_bfloat16* from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(valid ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group 0;" ::: "memory");
}

__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

// The tile'th tile of packed rows over all spans, within a span from its last rows to its first:
// those see most keys, and what starts last should be short.
struct RowTile {
  bool found = false;
  int first_row = 0;       // of the span, in the step
  int first_position = 0;  // of the span
  int num_packed = 0;      // span rows * group
  int first_packed = 0;    // of this tile
  const int32_t* block_table = nullptr;
};

template <int kRows>
__device__ RowTile find_tile(const PrefillArgs& args, int tile) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int num_spans = args.step.counts->num_spans;
  RowTile result;
  for (int base = 0; base < num_spans; base += 32) {
    DeviceSpan span;
    if (base + lane < num_spans) span = args.step.spans[base + lane];
    const int tiles = span.num_rows >= args.attention.prefill_from
                          ? (span.num_rows * args.group + kRows - 1) / kRows
                          : 0;
    int sum = tiles;  // inclusive
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
      const int other = __shfl_up_sync(kAllLanes, sum, d);
      if (lane >= d) sum += other;
    }
    const unsigned past = __ballot_sync(kAllLanes, tile < sum);
    if (past != 0) {
      const int owner = __ffs(static_cast<int>(past)) - 1;
      result.found = true;
      const int from_end = __shfl_sync(kAllLanes, sum, owner) - 1 - tile;
      result.first_packed = from_end * kRows;
      result.first_row = __shfl_sync(kAllLanes, span.first_row, owner);
      result.first_position = __shfl_sync(kAllLanes, span.first_position, owner);
      result.num_packed = __shfl_sync(kAllLanes, span.num_rows, owner) * args.group;
      result.block_table =
          args.step.block_tables + __shfl_sync(kAllLanes, span.block_table_begin, owner);
      return result;
    }
    tile -= __shfl_sync(kAllLanes, sum, 31);
  }
  return result;
}

template <int kDim, int kRowTiles>
__global__ void __launch_bounds__(kThreads, 2) attention_prefill_kernel(PrefillArgs args) {
  using Tile = PrefillTile<kDim, kRowTiles>;
  constexpr int kRows = Tile::kRows;
  constexpr int kKeys = Tile::kKeys;
  constexpr int kPitch = Tile::kPitch;
  constexpr int kSteps = Tile::kDimSteps;
  constexpr int kChunks = kDim / 8;  // 16-byte pieces of a row
  constexpr float kLog2E = 1.4426950408889634f;

  extern __shared__ __align__(16) __nv_bfloat16 shared[];
  __nv_bfloat16* const queries = shared;                    // [kRows][kPitch], later the output
  __nv_bfloat16* const keys = queries + kRows * kPitch;     // [2][kKeys][kPitch]
  __nv_bfloat16* const values = keys + 2 * kKeys * kPitch;  // [2][kKeys][kPitch]
  let_next_start();

  const Attention& attention = args.attention;
  const KvPages& pages = attention.pages;
  const int group = args.group;
  const int kv_head = static_cast<int>(blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int warp = thread / 32;
  const int g = lane / 4;
  const int q = lane % 4;
  const RowTile rows = find_tile<kRows>(args, static_cast<int>(blockIdx.y));
  wait_for_previous();
  if (!rows.found) return;

  const int64_t qkv_cols = int64_t{attention.num_heads + 2 * pages.num_kv_heads} * kDim;
  const int64_t out_cols = int64_t{attention.num_heads} * kDim;
  const int first_head = kv_head * group;

  if constexpr (kDim % 16 != 0) {  // the padding columns of the last mma step
    for (int i = thread; i < (kRows + 4 * kKeys) * kPitch; i += kThreads) {
      shared[i] = __float2bfloat16(0.0f);
    }
    __syncthreads();
  }
  for (int i = thread; i < kRows * kChunks; i += kThreads) {
    const int r = i / kChunks;
    const int packed = rows.first_packed + r;
    const bool valid = packed < rows.num_packed;
    const int token = valid ? packed / group : 0;
    const int head = valid ? packed % group : 0;
    copy16(queries + r * kPitch + i % kChunks * 8,
           attention.qkv + (rows.first_row + token) * qkv_cols + (first_head + head) * kDim +
               i % kChunks * 8,
           valid);
  }

  // Positions of this tile's queries: [first_query, last_query]; it sees keys in [lo, hi).
  const int window = attention.sliding_window;
  const int first_query = rows.first_position + rows.first_packed / group;
  const int last_query =
      rows.first_position + (min(rows.first_packed + kRows, rows.num_packed) - 1) / group;
  const int lo = window > 0 ? max(0, first_query - window + 1) : 0;
  const int hi = last_query + 1;
  const int first_tile = lo / kKeys;
  const int end_tile = (hi + kKeys - 1) / kKeys;

  const __nv_bfloat16* const key_base = pages.keys(kv_head);
  const int64_t value_distance = pages.values(kv_head) - key_base;
  const int64_t page_elements = pages.page_bytes / int64_t{sizeof(__nv_bfloat16)};
  const auto load_tile = [&](int tile) {
    __nv_bfloat16* const k_to = keys + tile % 2 * kKeys * kPitch;
    __nv_bfloat16* const v_to = values + tile % 2 * kKeys * kPitch;
#pragma unroll
    for (int i = 0; i < (kKeys * kChunks + kThreads - 1) / kThreads; ++i) {
      const int piece = i * kThreads + thread;
      if ((kKeys * kChunks) % kThreads != 0 && piece >= kKeys * kChunks) break;
      const int token = piece / kChunks;
      const int column = piece % kChunks * 8;
      const int position = tile * kKeys + token;
      const bool valid = position >= lo && position < hi;
      const __nv_bfloat16* from = key_base;
      if (valid) {
        from +=
            rows.block_table[position / kPage] * page_elements + position % kPage * kDim + column;
      }
      copy16(k_to + token * kPitch + column, from, valid);
      copy16(v_to + token * kPitch + column, from + value_distance, valid);
    }
    commit_copies();
  };
  load_tile(first_tile);

  float out[kRowTiles][2 * kSteps][4];
  float max_of[kRowTiles][2];
  float sum_of[kRowTiles][2];
  int position_of[kRowTiles][2];  // rows g and g + 8
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      max_of[m][h] = -INFINITY;
      sum_of[m][h] = 0.0f;
      const int r = (warp * kRowTiles + m) * 16 + h * 8 + g;
      position_of[m][h] = rows.first_position + (rows.first_packed + r) / group;
    }
#pragma unroll
    for (int n = 0; n < 2 * kSteps; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) out[m][n][i] = 0.0f;
    }
  }

  // Scores in units of log2: p = 2^(to_log2 * (score - max)).
  const float soft_cap = attention.soft_cap;
  const float to_log2 = (soft_cap > 0.0f ? 1.0f : attention.scale) * kLog2E;
  const uint32_t query_address =
      shared_address(queries + (warp * kRowTiles * 16 + lane % 16) * kPitch + lane / 16 * 8);
  const uint32_t key_address =
      shared_address(keys + (lane % 8 + lane / 16 * 8) * kPitch + lane / 8 % 2 * 8);
  const uint32_t value_address = shared_address(values + lane % 16 * kPitch + lane / 16 * 8);
  constexpr uint32_t kElement = sizeof(__nv_bfloat16);

#pragma unroll 1
  for (int tile = first_tile; tile < end_tile; ++tile) {
    wait_for_copies();
    __syncthreads();  // this tile is there, and the other buffers are free
    if (tile + 1 < end_tile) load_tile(tile + 1);
    const uint32_t buffer = static_cast<uint32_t>(tile % 2 * kKeys * kPitch) * kElement;

    // S [rows, keys] = Q K^T
    float score[kRowTiles][kKeys / 8][4];
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) score[m][n][i] = 0.0f;
      }
    }
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      uint32_t a[kRowTiles][4];
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        load_matrices(a[m],
                      query_address + static_cast<uint32_t>(m * 16 * kPitch + s * 16) * kElement);
      }
#pragma unroll
      for (int n = 0; n < kKeys / 16; ++n) {
        uint32_t b[4];
        load_matrices(
            b, key_address + buffer + static_cast<uint32_t>(n * 16 * kPitch + s * 16) * kElement);
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
          mma_16x8x16(score[m][2 * n], a[m][0], a[m][1], a[m][2], a[m][3], b[0], b[1]);
          mma_16x8x16(score[m][2 * n + 1], a[m][0], a[m][1], a[m][2], a[m][3], b[2], b[3]);
        }
      }
    }

    if (soft_cap > 0.0f) {
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            score[m][n][i] = soft_capped(score[m][n][i] * attention.scale, soft_cap);
          }
        }
      }
    }
    const int first_key = tile * kKeys;
    if (first_key + kKeys - 1 > first_query || (window > 0 && first_key <= last_query - window)) {
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int key = first_key + n * 8 + 2 * q + i % 2;
            const int position = position_of[m][i / 2];
            if (key > position || (window > 0 && key <= position - window)) {
              score[m][n][i] = -INFINITY;
            }
          }
        }
      }
    }

    // Online softmax; a row that has seen no key yet keeps -inf, and 2^(-inf - 0) = 0.
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float max_new = max_of[m][h];
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n) {
          max_new = fmaxf(max_new, fmaxf(score[m][n][2 * h], score[m][n][2 * h + 1]));
        }
        max_new = fmaxf(max_new, __shfl_xor_sync(kAllLanes, max_new, 1));
        max_new = fmaxf(max_new, __shfl_xor_sync(kAllLanes, max_new, 2));
        const float shift = max_new == -INFINITY ? 0.0f : max_new * to_log2;
        // Exactly 1 where no key of the tile is greater: how many tiles a row is led past depends
        // on its neighbours, and the difference below is a rounding error, not 0.
        const float rescale =
            max_new == max_of[m][h] ? 1.0f : exp2_fast(max_of[m][h] * to_log2 - shift);
        max_of[m][h] = max_new;
        float sum = sum_of[m][h] * rescale;
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
          for (int i = 2 * h; i < 2 * h + 2; ++i) {
            score[m][n][i] = exp2_fast(score[m][n][i] * to_log2 - shift);
            sum += score[m][n][i];
          }
        }
        sum_of[m][h] = sum;
#pragma unroll
        for (int n = 0; n < 2 * kSteps; ++n) {
          out[m][n][2 * h] *= rescale;
          out[m][n][2 * h + 1] *= rescale;
        }
      }
    }

    // O [rows, dims] += P V
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) {
      uint32_t a[kRowTiles][4];
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m) {
        a[m][0] = pack_bf16(score[m][2 * k][0], score[m][2 * k][1]);
        a[m][1] = pack_bf16(score[m][2 * k][2], score[m][2 * k][3]);
        a[m][2] = pack_bf16(score[m][2 * k + 1][0], score[m][2 * k + 1][1]);
        a[m][3] = pack_bf16(score[m][2 * k + 1][2], score[m][2 * k + 1][3]);
      }
#pragma unroll
      for (int n = 0; n < kSteps; ++n) {
        uint32_t b[4];
        load_matrices_transposed(
            b, value_address + buffer + static_cast<uint32_t>(k * 16 * kPitch + n * 16) * kElement);
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
          mma_16x8x16(out[m][2 * n], a[m][0], a[m][1], a[m][2], a[m][3], b[0], b[1]);
          mma_16x8x16(out[m][2 * n + 1], a[m][0], a[m][1], a[m][2], a[m][3], b[2], b[3]);
        }
      }
    }
  }

  // Through the warp's own rows of `queries`, which all its lanes have read, for stores of 16
  // bytes.
  __syncwarp();
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float sum = sum_of[m][h];
      sum += __shfl_xor_sync(kAllLanes, sum, 1);
      sum += __shfl_xor_sync(kAllLanes, sum, 2);
      const float inverse = 1.0f / sum;
      __nv_bfloat16* row = queries + ((warp * kRowTiles + m) * 16 + h * 8 + g) * kPitch + 2 * q;
#pragma unroll
      for (int n = 0; n < 2 * kSteps; ++n) {
        *reinterpret_cast<uint32_t*>(row + n * 8) =
            pack_bf16(out[m][n][2 * h] * inverse, out[m][n][2 * h + 1] * inverse);
      }
    }
  }
  __syncwarp();
  for (int i = lane; i < kRowTiles * 16 * kChunks; i += 32) {
    const int r = warp * kRowTiles * 16 + i / kChunks;
    const int packed = rows.first_packed + r;
    if (packed >= rows.num_packed) continue;
    const int column = i % kChunks * 8;
    *reinterpret_cast<uint4*>(attention.out + (rows.first_row + packed / group) * out_cols +
                              (first_head + packed % group) * kDim + column) =
        *reinterpret_cast<const uint4*>(queries + r * kPitch + column);
  }
}

template <int kDim, int kRowTiles>
void launch_tiles(const PrefillArgs& args, cudaStream_t stream) {
  using Tile = PrefillTile<kDim, kRowTiles>;
  static const bool prepared = [] {
    LORAX_CUDA(cudaFuncSetAttribute(attention_prefill_kernel<kDim, kRowTiles>,
                                    cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    Tile::kSharedBytes));
    return true;
  }();
  static_cast<void>(prepared);
  // At most: every span ends in a tile of its own.
  const Attention& attention = args.attention;
  const int tiles = attention.rows * args.group / Tile::kRows + attention.max_spans;
  const dim3 grid(static_cast<unsigned>(attention.pages.num_kv_heads),
                  static_cast<unsigned>(tiles));
  const LaunchShape shape{
      .grid = grid, .block = dim3(kThreads), .shared_bytes = Tile::kSharedBytes};
  launch_overlapping("attention_prefill", attention_prefill_kernel<kDim, kRowTiles>, shape, stream,
                     args);
}

template <int kDim>
void launch(const PrefillArgs& args, cudaStream_t stream) {
  if constexpr (kDim > 128) {
    launch_tiles<kDim, 1>(args, stream);
  } else {
    // Smaller tiles reuse less of what they load: only where the larger ones leave places empty, or
    // need more shared memory than a block gets (sm_86, sm_89: 99 KB).
    static const auto device_limits = [] {
      int device = 0;
      int count = 0;
      int bytes = 0;
      LORAX_CUDA(cudaGetDevice(&device));
      LORAX_CUDA(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
      LORAX_CUDA(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
      return std::pair(count, bytes);  // multiprocessors, shared memory of a block
    }();
    const Attention& attention = args.attention;
    const int large =
        attention.rows * args.group / PrefillTile<kDim, 2>::kRows * attention.pages.num_kv_heads;
    if (large < 2 * device_limits.first ||
        PrefillTile<kDim, 2>::kSharedBytes > device_limits.second) {
      launch_tiles<kDim, 1>(args, stream);
    } else {
      launch_tiles<kDim, 2>(args, stream);
    }
  }
}

}  // namespace

void attention_prefill(const Attention& args, const StepArrays& step, cudaStream_t stream) {
  check_attention_head_dim(args.pages.head_dim);
  if (args.rows == 0 || args.max_spans == 0) return;
  PrefillArgs prefill{args, step, args.num_heads / args.pages.num_kv_heads};
  switch (args.pages.head_dim) {
    case 16:
      return launch<16>(prefill, stream);
    case 24:
      return launch<24>(prefill, stream);
    case 32:
      return launch<32>(prefill, stream);
    case 64:
      return launch<64>(prefill, stream);
    case 80:
      return launch<80>(prefill, stream);
    case 96:
      return launch<96>(prefill, stream);
    case 128:
      return launch<128>(prefill, stream);
    default:
      return launch<256>(prefill, stream);
  }
}

}  // namespace lorax::cuda
