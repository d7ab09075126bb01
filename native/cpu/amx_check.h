// Products whose exact results are known, run once before AMX is chosen unasked.
//
// AMX depends on more than the processor: permission, saved state, what a hypervisor lets through.
// A machine that offers it and computes something else falls back to AVX-512.
#pragma once

#include "cpu/kernels.h"

namespace lorax::cpu {

// Small integers, exact in bf16 and in every partial sum, for rows and columns off the tiles'
// edges.
bool multiplies_exactly(const AmxKernels& kernels);

// Small integers whose scores are whole powers of two, so that softmax is exact but for its last
// division; for rows, tokens and a head_dim off the tiles' edges.
bool attends_exactly(const AmxKernels& kernels);

inline bool computes_exactly(const AmxKernels& kernels) {
  return multiplies_exactly(kernels) && attends_exactly(kernels);
}

}  // namespace lorax::cpu
