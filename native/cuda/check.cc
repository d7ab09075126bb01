// Which CUDA errors are sticky: NVIDIA's descriptions of cudaError_t say "the process must be
// terminated and relaunched" of each below.
#include "cuda/check.h"

#include <string>

namespace lorax::cuda {

bool is_recoverable(cudaError_t status) {
  switch (status) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorExternalDevice:
    case cudaErrorContextIsDestroyed:
    case cudaErrorMpsClientTerminated:
#if CUDART_VERSION >= 12080
    case cudaErrorTensorMemoryLeak:
    case cudaErrorContained:
#endif
    case cudaErrorUnknown:  // nothing is known to be right after it
      return false;
    default:
      return true;
  }
}

void fail(cudaError_t status, const char* call) {
  // Else the next launch would be blamed for it. A sticky error stays.
  static_cast<void>(cudaGetLastError());
  const bool recoverable = is_recoverable(status);
  const std::string name = cudaGetErrorName(status);
  throw Error("ENGINE_LOST",
              std::string(call) + " failed: " + name + ", " + cudaGetErrorString(status) +
                  (recoverable ? "" : ". CUDA cannot be used in this process any more: restart it"),
              {{"call", std::string(call)}, {"cudaError", name}, {"recoverable", recoverable}});
}

}  // namespace lorax::cuda
