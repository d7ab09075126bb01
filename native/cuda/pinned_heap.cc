// First fit over a map of free ranges.
#include "cuda/pinned_heap.h"

#include <cuda_runtime_api.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "cuda/check.h"

namespace lorax::cuda {

PinnedHeap::Block::Block(Block&& other) noexcept
    : heap_(std::move(other.heap_)),
      data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)) {}

PinnedHeap::Block& PinnedHeap::Block::operator=(Block&& other) noexcept {
  std::swap(heap_, other.heap_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

PinnedHeap::Block::~Block() {
  if (data_ != nullptr) heap_->give_back(data_, bytes_);
}

PinnedHeap::Chunk::Chunk(int device, int64_t bytes)
    : bytes_((bytes + kPieceBytes - 1) / kPieceBytes * kPieceBytes) {
  const auto length = static_cast<size_t>(bytes_ + kPieceBytes);
  void* mapping = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) fail(bytes_);
  mapping_ = static_cast<uint8_t*>(mapping);
  data_ = mapping_ + bytes_in_piece(mapping_) % kPieceBytes;
  madvise(data_, static_cast<size_t>(bytes_), MADV_HUGEPAGE);  // advice: a refusal costs time only
  // A child process would get copies of all pages that are pinned, there and then.
  madvise(data_, static_cast<size_t>(bytes_), MADV_DONTFORK);
  constexpr int64_t kPage = 4096;
  for (int64_t at = 0; at < bytes_; at += kPage) data_[at] = 0;
  LORAX_CUDA(cudaSetDevice(device));
  while (pinned_bytes_ < bytes_) {
    // Whoever waits for the driver comes first.
    if (pinned_bytes_ > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    const cudaError_t status =
        cudaHostRegister(data_ + pinned_bytes_, kPieceBytes, cudaHostRegisterDefault);
    if (status != cudaSuccess) {
      cudaGetLastError();
      const Chunk undo(std::move(*this));
      if (status == cudaErrorMemoryAllocation) fail(undo.bytes_);
      check(status, "cudaHostRegister");
    }
    pinned_bytes_ += kPieceBytes;
  }
}

PinnedHeap::Chunk::Chunk(Chunk&& other) noexcept
    : mapping_(std::exchange(other.mapping_, nullptr)),
      data_(other.data_),
      bytes_(other.bytes_),
      pinned_bytes_(other.pinned_bytes_) {}

PinnedHeap::Chunk::~Chunk() {
  if (mapping_ == nullptr) return;
  for (int64_t at = 0; at < pinned_bytes_; at += kPieceBytes) cudaHostUnregister(data_ + at);
  munmap(mapping_, static_cast<size_t>(bytes_ + kPieceBytes));
}

void PinnedHeap::Chunk::fail(int64_t bytes) {
  throw Error("POOL_EXHAUSTED",
              "adapters in host memory needs " + std::to_string(bytes) +
                  " bytes of pinned host memory, which the system does not give",
              {{"neededBytes", static_cast<double>(bytes)}});
}

std::map<uint8_t*, int64_t>::iterator PinnedHeap::find(int64_t bytes) {
  return std::find_if(free_.begin(), free_.end(),
                      [&](const auto& range) { return range.second >= bytes; });
}

PinnedHeap::Block PinnedHeap::take_from(std::map<uint8_t*, int64_t>::iterator range,
                                        int64_t bytes) {
  const auto [data, available] = *range;
  free_.erase(range);
  if (available > bytes) free_.emplace(data + bytes, available - bytes);
  Block out;
  out.heap_ = shared_from_this();
  out.data_ = data;
  out.bytes_ = bytes;
  return out;
}

PinnedHeap::Block PinnedHeap::take(int64_t bytes) {
  constexpr int64_t kAlign = 4096;
  const int64_t rounded = std::max<int64_t>(1, (bytes + kAlign - 1) / kAlign) * kAlign;
  const auto take_what_is_there = [&]() -> std::optional<Block> {
    const std::lock_guard lock(mutex_);
    const auto found = find(rounded);
    if (found == free_.end()) return std::nullopt;
    return take_from(found, rounded);
  };
  if (auto block = take_what_is_there()) return std::move(*block);
  const std::lock_guard growing(growing_);
  if (auto block = take_what_is_there()) return std::move(*block);
  Chunk chunk(device_, std::max(chunk_bytes_, rounded));
  const std::lock_guard lock(mutex_);
  chunks_.push_back(std::move(chunk));
  return take_from(free_.emplace(chunks_.back().data(), chunks_.back().bytes()).first, rounded);
}

void PinnedHeap::give_back(uint8_t* data, int64_t bytes) {
  const std::lock_guard lock(mutex_);
  const auto is_chunk_start = [&](const uint8_t* at) {
    return std::any_of(chunks_.begin(), chunks_.end(),
                       [&](const Chunk& chunk) { return chunk.data() == at; });
  };
  auto range = free_.emplace(data, bytes).first;
  const auto next = std::next(range);
  if (next != free_.end() && next->first == data + range->second && !is_chunk_start(next->first)) {
    range->second += next->second;
    free_.erase(next);
  }
  if (range == free_.begin() || is_chunk_start(range->first)) return;
  const auto before = std::prev(range);
  if (before->first + before->second == range->first) {
    before->second += range->second;
    free_.erase(range);
  }
}

}  // namespace lorax::cuda
