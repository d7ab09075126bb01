// Event records on their way out: written by the engine thread during a step, handed over once per
// step, taken by the sink.
//
// The records are those of StepEvents in worker/addon.ts; this is the only file that writes them.
#pragma once

#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "engine/engine.h"

namespace lorax {

// The first words of the records; EVENT in worker/addon.ts.
enum class Event : int32_t { kStarted = 1, kTokens, kFinished, kAborted, kFailed };

// The records of one step. Engine thread.
class EventWriter {
 public:
  void started(int32_t id, int64_t queue_us, int32_t cached_tokens);
  // `num_logprobs` as in SampleRow; the result holds that many alternatives.
  void token(int32_t id, const SampleResult& result, int32_t num_logprobs);
  void finished(int32_t id, FinishReason reason, int32_t num_outputs);
  void aborted(int32_t id, int32_t num_outputs);
  void failed(int32_t id, Failure failure, int32_t num_outputs);

  // Requests that ended in these records.
  std::span<const int32_t> ended() const { return ended_; }
  bool empty() const { return events_.empty(); }

 private:
  friend class Outbox;
  StepEvents events_;
  std::vector<size_t> failure_words_;  // where in ints an index into failures stands
  std::vector<int32_t> ended_;
};

class Outbox {
 public:
  // Moves the records out of `writer`. True when nothing was waiting to be taken before: the sink
  // has to be told.
  bool put(EventWriter* writer);

  StepEvents take();

 private:
  std::mutex mutex_;
  StepEvents events_;
};

}  // namespace lorax
