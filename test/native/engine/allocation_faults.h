// Makes allocations of this thread fail: the n-th from now on, and those after it if asked.
//
// allocation_faults.cc replaces the test program's operator new for it; outside of an
// AllocationFaults nothing fails. Tests alone.
#pragma once

#include <cstdint>

namespace lorax {

class AllocationFaults {
 public:
  // Allocations first, first + 1, ..., first + count - 1 fail; the first ever is number 0.
  AllocationFaults(int64_t first, int64_t count);
  ~AllocationFaults();
  AllocationFaults(const AllocationFaults&) = delete;
  AllocationFaults& operator=(const AllocationFaults&) = delete;

  static int64_t num_allocations();  // seen since the newest was made
};

}  // namespace lorax
