// A plugin whose device is the naive reference: what crosses the border of lorax_cuda.so can be
// tested without CUDA. CudaOptions::cache_directory says what shall go wrong.
#include <memory>
#include <stdexcept>
#include <string>

#include "cuda/plugin.h"
#include "reference/reference_backend.h"

namespace lorax {
namespace {

class TestBackend : public ReferenceBackend {
 public:
  explicit TestBackend(CudaOptions options) : options_(std::move(options)) {}

  BackendInfo info() const override {
    return {"cuda", "a test's device, " + std::to_string(options_.memory_fraction) + " of memory" +
                        (options_.deterministic ? ", deterministic" : "")};
  }

  void begin_step(const StepPlan& plan) override {
    if (options_.cache_directory == "lose at step 2" && plan.step == 2) {
      throw Error("ENGINE_LOST", "launch failed: testError",
                  {{"call", std::string("launch")}, {"recoverable", false}});
    }
    ReferenceBackend::begin_step(plan);
  }

 private:
  const CudaOptions options_;
};

std::string probe(int32_t device) {
  if (device == 0) return "a test's device, sm_00, 0.0 GiB";
  throw Error("DEVICE_UNAVAILABLE", "there is no device " + std::to_string(device) + ", only 1",
              {{"reason", std::string("no-device")}, {"index", static_cast<double>(device)}});
}

std::unique_ptr<Backend> make_backend(const CudaOptions& options) {
  if (options.cache_directory == "throw runtime_error") throw std::runtime_error("not an Error");
  if (options.cache_directory == "throw int") throw 7;
  if (options.cache_directory == "lack a library") {
    throw Error("DEVICE_UNAVAILABLE", "libtest.so cannot be opened",
                {{"reason", std::string("no-libtest")}});
  }
  if (options.cache_directory == "throw bad_alloc") throw std::bad_alloc();
  return std::make_unique<TestBackend>(options);
}

}  // namespace
}  // namespace lorax

extern "C" __attribute__((visibility("default"))) const lorax::CudaPlugin* lorax_cuda_plugin_v1() {
  static constexpr lorax::CudaPlugin kPlugin = {lorax::kPluginAbi, lorax::probe,
                                                lorax::make_backend};
  return &kPlugin;
}
