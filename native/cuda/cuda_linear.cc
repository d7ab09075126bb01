// Linears and their adapters: few rows stream the weights, many rows are cuBLASLt's.
//
//   y = x W^T + bias, then y[rows of a] += weight * scale_a (x A_a^T) B_a^T
//
// Few rows and not too many adapters: all of it is one launch of the streaming GEMM; where W has
// too few rows to fill the device, the parts of k are left for the next operation to add. More
// adapters, or more rows: shrink is a kernel of its own, and so is the expand of short segments;
// the operation that follows adds that of long ones (lora_rows.h).
#include <algorithm>
#include <bit>
#include <span>
#include <stdexcept>

#include "cuda/adapter_formats.h"
#include "cuda/check.h"
#include "cuda/cuda_backend_impl.h"

namespace lorax::cuda {
namespace {

// Segments of so many rows are short, if there are enough of them for kernels of their own.
constexpr int32_t kShortSegmentRows = 16;
constexpr int32_t kFewSegments = 8;

// Linears take so many slices of adapters in passing (LoraLoad); more are quicker apart.
constexpr int64_t kMostFusedSlices = 48;

GemmShape gemm_shape(const DeviceWeight& weight, bool head) {
  GemmShape out;
  out.n = static_cast<int32_t>(weight.n);
  out.k = static_cast<int32_t>(weight.k);
  out.float_output = head;
  out.has_bias = weight.bias.bytes() > 0;
  return out;
}

// Arrays one after the other in one allocation.
struct Layout {
  int64_t bytes = 0;
  int64_t take(int64_t count, size_t element) {
    const int64_t at = bytes;
    bytes += (count * static_cast<int64_t>(element) + 127) / 128 * 128;
    return at;
  }
};

// Gate and up, which silu_mul follows.
bool is_gated(const LoraSite& site) { return site.parts.size() == 2; }

}  // namespace

// Where adapters' work lists of this site lie. Sites become known when a step is first issued;
// lists are laid out anew for each.
int32_t CudaBackend::site_index(const LoraSite& site) {
  const auto found = std::find_if(sites_.begin(), sites_.end(), [&](const LoraRowSite& known) {
    return known.layer == site.layer && known.modules[0] == site.parts[0].module;
  });
  if (found != sites_.end()) return static_cast<int32_t>(found - sites_.begin());
  if (site.parts.size() > LoraSiteItems::kMaxParts || sites_.size() >= StepCounts::kMaxSites) {
    throw std::logic_error("cuda: too many fused linears, or parts of one");
  }
  LoraRowSite& added = sites_.emplace_back();
  added.layer = site.layer;
  added.num_parts = static_cast<int32_t>(site.parts.size());
  for (size_t p = 0; p < site.parts.size(); ++p) {
    if (site.parts[p].column % 16 != 0) (is_gated(site) ? aligned_gates_ : aligned_sites_) = false;
    added.modules[p] = site.parts[p].module;
    added.column[p] = site.parts[p].column;
    added.columns[p] = site.parts[p].columns;
  }
  return static_cast<int32_t>(sites_.size()) - 1;
}

void CudaBackend::lay_out_lists() {
  std::vector<LoraSiteModules> modules;
  std::vector<int32_t> parts_before;
  int32_t num_parts = 0;
  for (const LoraRowSite& site : sites_) {
    LoraSiteModules& entry = modules.emplace_back();
    entry.layer = site.layer;
    entry.num_parts = site.num_parts;
    std::copy_n(site.modules, site.num_parts, entry.modules);
    parts_before.push_back(num_parts);
    num_parts += entry.num_parts;
  }
  const auto num_sites = static_cast<int64_t>(sites_.size());
  Layout layout;
  const int64_t sites_at = layout.take(num_sites, sizeof(LoraSiteModules));
  const int64_t parts_at = layout.take(num_sites, sizeof(int32_t));
  const auto of_parts = [&](int64_t count, size_t element) {
    return layout.take(num_parts * count, element);
  };
  const int64_t items_at = layout.take(num_sites, sizeof(LoraSiteItems));
  const int64_t units_at = of_parts(LoraItemsCapacity::kUnits, sizeof(LoraUnit));
  const int64_t sets_at = of_parts(LoraItemsCapacity::kSets, sizeof(LoraSet));
  const int64_t chunks_at = of_parts(LoraItemsCapacity::kChunks, sizeof(LoraChunk));
  const int64_t rows_at = of_parts(LoraItemsCapacity::kRows, sizeof(LoraRow));
  LORAX_CUDA(cudaStreamSynchronize(stream_));
  list_storage_ = {};
  list_storage_ = DeviceBuffer(layout.bytes, "lists of adapters' work");
  if (lora_pieces_.bytes() == 0) {
    lora_pieces_ = DeviceBuffer(LoraItemsCapacity::pieces_bytes(), "lists of adapters' work");
    LORAX_CUDA(cudaMemset(lora_pieces_.as<void>(), 0, lora_pieces_.bytes()));
  }
  uint8_t* base = list_storage_.as<uint8_t>();
  LORAX_CUDA(cudaMemset(base, 0, static_cast<size_t>(layout.bytes)));
  LORAX_CUDA(cudaMemcpy(base + sites_at, modules.data(), modules.size() * sizeof(modules[0]),
                        cudaMemcpyHostToDevice));
  LORAX_CUDA(cudaMemcpy(base + parts_at, parts_before.data(), parts_before.size() * 4,
                        cudaMemcpyHostToDevice));
  LORAX_CUDA(cudaDeviceSynchronize());
  lists_.num_sites = static_cast<int32_t>(num_sites);
  lists_.sites = reinterpret_cast<const LoraSiteModules*>(base + sites_at);
  lists_.parts_before = reinterpret_cast<const int32_t*>(base + parts_at);
  lists_.items = reinterpret_cast<LoraSiteItems*>(base + items_at);
  lists_.units = reinterpret_cast<LoraUnit*>(base + units_at);
  lists_.sets = reinterpret_cast<LoraSet*>(base + sets_at);
  lists_.chunks = reinterpret_cast<LoraChunk*>(base + chunks_at);
  lists_.rows = reinterpret_cast<LoraRow*>(base + rows_at);
  parts_before_ = std::move(parts_before);
}

void CudaBackend::lay_out_row_lists() {
  LoraRowsCapacity& capacity = row_lists_.capacity;
  capacity.rows = max_rows_;
  capacity.segments = capacity.segment_rows = max_rows_ * StepUpload::kSegmentRowsPerRow;
  capacity.row_groups = max_rows_ * int64_t{kMaxRankGroups};
  Layout layout;
  const int64_t v_begin_at = layout.take(capacity.segments, sizeof(int64_t));
  const int64_t slices_at =
      layout.take(int64_t{capacity.segments} * LoraSiteItems::kMaxParts, sizeof(LoraRowSlices));
  const int64_t v_at = layout.take(capacity.v_bytes(), 1);
  short_lists_ = row_lists_;
  short_lists_.tile_rows = LoraRowTile::kShortRows;
  struct Places {
    LoraRowLists& lists;
    int64_t num_tiles, tiles, pair_begin, pairs;
  };
  std::vector<Places> places;
  for (LoraRowLists* lists : {&row_lists_, &short_lists_}) {
    Places& at = places.emplace_back(Places{*lists, 0, 0, 0, 0});
    at.num_tiles = layout.take(1, sizeof(int32_t));
    at.tiles = layout.take(capacity.max_tiles(lists->tile_rows), sizeof(LoraRowTile));
    at.pair_begin = layout.take((max_rows_ + 15) / 16 + 1, sizeof(int32_t));
    at.pairs = layout.take(capacity.segment_rows, sizeof(LoraRowPair));
  }
  row_list_storage_ = DeviceBuffer(layout.bytes, "lists of adapters' work");
  uint8_t* base = row_list_storage_.as<uint8_t>();
  for (const Places& at : places) {
    at.lists.v_begin = reinterpret_cast<int64_t*>(base + v_begin_at);
    at.lists.slices = reinterpret_cast<LoraRowSlices*>(base + slices_at);
    at.lists.v = reinterpret_cast<__nv_bfloat16*>(base + v_at);
    at.lists.num_tiles = reinterpret_cast<int32_t*>(base + at.num_tiles);
    at.lists.tiles = reinterpret_cast<LoraRowTile*>(base + at.tiles);
    at.lists.pair_begin = reinterpret_cast<int32_t*>(base + at.pair_begin);
    at.lists.pairs = reinterpret_cast<LoraRowPair*>(base + at.pairs);
  }
}

bool CudaBackend::may_fuse_adapters(int32_t rows, uint32_t formats) const {
  const bool multiplies_gates = (formats & kHasAffine) == 0;
  return streams_ && rows <= kStreamedRows && aligned_sites_ &&
         (multiplies_gates || aligned_gates_);
}

AdapterKernels CudaBackend::choose_kernels(const StepPlan& plan, uint32_t formats) const {
  if (plan.segments.empty()) return AdapterKernels::kNone;
  if (!may_fuse_adapters(plan.num_rows(), formats)) return AdapterKernels::kApart;
  LoraLoad load;
  for (const LoraSegment& segment : plan.segments) {
    load.add(static_cast<const PlacedAdapter&>(*segment.adapter).max_groups,
             std::span(plan.segment_rows)
                 .subspan(segment.rows_begin, segment.rows_end - segment.rows_begin));
  }
  const bool fuses =
      LoraItemsCapacity::fits(load) && (load.slices <= kMostFusedSlices || options_.deterministic);
  return fuses ? AdapterKernels::kFused : AdapterKernels::kApart;
}

// Whether the step's work lists lie there already: from one token to the next the same rows mostly
// have the same adapters. Recorded steps alone: the sites of others may be new.
bool CudaBackend::keeps_lists(const StepPlan& plan, AdapterKernels adapters, int32_t bucket) {
  if (adapters == AdapterKernels::kNone) return false;  // it leaves them alone
  std::vector<uint64_t> listed;
  if (bucket > 0) {
    listed = {static_cast<uint64_t>(adapters), static_cast<uint64_t>(bucket)};
    for (const LoraSegment& segment : plan.segments) {
      listed.push_back(static_cast<const PlacedAdapter&>(*segment.adapter).id);
      listed.push_back(uint64_t{static_cast<uint32_t>(segment.rows_begin)} << 32 |
                       static_cast<uint32_t>(segment.rows_end));
    }
    for (size_t i = 0; i < plan.segment_rows.size(); ++i) {
      listed.push_back(uint64_t{static_cast<uint32_t>(plan.segment_rows[i])} << 32 |
                       std::bit_cast<uint32_t>(plan.segment_weights[i]));
    }
  }
  const bool keeps = bucket > 0 && listed == listed_;
  listed_ = std::move(listed);
  return keeps;
}

// Of a step with kernels for adapters of their own; as record() chose where it is recorded.
void CudaBackend::choose_lists(const StepPlan& plan) {
  int32_t num_short = 0;
  const bool all_short = plan.num_rows() <= kMaxRecordedRows;
  const int32_t long_from = all_short ? kMaxRecordedRows + 1 : kShortSegmentRows + 1;
  for (const LoraSegment& segment : plan.segments) {
    num_short += segment.rows_end - segment.rows_begin < long_from ? 1 : 0;
  }
  issue_.has_short = (all_short || num_short >= kFewSegments) && !options_.deterministic;
  issue_.has_long = !issue_.has_short || num_short < static_cast<int32_t>(plan.segments.size());
  issue_.long_from = issue_.has_short ? long_from : 1;
}

// The step's work lists, before its first linear.
void CudaBackend::plan_adapters() {
  if (!has_adapters()) return;
  if (issue_.adapters == AdapterKernels::kApart) {
    if (row_list_storage_.bytes() == 0) lay_out_row_lists();
    row_lists_.from_rows = short_lists_.to_rows = issue_.long_from;
    if (issue_.has_long) make_lora_rows(row_lists_, issue_.arrays, issue_.rows, stream_);
    if (issue_.has_short) make_lora_rows(short_lists_, issue_.arrays, issue_.rows, stream_);
  } else if (!sites_.empty()) {
    if (lists_.num_sites != static_cast<int32_t>(sites_.size())) lay_out_lists();
    make_lora_items(lists_, issue_.arrays, stream_);
  }
}

bool CudaBackend::streams_few_rows() const {
  return streams_ && issue_.rows <= kStreamedRows &&
         (issue_.adapters != AdapterKernels::kApart || !issue_.has_long);
}

Activation CudaBackend::linear(const Activation& x, const Weight& w, const LoraSite* site) {
  const auto& weight = static_cast<const DeviceWeight&>(w);
  const bool head = site == nullptr || site->sampled_rows;
  const LoraSite* head_site = head ? site : nullptr;
  if (head) site = nullptr;  // its adapters have no lists
  const auto n = static_cast<int32_t>(weight.n);
  void* y = head ? static_cast<void*>(ensure<float>(logits_, max_logits_rows_, n))
                 : ensure<uint16_t>(linear_out_, max_rows_, n);
  int32_t index = -1;
  if (site != nullptr) {
    wait_for_layer(site->layer);
    const size_t known = sites_.size();
    index = site_index(*site);
    // Outside recorded steps a site may be new in the middle of one.
    if (has_adapters() && sites_.size() > known) {
      plan_adapters();
      LORAX_CUDA(cudaStreamSynchronize(stream_));
    }
  }
  if (!has_adapters()) index = -1;
  pending_ = {};
  const bool expands = index >= 0 && issue_.adapters == AdapterKernels::kApart && issue_.has_short;
  if (expands) {
    lora_shrink_short(short_lists_, sites_[index], issue_.arrays,
                      static_cast<const __nv_bfloat16*>(x.data), x.rows, x.cols, stream_);
  }
  if (streams_few_rows()) {
    run_streamed(x, weight, site, index, y);
  } else {
    run_many(x, weight, head, index, y);
  }
  if (expands) {
    // Of a result in parts, into the first.
    void* to = pending_.split.parts > 0 ? linear_parts_.as<void>() : y;
    lora_expand(short_lists_, sites_[index], static_cast<__nv_bfloat16*>(to), x.rows, n, stream_);
  }
  if (index >= 0 && (issue_.formats & kHasAffine) != 0) {
    finish_affine(sites_[index], {y, x.rows, n});
  }
  if (head_site != nullptr && (issue_.formats & kAtHead) != 0) {
    adapt_head(issue_.arrays, head_site->layer, head_site->parts[0].module,
               static_cast<const __nv_bfloat16*>(x.data), static_cast<float*>(y), x.rows, n, x.cols,
               stream_);
  }
  if (!recorded_) {
    const GemmUse use{gemm_shape(weight, head), head ? max_logits_rows_ : max_rows_};
    const auto same = [&](const GemmUse& known) { return known.shape == use.shape; };
    if (std::none_of(gemm_uses_.begin(), gemm_uses_.end(), same)) gemm_uses_.push_back(use);
  }
  const bool pends =
      pending_.site != nullptr || pending_.split.parts > 0 || pending_.gated != nullptr;
  return {y, x.rows, n, pends ? &pending_ : nullptr};
}

// Gains and shifts come after all that is added: what is pending for y is done here, but for parts
// of k, which are scaled as they are.
void CudaBackend::finish_affine(const LoraRowSite& site, const Activation& y) {
  auto* values = static_cast<__nv_bfloat16*>(y.data);
  if (pending_.site != nullptr) {
    lora_expand(row_lists_, *pending_.site, values, y.rows, y.cols, stream_);
    pending_.site = nullptr;
  }
  if (site.num_parts == 2) {
    const int32_t inner = y.cols / 2;
    auto* gated = ensure<__nv_bfloat16>(silu_out_, max_rows_, inner);
    affine_silu_mul(issue_.arrays, site, values, gated, y.rows, inner, stream_);
    pending_.gated = gated;
    return;
  }
  const SplitSum& split = pending_.split;
  if (split.parts > 0) values = linear_parts_.as<__nv_bfloat16>();
  apply_affine(issue_.arrays, site, values, y.rows, y.cols, std::max(split.parts, 1), split.stride,
               stream_);
}

void CudaBackend::run_streamed(const Activation& x, const DeviceWeight& weight,
                               const LoraSite* site, int32_t index, void* y) {
  StreamGemmArguments arguments;
  arguments.x = x.data;
  arguments.max_rows = max_rows_;
  arguments.rows = x.rows;
  arguments.y = y;
  arguments.float32_out = site == nullptr;
  arguments.bias = weight.bias.as<float>();
  int32_t split = 1;  // the head is sampled from as it is
  const bool apart = issue_.adapters == AdapterKernels::kApart;
  if (site != nullptr && is_gated(*site) && (apart || (issue_.formats & kHasAffine) != 0)) {
    // Gate and up are added to, or scaled, before they are multiplied.
  } else if (site != nullptr && is_gated(*site)) {
    arguments.gated = true;
    arguments.y = ensure<uint16_t>(silu_out_, max_rows_, weight.n / 2);
    pending_.gated = arguments.y;
  } else if (site != nullptr) {
    split = stream_gemm_split(weight.n, weight.k, num_sms_);
  }
  if (split > 1) {
    SplitSum& sum = pending_.split;
    sum.parts = split;
    sum.stride = int64_t{std::min(max_rows_, kStreamedRows)} * weight.n;
    sum.sums = ensure<__nv_bfloat16>(linear_parts_, split, sum.stride);
    arguments.y = linear_parts_.as<void>();
    arguments.part_stride = sum.stride;
  }
  StreamGemmLora lora;
  if (index >= 0 && !apart) {
    const LoraRowSite& modules = sites_[index];
    lora.lists = lists_.of_site(index, parts_before_[index]);
    lora.pieces = lora_pieces_.as<uint4>();
    lora.counts = issue_.arrays.counts;
    lora.site_index = index;
    lora.early = !options_.deterministic;
    lora.num_parts = modules.num_parts;
    std::copy_n(modules.column, modules.num_parts, lora.column);
    std::copy_n(modules.columns, modules.num_parts, lora.columns);
    arguments.lora = &lora;
  }
  weight.stream->launch(
      arguments, stream_gemm_config(split, x.rows, arguments.lora != nullptr, arguments.gated),
      stream_);
}

void CudaBackend::run_many(const Activation& x, const DeviceWeight& weight, bool head,
                           int32_t index, void* y) {
  const GemmShape shape = gemm_shape(weight, head);
  GemmOperands operands;
  operands.x = static_cast<const __nv_bfloat16*>(x.data);
  operands.weight = weight.values.as<__nv_bfloat16>();
  operands.bias = weight.bias_bf16.as<void>();
  operands.y = y;
  if (index >= 0 && issue_.has_long) {
    // Ahead of the product, whose y the next operation then finds in the cache.
    pending_.site = &sites_[index];
    lora_shrink_rows(row_lists_, sites_[index], issue_.arrays, operands.x, x.rows, shape.k,
                     stream_);
  }
  cublaslt_.matmul(shape, x.rows, operands, stream_);
}

// Tells cuBLASLt the shapes of steps with many rows, once all linears have been issued.
void CudaBackend::tune_linears() { cublaslt_.tune(gemm_uses_, stream_); }

}  // namespace lorax::cuda
