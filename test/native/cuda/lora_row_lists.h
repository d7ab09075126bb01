// The lists of lora_rows.h for a LoraStep, and its sites. For the tests of the kernels that read
// them.
#pragma once

#include <limits>
#include <vector>

#include "cuda/lora_rows.h"
#include "cuda/lora_step.h"

namespace lorax::cuda_test {

using cuda::LoraRowSite;

inline const __nv_bfloat16* bf16(const Device<uint16_t>& buffer) {
  return reinterpret_cast<const __nv_bfloat16*>(buffer.data());
}
inline __nv_bfloat16* mutable_bf16(const Device<uint16_t>& buffer) {
  return reinterpret_cast<__nv_bfloat16*>(buffer.data());
}

// The lists of one step's segments of fewer than `to_rows` rows, and of at least `from_rows`.
struct Lists {
  explicit Lists(const LoraStep& step, int32_t tile_rows = cuda::LoraRowTile::kRows,
                 int32_t from_rows = 1, int32_t to_rows = std::numeric_limits<int32_t>::max())
      : capacity{step.num_rows(), static_cast<int32_t>(step.segments().size()), step.segment_rows(),
                 step.load().row_groups},
        v_begin(step.segments().size()),
        num_tiles(1),
        tiles(static_cast<size_t>(capacity.max_tiles(tile_rows))),
        pair_begin(static_cast<size_t>((step.num_rows() + 15) / 16 + 1)),
        pairs(static_cast<size_t>(step.segment_rows())),
        slices(step.segments().size() * cuda::LoraSiteItems::kMaxParts),
        v(static_cast<size_t>(capacity.v_bytes() / 2)) {
    lists.capacity = capacity;
    lists.tile_rows = tile_rows;
    lists.from_rows = from_rows;
    lists.to_rows = to_rows;
    lists.v_begin = v_begin.data();
    lists.num_tiles = num_tiles.data();
    lists.tiles = tiles.data();
    lists.pair_begin = pair_begin.data();
    lists.pairs = pairs.data();
    lists.slices = slices.data();
    lists.v = mutable_bf16(v);
    cuda::make_lora_rows(lists, step.arrays(), step.num_rows(), nullptr);
  }
  cuda::LoraRowsCapacity capacity;
  Device<int64_t> v_begin;
  Device<int32_t> num_tiles;
  Device<cuda::LoraRowTile> tiles;
  Device<int32_t> pair_begin;
  Device<cuda::LoraRowPair> pairs;
  Device<cuda::LoraRowSlices> slices;
  Device<uint16_t> v;
  cuda::LoraRowLists lists;
};

inline LoraRowSite site_of(const LoraStep& step, int32_t layer,
                           const std::vector<int32_t>& modules) {
  LoraRowSite site;
  site.layer = layer;
  int32_t column = 0;
  for (const int32_t module : modules) {
    site.modules[site.num_parts] = module;
    site.column[site.num_parts] = column;
    site.columns[site.num_parts++] = step.shapes()[module].d_out;
    column += step.shapes()[module].d_out;
  }
  return site;
}

inline int32_t width_of(const LoraRowSite& site) {
  return site.column[site.num_parts - 1] + site.columns[site.num_parts - 1];
}

inline std::vector<double> to_doubles(const std::vector<uint16_t>& values) {
  std::vector<double> out;
  out.reserve(values.size());
  for (const uint16_t value : values) out.push_back(to_float(value));
  return out;
}

}  // namespace lorax::cuda_test
