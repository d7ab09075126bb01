// A walk down a tree to find, one up to let go.
#include "engine/prefix_cache.h"

#include <algorithm>
#include <set>
#include <stdexcept>
#include <utility>

namespace lorax {

namespace {

const void* parent_of_next(const PrefixTree& tree, const PrefixBlock* last) {
  return last == nullptr ? static_cast<const void*>(&tree) : last;
}

[[noreturn]] void broken(const std::string& what) {
  throw std::logic_error("prefix cache: " + what);
}

// Of what the adapters change.
int32_t first_position(std::span<const AdapterUse> adapters) {
  const auto first = std::ranges::min_element(adapters, {}, &AdapterUse::first_position);
  return first == adapters.end() ? 0 : first->first_position;
}

// Null where there is none.
PrefixBlock* find_next(PrefixTree& tree, PrefixBlock* last, std::span<const int32_t> tokens) {
  const auto found = tree.blocks.find(BlockView{parent_of_next(tree, last), tokens});
  return found == tree.blocks.end() ? nullptr : &found->second;
}

}  // namespace

void PrefixBlock::evict() noexcept { cache_.evict(*this); }

PrefixCache::PrefixCache(Model& model, PagePool& pool, EvictionQueue& queue)
    : model_(model), pool_(pool), queue_(queue), block_tokens_(model.limits().block_tokens) {}

// ---- paths ----

PrefixCache::Path::Path(PrefixCache& cache, const std::string& scope,
                        std::span<const AdapterUse> adapters)
    : cache_(cache),
      tree_(cache.tree_of(TreeKey(scope, adapters))),
      base_(cache.tree_of(TreeKey(scope, {}))),
      num_base_blocks_(first_position(adapters) / cache.block_tokens_) {
  ++tree_.num_paths;
  ++base_.num_paths;
}

PrefixTree& PrefixCache::tree_of(TreeKey key) {
  const auto made = trees_.try_emplace(std::move(key)).first;
  made->second.key = &made->first;
  return made->second;
}

PrefixCache::Path::~Path() {
  release();
  --tree_.num_paths;
  --base_.num_paths;
  const bool is_base = &tree_ == &base_;
  cache_.forget_if_empty(tree_);
  if (!is_base) cache_.forget_if_empty(base_);
}

void PrefixCache::Path::extend(PrefixBlock& block) noexcept {
  if (block.is_idle()) --cache_.num_cold_;
  ++block.num_holders;
  cache_.queue_.use(block);
  last_ = &block;
  ++num_blocks_;
}

// From the last to the first, so that each comes to rest before the one it follows.
void PrefixCache::Path::release() noexcept {
  const int64_t cost_ns = cache_.block_tokens_ * cache_.model_.reload_costs().token_ns;
  int64_t at_least = 0;
  for (PrefixBlock* block = last_; block != nullptr; block = block->parent) {
    if (--block->num_holders == 0) {
      cache_.queue_.rest(*block, cost_ns, at_least);
      ++cache_.num_cold_;
    } else {
      cache_.queue_.raise(*block, at_least);
    }
    at_least = block->priority();
  }
  last_ = nullptr;
  num_blocks_ = 0;
}

// ---- finding and publishing ----

PrefixCache::Found PrefixCache::find(const Path& path, std::span<const int32_t> tokens) const {
  Found found;
  const auto block_tokens = static_cast<size_t>(block_tokens_);
  PrefixBlock* last = nullptr;
  for (; tokens.size() > block_tokens; tokens = tokens.subspan(block_tokens)) {
    PrefixTree& tree = path.tree_of(static_cast<int32_t>(found.blocks.size()));
    last = find_next(tree, last, tokens.first(block_tokens));
    if (last == nullptr) break;
    found.blocks.push_back(last);
    found.pages.push_back(last->page_number());
  }
  return found;
}

void PrefixCache::hold(const Found& found, Path* path, BlockTable* table) {
  table->share(pool_, found.pages);
  for (PrefixBlock* block : found.blocks) path->extend(*block);
}

void PrefixCache::publish(std::span<const int32_t> tokens, int32_t num_computed, Path* path,
                          BlockTable* table) {
  for (int32_t begin = path->num_blocks_ * block_tokens_; begin + block_tokens_ <= num_computed;
       begin += block_tokens_) {
    const auto block_tokens = tokens.subspan(begin, block_tokens_);
    const int32_t index = path->num_blocks_;
    PrefixTree& tree = path->tree_of(index);
    PrefixBlock* block = find_next(tree, path->last_, block_tokens);
    if (block != nullptr) {
      table->replace(index, pool_.share(block->page.pages()));
    } else {
      BlockKey key{parent_of_next(tree, path->last_), {block_tokens.begin(), block_tokens.end()}};
      const auto made = tree.blocks.try_emplace(std::move(key), *this, queue_, tree, path->last_,
                                                pool_.share(table->pages().subspan(index, 1)));
      block = &made.first->second;
      block->key = &made.first->first;
      ++num_blocks_;
    }
    path->extend(*block);
  }
}

// ---- giving up ----

void PrefixCache::evict(PrefixBlock& block) noexcept {
  block.page.drop(block.last_step());
  --num_blocks_;
  --num_cold_;
  ++num_evictions_;
  PrefixTree& tree = block.tree;
  tree.blocks.erase(tree.blocks.find(*block.key));
  forget_if_empty(tree);
}

void PrefixCache::drop(int32_t handle) noexcept {
  for (auto next = trees_.begin(); next != trees_.end();) {
    auto& [key, tree] = *next++;
    if (!key.uses(handle)) continue;
    const auto num_dropped = static_cast<int32_t>(tree.blocks.size());
    num_blocks_ -= num_dropped;
    num_cold_ -= num_dropped;
    tree.blocks.clear();
    forget_if_empty(tree);
  }
}

void PrefixCache::forget_if_empty(PrefixTree& tree) noexcept {
  if (tree.blocks.empty() && tree.num_paths == 0) trees_.erase(trees_.find(*tree.key));
}

// ---- invariants ----

void PrefixCache::check_invariants(std::span<const int32_t> num_holders,
                                   std::vector<int32_t>* num_holds) const {
  queue_.check_invariants();
  int32_t num_blocks = 0, num_cold = 0;
  std::set<int32_t> pages;
  for (const auto& [tree_key, tree] : trees_) {
    if (tree.blocks.empty() && tree.num_paths == 0) broken("an empty tree was kept");
    for (const auto& [block_key, block] : tree.blocks) {
      const int32_t page = block.page_number();
      ++num_blocks;
      num_cold += block.is_idle();
      ++num_holds->at(page);
      if (!pages.insert(page).second) broken("two blocks have one page");
      if (block.key != &block_key) broken("a block does not know its key");
      if (pool_.use_of(page) != PageKind::kKv) broken("a block's page is not its");
      if (block.num_holders != num_holders[page]) broken("a block miscounts who holds it");
      if (block.is_idle() != (block.num_holders == 0)) broken("a block is idle and held");
      if (block.parent == nullptr) continue;
      const PrefixBlock& parent = *block.parent;
      if (parent.num_holders < block.num_holders) broken("a block is held without its parent");
      if (find_next(parent.tree, parent.parent, parent.key->tokens) != &parent) {
        broken("a block outlives the one before it");
      }
      if (block.is_idle() && parent.priority() < block.priority()) {
        broken("a block is worth less than one behind it");
      }
    }
  }
  if (num_blocks != num_blocks_ || num_cold != num_cold_) broken("blocks are miscounted");
}

void PrefixCache::check_path(const Path& path, std::span<const int32_t> tokens,
                             std::span<const int32_t> pages) const {
  int32_t index = path.num_blocks_;
  for (const PrefixBlock* block = path.last_; block != nullptr; block = block->parent) {
    if (--index < 0) break;
    const auto of_block = tokens.subspan(static_cast<size_t>(index) * block_tokens_, block_tokens_);
    if (&block->tree != &path.tree_of(index)) broken("a sequence holds a block of other adapters");
    if (!std::ranges::equal(block->key->tokens, of_block)) broken("a block has other tokens");
    if (block->page_number() != pages[index]) broken("a sequence has not the page of its block");
  }
  if (index != 0) broken("a path is not as long as it says");
}

}  // namespace lorax
