// See adapter_pages.h.
#include "cpu/adapter_pages.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "backend/tensor_fault.h"
#include "cpu/kernels.h"
#include "cpu/packed_weight.h"

namespace lorax::cpu {
namespace {

constexpr int64_t kAlignment = 64;

[[noreturn]] void fail(const TensorView& tensor, const std::string& what) {
  fail_tensor("ADAPTER_INVALID", tensor, what);
}

// Hands out room, page after page.
class PageCursor {
 public:
  explicit PageCursor(int64_t page_bytes) : page_bytes_(page_bytes) {}

  // The most units of unit_bytes, at most `wanted`, that fit where we stand; at least one, on a new
  // page if need be. A unit fits a page.
  int64_t take(int64_t wanted, int64_t unit_bytes, Slice& slice) {
    offset_ = (offset_ + kAlignment - 1) / kAlignment * kAlignment;
    if (offset_ + unit_bytes > page_bytes_) {
      ++page_;
      offset_ = 0;
    }
    const int64_t units = std::min(wanted, (page_bytes_ - offset_) / unit_bytes);
    slice.page = page_;
    slice.offset = static_cast<int32_t>(offset_);
    offset_ += units * unit_bytes;
    return units;
  }
  int64_t used_bytes() const { return page_ * page_bytes_ + offset_; }

