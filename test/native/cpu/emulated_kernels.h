// The AMX kernels on emulated tiles: a CPU backend with them runs everywhere.
#pragma once

#include "cpu/kernels.h"

namespace lorax::cpu_test {

const cpu::AmxKernels& emulated_amx_kernels();

}  // namespace lorax::cpu_test
