// The KV that prompts may begin with: full blocks of tokens in pages, found again by what they were
// computed of.
//
// A block's KV is decided by the adapters with their weights and by all tokens up to its end, so
// that, with the scope, is what it is found by (prefix_tree.h). An adapter is its handle, which is
// one for each content and never used again: no name matters. Sequences that begin alike hold the
// same pages; what no sequence holds is *cold*, and given up when somebody wants pages.
//
// Always holds: a sequence that holds a block holds all before it; no block is worth less than
// those behind it, so it is given up after them. Nobody writes to a block's page.
//
// A block is published when the step that computes its last row was submitted, before that is over.
// Whoever finds it is planned into a later step, and steps write and read pages in the order in
// which they were submitted: on the CPU one is computed after the other, on a GPU every kernel that
// touches KV is in one stream. It is what lets a sequence decode in step n + 1 on what step n still
// computes; who reads a page need not be who wrote it. Should step n fail, so does the engine. A
// block has to be known, so one whose last token is in flight is published a step later.
//
// Owned by the sequence table; outlives its paths. Engine thread.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "engine/prefix_tree.h"
#include "memory/block_table.h"
#include "model/model.h"

namespace lorax {

class PrefixCache {
 public:
  // The blocks that one sequence holds: the first of its block table.
  class Path {
   public:
    Path(PrefixCache& cache, const std::string& scope, std::span<const AdapterUse> adapters);
    Path(const Path&) = delete;
    Path& operator=(const Path&) = delete;
    ~Path();

    int32_t num_blocks() const { return num_blocks_; }
    // Holds none any more; the table has let go of their pages.
    void release() noexcept;

   private:
    friend class PrefixCache;
    void extend(PrefixBlock& block) noexcept;
    PrefixTree& tree_of(int32_t index) const {  // of its blocks
      return index < num_base_blocks_ ? base_ : tree_;
    }

    PrefixCache& cache_;
    PrefixTree& tree_;
    PrefixTree& base_;               // of the first blocks, which no adapter has touched
    const int32_t num_base_blocks_;  // so many would be
    PrefixBlock* last_ = nullptr;
    int32_t num_blocks_ = 0;
  };

  PrefixCache(Model& model, PagePool& pool, EvictionQueue& queue);

  // Blocks that a sequence may begin with. They stay until something is given up or dropped.
  struct Found {
    std::vector<PrefixBlock*> blocks;
    std::vector<int32_t> pages;
  };
  // As many as there are of `tokens`, whose last one is to be computed in any case.
  Found find(const Path& path, std::span<const int32_t> tokens) const;

  // A path and a table that hold nothing hold what was found.
  void hold(const Found& found, Path* path, BlockTable* table);

  // Publishes the full blocks of the first `num_computed` of `tokens`. Where another sequence has
  // published the same block, the table gets that one's page.
  void publish(std::span<const int32_t> tokens, int32_t num_computed, Path* path,
               BlockTable* table);

  // Drops what was computed with this adapter; no sequence holds any of it.
  void drop(int32_t handle) noexcept;

  int32_t num_blocks() const { return num_blocks_; }
  int32_t num_cold() const { return num_cold_; }
  int64_t num_evictions() const { return num_evictions_; }

  // Throws std::logic_error. `num_holders` [pages]: how many paths hold each; adds the cache's own
  // holds to `num_holds` [pages].
  void check_invariants(std::span<const int32_t> num_holders,
                        std::vector<int32_t>* num_holds) const;
  void check_path(const Path& path, std::span<const int32_t> tokens,
                  std::span<const int32_t> pages) const;

 private:
  friend class PrefixBlock;

  PrefixTree& tree_of(TreeKey key);
  void evict(PrefixBlock& block) noexcept;
  void forget_if_empty(PrefixTree& tree) noexcept;

  Model& model_;
  PagePool& pool_;
  EvictionQueue& queue_;
  const int32_t block_tokens_;
  std::map<TreeKey, PrefixTree> trees_;
  int32_t num_blocks_ = 0;
  int32_t num_cold_ = 0;
  int64_t num_evictions_ = 0;
};

}  // namespace lorax
