// y = x W^T + bias, then y[rows of a] += weight * scale_a (x A_a^T) B_a^T for every segment a.
//
// Two phases: shrink v = x A^T for all segments and parts, then tiles of y, each with its
// expansion, so LoRA costs no barrier of its own on the way out. A tile is written by one thread.
// An element's order: base, bias, then the segments ascending; each term's own order is the
// kernels'. With AMX all products run on tiles, from x and v rounded to bf16.
#include <algorithm>

#include "cpu/cpu_backend_impl.h"

namespace lorax::cpu {
namespace {

constexpr int32_t kFewRows = 32;          // one block of rows: every weight is read once
constexpr int32_t kRowBlock = 96;         // else x [96, k] stays in the second-level cache
constexpr int64_t kTaskBytes = 64 << 10;  // of weights, few rows: small enough to share out evenly
constexpr int32_t kTaskPanels = 8;        // many rows
constexpr int32_t kShrinkRanks = 8;       // per task
constexpr int32_t kShrinkRows = 64;
constexpr int32_t kAmxShrinkRows = 128;  // a task lays A out in tiles first: enough rows to pay
constexpr int32_t kTileRows = 32;        // of two tiles

int32_t divide_up(int32_t a, int32_t b) { return (a + b - 1) / b; }

}  // namespace

void CpuBackend::collect_lora_parts(const LoraSite& site, const Activation& x,
                                    const PackedWeight& weight) {
  lora_parts_.clear();
  int64_t v_floats = 0;
  for (const LoraSegment& segment : plan_->segments) {
    if (segment.adapter == nullptr || segment.rows_end <= segment.rows_begin) continue;
    const auto* adapter = static_cast<const PlacedAdapter*>(segment.adapter);
    for (const SitePart& site_part : site.parts) {
      const AdaptedModule* module = adapter->table->find(site.layer, site_part.module);
      if (module == nullptr) continue;
      if (module->d_in != x.cols || module->d_out != site_part.columns ||
          site_part.column + site_part.columns > weight.n) {
        throw Error("ADAPTER_INVALID", "an adapter of d_in " + std::to_string(module->d_in) +
                                           " and d_out " + std::to_string(module->d_out) +
                                           " met a module of " + std::to_string(x.cols) + " and " +
                                           std::to_string(site_part.columns));
      }
      LoraPart part;
      part.adapter = adapter;
      part.module = module;
      part.rows = plan_->segment_rows.data() + segment.rows_begin;
      part.row_weights = plan_->segment_weights.data() + segment.rows_begin;
      part.num_rows = segment.rows_end - segment.rows_begin;
      part.column = site_part.column;
      part.v_begin = v_floats;
      v_floats += int64_t{part.num_rows} * module->rank;
      lora_parts_.push_back(part);
    }
  }
  lora_v_.ensure(v_floats * 4);
}

// v[i][r] = sum_j x[rows[i]][j] A[r][j]                            [num_rows, rank] per part
void CpuBackend::shrink(const Activation& x) {
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
    for (int32_t s = module.a_begin; s < module.b_begin; ++s) {
      const Slice& slice = part.adapter->table->slices[s];
      const int32_t begin = std::max(slice.n_begin, task.rank);
      const int32_t end = std::min(slice.n_end, rank_end);
      if (begin >= end) continue;
      const int32_t width = slice.k_end - slice.k_begin;
      const int64_t row_bytes = width * layout_.element_bytes;
      const uint8_t* a = part.adapter->slice_data[s] + (begin - slice.n_begin) * row_bytes;
      float* v = lora_v_.as<float>() + part.v_begin + int64_t{task.row} * module.rank + begin;
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

// y[rows][columns] += weight * scale * v B^T for the part's rows in [row_begin, row_end). Scratch
// is for tiles only.
void CpuBackend::expand(const LoraPart& part, int32_t row_begin, int32_t row_end,
                        int32_t column_begin, int32_t column_end, float* scratch, float* y,
                        int64_t y_stride) const {
  const AdaptedModule& module = *part.module;
  const int32_t begin = std::max(column_begin, part.column);
  const int32_t end = std::min(column_end, part.column + module.d_out);
  if (begin >= end) return;
  const int32_t* rows_end = part.rows + part.num_rows;
  const auto first =
      static_cast<int32_t>(std::lower_bound(part.rows, rows_end, row_begin) - part.rows);
  const auto last =
      static_cast<int32_t>(std::lower_bound(part.rows, rows_end, row_end) - part.rows);
  if (first >= last) return;
  // Panels are counted from the part's first column, which need not be a multiple of 16.
  const int32_t panel_begin = (begin - part.column) / kPanel;
  const int32_t panel_end = divide_up(end - part.column, kPanel);
  const int32_t stride = (panel_end - panel_begin) * kPanel;  // of scratch
  const int32_t step = bf16() ? 2 : 1;
  // Slices ascend in n: the first that ends beyond panel_begin.
  const auto slices = part.adapter->table->slices.begin();
  auto slice = std::partition_point(slices + module.b_begin, slices + module.b_end,
                                    [&](const Slice& s) { return s.n_end <= panel_begin; });
  for (; slice != slices + module.b_end && slice->n_begin < panel_end; ++slice) {
    const int32_t from = std::max(slice->n_begin, panel_begin);
    const int32_t to = std::min(slice->n_end, panel_end);
    const int32_t width = slice->k_end - slice->k_begin;
    const float* v =
        lora_v_.as<float>() + part.v_begin + int64_t{first} * module.rank + slice->k_begin;
    const int64_t panel_bytes =
        int64_t{divide_up(width, step) * step} * kPanel * layout_.element_bytes;
    const uint8_t* b =
        part.adapter->slice_data[slice - slices] + (from - slice->n_begin) * panel_bytes;
    if (amx_ != nullptr) {
      // Its own scratch follows the rows.
      amx_->expand({v, module.rank, last - first, width, b, to - from,
                    scratch + (from - panel_begin) * kPanel, stride, slice->k_begin > 0,
                    reinterpret_cast<uint8_t*>(scratch + int64_t{last - first} * stride)});
      continue;
    }
    const int32_t column = part.column + from * kPanel;
    GemmArgs args;
    args.x = v;
    args.x_stride = module.rank;
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
    args.scale = module.scale;
    args.skip = std::max(0, begin - column);
    kernels_.gemm(args);
  }
  if (amx_ == nullptr) return;
  const int32_t skip = begin - part.column - panel_begin * kPanel;
  for (int32_t i = first; i < last; ++i) {
    kernels_.add_scaled(scratch + int64_t{i - first} * stride + skip,
                        part.row_weights[i] * module.scale, end - begin,
                        y + part.rows[i] * y_stride + begin);
  }
}

Activation CpuBackend::linear(const Activation& x, const Weight& base, const LoraSite* site) {
  const auto& weight = static_cast<const PackedWeight&>(base);
  const int32_t rows = x.rows;
  const auto n = static_cast<int32_t>(weight.n);
  linear_out_.ensure(int64_t{rows} * n * 4);
  float* y = linear_out_.as<float>();
  const Activation result{y, rows, n};
  if (rows == 0) return result;

  const bool amx = amx_ != nullptr;
  if (amx) {
    linear_x_.ensure(int64_t{rows} * weight.k_padded * 2);
    for_rows(rows, x.cols, [&](int32_t row) {
      amx_->convert(static_cast<const float*>(x.data) + int64_t{row} * x.cols, x.cols,
                    weight.k_padded, linear_x_.as<uint16_t>() + int64_t{row} * weight.k_padded);
    });
  }

  lora_parts_.clear();
  if (site != nullptr && !plan_->segments.empty()) collect_lora_parts(*site, x, weight);
  if (!lora_parts_.empty()) shrink(x);

  const int32_t row_blocks = rows <= kFewRows ? 1 : divide_up(rows, kRowBlock);
  int32_t block = divide_up(rows, row_blocks);
  if (amx && row_blocks > 1) block = divide_up(block, kTileRows) * kTileRows;
  const int32_t panels = weight.num_panels();
  const auto few =
      static_cast<int32_t>(std::clamp<int64_t>(kTaskBytes / weight.panel_bytes, 1, kTaskPanels));
  const int32_t group = rows <= kFewRows ? few : kTaskPanels;
  const int32_t groups = divide_up(panels, group);
  int64_t scratch_floats = 0;
  if (amx && !lora_parts_.empty()) {
    int32_t rank = 0;
    for (const LoraPart& part : lora_parts_) rank = std::max(rank, part.module->rank);
    scratch_floats = int64_t{block} * (group + 1) * kPanel +
                     amx_expand_scratch_bytes(block, group + 1, rank) / 4;
  }
  linear_scratch_.ensure(scratch_floats * pool_.size() * 4);

  pool_.run(int64_t{groups} * row_blocks, [&](int64_t index, int thread) {
    const auto panel = static_cast<int32_t>(index / row_blocks) * group;
    const auto row = static_cast<int32_t>(index % row_blocks) * block;
    const int32_t row_end = std::min(rows, row + block);
    const int32_t column = panel * kPanel;
    const int32_t column_end = std::min(n, (panel + group) * kPanel);
    if (row >= row_end) return;
    float* tile = y + int64_t{row} * n + column;
    const uint8_t* w = weight.data.as<uint8_t>() + panel * weight.panel_bytes;
    if (amx) {
      amx_->gemm({linear_x_.as<uint16_t>() + int64_t{row} * weight.k_padded, weight.k_padded, w,
                  weight.panel_bytes, tile, n, row_end - row, column_end - column,
                  weight.k_padded});
    } else {
      kernels_.gemm({static_cast<const float*>(x.data) + int64_t{row} * x.cols, x.cols, w,
                     weight.panel_bytes, tile, n, row_end - row, column_end - column, x.cols,
                     false});
    }
    if (!weight.bias.empty()) {
      for (int32_t r = row; r < row_end; ++r) {
        kernels_.add_scaled(weight.bias.data() + column, 1.0f, column_end - column,
                            y + int64_t{r} * n + column);
      }
    }
    float* scratch = linear_scratch_.as<float>() + thread * scratch_floats;
    for (const LoraPart& part : lora_parts_) {
      expand(part, row, row_end, column, column_end, scratch, y, n);
    }
  });
  return result;
}

}  // namespace lorax::cpu
