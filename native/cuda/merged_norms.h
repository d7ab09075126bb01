// What packing an adapter asks of base weights. The norms that DoRA divides by
// (backend/output_affine.h), of the weights on the device.
//
// Called when an adapter is packed, on any thread, beside steps: on a stream of its own, with
// memory of the device's own pool. Sums are in double and have one order.
#pragma once

#include <vector>

#include "backend/backend.h"
#include "cuda/weight_loader.h"

namespace lorax::cuda {

// [d_out], of a module with a magnitude. Throws ADAPTER_INVALID where A, B or a whole W hold NaN or
// Inf.
std::vector<float> merged_norms(const AdapterModule& m);

// The bias of the outputs that the module adapts, [d_out]; empty where the base has none.
std::vector<float> base_bias(const AdapterModule& m);

// Whether m.whole is the base's W, as it is on the device.
bool is_base(const AdapterModule& m);

}  // namespace lorax::cuda
