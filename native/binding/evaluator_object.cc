// One sequence, chunk by chunk, logits of every row.
#include "binding/evaluator_object.h"

#include <algorithm>
#include <limits>
#include <span>
#include <string>

#include "binding/make_model.h"
#include "binding/values.h"

namespace lorax {
namespace {

struct MixedAdapter {
  const ResidentAdapter* adapter;
  float weight;
  int32_t first_position;
};

// Rows [begin, begin + count) of a sequence whose block i is page i.
StepPlan make_plan(const std::vector<int32_t>& tokens, int32_t begin, int32_t count,
                   int32_t block_tokens, const std::vector<MixedAdapter>& adapters) {
  StepPlan plan;
  SequenceSpan span;
  span.num_rows = count;
  span.first_position = begin;
  span.num_blocks = (begin + count + block_tokens - 1) / block_tokens;
  plan.spans.push_back(span);
  for (int32_t block = 0; block < span.num_blocks; ++block) plan.block_tables.push_back(block);
  for (int32_t row = 0; row < count; ++row) {
    plan.token_ids.push_back(tokens[begin + row]);
    plan.positions.push_back(begin + row);
    plan.logits_rows.push_back(row);
  }
  plan.samples.resize(count);
  for (const auto& [adapter, weight, first_position] : adapters) {
    const int32_t skipped = std::max(0, first_position - begin);
    if (skipped >= count) continue;
    const auto begin_rows = static_cast<int32_t>(plan.segment_rows.size());
    plan.segments.push_back({adapter, begin_rows, begin_rows + count - skipped});
    plan.segment_rows.insert(plan.segment_rows.end(), plan.logits_rows.begin() + skipped,
                             plan.logits_rows.end());
    plan.segment_weights.insert(plan.segment_weights.end(), count - skipped, weight);
  }
  return plan;
}

Error out_of_pages(int32_t needed, int32_t available) {
  return Error(
      "POOL_EXHAUSTED",
      std::to_string(needed) + " pages are needed, " + std::to_string(available) +
          " are free; raise memoryBytes",
      {{"needed", static_cast<double>(needed)}, {"available", static_cast<double>(available)}});
}

}  // namespace

Napi::Function EvaluatorObject::define(Napi::Env env) {
  return DefineClass(env, "NativeEvaluator",
                     {InstanceMethod<&EvaluatorObject::add_adapter>("addAdapter"),
                      InstanceMethod<&EvaluatorObject::logits>("logits")});
}

Napi::Value EvaluatorObject::make(Napi::Env env, const Napi::FunctionReference& constructor,
                                  EngineConfig config) {
  return constructor.New({Napi::External<EngineConfig>::New(env, &config)});
}

EvaluatorObject::EvaluatorObject(const Napi::CallbackInfo& call) : ObjectWrap(call) {
  if (call.Length() != 1 || !call[0].IsExternal()) {
    throw Napi::TypeError::New(call.Env(), "NativeEvaluator is made by createEvaluator");
  }
  const EngineConfig& config = *call[0].As<Napi::External<EngineConfig>>().Data();
  guarded(call.Env(), [&] {
    decoder_ = make_model(config, std::numeric_limits<int32_t>::max(), nullptr);
    chunk_ = decoder_->limits().max_batch_tokens;
    num_free_pages_ = decoder_->limits().num_pages;
    return call.Env().Undefined();
  });
}

Napi::Value EvaluatorObject::add_adapter(const Napi::CallbackInfo& call) {
  return guarded(call.Env(), [&] {
    const auto image = decoder_->read_adapter(read_adapter_spec(call[0], "spec"));
    if (image->num_pages > num_free_pages_) throw out_of_pages(image->num_pages, num_free_pages_);
    std::vector<int32_t> pages;
    for (int32_t i = 0; i < image->num_pages; ++i) pages.push_back(num_free_pages_ - 1 - i);
    adapters_.push_back(decoder_->place_adapter(*image, pages));
    num_free_pages_ -= image->num_pages;
    return Napi::Number::New(call.Env(), static_cast<double>(adapters_.size() - 1));
  });
}

Napi::Value EvaluatorObject::logits(const Napi::CallbackInfo& call) {
  return guarded(call.Env(), [&] {
    const ModelLimits limits = decoder_->limits();
    const auto tokens = read_tokens(call[0], "tokens", limits.vocab_size);
    std::vector<MixedAdapter> adapters;
    for (const AdapterUse& use : read_adapter_uses(call[1], "adapters")) {
      if (static_cast<size_t>(use.handle) >= adapters_.size()) {
        throw Napi::TypeError::New(call.Env(),
                                   "adapters has a handle that addAdapter gave to none");
      }
      adapters.push_back({adapters_[use.handle].get(), use.weight, use.first_position});
    }
    const auto num_tokens = static_cast<int64_t>(tokens.size());
    if (num_tokens > limits.context_tokens) {
      throw Error("CONTEXT_TOO_LONG",
                  std::to_string(num_tokens) + " tokens, the context holds " +
                      std::to_string(limits.context_tokens),
                  {{"tokens", static_cast<double>(num_tokens)},
                   {"contextTokens", static_cast<double>(limits.context_tokens)}});
    }
    const auto needed =
        static_cast<int32_t>((num_tokens + limits.block_tokens - 1) / limits.block_tokens);
    if (needed > num_free_pages_) throw out_of_pages(needed, num_free_pages_);
    const auto vocab = static_cast<size_t>(limits.vocab_size);
    auto out = Napi::Float32Array::New(call.Env(), tokens.size() * vocab);
    for (int32_t begin = 0; begin < num_tokens; begin += chunk_) {
      const auto count = static_cast<int32_t>(std::min<int64_t>(chunk_, num_tokens - begin));
      const StepPlan plan = make_plan(tokens, begin, count, limits.block_tokens, adapters);
      decoder_->forward_logits(plan, std::span(out.Data() + begin * vocab, count * vocab));
    }
    return out;
  });
}

}  // namespace lorax
