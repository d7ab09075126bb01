// See adapter_pages.h.
#include "cpu/adapter_pages.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "backend/output_affine.h"
#include "backend/tensor_fault.h"
#include "cpu/kernels.h"
#include "cpu/merged_norms.h"
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

// Where an image is filled, and how.
struct Filling {
  const AdapterTable& table;
  bool bf16 = false;
  int64_t page_bytes = 0;
  uint8_t* image = nullptr;

  uint8_t* at(const Slice& slice) const { return image + slice.page * page_bytes + slice.offset; }
};

void read_finite(const TensorView& tensor, int64_t row, float* out) {
  if (!read_row(tensor, row, out)) fail(tensor, "holds NaN or Inf");
}

// Row by row.
void fill_rows(const TensorView& from, SliceRange range, const Filling& to) {
  std::vector<float> row(static_cast<size_t>(from.cols));
  for (int32_t s = range.begin; s < range.end; ++s) {
    const Slice& slice = to.table.slices[s];
    const int64_t width = slice.k_end - slice.k_begin;
    for (int32_t r = slice.n_begin; r < slice.n_end; ++r) {
      read_finite(from, r, row.data());
      for (int64_t j = 0; j < width; ++j) {
        write(to.at(slice), (r - slice.n_begin) * width + j, row[slice.k_begin + j], to.bf16);
      }
    }
  }
}

// Column by column.
void fill_columns(const TensorView& from, SliceRange range, const Filling& to) {
  std::vector<float> row(static_cast<size_t>(from.cols));
  for (int64_t r = 0; r < from.rows; ++r) {
    read_finite(from, r, row.data());
    for (int32_t s = range.begin; s < range.end; ++s) {
      const Slice& slice = to.table.slices[s];
      if (r < slice.k_begin || r >= slice.k_end) continue;
      const int64_t width = slice.k_end - slice.k_begin;
      for (int32_t n = slice.n_begin; n < slice.n_end; ++n) {
        write(to.at(slice), (n - slice.n_begin) * width + r - slice.k_begin, row[n], to.bf16);
      }
    }
  }
}

// In panels of 16 rows.
void fill_panels(const TensorView& from, SliceRange range, const Filling& to) {
  std::vector<float> row(static_cast<size_t>(from.cols));
  for (int32_t s = range.begin; s < range.end; ++s) {
    const Slice& slice = to.table.slices[s];
    const int64_t width = slice.k_end - slice.k_begin;
    const int64_t padded = to.bf16 ? (width + 1) / 2 * 2 : width;
    const int64_t end = std::min<int64_t>(int64_t{slice.n_end} * kPanel, from.rows);
    for (int64_t n = int64_t{slice.n_begin} * kPanel; n < end; ++n) {
      read_finite(from, n, row.data());
      const int64_t panel = (n / kPanel - slice.n_begin) * padded * kPanel;
      const int64_t lane = n % kPanel;
      for (int64_t j = 0; j < width; ++j) {
        const int64_t at = to.bf16 ? (j / 2 * kPanel + lane) * 2 + j % 2 : j * kPanel + lane;
        write(to.at(slice), panel + at, row[slice.k_begin + j], to.bf16);
      }
    }
  }
}

void fill_floats(const std::vector<float>& from, SliceRange range, const Filling& to) {
  for (int32_t s = range.begin; s < range.end; ++s) {
    const Slice& slice = to.table.slices[s];
    std::memcpy(to.at(slice), from.data() + slice.n_begin,
                static_cast<size_t>(slice.n_end - slice.n_begin) * sizeof(float));
  }
}

void fill(const AdapterModule& m, const AdaptedModule& entry, const OutputAffine& affine,
          const Filling& to) {
  if (m.rank > 0) {
    m.is_table ? fill_columns(m.a, entry.a, to) : fill_rows(m.a, entry.a, to);
    fill_panels(m.b, entry.b, to);
  }
  if (!entry.whole.empty()) {
    m.is_table ? fill_rows(m.whole, entry.whole, to) : fill_panels(m.whole, entry.whole, to);
  }
  fill_floats(affine.gain, entry.gain, to);
  fill_floats(affine.shift, entry.shift, to);
}

