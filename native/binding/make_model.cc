// Only the CPU backend so far; 'auto' is it.
#include "binding/make_model.h"

#include <string>

#include "backend/error.h"

namespace lorax {

std::unique_ptr<Decoder> make_model(const EngineConfig& config, int32_t max_logits_rows,
                                    const LoadProgress& progress) {
  if (config.device == "cuda") {
    throw Error("INVALID_OPTIONS",
                "device is 'cuda', but this build has no CUDA backend; use 'auto' or 'cpu'",
                {{"field", std::string("device")}, {"device", config.device}});
  }
  DecoderOptions options;
  options.memory_bytes = config.memory_bytes;
  options.max_rows = config.max_batch_tokens;
  options.max_logits_rows = max_logits_rows;
  options.progress = progress;
  return std::make_unique<Decoder>(make_cpu_backend(config.cpu), config.model, options);
}

}  // namespace lorax
