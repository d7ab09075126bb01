// An adapter as page images for the CUDA kernels: bf16, ranks in groups of 16; what is left of them
// is a group of 8 or 16, zero-padded.
//
// A slice is one group of A or of B; it is contiguous and never straddles a page, so a kernel needs
// one pointer for it. The image starts with its tables (step_arrays.h), whose pointers are written
// once the pages are known; everything else is the same wherever the pages lie. Both slices are in
// mma fragment order, which by the choice of the order in which k and ranks are summed is all but
// row-major (shape of a unit beside each):
//
//   A slice  [ceil(d_in / 32)][16 ranks][32 k]: lane (g, t) of a warp reads ranks g and g + 8 at
//            k = 8 t .. 8 t + 7, the A fragments of two m16n8k16 steps, beside 16 bytes of x.
//   B slice  [ceil(d_out / 16)][32 lanes][4][2]: lane (g, t) holds of outs g and g + 8 the ranks
//            4 t .. 4 t + 3, as pairs: (g, 4t), (g + 8, 4t), (g, 4t + 2), (g + 8, 4t + 2).
//
// A group of 8 has the same without ranks 8 to 15: the first half of each block of A, and of each
// tile of B the lanes with t < 2. A block of zeros follows its A: who reads the other half reads
// on.
//
// Beyond d_in, d_out and the rank lie zeros. What a module has beside these, or instead, lies in
// rows (step_arrays.h, AdapterExtra). Host only; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/output_affine.h"

namespace lorax::cuda {

constexpr int32_t kRankGroup = 16;
constexpr int32_t kABlockColumns = 32;    // k of a unit of A
constexpr int32_t kBTileRows = 16;        // outs of a unit of B
constexpr int64_t kSliceAlignment = 128;  // in a page

// Of one row, over all its adapters: what steps have room for.
constexpr int32_t kMaxRankGroups = 64;

constexpr int64_t a_block_bytes(int32_t ranks) { return kABlockColumns * ranks * 2; }

// Of a module of rank `rank`, group `group`: how many of its ranks there is room for, 8 or 16.
constexpr int32_t ranks_of_group(int32_t rank, int32_t group) {
  return rank - group * kRankGroup <= kRankGroup / 2 ? kRankGroup / 2 : kRankGroup;
}
constexpr int64_t a_slice_bytes(int64_t d_in, int32_t ranks) {
  const int64_t blocks = (d_in + kABlockColumns - 1) / kABlockColumns;
  return blocks * a_block_bytes(ranks) + (ranks < kRankGroup ? a_block_bytes(ranks) : 0);
}
constexpr int64_t b_slice_bytes(int64_t d_out, int32_t ranks) {
  return (d_out + kBTileRows - 1) / kBTileRows * kBTileRows * ranks * 2;
}

// Which kernels an adapter needs beside those of plain LoRA (adapter_formats.h).
enum AdapterFormats : uint32_t { kPlain = 0, kHasAffine = 1, kAtHead = 2, kAtTable = 4 };

// Offsets count from the image's start; offset / page_bytes is the image's page.
struct ImageLayout {
  // PagedRows, to be.
  struct Rows {
    int32_t rows = 0;  // 0: there is none
    int32_t rows_per_chunk = 1;
    int32_t row_bytes = 0;
    int64_t chunks_at = 0;    // pointers [num_chunks()]
    int64_t first_chunk = 0;  // into chunk_at

    int32_t num_chunks() const { return (rows + rows_per_chunk - 1) / rows_per_chunk; }
  };
  struct Extra {
    size_t index = 0;  // of the module
    int32_t rank = 0;  // of a and b
    Rows whole, a, b, gain, shift;
  };
  struct Module {
    int32_t layer = 0;
    int32_t module = 0;
    int32_t rank = 0;
    int32_t num_groups = 0;  // 0: what there is lies in rows
    float scale = 0.0f;
    int64_t groups_at = 0;    // RankGroup [num_groups]
    int64_t first_slice = 0;  // into slice_at: A and B of group 0, A and B of group 1, ...
  };
  int64_t page_bytes = 0;
  int32_t num_pages = 0;
  int64_t bytes = 0;        // the last page is cut short
  int64_t table_bytes = 0;  // the image's front, which holds the tables
  int32_t num_layers = 0;
  int32_t num_modules = 0;
  int32_t max_groups = 0;
  int64_t entries_at = 0;  // AdapterEntry [num_layers][num_modules]
  std::vector<Module> modules;
  std::vector<int64_t> slice_at;
  uint32_t formats = kPlain;  // AdapterFormats
  int64_t extras_at = 0;      // AdapterExtra [num_layers][num_modules], where there are any
  std::vector<Extra> extras;
  std::vector<int64_t> chunk_at;
  // Of the image, counted from its front: so many hold all that layers [0, i] need. [num_layers]
  std::vector<int32_t> pages_of_layers;
};

// Throws ADAPTER_INVALID naming a tensor whose shape is not its rank's, or that comes twice;
// std::logic_error where page_bytes cannot hold one slice.
// `affines` [modules] (backend/output_affine.h), or empty where no module has one.
ImageLayout image_layout(std::span<const AdapterModule> modules, int64_t page_bytes,
                         std::span<const OutputAffine> affines = {});

// Writes all but the tables into image [layout.bytes], shared out among `num_threads`. Throws
// ADAPTER_INVALID naming the first tensor with NaN or Inf.
void fill_image(std::span<const AdapterModule> modules, const ImageLayout& layout, uint8_t* image,
                int32_t num_threads, std::span<const OutputAffine> affines = {});

// Writes the tables [layout.table_bytes] of the adapter whose image lies in `pages`
// [layout.num_pages] of the pool at `pool` (device memory): the AdapterTable comes first.
void write_tables(const ImageLayout& layout, const uint8_t* pool, std::span<const int32_t> pages,
                  uint8_t* tables);

}  // namespace lorax::cuda
