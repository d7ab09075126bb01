// Event records on their way out: written by the engine thread during a step, handed over once per
// step, taken by the sink.
//
// The records are those of StepEvents in worker/addon.ts; this is the only file that writes them.
// Always holds: there is room for the terminal events of all open requests, so that they can still
// be written when memory is out.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <mutex>
#include <span>
#include <vector>

#include "engine/engine.h"

namespace lorax {

// The first words of the records; EVENT in worker/addon.ts.
enum class Event : int32_t { kStarted = 1, kTokens, kFinished, kAborted, kFailed, kEmbedded };

// The records of one step. Engine thread.
class EventWriter {
 public:
  // Room for the ends of so many requests, all that are open; called before another one is.
  void make_room(int32_t num_open);

  void started(int32_t id, int64_t queue_us, int32_t cached_tokens);
  // `num_logprobs` as in SampleRow; the result holds that many alternatives.
  void token(int32_t id, const SampleResult& result, int32_t num_logprobs);
  void tokens(int32_t id, std::span<const int32_t> tokens);
  // An end that takes memory: when it throws, the request has not ended.
  void embedded(int32_t id, std::span<const float> embedding);
  void finished(int32_t id, FinishReason reason, int32_t num_outputs) noexcept;
  void aborted(int32_t id, int32_t num_outputs) noexcept;
  void failed(int32_t id, Failure failure, int32_t num_outputs) noexcept;

  // Requests that ended in these records.
  std::span<const int32_t> ended() const { return ended_; }
  bool empty() const { return events_.empty(); }

 private:
  friend class Outbox;
  void make_room_for_record(size_t num_words, size_t num_floats);
  void end(int32_t id, std::initializer_list<int32_t> words) noexcept;

  int32_t num_open_ = 0;  // ends there is room for
  StepEvents events_;
  std::vector<size_t> failure_words_;  // where in ints an index into failures stands
  std::vector<int32_t> ended_;
};

// Not bounded by itself: a sink that does not take is the JavaScript thread that does not submit
// either, so at most what the open requests have yet to generate gathers here; and dropping tokens
// or making every stream wait for one thread would be worse.
class Outbox {
 public:
  // Moves the records out of `writer`. True when nothing was waiting to be taken before: the sink
  // has to be told. When it throws, nothing was moved.
  bool put(EventWriter* writer);

  StepEvents take();

 private:
  std::mutex mutex_;
  StepEvents events_;
};

}  // namespace lorax
