// Blocks of tokens whose KV lies in pages, in the order in which sequences run through them.
//
// A tree for what is computed of the same adapters with the same weights in the same scope; in it a
// block is found by the one before it and its tokens, which are compared and not only hashed: equal
// keys are equal KV. Always holds: blocks keep their addresses. Used by prefix_cache.cc alone.
#pragma once

#include <algorithm>
#include <bit>
#include <compare>
#include <cstdint>
#include <span>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "engine/eviction_queue.h"
#include "memory/page_pool.h"

namespace lorax {

class PrefixCache;
struct PrefixTree;

// What all blocks of a tree have in common. Blocks before the first position of every adapter are
// in the base's tree, and those after them go on from there.
struct TreeKey {
  TreeKey(std::string in_scope, std::span<const AdapterUse> of) : scope(std::move(in_scope)) {
    for (const AdapterUse& use : of) {
      adapters.emplace_back(use.handle, std::bit_cast<uint32_t>(use.weight), use.first_position);
    }
  }
  bool uses(int32_t handle) const {
    return std::ranges::any_of(adapters,
                               [&](const auto& use) { return std::get<0>(use) == handle; });
  }
  auto operator<=>(const TreeKey&) const = default;

  std::string scope;
  // Handles ascending, bits of weights, first positions.
  std::vector<std::tuple<int32_t, uint32_t, int32_t>> adapters;
};

struct BlockKey {
  const void* parent;  // the block before it, or the tree
  std::vector<int32_t> tokens;
};

struct BlockView {
  const void* parent;
  std::span<const int32_t> tokens;
};

struct BlockHash {
  using is_transparent = void;
  size_t operator()(const auto& key) const {
    auto hash = static_cast<uint64_t>(reinterpret_cast<uintptr_t>(key.parent));
    for (const int32_t token : key.tokens) {
      // The step of splitmix64 (Steele et al. 2014).
      hash = (hash ^ static_cast<uint32_t>(token)) + 0x9E3779B97F4A7C15u;
      hash = (hash ^ (hash >> 30)) * 0xBF58476D1CE4E5B9u;
      hash ^= hash >> 27;
    }
    return static_cast<size_t>(hash);
  }
};

struct BlockEqual {
  using is_transparent = void;
  bool operator()(const auto& a, const auto& b) const {
    return a.parent == b.parent && std::ranges::equal(a.tokens, b.tokens);
  }
};

class PrefixBlock final : public Evictable {
 public:
  PrefixBlock(PrefixCache& cache, EvictionQueue& queue, PrefixTree& of, PrefixBlock* before,
              PageRun run)
      : Evictable(queue, 1), tree(of), parent(before), page(std::move(run)), cache_(cache) {}

  void evict() noexcept override;
  int32_t page_number() const { return page.pages()[0]; }

  PrefixTree& tree;
  PrefixBlock* const parent;  // null: it is the first
  PageRun page;
  const BlockKey* key = nullptr;
  int32_t num_holders = 0;  // paths

 private:
  PrefixCache& cache_;
};

struct PrefixTree {
  const TreeKey* key = nullptr;
  std::unordered_map<BlockKey, PrefixBlock, BlockHash, BlockEqual> blocks;
  int32_t num_paths = 0;
};

}  // namespace lorax
