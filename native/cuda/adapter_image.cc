// Layout and tables of adapter_image.h.
#include "cuda/adapter_image.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <string>

#include "backend/tensor_fault.h"
#include "cuda/step_arrays.h"

namespace lorax::cuda {
namespace {

static_assert(a_block_bytes(kRankGroup) == SliceAddress::kABlockBytes);
static_assert(b_slice_bytes(kBTileRows, kRankGroup) == SliceAddress::kBTileBytes);

constexpr int64_t kTableAlignment = 16;

int64_t align(int64_t offset, int64_t to) { return (offset + to - 1) / to * to; }

// First fit: the first page with room.
class Pages {
 public:
  explicit Pages(int64_t page_bytes) : page_bytes_(page_bytes) {}

  int64_t take(int64_t bytes, int64_t alignment) {
    if (bytes > page_bytes_) {
      throw std::logic_error("cuda: a slice of " + std::to_string(bytes) +
                             " bytes does not fit a page of " + std::to_string(page_bytes_));
    }
    // Pages that are all but full are not looked at again.
    while (first_open_ < used_.size() && used_[first_open_] + kSliceAlignment > page_bytes_) {
      ++first_open_;
    }
    size_t page = first_open_;
    while (page < used_.size() && align(used_[page], alignment) + bytes > page_bytes_) ++page;
    if (page == used_.size()) used_.push_back(0);
    const int64_t at = align(used_[page], alignment);
    used_[page] = at + bytes;
    return static_cast<int64_t>(page) * page_bytes_ + at;
  }
  // What comes from here on lies behind what was taken.
  void close_earlier() { first_open_ = used_.empty() ? 0 : used_.size() - 1; }
  int32_t count() const { return static_cast<int32_t>(used_.size()); }
  int64_t end() const {
    return used_.empty() ? 0
                         : (static_cast<int64_t>(used_.size()) - 1) * page_bytes_ + used_.back();
  }

 private:
  int64_t page_bytes_;
  std::vector<int64_t> used_;
  size_t first_open_ = 0;
};

int32_t groups_of(const AdapterModule& m) { return (m.rank + kRankGroup - 1) / kRankGroup; }

// Head and embedding have their LoRA in rows: it is used by other kernels, and too wide for slices.
bool is_in_rows(const AdapterModule& m) { return m.is_table || m.sampled_rows; }

// Takes room for the tables of what a module has in rows; chunks come later.
class ExtraTables {
 public:
  ExtraTables(ImageLayout& layout, Pages& pages) : layout_(layout), pages_(pages) {}

  void add(const AdapterModule& m, size_t index, const OutputAffine& affine) {
    ImageLayout::Extra extra;
    extra.index = index;
    if (is_in_rows(m) && m.rank > 0) {
      extra.rank = m.rank;
      extra.a = m.is_table ? rows(m.a.cols, m.rank * 2) : rows(m.rank, m.a.cols * 2);
      extra.b = rows(m.b.rows, m.rank * 2);
    }
    if (m.whole.data != nullptr) extra.whole = rows(m.whole.rows, m.whole.cols * 2);
    extra.gain = rows(static_cast<int64_t>(affine.gain.size()), sizeof(float));
    extra.shift = rows(static_cast<int64_t>(affine.shift.size()), sizeof(float));
    layout_.formats |= m.is_table ? kAtTable : m.sampled_rows ? kAtHead : kHasAffine;
    layout_.extras.push_back(extra);
  }

 private:
  ImageLayout::Rows rows(int64_t count, int64_t row_bytes) {
    ImageLayout::Rows out;
    if (count == 0) return out;
    out.rows = static_cast<int32_t>(count);
    out.row_bytes = static_cast<int32_t>(row_bytes);
    out.rows_per_chunk = static_cast<int32_t>(std::min(count, layout_.page_bytes / row_bytes));
    if (out.rows_per_chunk == 0) {
      throw std::logic_error("cuda: a row of " + std::to_string(row_bytes) + " bytes fits no page");
    }
    out.chunks_at =
        pages_.take(out.num_chunks() * static_cast<int64_t>(sizeof(void*)), kTableAlignment);
    return out;
  }

