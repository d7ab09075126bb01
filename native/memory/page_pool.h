// The pool of equal pages, as integers: which page is free, used (and for what) or retiring.
//
// Always holds: every page is in exactly one of free, kv, adapter, retiring. A page of KV may be
// held by several runs, and goes back with the last of them. It is reusable only once the newest
// step that may touch it has completed: the newest submitted before the drop, unless who drops it
// knows of an earlier one. Knows neither models nor LoRA. Owned and changed by the engine thread
// alone; outlives its runs.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace lorax {

enum class PageKind : uint8_t { kKv, kAdapter };

class PagePool;

// Holds pages of one kind, in order, and lets go of them when it is destroyed. Move-only.
class PageRun {
 public:
  PageRun() = default;
  PageRun(PageRun&& other) noexcept;
  PageRun& operator=(PageRun&& other) noexcept;
  PageRun(const PageRun&) = delete;
  PageRun& operator=(const PageRun&) = delete;
  ~PageRun() { truncate(0); }

  std::span<const int32_t> pages() const { return pages_; }
  int32_t size() const { return static_cast<int32_t>(pages_.size()); }

  // Keeps the first `size` pages.
  void truncate(int32_t size);

  // Takes `other`'s pages, after its own. Both are of one pool and kind.
  void append(PageRun other);

  // Takes `other`'s one page in the place of its own.
  void replace(int32_t index, PageRun other);

  // Lets go of all, which no step after `last_step` touches.
  void drop(int64_t last_step);

 private:
  friend class PagePool;
  PageRun(PagePool* pool, std::vector<int32_t> pages) : pool_(pool), pages_(std::move(pages)) {}

  PagePool* pool_ = nullptr;
  std::vector<int32_t> pages_;
};

class PagePool {
 public:
  struct Counts {
    int32_t total = 0, free = 0, kv = 0, adapter = 0, retiring = 0;
  };

  explicit PagePool(int32_t num_pages);
  PagePool(const PagePool&) = delete;
  PagePool& operator=(const PagePool&) = delete;

  // All `count` pages or, when fewer are free, none.
  std::optional<PageRun> take(PageKind kind, int32_t count);

  // One run more that holds these pages of KV, which others hold.
  PageRun share(std::span<const int32_t> pages);

  // The fence: pages dropped after submitted(s) are retiring until completed(s). Steps ascend.
  void submitted(int64_t step);
  void completed(int64_t step);

  // Whether a page dropped now would have to wait.
  bool in_flight() const { return submitted_step_ > completed_step_; }
  int64_t submitted_step() const { return submitted_step_; }
  int64_t completed_step() const { return completed_step_; }

  Counts counts() const { return counts_; }
  int32_t num_free() const { return counts_.free; }

  // What a page is in use for; nothing when it is free or retiring.
  std::optional<PageKind> use_of(int32_t page) const;

  // Runs that hold it.
  int32_t num_holds(int32_t page) const { return num_holds_[page]; }

  // Throws std::logic_error.
  void check_invariants() const;

 private:
  friend class PageRun;
  enum class State : uint8_t { kFree, kKv, kAdapter, kRetiring };
  struct Retired {
    int64_t step = 0;  // reusable once this one has completed
    int32_t page = 0;
  };

  int32_t& count_of(State state);
  void move_to(int32_t page, State state);
  void release(int32_t page, int64_t last_step);
  Retired& retired(int32_t index) { return retired_[(first_retired_ + index) % retired_.size()]; }

  // Pages go back in destructors, where nothing may be thrown: no list grows after construction.
  std::vector<State> states_;       // [total]
  std::vector<int32_t> num_holds_;  // [total]
  std::vector<int32_t> free_;       // a stack: the warmest page is taken first
  std::vector<Retired> retired_;    // [total], a ring of counts_.retiring from first_retired_ on,
                                    // ascending step
  int32_t first_retired_ = 0;
  Counts counts_;
  int64_t submitted_step_ = 0;
  int64_t completed_step_ = 0;
  std::optional<int32_t> wrongly_released_;  // told by check_invariants and take
};

}  // namespace lorax
