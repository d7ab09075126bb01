// y = x W^T + bias, and the adapters' share of it (cpu_lora.cc).
//
// Two phases: shrink v = x A^T for all segments and parts, then tiles of y, each with its
// expansion, so LoRA costs no barrier of its own on the way out. A tile is written by one thread.
// An element's order: base, bias, then the segments ascending, then their affines; each term's own
// order is the kernels'. With AMX all products run on tiles, from x and v rounded to bf16.
#include <algorithm>

#include "cpu/cpu_backend_impl.h"

namespace lorax::cpu {
namespace {

constexpr int32_t kFewRows = 32;          // one block of rows: every weight is read once
constexpr int32_t kRowBlock = 96;         // else x [96, k] stays in the second-level cache
constexpr int64_t kTaskBytes = 64 << 10;  // of weights, few rows: small enough to share out evenly
constexpr int32_t kTaskPanels = 8;        // many rows
constexpr int32_t kTileRows = 32;         // of two tiles

int32_t divide_up(int32_t a, int32_t b) { return (a + b - 1) / b; }

}  // namespace

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
  affine_parts_.clear();
  if (site != nullptr && !step_.plan->segments.empty()) {
    collect_lora_parts(*site, x.cols, n);
    shrink(x);
  }

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
    scratch_floats = expand_scratch_floats(block, group);
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
    for (const AffinePart& part : affine_parts_) {
      apply_affine(part, row, row_end, column, column_end, y, n);
    }
  });
  return result;
}

}  // namespace lorax::cpu
