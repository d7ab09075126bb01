// 'auto' is CUDA where a device can be used and the CPU else; the reason is told with the device.
#include "binding/make_model.h"

#include <string>
#include <utility>

#include "backend/error.h"
#include "binding/backend_plugin.h"
#include "cpu/cpu_backend.h"

namespace lorax {
namespace {

struct Choice {
  std::unique_ptr<Backend> backend;
  std::string reason;  // empty: it was asked for
};

Choice choose_cpu(const EngineConfig& config, const std::string& reason) {
  return {make_cpu_backend(config.cpu), reason};
}

Choice choose_backend(const EngineConfig& config) {
  const bool asked = config.device == "cuda";
  if (config.device == "cpu") return choose_cpu(config, "");
  if (config.cpu.precision == Precision::kFloat32) {
    if (!asked) return choose_cpu(config, "'auto': float32, the reference, runs on the CPU");
    throw Error("INVALID_OPTIONS",
                "precision is 'float32', the reference, which runs on the CPU: device 'cuda' "
                "computes in bfloat16",
                {{"field", std::string("precision")},
                 {"device", config.device},
                 {"precision", std::string("float32")}});
  }
  try {
    const CudaPlugin& plugin = open_cuda_plugin(config.cuda_plugin);
    const std::string found = plugin.probe(config.cuda.device);
    return {plugin.make_backend(config.cuda), asked ? "" : "'auto': found " + found};
  } catch (const Error& error) {
    if (error.code() != "DEVICE_UNAVAILABLE") throw;
    if (!asked) return choose_cpu(config, "'auto': " + std::string(error.what()));
    const char* advice = config.cuda_plugin.empty()
                             ? ". With nvcc >= 12.3 on the machine, `npx lorax-js build` makes it"
                             : "";
    throw Error(error.code(),
                "device is 'cuda', but " + std::string(error.what()) + advice +
                    ". Use 'cpu' or 'auto' to run without it.",
                error.data());
  }
}

}  // namespace

std::unique_ptr<Decoder> make_model(const EngineConfig& config, int32_t max_logits_rows,
                                    const LoadProgress& progress) {
  Choice choice = choose_backend(config);
  DecoderOptions options;
  options.memory_bytes = config.memory_bytes;
  options.max_rows = config.max_batch_tokens;
  options.max_logits_rows = max_logits_rows;
  options.device_reason = std::move(choice.reason);
  options.progress = progress;
  return std::make_unique<Decoder>(std::move(choice.backend), config.model, options);
}

}  // namespace lorax
