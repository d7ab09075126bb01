// Refusals: each names what is too much, how much there is, and what to do.
#include "engine/admission.h"

#include <algorithm>
#include <cmath>
#include <new>
#include <string>
#include <utility>

#include "memory/block_table.h"

namespace lorax {

namespace {

std::string number(int64_t value) { return std::to_string(value); }

std::optional<Failure> refuse_malformed(const Request& request, const ModelLimits& model) {
  if (request.prompt.empty()) {
    return Failure{"INVALID_OPTIONS",
                   "The prompt has no tokens; it needs at least one.",
                   {{"field", "promptTokens"}}};
  }
  for (size_t i = 0; i < request.prompt.size(); ++i) {
    const int32_t token = request.prompt[i];
    if (token >= 0 && token < model.vocab_size) continue;
    return Failure{"INVALID_OPTIONS",
                   "promptTokens[" + number(i) + "] is " + number(token) +
                       "; token ids of this model are 0 to " + number(model.vocab_size - 1) + ".",
                   {{"field", "promptTokens"},
                    {"index", static_cast<double>(i)},
                    {"token", static_cast<double>(token)},
                    {"vocabSize", static_cast<double>(model.vocab_size)}}};
  }
  if (!(request.tenant_weight > 0.0f) || !std::isfinite(request.tenant_weight)) {
    return Failure{
        "INVALID_OPTIONS",
        "A tenant's weight must be a finite number above 0.",
        {{"field", "tenantWeight"}, {"value", static_cast<double>(request.tenant_weight)}}};
  }
  try {
    check_sampling_params(request.sampling, model.vocab_size);
  } catch (const Error& error) {
    return Failure{error.code(), error.what(), error.data()};
  }
  return std::nullopt;
}

// How long it is: "The prompt has 60 tokens and 5 to generate (maxOutputTokens)".
std::string length_text(const Request& request) {
  const std::string tokens = number(static_cast<int64_t>(request.prompt.size())) + " tokens";
  if (request.embedding) return "The input has " + tokens;
  const int32_t outputs = request.sampling.max_output_tokens;
  return "The prompt has " + tokens +
         (outputs == 0 ? " and at least 1 to generate"
                       : " and " + number(outputs) + " to generate (maxOutputTokens)");
}

std::optional<Failure> refuse_grammar(const Request& request, int32_t max_tokens) {
  if (request.grammar == nullptr) return std::nullopt;
  const auto prompt = static_cast<int32_t>(request.prompt.size());
  const grammar::Cost shortest = request.grammar->shortest();
  const int32_t left = max_tokens - prompt;
  if (shortest <= static_cast<grammar::Cost>(left)) return std::nullopt;
  const bool has_maximum = request.sampling.max_output_tokens > 0;
  ErrorData data = {{"shortestTokens", static_cast<double>(shortest)},
                    {"promptTokens", static_cast<double>(prompt)}};
  if (has_maximum) {
    data["field"] = std::string("maxOutputTokens");
    data["maxOutputTokens"] = static_cast<double>(request.sampling.max_output_tokens);
  }
  return Failure{has_maximum ? "INVALID_OPTIONS" : "CONTEXT_TOO_LONG",
                 "The output's grammar takes " + number(shortest) +
                     " tokens to come to an end, but there is room for " + number(left) +
                     (has_maximum ? " (maxOutputTokens)." : " after the prompt."),
                 std::move(data)};
}

std::string handles_of(std::span<const AdapterUse> adapters) {
  std::string list;
  for (const AdapterUse& use : adapters) list += (list.empty() ? "" : ", ") + number(use.handle);
  return list;
}

// Whose numbers were not usable.
struct Suspects {
  const char* code;
  std::string who;
  const char* advice;
};

Suspects suspects_of(std::span<const AdapterUse> adapters) {
  if (adapters.empty()) return {"MODEL_INVALID", "The model", "Check its weights."};
  if (adapters.size() == 1) {
    return {"ADAPTER_INVALID", "The adapter", "Check its weights and its alpha."};
  }
  return {"ADAPTER_INVALID", "The mix of the adapters " + handles_of(adapters),
          "Check their weights, their alphas and the weights of the mix."};
}

void name_adapters(std::span<const AdapterUse> adapters, ErrorData* data) {
  if (adapters.size() == 1) {
    (*data)["adapter"] = static_cast<double>(adapters[0].handle);
  } else if (!adapters.empty()) {
    (*data)["adapters"] = handles_of(adapters);
  }
}

}  // namespace

std::optional<Failure> refuse(const Request& request, const ModelLimits& model,
                              int32_t adapter_pages) {
  if (auto failure = refuse_malformed(request, model)) return failure;
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  const bool has_maximum = request.sampling.max_output_tokens > 0;
  const int64_t outputs = request.embedding ? 0
                          : has_maximum     ? request.sampling.max_output_tokens
                                            : 1;
  ErrorData data = {{"promptTokens", static_cast<double>(prompt)}};
  if (has_maximum) data["maxOutputTokens"] = static_cast<double>(outputs);

  if (prompt + outputs > model.context_tokens) {
    data["contextTokens"] = static_cast<double>(model.context_tokens);
    return Failure{"CONTEXT_TOO_LONG",
                   length_text(request) + ": more than the model's context of " +
                       number(model.context_tokens) + " tokens.",
                   std::move(data)};
  }

  // The KV of the last output is never read, so it takes no room.
  const int64_t kv_pages =
      blocks_for(prompt + std::max<int64_t>(outputs, 1) - 1, model.block_tokens);
  if (kv_pages + adapter_pages > model.num_pages) {
    data["kvPages"] = static_cast<double>(kv_pages);
    data["adapterPages"] = static_cast<double>(adapter_pages);
    data["poolPages"] = static_cast<double>(model.num_pages);
    data["blockTokens"] = static_cast<double>(model.block_tokens);
    data["pageBytes"] = static_cast<double>(model.page_bytes);
    return Failure{"POOL_EXHAUSTED",
                   length_text(request) + ": " + number(kv_pages) + " pages of " +
                       number(model.block_tokens) + " tokens and " + number(adapter_pages) +
                       " for its " + (request.adapters.size() > 1 ? "adapters" : "adapter") +
                       ", but the pool has " + number(model.num_pages) +
                       ". Raise memoryBytes or ask for less.",
                   std::move(data)};
  }
  return refuse_grammar(request, max_sequence_tokens(request, model, adapter_pages));
}

int32_t max_sequence_tokens(const Request& request, const ModelLimits& model,
                            int32_t adapter_pages) {
  const auto prompt = static_cast<int32_t>(request.prompt.size());
  if (request.embedding) return prompt + 1;
  const int32_t outputs = request.sampling.max_output_tokens;
  if (outputs > 0) return std::min(model.context_tokens, prompt + outputs);
  if (request.grammar == nullptr) return model.context_tokens;
  const int64_t kv_tokens =
      static_cast<int64_t>(model.num_pages - adapter_pages) * model.block_tokens;
  return static_cast<int32_t>(std::min<int64_t>(model.context_tokens, kv_tokens + 1));
}

Failure adapter_not_found(int32_t handle) {
  return Failure{
      "ADAPTER_NOT_FOUND",
      "There is no adapter with handle " + number(handle) + "; it may have been removed.",
      {{"adapter", static_cast<double>(handle)}}};
}

Failure no_token(std::span<const AdapterUse> adapters, int32_t num_outputs) {
  const Suspects suspects = suspects_of(adapters);
  ErrorData data = {{"outputTokens", static_cast<double>(num_outputs)}};
  name_adapters(adapters, &data);
  return Failure{suspects.code,
                 suspects.who + " gave no usable logits (NaN, infinite or all banned) after " +
                     number(num_outputs) + " output tokens. " + suspects.advice +
                     " A logitBias may not ban every token, nor every one that"
                     " a grammar allows.",
                 std::move(data)};
}

Failure no_embedding(std::span<const AdapterUse> adapters) {
  const Suspects suspects = suspects_of(adapters);
  ErrorData data;
  name_adapters(adapters, &data);
  return Failure{suspects.code,
                 suspects.who + " gave hidden states that are NaN or infinite. " + suspects.advice,
                 std::move(data)};
}

Error adapter_too_large(int32_t adapter_pages, const ModelLimits& model) {
  return Error("POOL_EXHAUSTED",
               "The adapter takes " + number(adapter_pages) + " pages, but the pool has " +
                   number(model.num_pages) +
                   " and a sequence needs at least one. Raise memoryBytes.",
               {{"adapterPages", static_cast<double>(adapter_pages)},
                {"poolPages", static_cast<double>(model.num_pages)},
                {"pageBytes", static_cast<double>(model.page_bytes)}});
}

Failure host_memory_exhausted(int64_t adapter_bytes, int64_t host_memory_bytes) {
  return Failure{"HOST_MEMORY_EXHAUSTED",
                 "The adapters take " + number(adapter_bytes) + " bytes of host memory, and have " +
                     number(host_memory_bytes) + ". Raise hostMemoryBytes.",
                 {{"adapterBytes", static_cast<double>(adapter_bytes)},
                  {"hostMemoryBytes", static_cast<double>(host_memory_bytes)}}};
}

Failure reading_failed(const std::exception& error) noexcept {
  try {
    if (const auto* known = dynamic_cast<const Error*>(&error)) {
      return {known->code(), known->what(), known->data()};
    }
    return {
        "ADAPTER_INVALID", std::string("The adapter could not be read again: ") + error.what(), {}};
  } catch (...) {
    return copy_of({});
  }
}

Failure engine_lost(const std::exception& error, int64_t step) noexcept {
  try {
    ErrorData data;
    if (const auto* known = dynamic_cast<const Error*>(&error)) {
      data = known->data();
      data["causeCode"] = known->code();
    }
    data["step"] = static_cast<double>(step);
    const bool memory_is_out = dynamic_cast<const std::bad_alloc*>(&error) != nullptr;
    const std::string cause = memory_is_out ? "out of memory" : error.what();
    data["cause"] = cause;
    // Where no engine can be made in this process any more, the cause says what to do instead.
    const auto recoverable = data.find("recoverable");
    const bool renew = recoverable == data.end() || recoverable->second != ErrorValue(false);
    return {"ENGINE_LOST",
            "The engine failed at step " + number(step) + ": " + cause +
                (renew ? ". It serves no more; create a new one." : "."),
            std::move(data)};
  } catch (...) {
    return copy_of({});
  }
}

Failure copy_of(const Failure& failure) noexcept {
  try {
    if (!failure.code.empty()) return failure;
  } catch (...) {
  }
  // Short enough to need no memory of its own.
  return {"ENGINE_LOST", "Out of memory.", {}};
}

Failure queue_full(int32_t num_waiting, int32_t num_running, int32_t max_queued) {
  return Failure{"QUEUE_FULL",
                 number(num_waiting) + " requests wait and " + number(num_running) +
                     " run; at most " + number(max_queued) +
                     " may wait (maxQueued). Try again later.",
                 {{"waiting", static_cast<double>(num_waiting)},
                  {"running", static_cast<double>(num_running)},
                  {"maxQueued", static_cast<double>(max_queued)}}};
}

}  // namespace lorax
