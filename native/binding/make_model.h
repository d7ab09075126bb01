// From settings to a loaded Decoder on the device they ask for.
//
// The one place that knows which backends there are. Called by EngineSession (off the
// JavaScript thread) and EvaluatorObject.
#pragma once

#include <memory>

#include "binding/arguments.h"
#include "model/decoder.h"

namespace lorax {

// Sequences that run at once in an engine.
inline constexpr int32_t kMaxSequences = 256;

// Throws DEVICE_UNAVAILABLE for a device that was asked for and cannot be used, MODEL_INVALID for
// files that lie, and what `progress` throws.
std::unique_ptr<Decoder> make_model(const EngineConfig& config, int32_t max_logits_rows,
                                    const LoadProgress& progress);

}  // namespace lorax
