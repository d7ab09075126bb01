// An adapter as page images: A [rank, d_in] row by row, B [d_out, rank] in panels (kernels.h), of
// exact rank (bf16 panels round an odd rank up to a pair), cut so that no slice crosses a page. A
// whole W is in panels as B is; gains and shifts (backend/output_affine.h) are float32. A table's
// A, and its whole W, lie token by token: [d_in, rank] and [d_in, d_out].
//
// The cuts depend on the adapter and the page's size only, never on where the pages lie, so an
// adapter that was evicted and placed elsewhere gives the same bits. The table is made once per
// image; a resident adapter adds addresses.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"

namespace lorax::cpu {

// A piece of A: rows [n_begin, n_end), columns [k_begin, k_end), or of B: panels [n_begin, n_end),
// ranks [k_begin, k_end), or of gains and shifts: [n_begin, n_end).
struct Slice {
  int32_t page = 0;
  int32_t offset = 0;  // bytes, a multiple of 64
  int32_t n_begin = 0;
  int32_t n_end = 0;
  int32_t k_begin = 0;
  int32_t k_end = 0;
};

// Into slices; ascending in (n, k).
struct SliceRange {
  int32_t begin = 0;
  int32_t end = 0;

  bool empty() const { return begin == end; }
};

struct AdaptedModule {
  int32_t rank = 0;
  float scale = 0.0f;
  int32_t d_in = 0;
  int32_t d_out = 0;
  bool is_table = false;
  SliceRange a;
  SliceRange b;
  SliceRange whole;
  SliceRange gain;
  SliceRange shift;
};

struct AdapterTable {
  int32_t num_layers = 0;
  int32_t num_modules = 0;
  std::vector<int32_t> index;  // [num_layers, num_modules], into modules, or -1
  std::vector<AdaptedModule> modules;
  std::vector<Slice> slices;

  const AdaptedModule* find(int32_t layer, int32_t module) const {
    if (layer >= num_layers || module >= num_modules) return nullptr;
    const int32_t i = index[static_cast<size_t>(layer) * num_modules + module];
    return i < 0 ? nullptr : &modules[i];
  }
};

struct PackedAdapter final : AdapterImage {
  std::shared_ptr<const AdapterTable> table;
  std::unique_ptr<uint8_t[]> data;  // [bytes]: page after page, the last one cut short
  int64_t page_bytes = 0;
};

struct PlacedAdapter final : ResidentAdapter {
  std::shared_ptr<const AdapterTable> table;
  std::vector<const uint8_t*> slice_data;  // [slices], into the arena
};

// Throws ADAPTER_INVALID naming the tensor at fault.
std::unique_ptr<PackedAdapter> pack_adapter(std::span<const AdapterModule> modules, bool bf16,
                                            int64_t page_bytes);
std::unique_ptr<PlacedAdapter> place_adapter(const PackedAdapter& image,
                                             std::span<const int32_t> pages, uint8_t* arena);

}  // namespace lorax::cpu
