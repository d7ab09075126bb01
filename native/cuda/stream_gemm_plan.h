// What the host hands to a block of the streaming GEMM: which blocks of W it streams, in which
// order, and where things lie in its shared memory. Pure integers, the same on host and device.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "cuda/host_device.h"
#include "cuda/stream_gemm.h"

namespace lorax::cuda {

constexpr int32_t kAtom = 64;  // k of one swizzled box: 128 bytes
constexpr int32_t kAtomRowBytes = 128;
constexpr int32_t kHalfRows = 64;  // of W: a warpgroup's
constexpr int32_t kTileRows = 2 * kHalfRows;
constexpr int32_t kTileWarps = kTileRows / 16;
constexpr int32_t kLoraChunkBlocks = LoraChunk::kRows / 8;  // of v, 8 rows each
constexpr int32_t kVBlockBytes = 256;                       // of v: [8 rows][16 ranks] bf16
constexpr int32_t kBGroupBytes = SliceAddress::kBTileBytes;

// Work is (tile, part of k), the parts of a tile side by side; block q does q, q + blocks, ... The
// rows of a tile are two halves: neighbours, or the same rows of gate and of up.
struct StreamSchedule {
  int32_t num_work = 0;
  int32_t blocks = 0;
  int32_t split = 1;
  int32_t atoms = 0;  // ceil(k / 64)
  int32_t block_atoms = 1;
  int32_t tile_step = kTileRows;      // rows from a tile to the next
  int32_t half_distance = kHalfRows;  // and from its first half to the second
};

// Walks the blocks of W of one thread block in the order they are streamed.
struct BlockCursor {
  int32_t work = 0;
  int32_t num_work = 0;
  int32_t stride = 0;
  int32_t split = 1;
  int32_t atoms = 0;
  int32_t block_atoms = 0;
  int32_t tile_step = 0;
  int32_t half_distance = 0;
  int32_t tile = 0;
  int32_t part = 0;  // of k
  int32_t last_atom = 0;
  int32_t atom = 0;

  LORAX_HOST_DEVICE BlockCursor(const StreamSchedule& schedule, int32_t block) {
    work = block;
    // A block beyond the schedule's grid has nothing.
    num_work = work < schedule.blocks ? schedule.num_work : 0;
    stride = schedule.blocks;
    split = schedule.split;
    atoms = schedule.atoms;
    block_atoms = schedule.block_atoms;
    tile_step = schedule.tile_step;
    half_distance = schedule.half_distance;
    enter();
  }

  LORAX_HOST_DEVICE bool valid() const { return work < num_work; }
  LORAX_HOST_DEVICE int32_t row(int32_t half = 0) const {
    return tile * tile_step + half * half_distance;
  }
  LORAX_HOST_DEVICE int32_t num_atoms() const {
    const int32_t left = last_atom - atom;
    return left < block_atoms ? left : block_atoms;
  }
  LORAX_HOST_DEVICE void next_tile() {
    work += stride;
    enter();
  }
  LORAX_HOST_DEVICE void next() {
    if (atom + block_atoms >= last_atom) {
      next_tile();
    } else {
      atom += block_atoms;
    }
  }

 private:
  LORAX_HOST_DEVICE void enter() {
    tile = work / split;
    part = work % split;
    atom = part * atoms / split;
    last_atom = (part + 1) * atoms / split;
  }
};

// Of a block's dynamic shared memory, from a 1024-byte boundary on.
struct SharedLayout {
  int32_t w_stage_bytes = 0;  // [block_atoms][kTileRows][128]
  int32_t x_stage_bytes = 0;  // [block_atoms][columns][128]
  int32_t x_at = 0;
  int32_t gate_at = 0;  // [4 warps][columns / 8][32 lanes][4 bf16]
  int32_t lora_at = 0;  // [sets][8 slots]: B [groups][512], then v [2][256]; [sets][8] int4
  int32_t lora_slot_bytes = 0;
  int32_t shrink_at = 0;  // [2][4 warps][8 rows][16 ranks] float
  int32_t barriers_at = 0;
  int32_t bytes = 0;

  static constexpr int32_t kShrinkSumBytes = 4096;
  static constexpr int32_t kParkedBytes = 32;  // of a shrinking warp, behind the sums
  static constexpr int32_t kShrinkBytes = kShrinkSumBytes + 4 * kParkedBytes;

  // lora_sets 0: no adapters.
  LORAX_HOST_DEVICE SharedLayout(int32_t columns, int32_t block_atoms, int32_t w_stages,
                                 int32_t x_stages, int32_t split, int32_t lora_sets, bool gated) {
    w_stage_bytes = block_atoms * kTileRows * kAtomRowBytes;
    x_stage_bytes = block_atoms * columns * kAtomRowBytes;
    x_at = w_stages * w_stage_bytes;
    gate_at = x_at + x_stages * x_stage_bytes;
    lora_at = gate_at + (gated ? columns * 128 : 0);
    const int32_t groups = gated ? kTileWarps / 2 : kTileWarps / split;  // of one part of the site
    lora_slot_bytes = groups * kBGroupBytes + kLoraChunkBlocks * kVBlockBytes;
    shrink_at = lora_at + lora_sets * LoraSet::kMaxChunks * (lora_slot_bytes + 16);
    barriers_at = shrink_at + (lora_sets > 0 ? kShrinkBytes : 0);
    bytes = barriers_at + 2 * (w_stages + x_stages + lora_sets) * 8;
  }
};

// The kernel's parameters.
struct StreamGemmParameters {
  CUtensorMap w;
  CUtensorMap x;
  StreamSchedule schedule;
  int32_t w_stages = 0;
  int32_t x_stages = 0;
  int32_t in_flight = 0;
  int32_t lora_sets = 0;
  void* y = nullptr;
  int64_t part_stride = 0;
  const float* bias = nullptr;
  int32_t rows = 0;
  int32_t n = 0;
  int32_t k = 0;
  int32_t float32_out = 0;
  int32_t gated = 0;
  const void* x_rows = nullptr;  // x again, for ordinary loads
  uint64_t* trace = nullptr;     // [blocks][8], bench only
  StreamGemmLora lora;
};

}  // namespace lorax::cuda
