// Where an adapter's slices lie: through the tables in its first page (step_arrays.h).
#pragma once

#include <cstdint>

#include "cuda/step_arrays.h"

namespace lorax::cuda {

// num_groups 0 where the adapter leaves the module as it is, or there is no adapter.
__device__ __forceinline__ AdapterEntry find_entry(const AdapterTable* adapter, int32_t layer,
                                                   int32_t module) {
  if (adapter == nullptr) return {};
  const AdapterTable table = *adapter;
  if (layer >= table.num_layers || module >= table.num_modules) return {};
  return table.entries[layer * table.num_modules + module];
}

}  // namespace lorax::cuda
