// Reads an adapter's tensors from disk into host memory, checked against the shapes of its base.
//
// Always pread, never a mapping: an adapter file that someone truncates while we serve must be an
// ADAPTER_INVALID error, not a SIGBUS. Any thread; several read a large adapter, since a disk wants
// many requests at once and copying from the page cache is bound by one core. Called by
// model/decoder.cc.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "backend/host_buffer.h"
#include "lora/adapter.h"

namespace lorax {

// What a base model has at each module.
struct AdapterShapes {
  int32_t num_layers = 0;
  std::array<int64_t, kNumModules> d_in = {};
  std::array<int64_t, kNumModules> d_out = {};
};

// Values of an adapter; `modules` point into `storage` and at the spec's names.
struct AdapterTensors {
  HostBuffer storage;
  std::vector<AdapterModule> modules;
};

// Sets the stamps that the files have now. Throws ADAPTER_INVALID.
void stamp_files(AdapterSpec* spec);

// Throws ADAPTER_INVALID naming file and tensor. `spec` must outlive the result.
AdapterTensors read_adapter_tensors(const AdapterSpec& spec, const AdapterShapes& shapes);

}  // namespace lorax
