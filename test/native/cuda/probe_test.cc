// The device that the tests run on is what the probe says; one that is not there is refused.
#include "cuda/probe.h"

#include <gtest/gtest.h>

#include <string>
#include <variant>

#include "backend/error.h"
#include "cuda/check.h"

namespace lorax::cuda {
namespace {

std::string reason_of(int32_t device) {
  try {
    return probe_device(device);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), "DEVICE_UNAVAILABLE");
    EXPECT_EQ(std::get<std::string>(error.data().at("device")), "cuda");
    return std::get<std::string>(error.data().at("reason"));
  }
}

TEST(HostProbeTest, RefusesADeviceThatNoMachineHas) {
  const std::string reason = reason_of(1 << 20);
  EXPECT_TRUE(reason == "no-driver" || reason == "driver-too-old" || reason == "no-device")
      << reason;
  EXPECT_EQ(reason_of(-1), reason);
}

TEST(ProbeTest, DescribesTheDevice) {
  cudaDeviceProp properties{};
  LORAX_CUDA(cudaGetDeviceProperties(&properties, 0));
  const std::string line = probe_device(0);
  EXPECT_EQ(line.find(properties.name), 0u) << line;
  EXPECT_NE(line.find("sm_" + std::to_string(properties.major) + std::to_string(properties.minor)),
            std::string::npos)
      << line;
  EXPECT_NE(line.find(" GiB"), std::string::npos) << line;
}

}  // namespace
}  // namespace lorax::cuda
