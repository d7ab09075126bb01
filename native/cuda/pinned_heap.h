// Pinned host memory for adapter images: taken from the system in large chunks, since pinning is
// slow, and handed out in blocks.
//
// While the driver pins, no thread gets anything done on the device, so a chunk is made in steps:
// its pages are taken from the system first (the most of it, and no business of the driver's), in
// huge ones where there are any, and then pinned piece by piece, 0.6 ms each (cudaHostAlloc: 160 ms
// for 256 MB; one H200). A copy to the device must not cross from one piece into the next.
//
// Any thread. A block keeps its heap alive.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

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

  // From there to the end of its piece.
  static int64_t bytes_in_piece(const uint8_t* from) {
    return kPieceBytes - static_cast<int64_t>(reinterpret_cast<uintptr_t>(from) % kPieceBytes);
  }

 private:
  static constexpr int64_t kPieceBytes = int64_t{16} << 20;

  // Whole pieces, pinned.
  class Chunk {
   public:
    Chunk(int device, int64_t bytes);
    Chunk(Chunk&& other) noexcept;
    Chunk& operator=(Chunk&&) = delete;
    ~Chunk();

    uint8_t* data() const { return data_; }
    int64_t bytes() const { return bytes_; }

   private:
    [[noreturn]] static void fail(int64_t bytes);

    uint8_t* mapping_ = nullptr;
    uint8_t* data_ = nullptr;  // the mapping from a piece's boundary on
    int64_t bytes_ = 0;
    int64_t pinned_bytes_ = 0;
  };

  Block take_from(std::map<uint8_t*, int64_t>::iterator range, int64_t bytes);
  std::map<uint8_t*, int64_t>::iterator find(int64_t bytes);
  void give_back(uint8_t* data, int64_t bytes);

  const int device_;
  const int64_t chunk_bytes_;
  std::mutex growing_;  // one makes a chunk at a time, while others go on with what there is
  std::mutex mutex_;
  std::vector<Chunk> chunks_;
  std::map<uint8_t*, int64_t> free_;  // address -> bytes; neighbours of one chunk are merged
};

}  // namespace lorax::cuda
