// Growing and shrinking the pages of one sequence.
#include "memory/block_table.h"

#include <algorithm>
#include <utility>

namespace lorax {

bool BlockTable::append(PagePool& pool, int64_t num_tokens) {
  const int32_t missing = blocks_for(num_tokens, block_tokens_) - run_.size();
  if (missing <= 0) return true;
  std::optional<PageRun> taken = pool.take(PageKind::kKv, missing);
  if (!taken) return false;
  run_.append(*std::move(taken));
  return true;
}

void BlockTable::truncate(int64_t num_tokens) {
  run_.truncate(std::min(run_.size(), blocks_for(num_tokens, block_tokens_)));
}

}  // namespace lorax
