// malloc and free, with a count.
#include "engine/allocation_faults.h"

#include <cstdlib>
#include <new>

namespace lorax {
namespace {

thread_local bool armed = false;
thread_local int64_t seen = 0;
thread_local int64_t fails_from = 0;
thread_local int64_t fails_until = 0;

}  // namespace

AllocationFaults::AllocationFaults(int64_t first, int64_t count) {
  seen = 0;
  fails_from = first;
  fails_until = first + count;
  armed = true;
}

AllocationFaults::~AllocationFaults() { armed = false; }

int64_t AllocationFaults::num_allocations() { return seen; }

}  // namespace lorax

void* operator new(std::size_t bytes) {
  using namespace lorax;
  if (armed) {
    const int64_t number = seen++;
    if (number >= fails_from && number < fails_until) throw std::bad_alloc();
  }
  if (void* memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
  throw std::bad_alloc();
}

// std::stable_sort takes this one; a sanitizer's own would not go with the delete below.
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  try {
    return operator new(bytes);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
