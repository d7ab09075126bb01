// What launches need to know of the current device, asked once per device. Any thread.
#pragma once

namespace lorax::cuda {

struct DeviceShape {
  int major = 0;  // compute capability
  int multiprocessors = 0;
};

DeviceShape device_shape();

}  // namespace lorax::cuda
