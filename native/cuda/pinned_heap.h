// Pinned host memory for adapter images: taken from the system in large chunks, since pinning is
// slow (0.6 s a GiB), and handed out in blocks.
//
// Any thread. A block keeps its heap alive.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda/device_memory.h"

namespace lorax::cuda {

class PinnedHeap : public std::enable_shared_from_this<PinnedHeap> {
 public:
  // Move-only; given back when it is destroyed.
  class Block {
   public:
    Block() = default;
    Block(Block&& other) noexcept;
    Block& operator=(Block&& other) noexcept;
    ~Block();

    uint8_t* data() const { return data_; }
    int64_t bytes() const { return bytes_; }

   private:
    friend class PinnedHeap;
    std::shared_ptr<PinnedHeap> heap_;
    uint8_t* data_ = nullptr;
    int64_t bytes_ = 0;
  };

  PinnedHeap(int device, int64_t chunk_bytes) : device_(device), chunk_bytes_(chunk_bytes) {}

  // Throws POOL_EXHAUSTED when the system pins no more.
  Block take(int64_t bytes);

 private:
  void give_back(uint8_t* data, int64_t bytes);

  const int device_;
  const int64_t chunk_bytes_;
  std::mutex mutex_;
  std::vector<PinnedBuffer> chunks_;
  std::map<uint8_t*, int64_t> free_;  // address -> bytes; neighbours of one chunk are merged
};

}  // namespace lorax::cuda