std::vector<float> read_vector(const TensorView& tensor) {
  if (tensor.data == nullptr) return {};
  std::vector<float> out(static_cast<size_t>(tensor.cols));
  read_finite(tensor, 0, out.data());
  return out;
}

OutputAffine affine_of(const AdapterModule& m, bool bf16) {
  if (!has_affine(m)) return {};
  const std::vector<float> magnitude = read_vector(m.magnitude);
  std::vector<float> norms;
  std::span<const float> base_bias;
  if (!magnitude.empty()) {
    norms = merged_norms(m, bf16);
    const auto& base = static_cast<const PackedWeight&>(*m.base);
    if (!base.bias.empty()) {
      base_bias = std::span(base.bias).subspan(static_cast<size_t>(m.base_row), norms.size());
    }
  }
  return output_affine(m, read_vector(m.b_bias), magnitude, norms, base_bias);
}

// Cuts all that a module has.
AdaptedModule cut_module(const AdapterModule& m, const OutputAffine& affine, bool bf16,
                         int64_t page_bytes, PageCursor& cursor, std::vector<Slice>& slices) {
  AdaptedModule entry;
  entry.rank = m.rank;
  entry.scale = m.scale;
  entry.d_in = static_cast<int32_t>(module_d_in(m));
  entry.d_out = static_cast<int32_t>(module_d_out(m));
  entry.is_table = m.is_table;
  const int64_t element = bf16 ? 2 : 4;
  const int32_t panels = (entry.d_out + kPanel - 1) / kPanel;
  const int32_t pair = bf16 ? 2 : 1;
  const auto take = [&](int32_t n, int32_t k, int64_t k_bytes, int32_t step) {
    SliceRange range{static_cast<int32_t>(slices.size()), 0};
    cut(cursor, n, k, k_bytes, step, page_bytes, slices);
    range.end = static_cast<int32_t>(slices.size());
    return range;
  };
  if (m.rank > 0) {
    entry.a =
        m.is_table ? take(entry.d_in, m.rank, element, 1) : take(m.rank, entry.d_in, element, 1);
    entry.b = take(panels, m.rank, element * kPanel, pair);
  }
  if (m.whole.data != nullptr) {
    entry.whole = m.is_table ? take(entry.d_in, entry.d_out, element, 1)
                             : take(panels, entry.d_in, element * kPanel, pair);
  }
  if (!affine.gain.empty()) entry.gain = take(entry.d_out, 1, sizeof(float), 1);
  if (!affine.shift.empty()) entry.shift = take(entry.d_out, 1, sizeof(float), 1);
  return entry;
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
  std::vector<OutputAffine> affines;  // [modules]
  for (const AdapterModule& m : modules) {
    int32_t& at = table->index[static_cast<size_t>(m.layer) * table->num_modules + m.module];
    if (at >= 0) fail(m.rank > 0 ? m.a : m.whole, "names a layer and module that came before");
    at = static_cast<int32_t>(table->modules.size());
    affines.push_back(affine_of(m, bf16));
    table->modules.push_back(
        cut_module(m, affines.back(), bf16, page_bytes, cursor, table->slices));
  }
  auto image = std::make_unique<PackedAdapter>();
  image->page_bytes = page_bytes;
  image->bytes = cursor.used_bytes();
  image->num_pages = static_cast<int32_t>((image->bytes + page_bytes - 1) / page_bytes);
  image->data = std::make_unique<uint8_t[]>(static_cast<size_t>(image->bytes));  // zeroed
  const Filling filling{*table, bf16, page_bytes, image->data.get()};
  for (size_t i = 0; i < modules.size(); ++i) {
    fill(modules[i], table->modules[i], affines[i], filling);
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
