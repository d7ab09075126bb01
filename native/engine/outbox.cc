// The layout of the event records, word by word as worker/addon.ts has it.
#include "engine/outbox.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <utility>

namespace lorax {

namespace {

int32_t word(Event event) { return static_cast<int32_t>(event); }

constexpr size_t kEndWords = 4;  // of the longest terminal event

template <typename T>
void reserve_more(std::vector<T>& values, size_t count) {
  const size_t needed = values.size() + count;
  if (needed > values.capacity()) values.reserve(std::max(needed, 2 * values.capacity()));
}

}  // namespace

void EventWriter::make_room(int32_t num_open) {
  const auto ends = static_cast<size_t>(num_open);
  reserve_more(events_.ints, ends * kEndWords);
  reserve_more(events_.failures, ends);
  reserve_more(failure_words_, ends);
  reserve_more(ended_, ends);
  num_open_ = num_open;
}

// A record is written whole or, when there is no memory for it, not at all.
void EventWriter::make_room_for_record(size_t num_words, size_t num_floats) {
  reserve_more(events_.ints, num_words + static_cast<size_t>(num_open_) * kEndWords);
  reserve_more(events_.floats, num_floats);
}

void EventWriter::end(int32_t id, std::initializer_list<int32_t> words) noexcept {
  events_.ints.insert(events_.ints.end(), words);
  ended_.push_back(id);
  --num_open_;
}

void EventWriter::started(int32_t id, int64_t queue_us, int32_t cached_tokens) {
  const int64_t limit = std::numeric_limits<int32_t>::max();
  const auto us = static_cast<int32_t>(std::clamp<int64_t>(queue_us, 0, limit));
  make_room_for_record(4, 0);
  events_.ints.insert(events_.ints.end(), {word(Event::kStarted), id, us, cached_tokens});
}

void EventWriter::token(int32_t id, const SampleResult& result, int32_t num_logprobs) {
  const auto num_top = static_cast<size_t>(std::max(num_logprobs, 0));
  make_room_for_record(5 + num_top, 1 + num_top);
  std::vector<int32_t>& ints = events_.ints;
  ints.insert(ints.end(), {word(Event::kTokens), id, 1, num_logprobs, result.token});
  if (num_logprobs < 0) return;
  ints.insert(ints.end(), result.top_tokens.begin(), result.top_tokens.begin() + num_logprobs);
  std::vector<float>& floats = events_.floats;
  floats.push_back(result.logprob);
  floats.insert(floats.end(), result.top_logprobs.begin(),
                result.top_logprobs.begin() + num_logprobs);
}

void EventWriter::tokens(int32_t id, std::span<const int32_t> tokens) {
  make_room_for_record(4 + tokens.size(), 0);
  std::vector<int32_t>& ints = events_.ints;
  ints.insert(ints.end(), {word(Event::kTokens), id, static_cast<int32_t>(tokens.size()), -1});
  ints.insert(ints.end(), tokens.begin(), tokens.end());
}

void EventWriter::embedded(int32_t id, std::span<const float> embedding) {
  make_room_for_record(0, embedding.size());
  events_.floats.insert(events_.floats.end(), embedding.begin(), embedding.end());
  end(id, {word(Event::kEmbedded), id, static_cast<int32_t>(embedding.size())});
}

void EventWriter::finished(int32_t id, FinishReason reason, int32_t num_outputs) noexcept {
  end(id, {word(Event::kFinished), id, static_cast<int32_t>(reason), num_outputs});
}

void EventWriter::aborted(int32_t id, int32_t num_outputs) noexcept {
  end(id, {word(Event::kAborted), id, num_outputs});
}

void EventWriter::failed(int32_t id, Failure failure, int32_t num_outputs) noexcept {
  const auto index = static_cast<int32_t>(events_.failures.size());
  failure_words_.push_back(events_.ints.size() + 2);
  events_.failures.push_back(std::move(failure));
  end(id, {word(Event::kFailed), id, index, num_outputs});
}

bool Outbox::put(EventWriter* writer) {
  const std::lock_guard lock(mutex_);
  const bool was_empty = events_.empty();
  StepEvents& added = writer->events_;
  reserve_more(events_.ints, added.ints.size());
  reserve_more(events_.floats, added.floats.size());
  reserve_more(events_.failures, added.failures.size());
  // Records of earlier steps may still lie here: failures are counted from the first of them.
  const auto num_failures = static_cast<int32_t>(events_.failures.size());
  for (const size_t i : writer->failure_words_) added.ints[i] += num_failures;
  events_.ints.insert(events_.ints.end(), added.ints.begin(), added.ints.end());
  events_.floats.insert(events_.floats.end(), added.floats.begin(), added.floats.end());
  std::move(added.failures.begin(), added.failures.end(), std::back_inserter(events_.failures));
  const bool tell = was_empty && !added.empty();
  added.ints.clear();
  added.floats.clear();
  added.failures.clear();
  writer->failure_words_.clear();
  writer->ended_.clear();
  return tell;
}

StepEvents Outbox::take() {
  const std::lock_guard lock(mutex_);
  return std::exchange(events_, {});
}

}  // namespace lorax
