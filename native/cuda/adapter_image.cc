// See adapter_image.h.
#include "cuda/adapter_image.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>

#include "backend/tensor_fault.h"
#include "cuda/bf16_rows.h"
#include "cuda/step_arrays.h"

namespace lorax::cuda {
namespace {

[[noreturn]] void fail(const TensorView& tensor, const std::string& what) {
  fail_tensor("ADAPTER_INVALID", tensor, what);
}

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
    while (first_open_ < used_.size() && used_[first_open_] + kBTileBytes > page_bytes_) {
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

// One group of A: block after block, the rows of a block together, so that writes are sequential.
bool fill_a(const TensorView& a, int32_t first_rank, uint8_t* to) {
  const auto ranks = static_cast<int32_t>(std::min<int64_t>(kRankGroup, a.rows - first_rank));
  const int64_t row_bytes = a.cols * dtype_bytes(a.dtype);
  const auto* from = static_cast<const uint8_t*>(a.data) + first_rank * row_bytes;
  bool finite = true;
  for (int64_t k = 0; k < a.cols; k += kABlockColumns, to += kABlockBytes) {
    const auto columns = static_cast<int32_t>(std::min<int64_t>(kABlockColumns, a.cols - k));
    if (columns == kABlockColumns && ranks == kRankGroup) {
      finite &= to_bf16_block(from + k * dtype_bytes(a.dtype), a.dtype, row_bytes, to);
      continue;
    }
    std::memset(to, 0, kABlockBytes);
    for (int32_t r = 0; r < ranks; ++r) {
      finite &= to_bf16_row(from + r * row_bytes + k * dtype_bytes(a.dtype), a.dtype, columns,
                            reinterpret_cast<uint16_t*>(to) + r * kABlockColumns);
    }
  }
  return finite;
}

// One group of B: a tile of 16 outs is converted to rows, then its words are laid out by lane.
bool fill_b(const TensorView& b, int32_t first_rank, uint8_t* to) {
  const auto ranks = static_cast<int32_t>(std::min<int64_t>(kRankGroup, b.cols - first_rank));
  const int64_t row_bytes = b.cols * dtype_bytes(b.dtype);
  const auto* from = static_cast<const uint8_t*>(b.data) + first_rank * dtype_bytes(b.dtype);
  bool finite = true;
  alignas(64) uint16_t rows[kBTileRows][kRankGroup];
  for (int64_t out = 0; out < b.rows; out += kBTileRows, to += kBTileBytes) {
    const auto outs = static_cast<int32_t>(std::min<int64_t>(kBTileRows, b.rows - out));
    if (outs == kBTileRows && ranks == kRankGroup) {
      finite &= to_bf16_tile(from + out * row_bytes, b.dtype, row_bytes, to);
      continue;
    }
    std::memset(rows, 0, sizeof rows);
    for (int32_t r = 0; r < outs; ++r) {
      finite &= to_bf16_row(from + (out + r) * row_bytes, b.dtype, ranks, rows[r]);
    }
    interleave_tile(rows[0], to);
  }
  return finite;
}

}  // namespace

ImageLayout image_layout(std::span<const AdapterModule> modules, int64_t page_bytes) {
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
    layout.max_groups = std::max(layout.max_groups, groups_of(m));
  }
  Pages pages(page_bytes);
  pages.take(sizeof(AdapterTable), kTableAlignment);
  const int64_t num_entries = int64_t{layout.num_layers} * layout.num_modules;
  layout.entries_at =
      pages.take(num_entries * static_cast<int64_t>(sizeof(AdapterEntry)), kTableAlignment);
  std::vector<bool> seen(static_cast<size_t>(num_entries));
  for (const AdapterModule& m : modules) {
    const size_t entry = static_cast<size_t>(m.layer) * layout.num_modules + m.module;
    if (seen[entry]) fail(m.a, "names a layer and module that came before");
    seen[entry] = true;
    const int64_t groups_bytes = groups_of(m) * static_cast<int64_t>(sizeof(RankGroup));
    layout.modules.push_back({m.layer, m.module, groups_of(m), m.scale,
                              pages.take(groups_bytes, kTableAlignment), /*first_slice=*/0});
  }
  layout.table_bytes = pages.end();
  pages.close_earlier();
  for (size_t i = 0; i < modules.size(); ++i) {
    layout.modules[i].first_slice = static_cast<int64_t>(layout.slice_at.size());
    for (int32_t group = 0; group < layout.modules[i].num_groups; ++group) {
      layout.slice_at.push_back(pages.take(a_slice_bytes(modules[i].a.cols), kSliceAlignment));
      layout.slice_at.push_back(pages.take(b_slice_bytes(modules[i].b.rows), kSliceAlignment));
    }
  }
  layout.num_pages = pages.count();
  layout.bytes = pages.end();
  const int64_t table_pages = (layout.table_bytes + page_bytes - 1) / page_bytes;
  layout.pages_of_layers.assign(static_cast<size_t>(layout.num_layers),
                                static_cast<int32_t>(table_pages));
  for (const ImageLayout::Module& m : layout.modules) {
    int32_t& needed = layout.pages_of_layers[static_cast<size_t>(m.layer)];
    for (int64_t slice = m.first_slice; slice < m.first_slice + 2 * m.num_groups; ++slice) {
      const int64_t page = layout.slice_at[static_cast<size_t>(slice)] / page_bytes;
      needed = std::max(needed, static_cast<int32_t>(page) + 1);
    }
  }
  std::inclusive_scan(layout.pages_of_layers.begin(), layout.pages_of_layers.end(),
                      layout.pages_of_layers.begin(),
                      [](int32_t a, int32_t b) { return std::max(a, b); });
  return layout;
}

void fill_image(std::span<const AdapterModule> modules, const ImageLayout& layout, uint8_t* image,
                int32_t num_threads) {
  // Tensor 2 i is A of module i, 2 i + 1 its B: shared out one by one, the first bad one is told.
  const auto num_tensors = static_cast<int64_t>(modules.size()) * 2;
  std::atomic<int64_t> next{0};
  std::atomic<int64_t> bad{num_tensors};
  const auto work = [&] {
    for (int64_t i; (i = next.fetch_add(1)) < num_tensors;) {
      const AdapterModule& m = modules[static_cast<size_t>(i / 2)];
      const ImageLayout::Module& to = layout.modules[static_cast<size_t>(i / 2)];
      bool finite = true;
      for (int32_t group = 0; group < to.num_groups; ++group) {
        const size_t slice = static_cast<size_t>(to.first_slice + 2 * group + i % 2);
        uint8_t* at = image + layout.slice_at[slice];
        const int32_t rank = group * kRankGroup;
        finite &= i % 2 == 0 ? fill_a(m.a, rank, at) : fill_b(m.b, rank, at);
      }
      if (finite) continue;
      int64_t first = bad.load();
      while (i < first && !bad.compare_exchange_weak(first, i)) {
      }
    }
  };
  std::vector<std::thread> threads;
  try {
    while (static_cast<int32_t>(threads.size()) + 1 < num_threads) threads.emplace_back(work);
  } catch (const std::system_error&) {
    // The system gives no more threads: those that run do the work.
  }
  work();
  for (std::thread& thread : threads) thread.join();
  if (const int64_t i = bad.load(); i < num_tensors) {
    const AdapterModule& m = modules[static_cast<size_t>(i / 2)];
    fail(i % 2 == 0 ? m.a : m.b, "holds NaN or Inf");
  }
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
      groups[i] = {address(layout.slice_at[slice]), address(layout.slice_at[slice + 1])};
    }
  }
}

}  // namespace lorax::cuda
