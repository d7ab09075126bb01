// How pages move between free, used and retiring; see page_pool.h for what always holds.
#include "memory/page_pool.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

namespace lorax {

namespace {

[[noreturn]] void broken(const std::string& what) { throw std::logic_error("page pool: " + what); }

void check_released(std::optional<int32_t> wrongly_released) {
  if (!wrongly_released) return;
  broken("page " + std::to_string(*wrongly_released) + " was released but is not in use");
}

}  // namespace

PageRun::PageRun(PageRun&& other) noexcept
    : pool_(std::exchange(other.pool_, nullptr)), pages_(std::move(other.pages_)) {
  other.pages_.clear();
}

PageRun& PageRun::operator=(PageRun&& other) noexcept {
  if (this != &other) {
    truncate(0);
    pool_ = std::exchange(other.pool_, nullptr);
    pages_ = std::move(other.pages_);
    other.pages_.clear();
  }
  return *this;
}

void PageRun::truncate(int32_t size) {
  // Last first, so that a run taken again has its pages in the same order.
  while (static_cast<int32_t>(pages_.size()) > size) {
    pool_->release(pages_.back(), pool_->submitted_step_);
    pages_.pop_back();
  }
}

void PageRun::drop(int64_t last_step) {
  for (; !pages_.empty(); pages_.pop_back()) pool_->release(pages_.back(), last_step);
}

void PageRun::append(PageRun other) {
  if (pool_ == nullptr) pool_ = other.pool_;
  pages_.insert(pages_.end(), other.pages_.begin(), other.pages_.end());
  other.pages_.clear();
}

void PageRun::replace(int32_t index, PageRun other) { std::swap(pages_[index], other.pages_[0]); }

PagePool::PagePool(int32_t num_pages)
    : states_(num_pages, State::kFree), num_holds_(num_pages, 0), retired_(num_pages) {
  free_.reserve(num_pages);
  for (int32_t page = num_pages - 1; page >= 0; --page) free_.push_back(page);
  counts_.total = counts_.free = num_pages;
}

int32_t& PagePool::count_of(State state) {
  switch (state) {
    case State::kFree:
      return counts_.free;
    case State::kKv:
      return counts_.kv;
    case State::kAdapter:
      return counts_.adapter;
    case State::kRetiring:
      break;
  }
  return counts_.retiring;
}

void PagePool::move_to(int32_t page, State state) {
  --count_of(states_[page]);
  ++count_of(state);
  states_[page] = state;
}

std::optional<PageRun> PagePool::take(PageKind kind, int32_t count) {
  check_released(wrongly_released_);
  if (count > counts_.free) return std::nullopt;
  std::vector<int32_t> pages(count);
  for (int32_t& page : pages) {
    page = free_.back();
    free_.pop_back();
    move_to(page, kind == PageKind::kKv ? State::kKv : State::kAdapter);
    num_holds_[page] = 1;
  }
  return PageRun(this, std::move(pages));
}

PageRun PagePool::share(std::span<const int32_t> pages) {
  std::vector<int32_t> shared(pages.begin(), pages.end());
  for (const int32_t page : pages) {
    if (use_of(page) != PageKind::kKv) broken("page " + std::to_string(page) + " holds no KV");
  }
  for (const int32_t page : pages) ++num_holds_[page];
  return PageRun(this, std::move(shared));
}

void PagePool::release(int32_t page, int64_t last_step) {
  const bool used = page >= 0 && page < counts_.total &&
                    (states_[page] == State::kKv || states_[page] == State::kAdapter);
  if (!used) {
    wrongly_released_ = page;
    return;
  }
  if (--num_holds_[page] > 0) return;
  if (last_step > completed_step_) {
    // A later step than it need be, where they are in flight: the ring is in order of steps.
    retired(counts_.retiring) = {submitted_step_, page};
    move_to(page, State::kRetiring);
  } else {
    move_to(page, State::kFree);
    free_.push_back(page);
  }
}

void PagePool::submitted(int64_t step) {
  if (step <= submitted_step_) broken("steps must ascend");
  submitted_step_ = step;
}

void PagePool::completed(int64_t step) {
  if (step > submitted_step_) broken("a step completed that was never submitted");
  completed_step_ = std::max(completed_step_, step);
  while (counts_.retiring > 0 && retired(0).step <= completed_step_) {
    const int32_t page = retired(0).page;
    first_retired_ = (first_retired_ + 1) % counts_.total;
    move_to(page, State::kFree);
    free_.push_back(page);
  }
}

std::optional<PageKind> PagePool::use_of(int32_t page) const {
  if (page < 0 || page >= counts_.total) return std::nullopt;
  if (states_[page] == State::kKv) return PageKind::kKv;
  if (states_[page] == State::kAdapter) return PageKind::kAdapter;
  return std::nullopt;
}

void PagePool::check_invariants() const {
  check_released(wrongly_released_);
  if (counts_.free + counts_.kv + counts_.adapter + counts_.retiring != counts_.total) {
    broken("free + used + retiring is not all");
  }
  Counts seen;
  for (int32_t page = 0; page < counts_.total; ++page) {
    const bool kv = states_[page] == State::kKv, adapter = states_[page] == State::kAdapter;
    seen.kv += kv;
    seen.adapter += adapter;
    const int32_t holds = num_holds_[page];
    if (kv ? holds < 1 : holds != adapter) broken("holds of page " + std::to_string(page));
  }
  if (seen.kv != counts_.kv || seen.adapter != counts_.adapter) broken("counts are off");

  std::vector<bool> listed(states_.size(), false);
  const auto list = [&](int32_t page, State state) {
    if (listed[page]) broken("page " + std::to_string(page) + " is listed twice");
    if (states_[page] != state) broken("page " + std::to_string(page) + " is on the wrong list");
    listed[page] = true;
  };
  for (const int32_t page : free_) list(page, State::kFree);
  for (int32_t i = 0; i < counts_.retiring; ++i) {
    list(retired_[(first_retired_ + i) % counts_.total].page, State::kRetiring);
  }
  if (static_cast<int32_t>(free_.size()) != counts_.free) broken("lists and counts differ");
}

}  // namespace lorax
