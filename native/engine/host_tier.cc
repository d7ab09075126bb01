// One ordered set of the images that are here; readings run on other threads and end in a command.
#include "engine/host_tier.h"

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "engine/admission.h"

namespace lorax {

bool HostTier::Before::operator()(const Copy* a, const Copy* b) const {
  return a->priority != b->priority ? a->priority < b->priority : a->order < b->order;
}

namespace {

template <typename Set>
typename Set::node_type node_of(typename Set::value_type item) {
  Set set;
  return set.extract(set.insert(item).first);
}

}  // namespace

HostTier::Copy::Copy(int32_t of, LoadedAdapter& from)
    : node(node_of<Set>(this)),
      handle(of),
      spec(std::move(from.spec)),
      num_pages(from.image->num_pages),
      bytes(from.image->bytes),
      image(std::move(from.image)),
      share(std::move(from.share)) {}

void HostTier::add(Copy& copy) noexcept {
  copy.has_moved = true;
  copy.num_uses = 1;
  copy.priority = clock_ + 1;
  insert(copy);
}

void HostTier::insert(Copy& copy) noexcept {
  copy.order = ++num_used_;
  present_.insert(std::move(copy.node));
}

void HostTier::forget(Copy& copy) noexcept {
  if (copy.image != nullptr) copy.node = present_.extract(&copy);
  copy.image.reset();
  copy.share = {};
}

void HostTier::use(Copy& copy) noexcept {
  if (copy.image == nullptr) return;
  copy.node = present_.extract(&copy);
  ++copy.num_uses;
  copy.priority = std::max(copy.priority, clock_ + copy.num_uses);
  insert(copy);
}

void HostTier::begin_turn() {
  while (budget_.missing_bytes() > 0 && drop_least()) {
  }
  ++turn_;
  held_bytes_ = 0;
  holdable_bytes_ = budget_.total_bytes() - budget_.first_in_line_bytes();
}

bool HostTier::bring(Copy& copy) {
  const bool is_here = copy.image != nullptr;
  if (copy.held_in != turn_) {
    const bool fits = held_bytes_ == 0 || held_bytes_ + copy.bytes <= holdable_bytes_;
    if (!is_here && !fits) return false;
    copy.held_in = turn_;
    held_bytes_ += copy.bytes;
  }
  if (is_here || copy.is_being_read || num_being_read_ == kMostReadings) return is_here;
  std::optional<HostBudget::Share> share = budget_.try_take(copy.bytes);
  while (!share && drop_least()) share = budget_.try_take(copy.bytes);
  if (share) read(copy, *std::move(share));
  return false;
}

// The job knows nothing of the copy, which may be gone when it ends.
void HostTier::read(Copy& copy, HostBudget::Share share) {
  auto result = std::make_shared<ImageRead>(copy.handle, nullptr, std::move(share));
  const auto job = [result, spec = copy.spec, &model = model_, &commands = commands_]() noexcept {
    if (commands.closed()) return;
    try {
      result->image = model.read_adapter(*spec);
    } catch (const std::exception& error) {
      result->failure = reading_failed(error);
    }
    // The engine waits for it, also where there is no memory for the word just now.
    while (!commands.closed()) {
      try {
        return commands.post(ImageReadCommand{result});
      } catch (...) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      }
    }
  };
  try {
    if (!readers_.post(job)) return;  // the engine is being stopped
  } catch (const std::system_error& error) {
    // No thread to be had: who waits for the adapter hears so, and nobody else.
    result->failure = reading_failed(error);
    commands_.post(ImageReadCommand{result});
  }
  copy.is_being_read = true;
  ++num_being_read_;
  ++num_reads_;
}

void HostTier::read_ended() { --num_being_read_; }

void HostTier::arrived(Copy& copy, ImageRead& result) {
  copy.is_being_read = false;
  if (result.image == nullptr) {
    // Now: the job that read holds the result for a moment more.
    result.share = {};
    return;
  }
  copy.image = std::move(result.image);
  copy.share = std::move(result.share);
  add(copy);
}

bool HostTier::drop_least() {
  const auto least =
      std::ranges::find_if(present_, [this](const Copy* copy) { return copy->held_in != turn_; });
  if (least == present_.end()) return false;
  Copy& copy = **least;
  clock_ = std::max(clock_, copy.priority);
  copy.node = present_.extract(least);
  copy.image.reset();
  copy.share = {};
  copy.has_moved = true;
  ++num_drops_;
  return true;
}

HostTier::Counts HostTier::counts() const {
  return {static_cast<int64_t>(present_.size()), num_reads_, num_drops_};
}

void HostTier::check(const Copy& copy) const {
  const auto fail = [&](const char* what) {
    throw std::logic_error("host tier: adapter " + std::to_string(copy.handle) + " " + what);
  };
  if ((copy.image != nullptr) != present_.contains(const_cast<Copy*>(&copy))) {
    fail("is counted as here or not, but should be otherwise");
  }
  if (copy.image != nullptr && copy.is_being_read) fail("is read though it is here");
  if (copy.share.bytes() != (copy.image != nullptr ? copy.bytes : 0)) fail("has the wrong share");
}

}  // namespace lorax
