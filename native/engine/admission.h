// Which requests are refused before they are queued, and the words and numbers of every failure.
//
// Pure functions of the request and what the engine is; refuse() is called when a submission is
// drained.
#pragma once

#include <cstdint>
#include <exception>
#include <optional>
#include <span>

#include "engine/engine.h"

namespace lorax {

// `adapter_pages`: pages of all the request's adapters; 0 for the base. Refuses what is malformed
// (INVALID_OPTIONS) and what can never fit (CONTEXT_TOO_LONG, POOL_EXHAUSTED).
// CONTEXT_TOO_LONG too, or INVALID_OPTIONS, where a grammar takes more tokens than the output may
// have.
std::optional<Failure> refuse(const Request& request, const ModelLimits& model,
                              int32_t adapter_pages);

// Tokens, prompt and outputs, with which the sequence ends if nothing else ends it. An output that
// has to be whole is never cut by a full pool.
int32_t max_sequence_tokens(const Request& request, const ModelLimits& model,
                            int32_t adapter_pages);

Failure adapter_not_found(int32_t handle);
// The model gave a sequence no token (SampleResult::token < 0) at output position `num_outputs`.
Failure no_token(std::span<const AdapterUse> adapters, int32_t num_outputs);
// The hidden states of an input are not finite.
Failure no_embedding(std::span<const AdapterUse> adapters);

// Requests that wait for an adapter whose image could not be read again hear this.
Failure reading_failed(const std::exception& error) noexcept;
// All the adapters of a request, or one alone.
Failure host_memory_exhausted(int64_t adapter_bytes, int64_t host_memory_bytes);
Error adapter_too_large(int32_t adapter_pages, const ModelLimits& model);
// Every open request hears this when `error` ends the engine at `step`.
Failure engine_lost(const std::exception& error, int64_t step) noexcept;
// A copy, or something shorter when there is no memory for one.
Failure copy_of(const Failure& failure) noexcept;

Failure queue_full(int32_t num_waiting, int32_t num_running, int32_t max_queued);

}  // namespace lorax
