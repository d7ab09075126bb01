// JavaScript values to native structs: the specs and settings of worker/addon.ts.
//
// Everything throws a Napi::TypeError that names the argument and the field
// ("config.model.tensors[3].offset must be ..."). Nothing here trusts a number's range.
#pragma once

#include <napi.h>

#include <string>
#include <vector>

#include "cpu/cpu_backend.h"
#include "cuda/cuda_backend.h"
#include "engine/engine.h"
#include "grammar/trigger_automaton.h"
#include "grammar/vocabulary.h"
#include "model/weights.h"

namespace lorax {

// NativeEngineConfig.
struct EngineConfig {
  ModelSpec model;
  std::string device;
  CpuOptions cpu;
  std::string cuda_plugin;  // path of lorax_cuda.so; empty = there is none
  CudaOptions cuda;
  int64_t memory_bytes = 0;
  int32_t max_batch_tokens = 0;  // 0 = the backend's choice
  int32_t max_queued = 1024;
  int64_t host_memory_bytes = 0;  // for images of adapters
};

EngineConfig read_engine_config(const Napi::Value& value, const std::string& name);
AdapterSpec read_adapter_spec(const Napi::Value& value, const std::string& name);

// `vocab_size` bounds token ids.
SamplingParams read_sampling(const Napi::Value& value, const std::string& name, int32_t vocab_size);
// An array of { handle, weight }: distinct handles, finite weights, kMaxSegmentsPerRow at most.
std::vector<AdapterUse> read_adapter_uses(const Napi::Value& value, const std::string& name);
// NativeService: what is unset, or all of it, leaves the request as it is.
void read_service(const Napi::Value& value, const std::string& name, Request* request);
EmbeddingParams read_embedding(const Napi::Value& value, const std::string& name);
std::vector<int32_t> read_tokens(const Napi::Value& value, const std::string& name,
                                 int32_t vocab_size);
grammar::TokenBytes read_vocabulary(const Napi::Value& value, const std::string& name);
// Empty where it is undefined.
std::vector<grammar::Trigger> read_triggers(const Napi::Value& value, const std::string& name,
                                            int32_t vocab_size);
std::string read_string(const Napi::Value& value, const std::string& name);
int32_t read_int32(const Napi::Value& value, const std::string& name, int32_t low, int32_t high);
Napi::Function read_function(const Napi::Value& value, const std::string& name);

}  // namespace lorax
