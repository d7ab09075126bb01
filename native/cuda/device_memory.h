// Device and pinned host memory with an owner; and the page arena, whose addresses are known before
// its memory is.
//
// Nothing here is on the path of a step: everything is taken at load time. Used by the backend
// alone.
#pragma once

#include <cstdint>
#include <utility>

namespace lorax::cuda {

// Bytes of one kind of memory. Move-only.
template <typename Memory>
class Buffer {
 public:
  Buffer() = default;
  // `what` they are for, for the error.
  Buffer(int64_t bytes, const char* what) : data_(Memory::take(bytes, what)), bytes_(bytes) {}
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() {
    if (data_ != nullptr) Memory::give_back(data_);
  }

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  int64_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

// Both throw POOL_EXHAUSTED naming what the bytes are for.
struct DeviceMemory {
  static void* take(int64_t bytes, const char* what);
  static void give_back(void* data);
};
// Mapped: device code may write it through the same address.
struct PinnedMemory {
  static void* take(int64_t bytes, const char* what);
  static void give_back(void* data);
};

using DeviceBuffer = Buffer<DeviceMemory>;
using PinnedBuffer = Buffer<PinnedMemory>;

// The pool's memory: an address range reserved at once (as large as the device), mapped when
// everything else has taken what it needs. So graphs recorded before it is sized stay right.
class PageArena {
 public:
  PageArena() = default;
  explicit PageArena(int device);
  PageArena(const PageArena&) = delete;
  PageArena& operator=(const PageArena&) = delete;
  ~PageArena();

  uint8_t* data() const { return reinterpret_cast<uint8_t*>(base_); }

  int64_t reserved_bytes() const { return reserved_bytes_; }

  // Bytes that could be mapped now.
  int64_t available_bytes() const;

  // Maps the first `bytes` (rounded up to what the driver maps). Again: replaces. Throws
  // POOL_EXHAUSTED.
  void map(int64_t bytes);

 private:
  void unmap();

  int device_ = 0;
  unsigned long long base_ = 0;  // CUdeviceptr
  int64_t reserved_bytes_ = 0;
  int64_t granularity_ = 0;
  int64_t mapped_bytes_ = 0;
  unsigned long long handle_ = 0;  // CUmemGenericAllocationHandle
};

}  // namespace lorax::cuda
