// Moving adapters between disk, host memory and pool pages; the scheduler decides when.
#include "engine/adapter_cache.h"

#include <algorithm>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>

#include "engine/admission.h"

namespace lorax {

AdapterCache::Entry* AdapterCache::find(int32_t handle) {
  const auto found = entries_.find(handle);
  return found == entries_.end() || found->second.gone ? nullptr : &found->second;
}

const AdapterCache::Entry* AdapterCache::find(int32_t handle) const {
  return const_cast<AdapterCache*>(this)->find(handle);
}

void AdapterCache::add(int32_t handle, LoadedAdapter& adapter) {
  const auto added = entries_.try_emplace(handle, *this, handle, adapter).first;
  host_.add(added->second.copy);
}

void AdapterCache::relocate(int32_t handle, std::shared_ptr<const AdapterSpec> spec) {
  if (Entry* entry = find(handle)) entry->copy.spec = std::move(spec);
}

void AdapterCache::remove(int32_t handle) {
  Entry* entry = find(handle);
  if (entry == nullptr) return;
  entry->removed = true;
  free_if_drained(handle, *entry);
}

std::optional<int32_t> AdapterCache::num_pages(int32_t handle) const {
  const Entry* entry = find(handle);
  if (entry == nullptr || entry->removed) return std::nullopt;
  return entry->copy.num_pages;
}

std::optional<Failure> AdapterCache::refuse(std::span<const AdapterUse> adapters) const {
  int64_t bytes = 0;
  for (const AdapterUse& use : adapters) bytes += entries_.at(use.handle).copy.bytes;
  if (bytes <= host_.budget().total_bytes()) return std::nullopt;
  return host_memory_exhausted(bytes, host_.budget().total_bytes());
}

// ---- between disk and host memory ----

bool AdapterCache::bring(int32_t handle) {
  Entry& entry = entries_.at(handle);
  return entry.resident != nullptr || host_.bring(entry.copy);
}

void AdapterCache::arrived(ImageRead& result) {
  host_.read_ended();
  Entry* entry = find(result.handle);
  if (entry == nullptr) return;
  host_.arrived(entry->copy, result);
  if (entry->copy.image == nullptr && entry->expected) give_up_expected(result.handle);
}

bool AdapterCache::any_on_disk() const {
  return host_.counts().images < static_cast<int64_t>(entries_.size());
}

// ---- hints ----

void AdapterCache::expect(int32_t handle) {
  Entry* entry = find(handle);
  if (entry == nullptr || entry->removed || entry->expected || entry->resident != nullptr) return;
  expected_.push_back(handle);
  entry->expected = true;
}

std::optional<AdapterCache::Expected> AdapterCache::next_expected() {
  const Entry* before = find(coming_);
  if (before != nullptr && before->resident != nullptr && !before->resident->has_arrived()) {
    return std::nullopt;
  }
  for (size_t i = 0; i < expected_.size() && i < kExpectedAtOnce;) {
    const int32_t handle = expected_[i];
    Entry* entry = find(handle);
    if (entry == nullptr || entry->resident != nullptr) {
      give_up_expected(handle);
      continue;
    }
    if (host_.bring(entry->copy)) {
      const int32_t num_pages = entry->copy.num_pages;
      return Expected{handle, num_pages, queue_.priority_of_new(reload_cost(*entry), num_pages)};
    }
    ++i;
  }
  return std::nullopt;
}

void AdapterCache::place_expected(int32_t handle) {
  Entry& entry = entries_.at(handle);
  place(entry);
  coming_ = handle;
  give_up_expected(handle);
  queue_.use(entry);
  queue_.rest(entry, reload_cost(entry));
}

void AdapterCache::give_up_expected(int32_t handle) {
  std::erase(expected_, handle);
  Entry* entry = find(handle);
  if (entry == nullptr) return;
  entry->expected = false;
}

// ---- between host memory and pages ----

void AdapterCache::open_request(int32_t handle) {
  Entry& entry = entries_.at(handle);
  ++entry.num_open;
  entry.changed = true;
  host_.use(entry.copy);
}

void AdapterCache::close_request(int32_t handle) {
  Entry& entry = entries_.at(handle);
  --entry.num_open;
  entry.changed = true;
  free_if_drained(handle, entry);
}

void AdapterCache::place(int32_t handle) {
  Entry& entry = entries_.at(handle);
  if (entry.resident != nullptr) {
    ++num_hits_;
    return;
  }
  place(entry);
}

void AdapterCache::place(Entry& entry) {
  if (entry.copy.image == nullptr) throw std::logic_error("adapter cache: its image is on disk");
  std::optional<PageRun> pages = pool_.take(PageKind::kAdapter, entry.copy.num_pages);
  if (!pages) throw std::logic_error("adapter cache: no pages for what the schedule admitted");
  entry.resident = model_.place_adapter(*entry.copy.image, pages->pages());
  entry.pages = *std::move(pages);
  ++num_loads_;
  entry.has_arrived = entry.resident->has_arrived();
  entry.changed = true;
}

void AdapterCache::start_running(int32_t handle) {
  Entry& entry = entries_.at(handle);
  ++entry.num_running;
  queue_.use(entry);
}

void AdapterCache::stop_running(int32_t handle) {
  Entry& entry = entries_.at(handle);
  --entry.num_running;
  if (entry.num_running > 0 || entry.resident == nullptr) return;
  queue_.rest(entry, reload_cost(entry));
}

int64_t AdapterCache::reload_cost(const Entry& entry) const {
  return entry.copy.num_pages * model_.reload_costs().page_ns;
}

const std::shared_ptr<const ResidentAdapter>& AdapterCache::resident(int32_t handle) const {
  return entries_.at(handle).resident;
}

void AdapterCache::Entry::evict() noexcept {
  resident.reset();
  pages.drop(last_step());
  ++cache.num_evictions_;
  has_arrived = false;
  changed = true;
}

void AdapterCache::free_if_drained(int32_t handle, Entry& entry) {
  if (!entry.removed || entry.num_open > 0) return;
  prefixes_.drop(handle);
  queue_.forget(entry);
  entry.resident.reset();
  entry.pages.truncate(0);
  host_.forget(entry.copy);
  entry.gone = true;
  entry.changed = true;
}

void AdapterCache::describe(std::vector<ScheduledAdapter>* adapters,
                            std::vector<int32_t>* handles) {
  adapters->clear();
  handles->clear();
  for (auto& [handle, entry] : entries_) {
    if (entry.gone) continue;
    const bool resident = entry.resident != nullptr;
    if (resident && !entry.has_arrived) entry.has_arrived = entry.resident->has_arrived();
    adapters->push_back({entry.copy.num_pages, resident, entry.num_running, entry.has_arrived});
    handles->push_back(handle);
  }
}

std::vector<AdapterCache::Change> AdapterCache::take_changes() {
  std::vector<Change> changes;
  for (const auto& [handle, entry] : entries_) {
    if (!entry.changed && !entry.copy.has_moved) continue;
    changes.push_back({handle, std::nullopt});
    if (entry.gone) continue;
    changes.back().status = AdapterStatus{handle, entry.copy.bytes, entry.resident != nullptr,
                                          entry.num_open, entry.copy.image != nullptr};
  }
  for (const Change& change : changes) {
    const auto told = entries_.find(change.handle);
    told->second.changed = false;
    told->second.copy.has_moved = false;
    if (told->second.gone) entries_.erase(told);
  }
  return changes;
}

void AdapterCache::check_invariants(const std::map<int32_t, int32_t>& running,
                                    const std::map<int32_t, int32_t>& open) const {
  const auto check = [](bool ok, const char* what, int32_t handle) {
    if (!ok) {
      throw std::logic_error("adapter cache: adapter " + std::to_string(handle) + " " + what);
    }
  };
  const auto count_in = [](const std::map<int32_t, int32_t>& counts, int32_t handle) {
    const auto found = counts.find(handle);
    return found == counts.end() ? 0 : found->second;
  };
  std::set<int32_t> seen;
  for (const auto& [handle, entry] : entries_) {
    if (entry.gone) continue;
    check(entry.num_running == count_in(running, handle), "miscounts running requests", handle);
    check(entry.num_open == count_in(open, handle), "miscounts open requests", handle);
    check(entry.num_running == 0 || entry.resident != nullptr, "runs but is not resident", handle);
    check(entry.is_idle() == (entry.resident != nullptr && entry.num_running == 0),
          "is idle or not, but should be otherwise", handle);
    check(!entry.removed || entry.num_open > 0, "was removed but is still held", handle);
    host_.check(entry.copy);
    check(entry.expected == (std::ranges::count(expected_, handle) == 1), "is expected wrongly",
          handle);
    const int32_t expected = entry.resident != nullptr ? entry.copy.num_pages : 0;
    check(entry.pages.size() == expected, "holds the wrong number of pages", handle);
    for (const int32_t page : entry.pages.pages()) {
      check(seen.insert(page).second, "shares a page", handle);
      check(pool_.use_of(page) == PageKind::kAdapter, "holds a page that is not its", handle);
    }
  }
  for (const auto& [handle, count] : open) {
    check(find(handle) != nullptr, "is gone but has open requests", handle);
  }
  check(static_cast<int32_t>(seen.size()) == pool_.counts().adapter, "pages leaked, near", -1);
}

}  // namespace lorax
