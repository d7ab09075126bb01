// Device and pinned host memory with an owner; and the page arena, whose addresses are known before
// its memory is.
//
// Nothing here is on the path of a step: everything is taken at load time. Used by the backend
// alone.
#pragma once

#include <cstdint>

namespace lorax::cuda {

// cudaMalloc / cudaFree. Move-only. Throws POOL_EXHAUSTED naming `what` and the bytes.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(int64_t bytes, const char* what);
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  ~DeviceBuffer();

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  int64_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

// cudaHostAlloc, mapped: device code may write it through data(). Move-only.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  PinnedBuffer(int64_t bytes, const char* what);
  PinnedBuffer(PinnedBuffer&& other) noexcept;
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept;
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;
  ~PinnedBuffer();

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  int64_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

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
