// What a failing CUDA call becomes; needs no device, since any status can be handed in.
#include "cuda/check.h"

#include <gtest/gtest.h>

#include <string>
#include <variant>

namespace lorax::cuda {
namespace {

Error failure_of(cudaError_t status) {
  try {
    check(status, "cudaSomething(x)");
  } catch (const Error& error) {
    return error;
  }
  throw std::logic_error("nothing was thrown");
}

TEST(HostCheckTest, NamesCallAndError) {
  const Error error = failure_of(cudaErrorInvalidValue);
  EXPECT_EQ(error.code(), "ENGINE_LOST");
  EXPECT_EQ(std::get<std::string>(error.data().at("call")), "cudaSomething(x)");
  EXPECT_EQ(std::get<std::string>(error.data().at("cudaError")), "cudaErrorInvalidValue");
  EXPECT_NE(std::string(error.what()).find("cudaSomething(x) failed"), std::string::npos);
  EXPECT_NO_THROW(check(cudaSuccess, "fine"));
}

TEST(HostCheckTest, SaysWhetherTheProcessCanGoOn) {
  for (const cudaError_t status :
       {cudaErrorInvalidValue, cudaErrorMemoryAllocation, cudaErrorInvalidConfiguration,
        cudaErrorLaunchOutOfResources, cudaErrorNoDevice, cudaErrorStreamCaptureInvalidated}) {
    const Error error = failure_of(status);
    EXPECT_TRUE(std::get<bool>(error.data().at("recoverable"))) << cudaGetErrorName(status);
    EXPECT_EQ(std::string(error.what()).find("restart"), std::string::npos);
  }
  for (const cudaError_t status :
       {cudaErrorIllegalAddress, cudaErrorMisalignedAddress, cudaErrorLaunchFailure,
        cudaErrorLaunchTimeout, cudaErrorAssert, cudaErrorECCUncorrectable}) {
    const Error error = failure_of(status);
    EXPECT_FALSE(std::get<bool>(error.data().at("recoverable"))) << cudaGetErrorName(status);
    EXPECT_NE(std::string(error.what()).find("restart"), std::string::npos);
  }
}

}  // namespace
}  // namespace lorax::cuda
