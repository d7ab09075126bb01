// k is cut into 32 pieces, always the same: 8 blocks of a cluster x 4 warps. With few units a
// cluster works on one, a warp on one piece; with more, 4, 2 or 1 blocks work on a unit and a warp
// on several pieces, one after the other. The sums of the pieces are added by one tree either way,
// so the bits do not depend on how many units there are. A and the lists are read before the
// kernel before has ended, x after. Partial sums are sent to the block that owns their row (shared
// memory of the cluster), so one barrier is enough. Before sm_90 a block is its own cluster.
#include "cuda/cluster.cuh"
#include "cuda/device_shape.h"
#include "cuda/launch.h"
#include "cuda/lora_mma.cuh"
#include "cuda/lora_shrink.h"

namespace lorax::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kPieces = 32;
constexpr int kRows = LoraUnit::kMaxRows;
constexpr int kRowFloats = kPieces * 16 + 4;  // padded: a warp's stores meet no bank twice
constexpr int kBatch = 4;                     // of 32 columns, loaded at once

static_assert(kRows == 8);

struct Shared {
  alignas(16) float partial[kRows][kRowFloats];  // [rows this block owns][pieces][16 ranks]
  alignas(16) float of_warp[kWarps][kRows][16];
  int32_t rows[kRows];
  float weights[kRows];
};

__device__ __forceinline__ void prefetch_to_l2(const uint8_t* from, uint32_t bytes) {
#if __CUDA_ARCH__ >= 900
  if (bytes > 0) {
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
  }
#endif
}

template <int kCluster>
__device__ __forceinline__ void store_to_block(float* mine, int rank, float value) {
  if constexpr (kCluster == 1) {
    *mine = value;
  } else {
#if __CUDA_ARCH__ >= 900
    uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(mine));
    asm("mapa.shared::cluster.u32 %0, %0, %1;" : "+r"(address) : "r"(rank));
    asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(address), "f"(value) : "memory");
#endif
  }
}

struct Batch {
  uint4 low[kBatch];   // A, ranks 0 .. 7
  uint4 high[kBatch];  // ranks 8 .. 15
  uint4 x[kBatch];
};

// This warp's pieces of a unit: [first, last) of kPieces, walked batch by batch.
class Walk {
 public:
  __device__ __forceinline__ Walk(int32_t k, int first, int last)
      : blocks_((k + 31) / 32), piece_(first), last_(last) {
    enter();
  }
  __device__ __forceinline__ bool done() const { return piece_ >= last_; }
  __device__ __forceinline__ int piece() const { return piece_; }
  __device__ __forceinline__ int32_t begin() const { return block_; }
  __device__ __forceinline__ int32_t end() const { return end_; }
  __device__ __forceinline__ bool ends_piece() const { return block_ + kBatch >= end_; }
  __device__ __forceinline__ void advance() {
    if (!ends_piece()) {
      block_ += kBatch;
    } else {
      ++piece_;
      enter();
    }
  }

 private:
  __device__ __forceinline__ void enter() {
    block_ = blocks_ * piece_ / kPieces;
    end_ = blocks_ * (piece_ + 1) / kPieces;
  }
  int32_t blocks_;
  int piece_;
  int last_;
  int32_t block_ = 0;
  int32_t end_ = 0;
};

__device__ __forceinline__ void load_a(const uint8_t* a, const Walk& walk, Batch& batch) {
#pragma unroll
  for (int i = 0; i < kBatch; ++i) {
    batch.low[i] = batch.high[i] = make_uint4(0, 0, 0, 0);
    const int32_t block = walk.begin() + i;
    if (!walk.done() && block < walk.end()) {
      const uint8_t* from = a + int64_t{block} * 1024 + threadIdx.x % 32 * 16;
      batch.low[i] = load_streaming(from);
      batch.high[i] = load_streaming(from + 512);
    }
  }
}

template <bool kAligned>
__device__ __forceinline__ void load_x(const __nv_bfloat16* x, int32_t k, const Walk& walk,
                                       Batch& batch) {
#pragma unroll
  for (int i = 0; i < kBatch; ++i) {
    const int32_t block = walk.begin() + i;
    const bool exists = !walk.done() && block < walk.end();
    batch.x[i] = load_row_part<kAligned>(exists ? x : nullptr,
                                         block * 32 + static_cast<int32_t>(threadIdx.x % 4) * 8, k);
  }
}

