// residual[row] = table[token], then what adapters have of the table:
//
//   residual[row] = whole_a[token];  residual[row] += weight * scale_a B_a A_a[:, token]
//
// and their affine. The lookups take the place of a linear's shrink (cpu_lora.cc).
#include <algorithm>

#include "cpu/cpu_backend_impl.h"

namespace lorax::cpu {
namespace {

constexpr int32_t kTaskColumns = 8 * kPanel;

// Row `token` of a table in slices, as float32.
void read_token(const PlacedAdapter& adapter, SliceRange range, int32_t token, bool bf16,
                float* out) {
  const auto slices = adapter.table->slices.begin();
  auto slice = std::partition_point(slices + range.begin, slices + range.end,
                                    [&](const Slice& s) { return s.n_end <= token; });
  // A row that fits no page is in several.
  for (; slice != slices + range.end && slice->n_begin <= token; ++slice) {
    const int32_t width = slice->k_end - slice->k_begin;
    const int64_t at = int64_t{token - slice->n_begin} * width;
    read_values(adapter.slice_data[slice - slices], at, width, bf16, out + slice->k_begin);
  }
}

}  // namespace

// v[i] = A[:, token of row i]
void CpuBackend::look_up(const LoraPart& part) {
  for_rows(part.num_rows, part.rank * 4, [&](int32_t i) {
    read_token(*part.adapter, part.module->a, step_.plan->token_ids[part.rows[i]], bf16(),
               v_of(part, i));
  });
}

Activation CpuBackend::embed(const Weight& table, const LoraSite* site) {
  const auto& weight = static_cast<const PackedWeight&>(table);
  const int32_t rows = step_.plan->num_rows();
  const auto hidden = static_cast<int32_t>(weight.k);
  step_.embed_out.ensure(int64_t{rows} * hidden * 4);
  float* out = step_.embed_out.as<float>();
  for_rows(rows, hidden * 4, [&](int32_t row) {
    unpack_row(weight, step_.plan->token_ids[row], bf16(), out + int64_t{row} * hidden);
  });
  const Activation result{out, rows, hidden};
  if (site == nullptr || step_.plan->segments.empty()) return result;

  for (const LoraSegment& segment : step_.plan->segments) {
    const auto& adapter = static_cast<const PlacedAdapter&>(*segment.adapter);
    const AdaptedModule* module = adapter.table->find(site->layer, site->parts[0].module);
    if (module == nullptr || module->whole.empty()) continue;
    const int32_t* segment_rows = step_.plan->segment_rows.data() + segment.rows_begin;
    for_rows(segment.rows_end - segment.rows_begin, hidden * 4, [&](int32_t i) {
      read_token(adapter, module->whole, step_.plan->token_ids[segment_rows[i]], bf16(),
                 out + int64_t{segment_rows[i]} * hidden);
    });
  }
  collect_lora_parts(*site, static_cast<int32_t>(weight.n), hidden);
  for (const LoraPart& part : lora_parts_) look_up(part);
  if (lora_parts_.empty() && affine_parts_.empty()) return result;
  const int64_t scratch_floats =
      amx_ == nullptr ? 0 : expand_scratch_floats(rows, kTaskColumns / kPanel);
  linear_scratch_.ensure(scratch_floats * pool_.size() * 4);
  pool_.run((hidden + kTaskColumns - 1) / kTaskColumns, [&](int64_t task, int thread) {
    const auto column = static_cast<int32_t>(task) * kTaskColumns;
    const int32_t column_end = std::min(hidden, column + kTaskColumns);
    float* scratch = linear_scratch_.as<float>() + thread * scratch_floats;
    for (const LoraPart& part : lora_parts_) {
      expand(part, 0, rows, column, column_end, scratch, out, hidden);
    }
    for (const AffinePart& part : affine_parts_) {
      apply_affine(part, 0, rows, column, column_end, out, hidden);
    }
  });
  return result;
}

}  // namespace lorax::cpu