  ImageLayout& layout_;
  Pages& pages_;
};

std::array<ImageLayout::Rows*, 5> rows_of(ImageLayout::Extra& extra) {
  return {&extra.whole, &extra.a, &extra.b, &extra.gain, &extra.shift};
}

void take_chunks(ImageLayout::Extra& extra, ImageLayout& layout, Pages& pages) {
  for (ImageLayout::Rows* rows : rows_of(extra)) {
    rows->first_chunk = static_cast<int64_t>(layout.chunk_at.size());
    for (int32_t i = 0; i < rows->num_chunks(); ++i) {
      const int64_t left = rows->rows - int64_t{i} * rows->rows_per_chunk;
      const int64_t count = std::min<int64_t>(left, rows->rows_per_chunk);
      layout.chunk_at.push_back(pages.take(count * rows->row_bytes, kSliceAlignment));
    }
  }
}

}  // namespace

ImageLayout image_layout(std::span<const AdapterModule> modules, int64_t page_bytes,
                         std::span<const OutputAffine> affines) {
  ImageLayout layout;
  layout.page_bytes = page_bytes;
  for (const AdapterModule& m : modules) {
    check_adapter_module(m);
    if (groups_of(m) > kMaxRankGroups) {
      fail_tensor("ADAPTER_UNSUPPORTED", m.a,
                  "has rank " + std::to_string(m.rank) + "; on a GPU an adapter may have rank " +
                      std::to_string(kMaxRankGroups * kRankGroup) + " at most");
    }
    layout.num_layers = std::max(layout.num_layers, m.layer + 1);
    layout.num_modules = std::max(layout.num_modules, m.module + 1);
    if (!is_in_rows(m)) layout.max_groups = std::max(layout.max_groups, groups_of(m));
  }
  Pages pages(page_bytes);
  pages.take(sizeof(AdapterTable), kTableAlignment);
  const int64_t num_entries = int64_t{layout.num_layers} * layout.num_modules;
  layout.entries_at =
      pages.take(num_entries * static_cast<int64_t>(sizeof(AdapterEntry)), kTableAlignment);
  std::vector<bool> seen(static_cast<size_t>(num_entries));
  for (const AdapterModule& m : modules) {
    const size_t entry = static_cast<size_t>(m.layer) * layout.num_modules + m.module;
    if (seen[entry]) {
      fail_tensor("ADAPTER_INVALID", m.rank > 0 ? m.a : m.whole,
                  "names a layer and module that came before");
    }
    seen[entry] = true;
    const int32_t num_groups = is_in_rows(m) ? 0 : groups_of(m);
    const int64_t groups_bytes = num_groups * static_cast<int64_t>(sizeof(RankGroup));
    layout.modules.push_back({m.layer, m.module, m.rank, num_groups, m.scale,
                              pages.take(groups_bytes, kTableAlignment), /*first_slice=*/0});
  }
  const auto has_extra = [&](size_t i) {
    const bool has_affine =
        !affines.empty() && !(affines[i].gain.empty() && affines[i].shift.empty());
    return is_in_rows(modules[i]) || has_affine;
  };
  ExtraTables extras(layout, pages);
  for (size_t i = 0; i < modules.size(); ++i) {
    if (!has_extra(i)) continue;
    if (layout.extras.empty()) {
      layout.extras_at =
          pages.take(num_entries * static_cast<int64_t>(sizeof(AdapterExtra)), kTableAlignment);
    }
    extras.add(modules[i], i, affines.empty() ? OutputAffine{} : affines[i]);
  }
  layout.table_bytes = pages.end();
  pages.close_earlier();
  auto extra = layout.extras.begin();
  for (size_t i = 0; i < modules.size(); ++i) {
    layout.modules[i].first_slice = static_cast<int64_t>(layout.slice_at.size());
    for (int32_t group = 0; group < layout.modules[i].num_groups; ++group) {
      const AdapterModule& m = modules[i];
      const int32_t ranks = ranks_of_group(m.rank, group);
      layout.slice_at.push_back(pages.take(a_slice_bytes(m.a.cols, ranks), kSliceAlignment));
      layout.slice_at.push_back(pages.take(b_slice_bytes(m.b.rows, ranks), kSliceAlignment));
    }
    if (extra == layout.extras.end() || extra->index != i) continue;
    take_chunks(*extra++, layout, pages);
  }
  layout.num_pages = pages.count();
  layout.bytes = pages.end();
  const int64_t table_pages = (layout.table_bytes + page_bytes - 1) / page_bytes;
  layout.pages_of_layers.assign(static_cast<size_t>(layout.num_layers),
                                static_cast<int32_t>(table_pages));
  const auto need = [&](const ImageLayout::Module& m, int64_t at) {
    int32_t& needed = layout.pages_of_layers[static_cast<size_t>(m.layer)];
    needed = std::max(needed, static_cast<int32_t>(at / page_bytes) + 1);
  };
  for (const ImageLayout::Module& m : layout.modules) {
    for (int64_t slice = m.first_slice; slice < m.first_slice + 2 * m.num_groups; ++slice) {
      need(m, layout.slice_at[static_cast<size_t>(slice)]);
    }
  }
  // Head and embedding are of layer 0: they are there before a step begins.
  for (ImageLayout::Extra& each : layout.extras) {
    for (const ImageLayout::Rows* rows : rows_of(each)) {
      for (int64_t i = rows->first_chunk; i < rows->first_chunk + rows->num_chunks(); ++i) {
        need(layout.modules[each.index], layout.chunk_at[static_cast<size_t>(i)]);
      }
    }
  }
  std::inclusive_scan(layout.pages_of_layers.begin(), layout.pages_of_layers.end(),
                      layout.pages_of_layers.begin(),
                      [](int32_t a, int32_t b) { return std::max(a, b); });
  return layout;
}

void write_tables(const ImageLayout& layout, const uint8_t* pool, std::span<const int32_t> pages,
                  uint8_t* tables) {
  const auto address = [&](int64_t at) {
    return pool + pages[static_cast<size_t>(at / layout.page_bytes)] * layout.page_bytes +
           at % layout.page_bytes;
  };
  std::memset(tables, 0, static_cast<size_t>(layout.table_bytes));
  auto* table = reinterpret_cast<AdapterTable*>(tables);
  table->entries = reinterpret_cast<const AdapterEntry*>(address(layout.entries_at));
  table->num_layers = layout.num_layers;
  table->num_modules = layout.num_modules;
  table->max_groups = layout.max_groups;
  auto* entries = reinterpret_cast<AdapterEntry*>(tables + layout.entries_at);
  for (const ImageLayout::Module& m : layout.modules) {
    AdapterEntry& entry = entries[int64_t{m.layer} * layout.num_modules + m.module];
    entry.groups = reinterpret_cast<const RankGroup*>(address(m.groups_at));
    entry.num_groups = m.num_groups;
    entry.scale = m.scale;
    auto* groups = reinterpret_cast<RankGroup*>(tables + m.groups_at);
    for (int32_t i = 0; i < m.num_groups; ++i) {
      const auto slice = static_cast<size_t>(m.first_slice + 2 * i);
      const bool is_half = ranks_of_group(m.rank, i) < kRankGroup;
      groups[i] = {SliceAddress(address(layout.slice_at[slice]), is_half),
                   SliceAddress(address(layout.slice_at[slice + 1]), is_half)};
    }
  }
  if (layout.extras.empty()) return;
  table->extras = reinterpret_cast<const AdapterExtra*>(address(layout.extras_at));
  auto* extras = reinterpret_cast<AdapterExtra*>(tables + layout.extras_at);
  const auto write_rows = [&](const ImageLayout::Rows& rows, PagedRows& to) {
    if (rows.rows == 0) return;
    to.chunks = reinterpret_cast<const uint8_t* const*>(address(rows.chunks_at));
    to.rows_per_chunk = rows.rows_per_chunk;
    to.row_bytes = rows.row_bytes;
    auto* chunks = reinterpret_cast<const uint8_t**>(tables + rows.chunks_at);
    for (int32_t i = 0; i < rows.num_chunks(); ++i) {
      chunks[i] = address(layout.chunk_at[static_cast<size_t>(rows.first_chunk + i)]);
    }
  };
  for (const ImageLayout::Extra& from : layout.extras) {
    const ImageLayout::Module& m = layout.modules[from.index];
    AdapterExtra& to = extras[int64_t{m.layer} * layout.num_modules + m.module];
    write_rows(from.whole, to.whole);
    write_rows(from.a, to.a);
    write_rows(from.b, to.b);
    write_rows(from.gain, to.gain);
    write_rows(from.shift, to.shift);
    to.rank = from.rank;
    to.scale = m.scale;
  }
}

}  // namespace lorax::cuda
