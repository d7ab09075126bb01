// Reads event records as worker/addon.ts lays them out, and holds each request to their contract:
// Started at most once and first, tokens in between, exactly one terminal event, nothing after it;
// the end of one that is embedded brings its vector.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace lorax {

enum class Ending { kOpen, kFinished, kAborted, kFailed, kEmbedded };

struct RequestLog {
  bool started = false;
  int32_t queue_us = -1;
  int32_t cached_tokens = -1;
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  std::vector<std::vector<int32_t>> top_tokens;
  std::vector<std::vector<float>> top_logprobs;
  std::vector<float> embedding;
  Ending ending = Ending::kOpen;
  FinishReason reason = FinishReason::kStopToken;
  Failure failure;
  int64_t started_turn = -1;
  int64_t ended_turn = -1;
  std::vector<int64_t> token_turns;
};

class EventLog {
 public:
  // `turn`: any clock of the test's, noted with what happened. Returns the ids that started.
  std::vector<int32_t> add(const StepEvents& events, int64_t turn = 0) {
    std::vector<int32_t> started;
    const std::vector<int32_t>& ints = events.ints;
    size_t i = 0, f = 0, num_failures = 0;
    told.clear();
    while (i < ints.size()) {
      const int32_t kind = ints.at(i), id = ints.at(i + 1);
      RequestLog& log = requests[id];
      EXPECT_EQ(log.ending, Ending::kOpen) << "request " << id << " got an event after its end";
      if (kind == 1) {
        EXPECT_FALSE(log.started) << "request " << id << " started twice";
        EXPECT_GE(ints.at(i + 2), 0);
        EXPECT_GE(ints.at(i + 3), 0);
        log.started = true;
        log.queue_us = ints[i + 2];
        log.cached_tokens = ints[i + 3];
        log.started_turn = turn;
        started.push_back(id);
        i += 4;
      } else if (kind == 2) {
        EXPECT_TRUE(log.started) << "request " << id << " got tokens before it started";
        told.push_back(id);
        const int32_t count = ints.at(i + 2), num_top = ints.at(i + 3);
        i += 4;
        for (int32_t t = 0; t < count; ++t) {
          log.tokens.push_back(ints.at(i++));
          log.token_turns.push_back(turn);
        }
        for (int32_t t = 0; t < count && num_top >= 0; ++t) {
          log.logprobs.push_back(events.floats.at(f++));
          log.top_tokens.emplace_back();
          log.top_logprobs.emplace_back();
          for (int32_t k = 0; k < num_top; ++k) {
            log.top_tokens.back().push_back(ints.at(i++));
            log.top_logprobs.back().push_back(events.floats.at(f++));
          }
        }
      } else if (kind >= 3 && kind <= 5) {
        log.ended_turn = turn;
        int32_t outputs = -1;
        if (kind == 3) {
          log.ending = Ending::kFinished;
          log.reason = static_cast<FinishReason>(ints.at(i + 2));
          outputs = ints.at(i + 3);
        } else if (kind == 4) {
          log.ending = Ending::kAborted;
          outputs = ints.at(i + 2);
        } else {
          log.ending = Ending::kFailed;
          log.failure = events.failures.at(ints.at(i + 2));
          ++num_failures;
          outputs = ints.at(i + 3);
        }
        EXPECT_EQ(outputs, static_cast<int32_t>(log.tokens.size())) << "request " << id;
        i += kind == 4 ? 3 : 4;
      } else if (kind == 6) {
        EXPECT_TRUE(log.started) << "request " << id << " was embedded before it started";
        EXPECT_TRUE(log.tokens.empty());
        log.ended_turn = turn;
        log.ending = Ending::kEmbedded;
        for (int32_t k = 0; k < ints.at(i + 2); ++k) log.embedding.push_back(events.floats.at(f++));
        i += 3;
      } else {
        ADD_FAILURE() << "unknown event " << kind;
        return started;
      }
    }
    EXPECT_EQ(i, ints.size());
    EXPECT_EQ(f, events.floats.size());
    EXPECT_EQ(num_failures, events.failures.size());
    return started;
  }

  const RequestLog& operator[](int32_t id) { return requests[id]; }

  std::map<int32_t, RequestLog> requests;
  std::vector<int32_t> told;  // whose tokens the events last added were, in their order
};

}  // namespace lorax
