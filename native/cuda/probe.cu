// Asked in the order in which a machine can lack things: driver, device, age, our own kernels.
#include <cuda_runtime.h>

#include <cstdio>

#include "cuda/check.h"
#include "cuda/probe.h"

namespace lorax::cuda {
namespace {

// Compiled for what every kernel here is compiled for, so its presence says whether they are there.
__global__ void present() {}

constexpr int kOldestMajor = 8;  // bf16 tensor cores, cp.async

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

[[noreturn]] void unavailable(const char* reason, const std::string& message, ErrorData data = {}) {
  data["device"] = std::string("cuda");
  data["reason"] = std::string(reason);
  throw Error("DEVICE_UNAVAILABLE", message, std::move(data));
}

int count_devices() {
  int driver = 0;
  LORAX_CUDA(cudaDriverGetVersion(&driver));
  if (driver == 0) {
    unavailable("no-driver", "no NVIDIA driver is installed (libcuda.so.1 cannot be opened)");
  }
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaErrorInsufficientDriver) {
    unavailable("driver-too-old",
                "the NVIDIA driver is for CUDA " + version_text(driver) +
                    ", this build needs one for CUDA " + version_text(CUDART_VERSION / 1000 * 1000),
                {{"driverVersion", static_cast<double>(driver)}});
  }
  if (status == cudaErrorNoDevice || (status == cudaSuccess && count == 0)) {
    unavailable("no-device", "the NVIDIA driver shows no device");
  }
  check(status, "cudaGetDeviceCount");
  return count;
}

}  // namespace

std::string probe_device(int32_t device) {
  const int count = count_devices();
  if (device < 0 || device >= count) {
    unavailable("no-device",
                "there is no device " + std::to_string(device) + ", only " + std::to_string(count),
                {{"index", static_cast<double>(device)}});
  }
  cudaDeviceProp properties{};
  LORAX_CUDA(cudaGetDeviceProperties(&properties, device));
  const std::string arch =
      "sm_" + std::to_string(properties.major) + std::to_string(properties.minor);
  const std::string name = std::string(properties.name) + " (" + arch + ")";
  if (properties.major < kOldestMajor) {
    unavailable("device-too-old", name + " is too old: sm_80 or newer is needed",
                {{"name", std::string(properties.name)}, {"arch", arch}});
  }
  LORAX_CUDA(cudaSetDevice(device));
  cudaFuncAttributes attributes{};
  const cudaError_t status = cudaFuncGetAttributes(&attributes, present);
  if (status == cudaErrorNoKernelImageForDevice || status == cudaErrorInvalidDeviceFunction ||
      status == cudaErrorUnsupportedPtxVersion) {
    static_cast<void>(cudaGetLastError());
    unavailable("not-built-for-device",
                "the CUDA backend was built for " LORAX_CUDA_ARCHITECTURES ", not for " + name,
                {{"name", std::string(properties.name)},
                 {"arch", arch},
                 {"builtFor", std::string(LORAX_CUDA_ARCHITECTURES)}});
  }
  check(status, "cudaFuncGetAttributes(present)");
  char memory[32];
  std::snprintf(memory, sizeof memory, "%.1f GiB",
                static_cast<double>(properties.totalGlobalMem) / (int64_t{1} << 30));
  return std::string(properties.name) + ", " + arch + ", " + memory;
}

}  // namespace lorax::cuda
