// What this card does at best, measured in the same run as whatever is compared with it.
#pragma once

#include <string>

namespace lorax::bench {

struct DeviceCeilings {
  std::string name;
  double copy_bytes_per_second = 0.0;  // device to device, read + written
  double gemm_flops = 0.0;             // bf16, 8192 x 8192 x 8192, random values
};

// `cache_directory` as CublasLt's.
DeviceCeilings measure_device_ceilings(const std::string& cache_directory);

}  // namespace lorax::bench
