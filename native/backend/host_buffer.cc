// See host_buffer.h.
#include "backend/host_buffer.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <string>

#include "backend/error.h"

#if defined(__unix__) || defined(__APPLE__)
#define LORAX_HAS_MMAP 1
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace lorax {
namespace {

constexpr int64_t kHugePage = int64_t{2} << 20;

[[noreturn]] void refuse(int64_t bytes) {
  throw Error("POOL_EXHAUSTED",
              "the system gives no " + std::to_string(bytes) +
                  " bytes of memory: give this process more, or serve a smaller model or pool "
                  "(memoryBytes)",
              {{"bytes", static_cast<double>(bytes)}});
}

}  // namespace

HostBuffer::HostBuffer(int64_t bytes) {
  if (bytes <= 0) return;
#if defined(LORAX_HAS_MMAP)
  // A huge page needs its alignment: large mappings are cut from a slightly larger one.
  const bool huge = bytes >= kHugePage;
  const size_t length = static_cast<size_t>(bytes) + (huge ? kHugePage : 0);
  int flags = MAP_PRIVATE | MAP_ANONYMOUS;
#if defined(MAP_NORESERVE)
  flags |= MAP_NORESERVE;
#endif
  void* base = mmap(nullptr, length, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (base == MAP_FAILED) refuse(bytes);
  data_ = base;
  if (huge) {
    char* first = static_cast<char*>(base);
    const size_t skip = static_cast<size_t>(-reinterpret_cast<intptr_t>(first) & (kHugePage - 1));
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t kept = (static_cast<size_t>(bytes) + page - 1) / page * page;
    if (skip > 0) munmap(first, skip);
    if (skip + kept < length) munmap(first + skip + kept, length - skip - kept);
    data_ = first + skip;
#if defined(MADV_HUGEPAGE)
    madvise(data_, kept, MADV_HUGEPAGE);  // advice: a refusal costs speed only
#endif
  }
#else
  data_ = ::operator new(static_cast<size_t>(bytes), std::align_val_t{64}, std::nothrow);
  if (data_ == nullptr) refuse(bytes);
  std::memset(data_, 0, static_cast<size_t>(bytes));
#endif
  bytes_ = bytes;
}

HostBuffer::~HostBuffer() {
  if (data_ == nullptr) return;
#if defined(LORAX_HAS_MMAP)
  munmap(data_, static_cast<size_t>(bytes_));
#else
  ::operator delete(data_, std::align_val_t{64});
#endif
}

}  // namespace lorax
