// A step: begin, replay or issue, end, collect; and its operations but the linears.
#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "cuda/adapter_formats.h"
#include "cuda/attention_decode.h"
#include "cuda/attention_prefill.h"
#include "cuda/check.h"
#include "cuda/cuda_backend_impl.h"
#include "cuda/embed.h"
#include "cuda/export_samples.h"
#include "cuda/lora_rope.h"
#include "cuda/norm.h"
#include "cuda/pool.h"
#include "cuda/rope_kv.h"
#include "cuda/silu_mul.h"

namespace lorax::cuda {
namespace {

const float* floats(const Vector* vector) {
  return vector == nullptr ? nullptr : static_cast<const DeviceVector*>(vector)->values.as<float>();
}

}  // namespace

// ---- the course of a step ----

void CudaBackend::begin_step(const StepPlan& plan) {
  LORAX_CUDA(cudaSetDevice(options_.device));
  if (plan.num_rows() > max_rows_ ||
      static_cast<int32_t>(plan.logits_rows.size()) > max_logits_rows_) {
    throw std::logic_error("cuda: the step has more rows than were reserved");
  }
  for (const PooledSpan& span : plan.pooled) {
    if (span.slot >= max_logits_rows_) throw std::logic_error("cuda: there is no such sum");
  }
  if (in_flight_.size() >= kSlots) throw std::logic_error("cuda: too many steps in flight");
  coming_.clear();
  for (const LoraSegment& segment : plan.segments) {
    const auto& adapter = static_cast<const PlacedAdapter&>(*segment.adapter);
    if (adapter.parts_waited_for == PlacedAdapter::kParts) continue;
    if (adapter.has_arrived()) {
      adapter.parts_waited_for = PlacedAdapter::kParts;
      continue;
    }
    coming_.push_back(&adapter);
    wait_for_parts(adapter, adapter.parts_of_layers(0));  // and the tables
  }
  uint32_t formats = kPlain;
  for (const LoraSegment& segment : plan.segments) {
    formats |= static_cast<const PlacedAdapter&>(*segment.adapter).formats;
  }
  const AdapterKernels adapters = choose_kernels(plan, formats);
  const bool may_replay = formats == kPlain && coming_.empty() && upload_->fits_recorded(plan);
  const int32_t bucket = may_replay ? graphs_->bucket_for(plan.num_rows(), adapters) : 0;
  slot_ = (slot_ + 1) % kSlots;
  const auto table_of = [](const ResidentAdapter* adapter) {
    return static_cast<const PlacedAdapter*>(adapter)->table;
  };
  issue_ = {};
  const bool keeps = keeps_lists(plan, adapters, bucket);
  issue_.arrays = upload_->upload(plan, bucket, slot_, keeps, table_of, stream_);
  if (upload_->mark() == 1 && lora_pieces_.bytes() > 0) {  // marks begin anew: none must be left
    LORAX_CUDA(cudaMemsetAsync(lora_pieces_.as<void>(), 0, lora_pieces_.bytes(), stream_));
  }
  issue_.bucket = bucket;
  issue_.rows = std::max(plan.num_rows(), bucket);
  issue_.logits_rows = std::max(static_cast<int32_t>(plan.logits_rows.size()), bucket);
  issue_.num_spans = static_cast<int32_t>(plan.spans.size());
  issue_.num_pooled = static_cast<int32_t>(plan.pooled.size());
  issue_.decodes = bucket > 0 || static_cast<int32_t>(plan.spans.size()) == plan.num_rows();
  issue_.adapters = adapters;
  issue_.formats = formats;
  choose_lists(plan);
  upload_samples(plan);

  InFlight step;
  step.slot = slot_;
  for (const SampleRow& row : plan.samples) {
    step.num_logprobs.push_back(row.num_logprobs);
    if (row.mask != nullptr) step.masks.push_back(row.mask);
  }
  for (const PooledSpan& span : plan.pooled) step.num_sums += span.ends ? 1 : 0;
  in_flight_.push_back(std::move(step));
}

bool CudaBackend::is_idle() const {
  return in_flight_.size() < 2 || is_over(ended_[in_flight_[in_flight_.size() - 2].slot]);
}

void CudaBackend::wait_for_parts(const PlacedAdapter& adapter, int32_t num_parts) {
  if (adapter.parts_waited_for >= num_parts) return;
  LORAX_CUDA(cudaStreamWaitEvent(stream_, adapter.arrived[static_cast<size_t>(num_parts - 1)]));
  adapter.parts_waited_for = num_parts;
}

void CudaBackend::wait_for_layer(int32_t layer) {
  for (const PlacedAdapter* adapter : coming_) {
    wait_for_parts(*adapter, adapter->parts_of_layers(layer));
  }
}

// Penalties over long histories and large biases take more than what was reserved. A buffer that is
// given back waits for the step that still reads it.
void CudaBackend::upload_samples(const StepPlan& plan) {
  const char* what = "penalties and biases";
  const int64_t needed = sample_upload_bytes(plan.samples, max_logits_rows_);
  PinnedBuffer& staging = sample_staging_[slot_];
  if (needed > staging.bytes()) staging = PinnedBuffer(needed + needed / 2, what);
  if (needed > sample_upload_.bytes()) sample_upload_ = DeviceBuffer(needed + needed / 2, what);
  const int64_t bytes =
      lay_out_samples(plan.samples, max_logits_rows_, staging.as<uint8_t>(), staging.bytes());
  LORAX_CUDA(cudaMemcpyAsync(sample_upload_.as<void>(), staging.as<void>(),
                             static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream_));
  issue_.samples = sample_arrays(sample_upload_.as<uint8_t>(), max_logits_rows_);
}

std::optional<Activation> CudaBackend::replay() {
  if (issue_.bucket == 0) return std::nullopt;
  graphs_->launch(issue_.bucket, issue_.adapters);
  return Activation{recorded_logits_.data, issue_.bucket, recorded_logits_.cols};
}

void CudaBackend::reserve_masks(int32_t vocab) {
  const int64_t bytes = int64_t{max_logits_rows_} * mask_words(vocab) * 4;
  for (int slot = 0; slot < kSlots && masks_[slot].bytes() < bytes; ++slot) {
    masks_[slot] = DeviceBuffer(bytes, "masks of grammars");
    mask_staging_[slot] = PinnedBuffer(bytes, "masks of grammars");
  }
}

// Beside the step, on a stream of their own: only its sampling waits for them. Whoever used the
// slot before was collected.
const uint32_t* CudaBackend::upload_masks(int32_t vocab) {
  if (in_flight_.empty() || in_flight_.back().masks.empty()) return nullptr;
  const InFlight& step = in_flight_.back();
  reserve_masks(vocab);
  const size_t mask_bytes = static_cast<size_t>(mask_words(vocab)) * 4;
  auto* staging = mask_staging_[step.slot].as<uint8_t>();
  for (size_t i = 0; i < step.masks.size(); ++i) {
    std::memcpy(staging + i * mask_bytes, step.masks[i], mask_bytes);
  }
  auto* masks = masks_[step.slot].as<uint32_t>();
  LORAX_CUDA(cudaMemcpyAsync(masks, staging, step.masks.size() * mask_bytes, cudaMemcpyHostToDevice,
                             mask_copies_));
  LORAX_CUDA(cudaEventRecord(masks_arrived_, mask_copies_));
  LORAX_CUDA(cudaStreamWaitEvent(stream_, masks_arrived_));
  return masks;
}

void CudaBackend::end_step() {
  LORAX_CUDA(cudaEventRecord(ended_[in_flight_.back().slot], stream_));
}

void CudaBackend::collect(std::span<SampleResult> results) {
  if (in_flight_.empty()) throw std::logic_error("cuda: no step to collect");
  const InFlight step = std::move(in_flight_.front());
  in_flight_.pop_front();
  LORAX_CUDA(cudaEventSynchronize(ended_[step.slot]));
  collected_sums_ = {exported_sums(step.slot),
                     static_cast<size_t>(step.num_sums) * layout_.hidden_size};
  if (!step.sampled) return;
  const ExportedSample* from =
      exported_.as<ExportedSample>() + int64_t{step.slot} * max_logits_rows_;
  for (size_t i = 0; i < std::min(results.size(), step.num_logprobs.size()); ++i) {
    SampleResult& to = results[i];
    to.token = from[i].token;
    const int32_t top = std::max(step.num_logprobs[i], 0);
    to.logprob = step.num_logprobs[i] >= 0 ? from[i].logprob : 0.0f;
    to.top_tokens.assign(from[i].top_tokens, from[i].top_tokens + top);
    to.top_logprobs.assign(from[i].top_logprobs, from[i].top_logprobs + top);
  }
}

// ---- operations ----

Activation CudaBackend::embed(const Weight& table, const LoraSite* site) {
  const auto& weight = static_cast<const DeviceWeight&>(table);
  EmbedArguments arguments;
  arguments.table = weight.values.as<__nv_bfloat16>();
  arguments.token_ids = issue_.arrays.token_ids;
  arguments.previous_tokens = sample_tokens_.as<int32_t>();
  arguments.residual = ensure<float>(residual_, max_rows_, weight.k);
  arguments.input_tokens = input_tokens_.as<int32_t>();
  arguments.rows = issue_.rows;
  arguments.hidden = static_cast<int32_t>(weight.k);
  arguments.vocab = static_cast<int32_t>(weight.n);
  plan_adapters();
  cuda::embed(arguments, stream_);
  if (site != nullptr && (issue_.formats & kAtTable) != 0) {
    adapt_embedding(issue_.arrays, site->layer, site->parts[0].module, arguments.input_tokens,
                    arguments.residual, arguments.rows, arguments.hidden, stream_);
  }
  return {arguments.residual, issue_.rows, arguments.hidden};
}

Activation CudaBackend::rms_norm(const Activation& residual, const Vector& gain, float eps) {
  NormArguments arguments;
  arguments.residual = static_cast<float*>(residual.data);
  arguments.gain = floats(&gain);
  arguments.y = ensure<__nv_bfloat16>(norm_out_, max_rows_, residual.cols);
  arguments.eps = eps;
  arguments.rows = residual.rows;
  arguments.hidden = residual.cols;
  cuda::rms_norm(arguments, stream_);
  return {arguments.y, residual.rows, residual.cols};
}

Activation CudaBackend::add_rms_norm(Activation& residual, const Activation& delta,
                                     const Vector& gain, float eps, bool sampled_rows) {
  const auto* pending = static_cast<const Pending*>(delta.pending);
  if (pending != nullptr && pending->site != nullptr) {
    auto* values = static_cast<__nv_bfloat16*>(delta.data);
    if (!sampled_rows) {
      LoraNormArguments fused;
      fused.residual = static_cast<float*>(residual.data);
      fused.delta = values;
      fused.gain = floats(&gain);
      fused.y = ensure<__nv_bfloat16>(norm_out_, max_rows_, residual.cols);
      fused.eps = eps;
      fused.rows = residual.rows;
      fused.hidden = residual.cols;
      lora_add_rms_norm(row_lists_, fused, stream_);
      return {fused.y, residual.rows, residual.cols};
    }
    const LoraRowSite& site = *pending->site;
    lora_expand(row_lists_, site, values, delta.rows, delta.cols, stream_);
  }
  NormArguments arguments;
  arguments.residual = static_cast<float*>(residual.data);
  if (pending != nullptr && pending->split.parts > 0) {
    arguments.split = pending->split;
  } else {
    arguments.delta = static_cast<const __nv_bfloat16*>(delta.data);
  }
  arguments.gain = floats(&gain);
  arguments.y = ensure<__nv_bfloat16>(norm_out_, max_rows_, residual.cols);
  arguments.eps = eps;
  arguments.rows = residual.rows;
  arguments.hidden = residual.cols;
  if (sampled_rows) {
    arguments.rows = issue_.logits_rows;
    arguments.gather = issue_.arrays.logits_rows;
    arguments.gather_count = &issue_.arrays.counts->num_logits_rows;
  }
  cuda::rms_norm(arguments, stream_);
  return {arguments.y, arguments.rows, residual.cols};
}

void CudaBackend::pool(const Activation& residual, Activation& delta, const Vector& gain,
                       float eps) {
  const auto* pending = static_cast<const Pending*>(delta.pending);
  PoolArguments arguments;
  if (pending != nullptr && pending->site != nullptr) {
    lora_expand(row_lists_, *pending->site, static_cast<__nv_bfloat16*>(delta.data), delta.rows,
                delta.cols, stream_);
    delta.pending = nullptr;
  } else if (pending != nullptr) {
    arguments.split = pending->split;
  }
  arguments.residual = static_cast<const float*>(residual.data);
  arguments.delta = static_cast<const __nv_bfloat16*>(delta.data);
  arguments.gain = floats(&gain);
  arguments.eps = eps;
  arguments.rows = residual.rows;
  arguments.hidden = residual.cols;
  arguments.spans = upload_->pooled();
  arguments.num_spans = issue_.num_pooled;
  arguments.factors = pool_factors_.as<float>();
  arguments.sums = sums_.as<float>();
  arguments.results = exported_sums(slot_);
  cuda::pool(arguments, stream_);
}

KvPages CudaBackend::kv_pages(int32_t layer) const {
  KvPages out;
  out.pool = arena_->data();
  out.page_bytes = page_bytes(layout_);
  out.layer = layer;
  out.num_kv_heads = layout_.num_kv_heads;
  out.head_dim = layout_.head_dim;
  return out;
}

void CudaBackend::rope_and_store_kv(Activation& qkv, int32_t layer, const AttentionConfig& config,
                                    const Vector* q_gain, const Vector* k_gain, float eps) {
  RopeKv arguments;
  arguments.qkv = static_cast<__nv_bfloat16*>(qkv.data);
  const auto* pending = static_cast<const Pending*>(qkv.pending);
  qkv.pending = nullptr;
  if (pending != nullptr) arguments.split = pending->split;
  arguments.rows = qkv.rows;
  arguments.num_heads = config.num_heads;
  arguments.pages = kv_pages(layer);
  arguments.inv_freq = inv_freq_.as<float>();
  arguments.magnitude = rope_magnitude_;
  arguments.q_gain = floats(q_gain);
  arguments.k_gain = floats(k_gain);
  arguments.eps = eps;
  if (pending != nullptr && pending->site != nullptr) {
    if (lora_rope_takes(config.head_dim)) {
      return lora_rope_and_store_kv(row_lists_, arguments, issue_.arrays, stream_);
    }
    lora_expand(row_lists_, *pending->site, arguments.qkv, qkv.rows, qkv.cols, stream_);
  }
  cuda::rope_and_store_kv(arguments, issue_.arrays, stream_);
}

Activation CudaBackend::attention(const Activation& qkv, int32_t layer,
                                  const AttentionConfig& config) {
  const int32_t cols = config.num_heads * config.head_dim;
  Attention arguments;
  arguments.qkv = static_cast<const __nv_bfloat16*>(qkv.data);
  arguments.out = ensure<__nv_bfloat16>(attention_out_, max_rows_, cols);
  arguments.rows = qkv.rows;
  arguments.max_spans = issue_.bucket > 0 ? issue_.bucket : issue_.num_spans;
  arguments.num_heads = config.num_heads;
  arguments.pages = kv_pages(layer);
  arguments.scale = config.scale;
  arguments.sliding_window = config.sliding_window;
  // One kernel for all rows: the two sum in different orders.
  if (options_.deterministic) {
    arguments.prefill_from = 1;
    attention_prefill(arguments, issue_.arrays, stream_);
    return {arguments.out, qkv.rows, cols};
  }
  const int64_t workspace =
      attention_decode_workspace_bytes(std::min(max_rows_, max_logits_rows_), config.num_heads,
                                       config.num_kv_heads, config.head_dim);
  if (attention_workspace_.bytes() < workspace) {
    attention_workspace_ = DeviceBuffer(workspace, "attention");
    LORAX_CUDA(cudaMemsetAsync(attention_workspace_.as<void>(), 0, workspace, stream_));
  }
  attention_decode(arguments, issue_.arrays, attention_workspace_.as<void>(), stream_);
  if (!issue_.decodes) attention_prefill(arguments, issue_.arrays, stream_);
  return {arguments.out, qkv.rows, cols};
}

Activation CudaBackend::silu_mul(const Activation& gate_up) {
  const int32_t inner = gate_up.cols / 2;
  const auto* pending = static_cast<const Pending*>(gate_up.pending);
  if (pending != nullptr && pending->gated != nullptr) {
    return {pending->gated, gate_up.rows, inner};
  }
  auto* y = ensure<__nv_bfloat16>(silu_out_, max_rows_, inner);
  const auto* x = static_cast<const __nv_bfloat16*>(gate_up.data);
  if (pending != nullptr) {
    lora_silu_mul(row_lists_, x, y, gate_up.rows, inner, stream_);
  } else {
    cuda::silu_mul(x, y, gate_up.rows, inner, stream_);
  }
  return {y, gate_up.rows, inner};
}

void CudaBackend::sample(const Activation& logits) {
  SampleArguments arguments;
  arguments.logits = static_cast<const float*>(logits.data);
  arguments.arrays = issue_.samples;
  arguments.outputs = {sample_tokens_.as<int32_t>(), sample_logprobs_.as<float>(),
                       sample_top_tokens_.as<int32_t>(), sample_top_logprobs_.as<float>()};
  arguments.input_tokens = input_tokens_.as<int32_t>();
  arguments.logits_rows = issue_.arrays.logits_rows;
  arguments.masks = upload_masks(logits.cols);
  arguments.rows = logits.rows;
  arguments.vocab = logits.cols;
  const int64_t workspace = sample_workspace_bytes(max_logits_rows_, logits.cols);
  if (sample_workspace_.bytes() < workspace)
    sample_workspace_ = DeviceBuffer(workspace, "sampling");
  arguments.workspace = sample_workspace_.as<float>();
  cuda::sample(arguments, stream_);
  export_samples(arguments.outputs, arguments.arrays, issue_.arrays.counts, logits.rows,
                 max_logits_rows_, exported_.as<ExportedSample>(), stream_);
  if (!in_flight_.empty()) in_flight_.back().sampled = true;
}

void CudaBackend::read_logits(const Activation& logits, std::span<float> out) {
  LORAX_CUDA(
      cudaMemcpyAsync(out.data(), logits.data, out.size_bytes(), cudaMemcpyDeviceToHost, stream_));
  LORAX_CUDA(cudaStreamSynchronize(stream_));
}

}  // namespace lorax::cuda
