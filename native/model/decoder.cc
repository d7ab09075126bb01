// One step of the decoder, top to bottom:
//
//   h = embed(tokens)
//   h += W_o attention(rope(W_qkv norm(h)));  h += W_down silu_mul(W_gate_up norm(h))   per layer
//   sums += norm(h[pooled rows]);  logits = W_head norm(h[logits rows])
//
// Every W and the embedding carry their adapters' low-rank terms (Hu et al. 2021).
#include "model/decoder.h"

#include <algorithm>
#include <cmath>
#include <thread>
#include <utility>

#include "backend/error.h"
#include "model/rope.h"

namespace lorax {
namespace {

AttentionConfig make_attention(const DecoderConfig& config) {
  AttentionConfig out;
  out.num_heads = config.num_heads;
  out.num_kv_heads = config.num_kv_heads;
  out.head_dim = config.head_dim;
  out.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(config.head_dim)));
  out.sliding_window = config.sliding_window;
  return out;
}

AdapterShapes make_adapter_shapes(const DecoderConfig& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t inner = config.intermediate_size;
  const int64_t q = config.q_size();
  const int64_t kv = config.kv_size();
  AdapterShapes out;
  out.num_layers = config.num_layers;
  //            q_proj  k_proj  v_proj  o_proj  gate    up      down   head    embedding
  out.d_in = {hidden, hidden, hidden, q, hidden, hidden, inner, hidden, config.vocab_size};
  out.d_out = {q, kv, kv, hidden, inner, inner, hidden, config.vocab_size, hidden};
  return out;
}

int32_t widest(const AdapterShapes& shapes) {
  int64_t out = 0;
  for (int32_t module = 0; module < kNumProjections; ++module) {
    out = std::max({out, shapes.d_in[module], shapes.d_out[module]});
  }
  return static_cast<int32_t>(out);
}

const DecoderConfig& checked(const DecoderConfig& config) {
  check_decoder_config(config);
  return config;
}

}  // namespace

Decoder::Decoder(std::unique_ptr<Backend> backend, const ModelSpec& spec,
                 const DecoderOptions& options)
    : backend_(std::move(backend)),
      config_(checked(spec.config)),
      rope_(make_rope(config_)),
      attention_(make_attention(config_)),
      adapter_shapes_(make_adapter_shapes(config_)),
      qkv_parts_{SitePart{kQProj, 0, config_.q_size()},
                 SitePart{kKProj, config_.q_size(), config_.kv_size()},
                 SitePart{kVProj, config_.q_size() + config_.kv_size(), config_.kv_size()}},
      o_parts_{SitePart{kOProj, 0, config_.hidden_size}},
      gate_up_parts_{SitePart{kGateProj, 0, config_.intermediate_size},
                     SitePart{kUpProj, config_.intermediate_size, config_.intermediate_size}},
      down_parts_{SitePart{kDownProj, 0, config_.hidden_size}},
      head_parts_{SitePart{kLmHead, 0, config_.vocab_size}},
      embedding_parts_{SitePart{kEmbedTokens, 0, config_.hidden_size}},
      weights_(load_weights(spec, *backend_, options.progress)) {
  const KvLayout layout{config_.num_layers, config_.num_kv_heads, config_.head_dim,
                        widest(adapter_shapes_), config_.hidden_size};
  const BatchRows rows = backend_->batch_rows();
  limits_.max_batch_tokens =
      std::min(options.max_rows > 0 ? options.max_rows : rows.usual, rows.most);
  backend_->reserve(layout, rope_, limits_.max_batch_tokens,
                    std::min(options.max_logits_rows, limits_.max_batch_tokens));
  backend_->record([this] { return *issue({.samples = true}); });
  device_reason_ = options.device_reason;
  limits_.vocab_size = config_.vocab_size;
  limits_.context_tokens = config_.context_tokens;
  limits_.hidden_size = config_.hidden_size;
  limits_.num_pages = backend_->allocate_pages(options.memory_bytes, config_.context_tokens);
  limits_.page_bytes = backend_->page_bytes(layout);
  limits_.block_tokens = backend_->block_tokens();
  limits_.row_tile = backend_->row_tile();
  limits_.copies_beside_steps = backend_->copies_beside_steps();
  limits_.can_set_aside = backend_->can_set_aside();
}

ModelLimits Decoder::limits() const { return limits_; }

BackendInfo Decoder::info() const {
  BackendInfo out = backend_->info();
  if (!device_reason_.empty()) out.description += " (" + device_reason_ + ")";
  return out;
}

std::unique_ptr<AdapterImage> Decoder::read_adapter(const AdapterSpec& spec) {
  AdapterTensors tensors = read_adapter_tensors(spec, adapter_shapes_);
  for (AdapterModule& module : tensors.modules) {
    if (module.magnitude.data != nullptr || module.whole.data != nullptr) find_base(module);
  }
  return backend_->pack_adapter(tensors.modules);
}

