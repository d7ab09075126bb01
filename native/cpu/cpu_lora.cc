// What adapters add to a linear or an embedding: their parts of it, shrink, expand and affine.
#include <algorithm>
#include <cstring>

#include "cpu/cpu_backend_impl.h"

namespace lorax::cpu {
namespace {

constexpr int32_t kShrinkRanks = 8;  // per task
constexpr int32_t kShrinkRows = 64;
constexpr int32_t kAmxShrinkRows = 128;  // a task lays A out in tiles first: enough rows to pay

int32_t divide_up(int32_t a, int32_t b) { return (a + b - 1) / b; }

}  // namespace

// The segment's rows, counted as x has them. Those of the head are the sampled ones.
CpuBackend::PartRows CpuBackend::rows_at(const LoraSite& site, const LoraSegment& segment) {
  const int32_t begin = segment.rows_begin;
  const int32_t count = segment.rows_end - begin;
  const int32_t* rows = step_.plan->segment_rows.data() + begin;
  const float* weights = step_.plan->segment_weights.data() + begin;
  if (!site.sampled_rows) return {rows, weights, count};
  // Enough for all segments: earlier parts point into it.
  sampled_segment_rows_.reserve(step_.plan->segment_rows.size());
  sampled_segment_weights_.reserve(step_.plan->segment_rows.size());
  const size_t at = sampled_segment_rows_.size();
  const std::vector<int32_t>& sampled = step_.plan->logits_rows;
  for (int32_t i = 0, s = 0; i < count; ++i) {
    while (s < static_cast<int32_t>(sampled.size()) && sampled[s] < rows[i]) ++s;
    if (s == static_cast<int32_t>(sampled.size())) break;
    if (sampled[s] != rows[i]) continue;
    sampled_segment_rows_.push_back(s);
    sampled_segment_weights_.push_back(weights[i]);
  }
  return {sampled_segment_rows_.data() + at, sampled_segment_weights_.data() + at,
          static_cast<int32_t>(sampled_segment_rows_.size() - at)};
}

void CpuBackend::collect_lora_parts(const LoraSite& site, int32_t d_in, int32_t columns) {
  lora_parts_.clear();
  affine_parts_.clear();
  sampled_segment_rows_.clear();
  sampled_segment_weights_.clear();
  int64_t v_floats = 0;
  for (const LoraSegment& segment : step_.plan->segments) {
    if (segment.adapter == nullptr || segment.rows_end <= segment.rows_begin) continue;
    const auto* adapter = static_cast<const PlacedAdapter*>(segment.adapter);
    for (const SitePart& site_part : site.parts) {
      const AdaptedModule* module = adapter->table->find(site.layer, site_part.module);
      if (module == nullptr) continue;
      if (module->d_in != d_in || module->d_out != site_part.columns ||
          site_part.column + site_part.columns > columns) {
        throw Error("ADAPTER_INVALID", "an adapter of d_in " + std::to_string(module->d_in) +
                                           " and d_out " + std::to_string(module->d_out) +
                                           " met a module of " + std::to_string(d_in) + " and " +
                                           std::to_string(site_part.columns));
      }
      const PartRows rows = rows_at(site, segment);
      if (rows.num_rows == 0) continue;
      LoraPart part;
      part.adapter = adapter;
      part.module = module;
      part.rows = rows.rows;
      part.row_weights = rows.weights;
      part.num_rows = rows.num_rows;
      part.column = site_part.column;
      if (!module->whole.empty() && !module->is_table) {
        ones_.resize(std::max(ones_.size(), static_cast<size_t>(rows.num_rows)), 1.0f);
        part.replaces = true;
        part.rank = d_in;
        part.scale = 1.0f;
        part.b = module->whole;
        part.v_begin = v_floats;
        v_floats += int64_t{part.num_rows} * part.rank;
        lora_parts_.push_back(part);
      }
      if (module->rank > 0) {
        part.replaces = false;
        part.rank = module->rank;
        part.scale = module->scale;
        part.b = module->b;
        part.v_begin = v_floats;
        v_floats += int64_t{part.num_rows} * part.rank;
        lora_parts_.push_back(part);
      }
      if (!module->gain.empty() || !module->shift.empty()) {
        affine_parts_.push_back({adapter, module, rows, site_part.column});
      }
    }
  }
  // A whole W is not weighed: it is in no mix.
  for (LoraPart& part : lora_parts_) {
    if (part.replaces) part.row_weights = ones_.data();
  }
  lora_v_.ensure(v_floats * 4);
}

// v[i][r] = sum_j x[rows[i]][j] A[r][j]                            [num_rows, rank] per part
// Where a whole W takes the base's place, v is x itself.
void CpuBackend::shrink(const Activation& x) {
  if (lora_parts_.empty()) return;
  struct Task {
    int32_t part;
    int32_t rank;
    int32_t row;
  };
  std::vector<Task> tasks;
  const bool amx = amx_ != nullptr;
  const int32_t task_rows = amx ? kAmxShrinkRows : kShrinkRows;
  const int32_t task_ranks = amx ? kPanel : kShrinkRanks;
  const int64_t scratch_bytes = amx ? amx_shrink_scratch_bytes(x.cols) : 0;
  linear_scratch_.ensure(scratch_bytes * pool_.size());
  for (size_t p = 0; p < lora_parts_.size(); ++p) {
    const LoraPart& part = lora_parts_[p];
    if (part.replaces) {
      for (int32_t i = 0; i < part.num_rows; ++i) {
        std::memcpy(v_of(part, i),
                    static_cast<const float*>(x.data) + int64_t{part.rows[i]} * x.cols,
                    static_cast<size_t>(x.cols) * sizeof(float));
      }
      continue;
    }
    for (int32_t row = 0; row < part.num_rows; row += task_rows) {
      for (int32_t rank = 0; rank < part.module->rank; rank += task_ranks) {
        tasks.push_back({static_cast<int32_t>(p), rank, row});
      }
    }
  }
  pool_.run(static_cast<int64_t>(tasks.size()), [&](int64_t index, int thread) {
    const Task& task = tasks[static_cast<size_t>(index)];
    const LoraPart& part = lora_parts_[static_cast<size_t>(task.part)];
    const AdaptedModule& module = *part.module;
    const int32_t rank_end = std::min(module.rank, task.rank + task_ranks);
    for (int32_t s = module.a.begin; s < module.a.end; ++s) {
      const Slice& slice = part.adapter->table->slices[s];
      const int32_t begin = std::max(slice.n_begin, task.rank);
      const int32_t end = std::min(slice.n_end, rank_end);
      if (begin >= end) continue;
      const int32_t width = slice.k_end - slice.k_begin;
      const int64_t row_bytes = width * layout_.element_bytes;
      const uint8_t* a = part.adapter->slice_data[s] + (begin - slice.n_begin) * row_bytes;
      float* v = v_of(part, task.row) + begin;
      const int32_t num_rows = std::min(task_rows, part.num_rows - task.row);
      if (amx) {
        const int64_t x_stride = divide_up(x.cols, 32) * 32;  // k_padded
        amx_->shrink({linear_x_.as<uint16_t>(), x_stride, slice.k_begin, part.rows + task.row,
                      num_rows, a, row_bytes, end - begin, width, v, module.rank, slice.k_begin > 0,
                      linear_scratch_.as<uint8_t>() + thread * scratch_bytes});
        continue;
      }
      ShrinkArgs args;
      args.x = static_cast<const float*>(x.data) + slice.k_begin;
      args.x_stride = x.cols;
      args.rows = part.rows + task.row;
      args.num_rows = num_rows;
      args.a = a;
      args.a_bytes = row_bytes;
      args.ranks = end - begin;
      args.d = width;
      args.v = v;
      args.v_stride = module.rank;
      args.accumulate = slice.k_begin > 0;
      kernels_.shrink(args);
    }
  });
}

// Of a tile of so many rows and panels: what expand() needs with AMX.
int64_t CpuBackend::expand_scratch_floats(int32_t rows, int32_t panels) const {
  int32_t rank = 0;
  for (const LoraPart& part : lora_parts_) rank = std::max(rank, part.rank);
  return int64_t{rows} * (panels + 1) * kPanel +
         amx_expand_scratch_bytes(rows, panels + 1, rank) / 4;
}

// y[rows][columns] += weight * scale * v B^T for the part's rows in [row_begin, row_end), or =
// where the part replaces what is there. Scratch is for tiles only.
void CpuBackend::expand(const LoraPart& part, int32_t row_begin, int32_t row_end,
                        int32_t column_begin, int32_t column_end, float* scratch, float* y,
                        int64_t y_stride) const {
  const int32_t begin = std::max(column_begin, part.column);
  const int32_t end = std::min(column_end, part.column + part.module->d_out);
  if (begin >= end) return;
  const int32_t* rows_end = part.rows + part.num_rows;
  const auto first =
      static_cast<int32_t>(std::lower_bound(part.rows, rows_end, row_begin) - part.rows);
  const auto last =
      static_cast<int32_t>(std::lower_bound(part.rows, rows_end, row_end) - part.rows);
  if (first >= last) return;
  if (part.replaces) {
    for (int32_t i = first; i < last; ++i) {
      std::fill_n(y + part.rows[i] * y_stride + begin, end - begin, 0.0f);
    }
  }
  // Panels are counted from the part's first column, which need not be a multiple of 16.
  const int32_t panel_begin = (begin - part.column) / kPanel;
  const int32_t panel_end = divide_up(end - part.column, kPanel);
  const int32_t stride = (panel_end - panel_begin) * kPanel;  // of scratch
  const int32_t step = bf16() ? 2 : 1;
  // Slices ascend in n: the first that ends beyond panel_begin.
  const auto slices = part.adapter->table->slices.begin();
  auto slice = std::partition_point(slices + part.b.begin, slices + part.b.end,
                                    [&](const Slice& s) { return s.n_end <= panel_begin; });
  for (; slice != slices + part.b.end && slice->n_begin < panel_end; ++slice) {
    const int32_t from = std::max(slice->n_begin, panel_begin);
    const int32_t to = std::min(slice->n_end, panel_end);
    const int32_t width = slice->k_end - slice->k_begin;
    const float* v = v_of(part, first) + slice->k_begin;
    const int64_t panel_bytes =
        int64_t{divide_up(width, step) * step} * kPanel * layout_.element_bytes;
    const uint8_t* b =
        part.adapter->slice_data[slice - slices] + (from - slice->n_begin) * panel_bytes;
    if (amx_ != nullptr) {
      // Its own scratch follows the rows.
      amx_->expand({v, part.rank, last - first, width, b, to - from,
                    scratch + (from - panel_begin) * kPanel, stride, slice->k_begin > 0,
                    reinterpret_cast<uint8_t*>(scratch + int64_t{last - first} * stride)});
      continue;
    }
    const int32_t column = part.column + from * kPanel;
    GemmArgs args;
    args.x = v;
    args.x_stride = part.rank;
    args.panel_bytes = panel_bytes;
    args.w = b;
    args.y = y + column;
    args.y_stride = y_stride;
    args.rows = last - first;
    args.columns = std::min(end, part.column + to * kPanel) - column;
    args.k = width;
    args.accumulate = false;
    args.y_rows = part.rows + first;
    args.row_scale = part.row_weights + first;
    args.scale = part.scale;
    args.skip = std::max(0, begin - column);
    kernels_.gemm(args);
  }
  if (amx_ == nullptr) return;
  const int32_t skip = begin - part.column - panel_begin * kPanel;
  for (int32_t i = first; i < last; ++i) {
    kernels_.add_scaled(scratch + int64_t{i - first} * stride + skip,
                        part.row_weights[i] * part.scale, end - begin,
                        y + part.rows[i] * y_stride + begin);
  }
}

// y[rows][columns] = gain * y + weight * shift for the part's rows in [row_begin, row_end).
void CpuBackend::apply_affine(const AffinePart& part, int32_t row_begin, int32_t row_end,
                              int32_t column_begin, int32_t column_end, float* y,
                              int64_t y_stride) const {
  const int32_t begin = std::max(0, column_begin - part.column);
  const int32_t end = std::min(part.module->d_out, column_end - part.column);
  const int32_t* rows = part.rows.rows;
  const int32_t* rows_end = rows + part.rows.num_rows;
  const int32_t* first = std::lower_bound(rows, rows_end, row_begin);
  const int32_t* last = std::lower_bound(first, rows_end, row_end);
  if (begin >= end || first == last) return;
  // op(slice's values, y, row's weight, count) on the pieces that fall into the columns
  const auto each = [&](SliceRange range, const auto& op) {
    for (int32_t s = range.begin; s < range.end; ++s) {
      const Slice& slice = part.adapter->table->slices[s];
      const int32_t from = std::max(slice.n_begin, begin);
      const int32_t to = std::min(slice.n_end, end);
      if (from >= to) continue;
      const auto* values = reinterpret_cast<const float*>(part.adapter->slice_data[s]);
      for (const int32_t* row = first; row < last; ++row) {
        op(values + from - slice.n_begin, y + *row * y_stride + part.column + from,
           part.rows.weights[row - rows], to - from);
      }
    }
  };
  each(part.module->gain, [](const float* gain, float* y, float, int32_t n) {
    for (int32_t i = 0; i < n; ++i) y[i] *= gain[i];
  });
  each(part.module->shift, [&](const float* shift, float* y, float weight, int32_t n) {
    kernels_.add_scaled(shift, weight, n, y);
  });
}

}  // namespace lorax::cpu