// Sums of one unit's rows over this warp's pieces, to the blocks that own the rows: row n to block
// n % split of the `split` blocks from `base` on. `batch` holds A of the walk's first batch.
template <int kCluster, bool kAligned>
__device__ __forceinline__ void multiply(const LoraShrinkArguments& args, const uint8_t* a,
                                         const __nv_bfloat16* x, Walk walk, Batch& batch,
                                         Shared& shared, int base, int split, bool local) {
  const int g = threadIdx.x % 32 / 4;
  const int t = threadIdx.x % 4;
  load_x<kAligned>(x, args.k, walk, batch);
  float c[4] = {};
  while (!walk.done()) {
    Walk next = walk;
    next.advance();
    Batch ahead;
    load_a(a, next, ahead);
    load_x<kAligned>(x, args.k, next, ahead);
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      lora_mma(c, batch.low[i].x, batch.high[i].x, batch.low[i].y, batch.high[i].y, batch.x[i].x,
               batch.x[i].y);
      lora_mma(c, batch.low[i].z, batch.high[i].z, batch.low[i].w, batch.high[i].w, batch.x[i].z,
               batch.x[i].w);
    }
    if (walk.ends_piece()) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int n = 2 * t + i % 2;
        float* to = &shared.partial[n / split][walk.piece() * 16 + g + i / 2 * 8];
        if (local) {
          *to = c[i];
        } else {
          store_to_block<kCluster>(to, base + n % split, c[i]);
        }
        c[i] = 0.0f;
      }
    }
    batch = ahead;
    walk = next;
  }
}

// Rows first, first + split, ... of the unit: the sums of all pieces, times weight and scale, to v.
__device__ __forceinline__ void reduce(const LoraShrinkArguments& args, const LoraUnit& unit,
                                       Shared& shared, int first, int split) {
  const int quad = threadIdx.x % 4;
  const int piece = threadIdx.x / 4;
  for (int n = first, i = 0; n < unit.num_rows; n += split, ++i) {
    float4 sum = *reinterpret_cast<const float4*>(&shared.partial[i][piece * 16 + quad * 4]);
#pragma unroll
    for (int offset = 4; offset < 32; offset *= 2) {
      sum.x += __shfl_xor_sync(~0u, sum.x, offset);
      sum.y += __shfl_xor_sync(~0u, sum.y, offset);
      sum.z += __shfl_xor_sync(~0u, sum.z, offset);
      sum.w += __shfl_xor_sync(~0u, sum.w, offset);
    }
    if (threadIdx.x % 32 < 4) {
      *reinterpret_cast<float4*>(&shared.of_warp[threadIdx.x / 32][i][quad * 4]) = sum;
    }
  }
  __syncthreads();
  const int i = threadIdx.x / 8;
  const int n = first + i * split;
  if (i < kRows && n < unit.num_rows) {
    const int pair = threadIdx.x % 8;
    float low = 0.0f;
    float high = 0.0f;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      low += shared.of_warp[w][i][2 * pair];
      high += shared.of_warp[w][i][2 * pair + 1];
    }
    const float factor = shared.weights[n] * unit.scale;
    auto* to = reinterpret_cast<uint32_t*>(args.v + int64_t{unit.v_row + shared.rows[n]} * 16);
    to[pair] = bf16_pair(low * factor, high * factor);
  }
}

// Zeros for the rows between and around the unit's own.
__device__ __forceinline__ void clear_gaps(const LoraShrinkArguments& args, const LoraUnit& unit,
                                           const int32_t* rows, int first, int split) {
  if (unit.end_row - unit.first_row == unit.num_rows) return;
  const int32_t halves = (unit.end_row - unit.first_row) * 2;  // 16 bytes each
  for (int32_t i = first * kThreads + threadIdx.x; i < halves; i += split * kThreads) {
    const int32_t row = unit.first_row + i / 2;
    bool own = false;
    for (int n = 0; n < unit.num_rows; ++n) own = own || rows[n] == row;
    if (own) continue;
    auto* to = reinterpret_cast<uint4*>(args.v + int64_t{unit.v_row + row} * 16);
    to[i % 2] = make_uint4(0, 0, 0, 0);
  }
}

