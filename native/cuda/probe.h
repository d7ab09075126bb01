// Whether a CUDA device can be used here, and why not.
//
// Touches nothing but the driver: no memory is taken on the device. Called through plugin.h and by
// the CUDA tests.
#pragma once

#include <cstdint>
#include <string>

namespace lorax::cuda {

// "NVIDIA H100 80GB HBM3, sm_90, 79.2 GiB". Throws DEVICE_UNAVAILABLE; its data's `reason` is
// no-driver, driver-too-old, no-device, device-too-old or not-built-for-device.
std::string probe_device(int32_t device);

}  // namespace lorax::cuda
