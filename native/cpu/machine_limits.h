// What this process may take of the machine, as the system or its container (cgroup v1, v2) counts
// it.
#pragma once

#include <cstdint>

namespace lorax::cpu {

// Memory that can still be had, bytes. File cache counts as free: loading a model fills it.
int64_t available_memory_bytes();

// Threads worth having: the cores this thread may run on, but no more than a CPU quota pays for.
int usable_cores();

}  // namespace lorax::cpu
