// The CPU implementation of backend/backend.h.
//
// Owns its threads, buffers and the page arena. The instruction set is chosen once, at creation.
// Within one instruction set every result is the same bit for bit, whatever the rows of a step, its
// chunks or the number of threads: threads split outputs, never a sum.
#pragma once

#include <memory>

#include "backend/backend.h"

namespace lorax {

enum class Isa : uint8_t { kAuto, kPortable, kAvx2, kAvx512, kAmx };

struct CpuOptions {
  Precision precision = Precision::kBFloat16;
  int threads = 0;  // 0 = one per core
  Isa isa = Isa::kAuto;
};

// Whether this build and this processor (and, for AMX, the kernel) can run `isa`.
bool isa_available(Isa isa);
const char* isa_name(Isa isa);

// Throws INVALID_OPTIONS when the instruction set asked for is not available.
std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options);

}  // namespace lorax
