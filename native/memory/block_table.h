// Which pages hold the KV of one sequence: page i holds positions [i, i + 1) * block_tokens.
//
// Always holds: a page that is in two tables is the same block of both, and neither writes to it.
// Grown at admission and before a decode, truncated to nothing at preemption. Used by the engine
// thread alone.
#pragma once

#include <cstdint>
#include <span>
#include <utility>

#include "memory/page_pool.h"

namespace lorax {

inline int32_t blocks_for(int64_t num_tokens, int32_t block_tokens) {
  return static_cast<int32_t>((num_tokens + block_tokens - 1) / block_tokens);
}

class BlockTable {
 public:
  explicit BlockTable(int32_t block_tokens) : block_tokens_(block_tokens) {}

  // Appends pages until `num_tokens` positions are covered. False, and nothing is taken, when too
  // few are free.
  bool append(PagePool& pool, int64_t num_tokens);

  // The first blocks, computed by others; it has none yet.
  void share(PagePool& pool, std::span<const int32_t> pages) { run_ = pool.share(pages); }

  // Another's page of the same block in the place of its own.
  void replace(int32_t block, PageRun page) { run_.replace(block, std::move(page)); }

  // Keeps the pages that cover the first `num_tokens` positions.
  void truncate(int64_t num_tokens);

  std::span<const int32_t> pages() const { return run_.pages(); }
  int32_t num_blocks() const { return run_.size(); }
  int64_t capacity() const { return static_cast<int64_t>(run_.size()) * block_tokens_; }

 private:
  int32_t block_tokens_;
  PageRun run_;
};

}  // namespace lorax
