// What the host hands to a block of the streaming GEMM: which blocks of W it streams, in which
// order, and where things lie in its shared memory. Pure integers, the same on host and device.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "cuda/stream_gemm.h"

namespace lorax::cuda {

#ifdef __CUDACC__
#define LORAX_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define LORAX_HOST_DEVICE inline
#endif

constexpr int32_t kAtom = 64;  // k of one swizzled box: 128 bytes
constexpr int32_t kAtomRowBytes = 128;
constexpr int32_t kLoraChunkBlocks = 4;  // blocks of 8 rows of v in one slot
constexpr int32_t kFragmentBytes = 256;  // of v: [32 lanes][4 bf16]
constexpr int32_t kBGroupBytes = 512;    // of B: 16 outs x 16 ranks

// Cluster q does the tiles q, q + clusters, ...; a block's rank in it is its part of k.
struct StreamSchedule {
  int32_t num_tiles = 0;
  int32_t clusters = 0;
  int32_t split = 1;
  int32_t tile_rows = 0;
  int32_t atoms = 0;  // ceil(k / 64)
  int32_t block_atoms = 1;
};

// Walks the blocks of W of one thread block in the order they are streamed.
struct BlockCursor {
  int32_t tile = 0;
  int32_t num_tiles = 0;
  int32_t stride = 0;
  int32_t tile_rows = 0;
  int32_t first_atom = 0;
  int32_t last_atom = 0;
  int32_t block_atoms = 0;
  int32_t atom = 0;

  LORAX_HOST_DEVICE BlockCursor(const StreamSchedule& schedule, int32_t block) {
    const int32_t part = block % schedule.split;
    tile = block / schedule.split;
    // A block beyond the schedule's grid has nothing.
    num_tiles = tile < schedule.clusters ? schedule.num_tiles : 0;
    stride = schedule.clusters;
    tile_rows = schedule.tile_rows;
    first_atom = part * schedule.atoms / schedule.split;
    last_atom = (part + 1) * schedule.atoms / schedule.split;
    block_atoms = schedule.block_atoms;
    atom = first_atom;
  }

  LORAX_HOST_DEVICE bool valid() const { return tile < num_tiles; }
  LORAX_HOST_DEVICE int32_t row() const { return tile * tile_rows; }
  LORAX_HOST_DEVICE int32_t num_atoms() const {
    const int32_t left = last_atom - atom;
    return left < block_atoms ? left : block_atoms;
  }
  // From the first tile on.
  LORAX_HOST_DEVICE int32_t num_blocks() const {
    const int32_t tiles = valid() ? (num_tiles - tile + stride - 1) / stride : 0;
    return tiles * ((last_atom - first_atom + block_atoms - 1) / block_atoms);
  }
  LORAX_HOST_DEVICE void next_tile() {
    atom = first_atom;
    tile += stride;
  }
  LORAX_HOST_DEVICE void next() {
    atom += block_atoms;
    if (atom >= last_atom) next_tile();
  }
};

// Of a block's dynamic shared memory, from a 1024-byte boundary on.
struct SharedLayout {
  int32_t stage_bytes = 0;  // [block_atoms][tile_rows][128], then x: [block_atoms][columns][128]
  int32_t x_at = 0;         // in a stage
  int32_t reduce_at = 0;    // [split - 1][warps / split][columns / 8][32 lanes] float4
  int32_t lora_at = 0;      // [slots]: B [tile_rows / 16][512], then v [4][256]
  int32_t lora_slot_bytes = 0;
  int32_t barriers_at = 0;
  int32_t bytes = 0;

  LORAX_HOST_DEVICE SharedLayout(int32_t columns, int32_t tile_rows, int32_t block_atoms,
                                 int32_t stages, int32_t split, int32_t lora_slots) {
    const int32_t warps = tile_rows / 16;
    x_at = block_atoms * tile_rows * kAtomRowBytes;
    stage_bytes = x_at + block_atoms * columns * kAtomRowBytes;
    reduce_at = stages * stage_bytes;
    lora_at = reduce_at + (split - 1) * (warps / split) * (columns / 8) * 512;
    lora_slot_bytes = warps * kBGroupBytes + kLoraChunkBlocks * kFragmentBytes;
    barriers_at = lora_at + lora_slots * (lora_slot_bytes + 16);
    bytes = barriers_at + (3 * stages + 2 * warps + 2 * lora_slots) * 8;
  }
};

// The kernel's parameters.
struct StreamGemmParameters {
  CUtensorMap w;
  CUtensorMap x;
  CUtensorMap next_w;
  StreamSchedule schedule;
  StreamSchedule next;  // clusters 0: none
  int32_t stages = 0;
  int32_t in_flight = 0;
  int32_t prefetch_next = 0;
  int32_t trigger = 0;
  int32_t lora_slots = 0;
  void* y = nullptr;
  const float* bias = nullptr;
  int32_t rows = 0;
  int32_t n = 0;
  int32_t float32_out = 0;
  const uint32_t* x_ready = nullptr;
  uint32_t x_ready_count = 0;
  uint64_t* trace = nullptr;  // [blocks][8], bench only
  StreamGemmLora lora;
};

}  // namespace lorax::cuda
