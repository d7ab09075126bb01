// Page-aligned memory from the operating system: zero at first, committed when touched, in huge
// pages where the system grants them (weights are read end to end every step: the TLB shows).
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace lorax {

class HostBuffer {
 public:
  HostBuffer() = default;
  explicit HostBuffer(int64_t bytes);  // throws Error POOL_EXHAUSTED
  ~HostBuffer();
  HostBuffer(HostBuffer&& other) noexcept { swap(other); }
  HostBuffer& operator=(HostBuffer&& other) noexcept {
    swap(other);
    return *this;
  }

  // Grows to at least `bytes`; what was in it is lost then.
  void ensure(int64_t bytes) {
    if (bytes > bytes_) *this = HostBuffer(bytes);
  }

  int64_t bytes() const { return bytes_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void swap(HostBuffer& other) {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace lorax
