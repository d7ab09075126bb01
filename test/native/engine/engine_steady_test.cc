// 100,000 random steps (instrumented, which takes five times as long, 20,000) on the fake model:
// arrivals, aborts, embeddings among them, adapters that come and go, alone or mixed, prompts that
// begin as others did, grammars that govern some outputs, pools too small for all of it. After
// every step the invariants hold; every request ends exactly once, with the tokens or the embedding
// it gets alone; nobody starves.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>
#include <string>

#include "engine/engine.h"
#include "engine/event_log.h"
#include "engine/expected_alone.h"
#include "engine/expected_governed.h"
#include "engine/fake_model.h"
#include "engine/steady_episode.h"

namespace lorax {
namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr int64_t kSteps = 20000;
#else
constexpr int64_t kSteps = 100000;
#endif

// The parameter: steps_ahead.
class EngineSteady : public testing::TestWithParam<int32_t> {};

INSTANTIATE_TEST_SUITE_P(StepsAhead, EngineSteady, testing::Values(0, 1));

TEST_P(EngineSteady, RandomSteps) {
  SteadyTally tally;
  for (uint32_t seed = 1; tally.steps < kSteps && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE("episode " + std::to_string(seed));
    SteadyEpisode(seed, GetParam(), &tally).run(1000);
  }
  if (testing::Test::HasFailure()) return;
  EXPECT_GE(tally.steps, kSteps);
  // All of it happened, and often: so many times in 100,000.
  const auto times = [](int64_t count) { return count * kSteps / 100000; };
  EXPECT_GT(tally.finished, times(2000));
  EXPECT_GT(tally.aborted, times(200));
  EXPECT_GT(tally.preemptions, times(500));
  EXPECT_GT(tally.evictions, times(500));
  EXPECT_GT(tally.chunked_prefills, times(500));
  EXPECT_GT(tally.embedded, times(1000));
  EXPECT_GT(tally.chunked_embeddings, times(100));
  for (const char* code :
       {"CONTEXT_TOO_LONG", "POOL_EXHAUSTED", "QUEUE_FULL", "ADAPTER_NOT_FOUND"}) {
    EXPECT_GT(tally.failures[code], times(20)) << code;
  }
  EXPECT_GT(tally.governed, times(1000));
  EXPECT_GT(tally.mixed, times(300));
  EXPECT_GE(tally.set_aside, GetParam() == 0 ? times(500) : 0);
  EXPECT_GT(tally.cached, times(500));
  EXPECT_GT(tally.cached_of_answers, times(100));
  EXPECT_GT(tally.prefix_evictions, times(10000));
  for (const FinishReason reason :
       {FinishReason::kStopToken, FinishReason::kMaxOutputTokens, FinishReason::kContext,
        FinishReason::kPool, FinishReason::kGrammar}) {
    EXPECT_GT(tally.reasons[reason], times(20)) << "reason " << static_cast<int32_t>(reason);
  }
  const auto record = [this](const char* name, int64_t value) {
    RecordProperty(name, std::to_string(value));
  };
  record("requests", tally.requests);
  record("finished", tally.finished);
  record("preemptions", tally.preemptions);
  record("cached", tally.cached);
  record("prefix_evictions", tally.prefix_evictions);
  record("adapter_evictions", tally.evictions);
  record("mixed", tally.mixed);
  record("set_aside", tally.set_aside);
  record("longest_wait_steps", tally.longest_wait);
  record("longest_wait_percent_of_bound", std::lround(100 * tally.worst_wait_of_bound));
}

// Half of two thousand requests are aborted, each in another state; the others do not notice.
TEST_P(EngineSteady, AThousandAbortsLeaveTheOthersAlone) {
  FakeModelOptions options;
  options.limits.num_pages = 40;
  options.steps_ahead = GetParam();
  auto owned = std::make_unique<FakeModel>(options);
  Engine engine(std::move(owned), {.max_batch_tokens = 24, .max_queued = 5000, .max_sequences = 9},
                [] {});
  std::vector<std::string> names = {"a", "b", "c"};
  std::vector<int32_t> handles;
  for (const std::string& name : names)
    handles.push_back(engine.add_adapter(fake_adapter(name, 3)));
  std::mt19937 random(5);
  EventLog log;
  std::map<int32_t, Request> requests;
  std::map<int32_t, size_t> abort_at;  // tokens seen
  int32_t last_id = 0;
  const auto names_of = [&](const Request& request) {
    std::vector<std::string> out;
    for (const AdapterUse& use : request.adapters) out.push_back(names[use.handle - handles[0]]);
    return out;
  };
  bool worked = true;
  for (int64_t turn = 0; worked || last_id < 2000; ++turn) {
    for (int32_t i = 0; i < 2 && last_id < 2000; ++i) {
      Request request;
      request.id = ++last_id;
      request.prompt.resize(1 + random() % 30);
      for (int32_t& token : request.prompt) token = static_cast<int32_t>(random() % 97);
      if (random() % 4 != 0) request.adapters.push_back({handles[random() % 3], 1.0f});
      if (random() % 4 == 0) request.adapters = {{handles[0], 0.5f}, {handles[2], -1.0f}};
      request.sampling.max_output_tokens = 12;
      request.sampling.seed = random();
      engine.submit(request);
      if (request.id % 2 == 0) abort_at[request.id] = random() % 12;
      requests[request.id] = std::move(request);
    }
    worked = engine.step();
    engine.check_invariants();
    log.add(engine.take_events(), turn);
    for (auto victim = abort_at.begin(); victim != abort_at.end();) {
      if (log[victim->first].tokens.size() < victim->second) {
        ++victim;
        continue;
      }
      engine.cancel(victim->first);
      worked = true;
      victim = abort_at.erase(victim);
    }
  }
  int32_t aborted = 0;
  for (const auto& [id, request] : requests) {
    const RequestLog& entry = log[id];
    std::vector<int32_t> alone = expected_alone(request, names_of(request), options.limits).tokens;
    if (id % 2 == 1) {
      ASSERT_EQ(entry.ending, Ending::kFinished);
      ASSERT_EQ(entry.tokens, alone) << "request " << id;
    } else {
      ASSERT_EQ(entry.ending, Ending::kAborted);
      alone.resize(entry.tokens.size());
      ASSERT_EQ(entry.tokens, alone) << "request " << id;
      ++aborted;
    }
  }
  EXPECT_EQ(aborted, 1000);
  EXPECT_GT(engine.stats().preemptions, 0);
  EXPECT_EQ(engine.stats().pages.kv, 0);
  for (const int32_t handle : handles) engine.remove_adapter(handle);
  engine.step();
  EXPECT_EQ(engine.stats().pages.free + engine.stats().pages.cold, 40) << "pages return";
}

}  // namespace
}  // namespace lorax
