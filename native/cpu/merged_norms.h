// What packing an adapter asks of base weights. The norms that DoRA divides by: of every output of
// W + scale B A, in float32 or better.
//
// Computed when an adapter is packed, from the base weights as they are packed here (or the whole
// ones the adapter brings) and its own A and B; shared out among a few threads of its own, since it
// may be called from any thread. The sums have one order, whatever the number of threads.
#pragma once

#include <vector>

#include "cpu/packed_weight.h"

namespace lorax::cpu {

// [d_out], of a module with a magnitude. Throws ADAPTER_INVALID where A, B or W hold NaN or Inf.
std::vector<float> merged_norms(const AdapterModule& m, bool bf16);

// Whether m.whole is the base's W, as it is packed.
bool is_base(const AdapterModule& m, bool bf16);

}  // namespace lorax::cpu