template <int kCluster, bool kAligned>
__global__ void __launch_bounds__(kThreads)
    lora_shrink_kernel(const LoraShrinkArguments args, const StepArrays step) {
  __shared__ Shared shared;
  let_next_start();
  // Blocks write into each other's shared memory, so all must have started.
  cluster_arrive<kCluster>();
  if (!args.lists_ready) wait_for_previous();

  const int rank = cluster_rank<kCluster>();
  const int warp = threadIdx.x / 32;
  const int32_t num_units = *args.num_units;
  const int32_t clusters = gridDim.x / kCluster;
  // Blocks on a unit: as many as leaves no unit for a second round, or one.
  int split = kCluster;
  while (split > 1 && num_units > clusters * (kCluster / split)) split /= 2;
  const int owner = rank % split;
  const int warp_pieces = kPieces / (split * kWarps);
  const int first_piece = (owner * kWarps + warp) * warp_pieces;
  const int32_t blocks = (args.k + 31) / 32;
  const int32_t begin = blocks * first_piece / kPieces;
  const int32_t end = blocks * (first_piece + warp_pieces) / kPieces;
  const int32_t stride = gridDim.x / split;
  const auto prefetch = [&](int32_t u) {
    if (u < num_units && threadIdx.x % 32 == 0) {
      prefetch_to_l2(args.units[u].a + int64_t{begin} * 1024, (end - begin) * 1024);
    }
  };

  bool waits = args.lists_ready;
  int32_t u = blockIdx.x / split;
  prefetch(u);
  prefetch(u + stride);
  do {  // once where blocks share a unit, also without one: the cluster has a barrier
    LoraUnit unit;
    if (u < num_units) unit = args.units[u];
    const int g = threadIdx.x % 32 / 4;
    const int32_t row = g < unit.num_rows ? step.segment_rows[unit.rows_begin + g] : -1;
    if (threadIdx.x % 4 == 0 && warp == 0 && row >= 0) {
      shared.rows[g] = row;
      shared.weights[g] = step.segment_weights[unit.rows_begin + g];
    }
    Walk walk(args.k, first_piece, unit.num_rows > 0 ? first_piece + warp_pieces : first_piece);
    Batch batch;
    load_a(unit.a, walk, batch);
    prefetch(u + 2 * stride);
    if (waits) wait_for_previous();
    waits = false;
    if (split > 1) cluster_wait<kCluster>();
    multiply<kCluster, kAligned>(args, unit.a, row >= 0 ? args.x + int64_t{row} * args.k : nullptr,
                                 walk, batch, shared, rank - owner, split, split == 1);
    if (split > 1) {
      cluster_barrier<kCluster>();
    } else {
      __syncthreads();
    }
    clear_gaps(args, unit, shared.rows, owner, split);
    reduce(args, unit, shared, owner, split);
    u += stride;
    if (split == 1) __syncthreads();
  } while (split == 1 && u < num_units);
  if (split == 1) cluster_wait<kCluster>();
}

template <int kCluster>
void launch(const LoraShrinkArguments& args, const StepArrays& step, int clusters,
            cudaStream_t stream) {
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(clusters * kCluster)),
                          .block = dim3(kThreads),
                          .cluster = kCluster};
  if (args.k % 8 == 0) {
    launch_overlapping("lora_shrink", lora_shrink_kernel<kCluster, true>, shape, stream, args,
                       step);
  } else {
    launch_overlapping("lora_shrink", lora_shrink_kernel<kCluster, false>, shape, stream, args,
                       step);
  }
}

}  // namespace

void lora_shrink(const LoraShrinkArguments& args, const StepArrays& step, cudaStream_t stream) {
  // Beside those of the streaming GEMM.
  const DeviceShape device = device_shape();
  const int blocks = device.multiprocessors * args.blocks_per_multiprocessor;
  if (device.major >= 9) {
    launch<8>(args, step, blocks / 8, stream);
  } else {
    launch<1>(args, step, blocks, stream);
  }
}

}  // namespace lorax::cuda