// The weight that the module adapts, and where in it.
void Decoder::find_base(AdapterModule& module) const {
  const auto in = [&](const Weight& weight, std::span<const SitePart> parts) {
    for (const SitePart& part : parts) {
      if (part.module != module.module) continue;
      module.base = &weight;
      module.base_row = part.column;
    }
  };
  const LayerWeights& layer = weights_.layers[module.layer];
  in(*layer.qkv, qkv_parts_);
  in(*layer.o, o_parts_);
  in(*layer.gate_up, gate_up_parts_);
  in(*layer.down, down_parts_);
  in(weights_.head(), head_parts_);
  in(*weights_.embedding, embedding_parts_);
}

std::unique_ptr<ResidentAdapter> Decoder::place_adapter(const AdapterImage& image,
                                                        std::span<const int32_t> pages) {
  return backend_->place_adapter(image, pages);
}

void Decoder::await_most_of_step() {
  std::this_thread::sleep_until(timer_.plan_next_at(StepTimer::Clock::now()));
}

ReloadCosts Decoder::reload_costs() { return {backend_->page_load_ns(), timer_.token_ns()}; }

Decoder::Wants Decoder::wants_of(const StepPlan& plan) {
  return {!plan.logits_rows.empty(), !plan.pooled.empty()};
}

std::optional<Activation> Decoder::issue(Wants wants) {
  // Nothing but the residual and its norm is needed from here on.
  const auto pause = [this] {
    if (on_pause_ && !is_set_aside_) on_pause_();
  };
  Backend& backend = *backend_;
  const float eps = config_.rms_norm_eps;

  const LoraSite embedding_site{0, embedding_parts_};
  Activation residual = backend.embed(*weights_.embedding, &embedding_site);  // [rows, hidden]
  Activation x = backend.rms_norm(residual, *weights_.layers[0].attention_norm, eps);
  for (int32_t layer = 0; layer < config_.num_layers; ++layer) {
    pause();
    const LayerWeights& weights = weights_.layers[layer];
    const bool last = layer + 1 == config_.num_layers;
    const LoraSite qkv_site{layer, qkv_parts_};
    const LoraSite o_site{layer, o_parts_};
    const LoraSite gate_up_site{layer, gate_up_parts_};
    const LoraSite down_site{layer, down_parts_};

    Activation qkv = backend.linear(x, *weights.qkv, &qkv_site);
    backend.rope_and_store_kv(qkv, layer, attention_, weights.q_norm.get(), weights.k_norm.get(),
                              eps);
    // With the last keys and values stored, a chunk that gives nothing else has done its work.
    if (last && !wants.samples && !wants.pools) return std::nullopt;
    const Activation mixed = backend.attention(qkv, layer, attention_);
    const Activation o = backend.linear(mixed, *weights.o, &o_site);  // [rows, hidden]
    x = backend.add_rms_norm(residual, o, *weights.mlp_norm, eps, false);
    pause();
    const Activation gate_up = backend.linear(x, *weights.gate_up, &gate_up_site);
    const Activation inner = backend.silu_mul(gate_up);                  // [rows, inner]
    Activation down = backend.linear(inner, *weights.down, &down_site);  // [rows, hidden]
    if (last && wants.pools) backend.pool(residual, down, *weights_.final_norm, eps);
    if (last && !wants.samples) return std::nullopt;
    const Vector& next_norm =
        last ? *weights_.final_norm : *weights_.layers[layer + 1].attention_norm;
    x = backend.add_rms_norm(residual, down, next_norm, eps, last);
  }
  pause();
  const LoraSite head_site{0, head_parts_, true};
  return backend.linear(x, weights_.head(), &head_site);  // [logits rows, vocab]
}

int32_t Decoder::steps_ahead() const { return backend_->steps_ahead(); }

void Decoder::submit(const StepPlan& plan) {
  const StepTimer::Clock::time_point begin = StepTimer::Clock::now();
  backend_->begin_step(plan);
  timer_.submitted(plan, begin, backend_->is_idle());
  logits_ = backend_->replay();
  if (!logits_) logits_ = issue(wants_of(plan));
}

void Decoder::sample() {
  if (logits_) backend_->sample(*logits_);
  backend_->end_step();
}

void Decoder::collect(std::span<SampleResult> results) {
  backend_->collect(results);
  timer_.collected(StepTimer::Clock::now());
}

void Decoder::set_on_pause(std::function<void()> on_pause) { on_pause_ = std::move(on_pause); }

void Decoder::set_aside() {
  timer_.set_aside(StepTimer::Clock::now());
  backend_->set_aside();
  is_set_aside_ = true;
}

void Decoder::resume() {
  is_set_aside_ = false;
  backend_->resume();
  timer_.resume(StepTimer::Clock::now());
}

void Decoder::forward_logits(const StepPlan& plan, std::span<float> out) {
  backend_->begin_step(plan);
  const std::optional<Activation> logits = issue(wants_of(plan));
  if (logits) backend_->read_logits(*logits, out);
  backend_->end_step();
  backend_->collect({});
}

}  // namespace lorax
