// A model and adapters of a given shape made of random numbers, for timing: speed does not depend
// on the values. Either a whole checkpoint that bench/gpu/make-model.mjs wrote, or, where a folder
// holds none, all tensors over one another in one file of the largest one's size.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "lora/adapter.h"
#include "model/weights.h"

namespace lorax::bench {

DecoderConfig llama_8b_config();  // Llama-3.1-8B

// Writes `folder`/weights.bin once; the spec names it.
ModelSpec dummy_model(const DecoderConfig& config, const std::string& folder);

// The checkpoint in `folder`, as its tensors.txt lists it.
std::optional<ModelSpec> stored_model(const std::string& folder);

// stored_model, else dummy_model of Llama-3.1-8B.
ModelSpec bench_model(const std::string& folder);

// All seven projections of every layer at `rank`; writes `folder`/adapter-<rank>.bin once.
AdapterSpec dummy_adapter(const DecoderConfig& config, int32_t rank, const std::string& folder);

}  // namespace lorax::bench
