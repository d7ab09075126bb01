// A model and adapters of a given shape made of random numbers, for timing: speed does not depend
// on the values. All tensors lie over one another in one file of the largest one's size.
#pragma once

#include <cstdint>
#include <string>

#include "lora/adapter.h"
#include "model/weights.h"

namespace lorax::bench {

DecoderConfig llama_8b_config();  // Llama-3.1-8B

// Writes `folder`/weights.bin once; the spec names it.
ModelSpec dummy_model(const DecoderConfig& config, const std::string& folder);

// All seven projections of every layer at `rank`; writes `folder`/adapter-<rank>.bin once.
AdapterSpec dummy_adapter(const DecoderConfig& config, int32_t rank, const std::string& folder);

}  // namespace lorax::bench
