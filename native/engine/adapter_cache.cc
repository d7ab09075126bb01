// Moving adapters between host memory and pool pages; the scheduler decides when.
#include "engine/adapter_cache.h"

#include <set>
#include <stdexcept>
#include <string>
#include <utility>

namespace lorax {

AdapterCache::Entry* AdapterCache::find(int32_t handle) {
  const auto found = entries_.find(handle);
  return found == entries_.end() || found->second.gone ? nullptr : &found->second;
}

const AdapterCache::Entry* AdapterCache::find(int32_t handle) const {
  return const_cast<AdapterCache*>(this)->find(handle);
}

void AdapterCache::add(int32_t handle, std::shared_ptr<const AdapterImage> image) {
  entries_.try_emplace(handle, *this, std::move(image));
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
  return entry->image->num_pages;
}

void AdapterCache::open_request(int32_t handle) {
  Entry& entry = entries_.at(handle);
  ++entry.num_open;
  entry.changed = true;
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
  std::optional<PageRun> pages = pool_.take(PageKind::kAdapter, entry.image->num_pages);
  if (!pages) throw std::logic_error("adapter cache: no pages for what the schedule admitted");
  entry.resident = model_.place_adapter(*entry.image, pages->pages());
  entry.pages = *std::move(pages);
  ++num_loads_;
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
  queue_.rest(entry, entry.image->num_pages * model_.reload_costs().page_ns);
}

const std::shared_ptr<const ResidentAdapter>& AdapterCache::resident(int32_t handle) const {
  return entries_.at(handle).resident;
}

void AdapterCache::Entry::evict() noexcept {
  resident.reset();
  pages.drop(last_step());
  ++cache.num_evictions_;
  changed = true;
}

void AdapterCache::free_if_drained(int32_t handle, Entry& entry) {
  if (!entry.removed || entry.num_open > 0) return;
  prefixes_.drop(handle);
  queue_.forget(entry);
  entry.resident.reset();
  entry.pages.truncate(0);
  entry.image.reset();
  entry.gone = true;
  entry.changed = true;
}

void AdapterCache::describe(std::vector<ScheduledAdapter>* adapters,
                            std::vector<int32_t>* handles) const {
  adapters->clear();
  handles->clear();
  for (const auto& [handle, entry] : entries_) {
    if (entry.gone) continue;
    adapters->push_back({entry.image->num_pages, entry.resident != nullptr, entry.num_running});
    handles->push_back(handle);
  }
}

std::vector<AdapterCache::Change> AdapterCache::take_changes() {
  std::vector<Change> changes;
  for (const auto& [handle, entry] : entries_) {
    if (!entry.changed) continue;
    changes.push_back({handle, std::nullopt});
    if (entry.gone) continue;
    changes.back().status =
        AdapterStatus{handle, entry.image->bytes, entry.resident != nullptr, entry.num_open};
  }
  for (const Change& change : changes) {
    const auto told = entries_.find(change.handle);
    told->second.changed = false;
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
    const int32_t expected = entry.resident != nullptr ? entry.image->num_pages : 0;
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