 private:
  int64_t page_bytes_;
  int32_t page_ = 0;
  int64_t offset_ = 0;
};

// Cuts n units of k elements (k_bytes each, k in steps of `step`) into slices: whole units where
// one fits a page, else pieces of a unit.
void cut(PageCursor& cursor, int32_t n, int32_t k, int64_t k_bytes, int32_t step,
         int64_t page_bytes, std::vector<Slice>& slices) {
  const int64_t padded = (k + step - 1) / step * step;
  if (padded * k_bytes <= page_bytes) {
    for (int32_t begin = 0; begin < n;) {
      Slice slice;
      const auto units = static_cast<int32_t>(cursor.take(n - begin, padded * k_bytes, slice));
      slice.n_begin = begin;
      slice.n_end = begin += units;
      slice.k_end = k;
      slices.push_back(slice);
    }
    return;
  }
  const auto piece = static_cast<int32_t>(page_bytes / k_bytes / step * step);
  for (int32_t i = 0; i < n; ++i) {
    for (int32_t begin = 0; begin < k; begin += piece) {
      Slice slice;
      slice.k_begin = begin;
      slice.k_end = std::min(k, begin + piece);
      const int64_t length = (slice.k_end - begin + step - 1) / step * step;
      cursor.take(1, length * k_bytes, slice);
      slice.n_begin = i;
      slice.n_end = i + 1;
      slices.push_back(slice);
    }
  }
}

void write(uint8_t* base, int64_t element, float x, bool bf16) {
  if (bf16) {
    reinterpret_cast<uint16_t*>(base)[element] = to_bf16(x);
  } else {
    reinterpret_cast<float*>(base)[element] = x;
  }
}

// Copies one module's values into its slices of the image.
void fill(const AdapterModule& m, const AdapterTable& table, const AdaptedModule& entry, bool bf16,
          int64_t page_bytes, uint8_t* image) {
  std::vector<float> a_row(static_cast<size_t>(entry.d_in));
  for (int32_t s = entry.a_begin; s < entry.b_begin; ++s) {
    const Slice& slice = table.slices[s];
    uint8_t* to = image + slice.page * page_bytes + slice.offset;
    const int64_t width = slice.k_end - slice.k_begin;
    for (int32_t r = slice.n_begin; r < slice.n_end; ++r) {
      if (!read_row(m.a, r, a_row.data())) fail(m.a, "holds NaN or Inf");
      for (int64_t j = 0; j < width; ++j) {
        write(to, (r - slice.n_begin) * width + j, a_row[slice.k_begin + j], bf16);
      }
    }
  }
  std::vector<float> b_row(static_cast<size_t>(entry.rank));
  for (int32_t s = entry.b_begin; s < entry.b_end; ++s) {
    const Slice& slice = table.slices[s];
    uint8_t* to = image + slice.page * page_bytes + slice.offset;
    const int64_t width = slice.k_end - slice.k_begin;
    const int64_t padded = bf16 ? (width + 1) / 2 * 2 : width;
    for (int32_t n = slice.n_begin * kPanel; n < std::min(slice.n_end * kPanel, entry.d_out); ++n) {
      if (!read_row(m.b, n, b_row.data())) fail(m.b, "holds NaN or Inf");
      const int64_t panel = (n / kPanel - slice.n_begin) * padded * kPanel;
      const int64_t lane = n % kPanel;
      for (int64_t j = 0; j < width; ++j) {
        const int64_t at = bf16 ? (j / 2 * kPanel + lane) * 2 + j % 2 : j * kPanel + lane;
        write(to, panel + at, b_row[slice.k_begin + j], bf16);
      }
    }
  }
}

}  // namespace

std::unique_ptr<PackedAdapter> pack_adapter(std::span<const AdapterModule> modules, bool bf16,
                                            int64_t page_bytes) {
  auto table = std::make_shared<AdapterTable>();
  for (const AdapterModule& m : modules) {
    check_adapter_module(m);
    table->num_layers = std::max(table->num_layers, m.layer + 1);
    table->num_modules = std::max(table->num_modules, m.module + 1);
  }
  table->index.assign(static_cast<size_t>(table->num_layers) * table->num_modules, -1);
  PageCursor cursor(page_bytes);
  const int64_t element = bf16 ? 2 : 4;
  for (const AdapterModule& m : modules) {
    int32_t& at = table->index[static_cast<size_t>(m.layer) * table->num_modules + m.module];
    if (at >= 0) fail(m.a, "names a layer and module that came before");
    at = static_cast<int32_t>(table->modules.size());
    AdaptedModule entry;
    entry.rank = m.rank;
    entry.scale = m.scale;
    entry.d_in = static_cast<int32_t>(m.a.cols);
    entry.d_out = static_cast<int32_t>(m.b.rows);
    entry.a_begin = static_cast<int32_t>(table->slices.size());
    cut(cursor, entry.rank, entry.d_in, element, 1, page_bytes, table->slices);
    entry.b_begin = static_cast<int32_t>(table->slices.size());
    cut(cursor, (entry.d_out + kPanel - 1) / kPanel, entry.rank, element * kPanel, bf16 ? 2 : 1,
        page_bytes, table->slices);
    entry.b_end = static_cast<int32_t>(table->slices.size());
    table->modules.push_back(entry);
  }
  auto image = std::make_unique<PackedAdapter>();
  image->page_bytes = page_bytes;
  image->bytes = cursor.used_bytes();
  image->num_pages = static_cast<int32_t>((image->bytes + page_bytes - 1) / page_bytes);
  image->data = std::make_unique<uint8_t[]>(static_cast<size_t>(image->bytes));  // zeroed
  for (size_t i = 0; i < modules.size(); ++i) {
    fill(modules[i], *table, table->modules[i], bf16, page_bytes, image->data.get());
  }
  image->table = std::move(table);
  return image;
}

std::unique_ptr<PlacedAdapter> place_adapter(const PackedAdapter& image,
                                             std::span<const int32_t> pages, uint8_t* arena) {
  for (int32_t p = 0; p < image.num_pages; ++p) {
    const int64_t begin = p * image.page_bytes;
    std::memcpy(arena + pages[p] * image.page_bytes, image.data.get() + begin,
                static_cast<size_t>(std::min(image.page_bytes, image.bytes - begin)));
  }
  auto placed = std::make_unique<PlacedAdapter>();
  placed->table = image.table;
  for (const Slice& slice : image.table->slices) {
    placed->slice_data.push_back(arena + pages[slice.page] * image.page_bytes + slice.offset);
  }
  return placed;
}

}  // namespace lorax::cpu
