// First fit over a map of free ranges.
#include "cuda/pinned_heap.h"

#include <algorithm>
#include <iterator>
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

PinnedHeap::Block PinnedHeap::take(int64_t bytes) {
  constexpr int64_t kAlign = 4096;
  const int64_t rounded = std::max<int64_t>(1, (bytes + kAlign - 1) / kAlign) * kAlign;
  const std::lock_guard lock(mutex_);
  auto found = std::find_if(free_.begin(), free_.end(),
                            [&](const auto& range) { return range.second >= rounded; });
  if (found == free_.end()) {
    LORAX_CUDA(cudaSetDevice(device_));
    chunks_.emplace_back(std::max(chunk_bytes_, rounded), "adapters in host memory");
    found = free_.emplace(chunks_.back().as<uint8_t>(), chunks_.back().bytes()).first;
  }
  const auto [data, available] = *found;
  free_.erase(found);
  if (available > rounded) free_.emplace(data + rounded, available - rounded);
  Block out;
  out.heap_ = shared_from_this();
  out.data_ = data;
  out.bytes_ = rounded;
  return out;
}

void PinnedHeap::give_back(uint8_t* data, int64_t bytes) {
  const std::lock_guard lock(mutex_);
  const auto is_chunk_start = [&](const uint8_t* at) {
    return std::any_of(chunks_.begin(), chunks_.end(),
                       [&](const PinnedBuffer& chunk) { return chunk.as<uint8_t>() == at; });
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
