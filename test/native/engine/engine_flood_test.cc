// What a flood costs the others, on the fake model with a clock of the test's own: a step takes a
// time of its own and some for each row, as on a CPU. Deterministic: nothing is timed.
#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "engine/allocation_faults.h"
#include "engine/engine_fixture.h"
#include "engine/expected_governed.h"

namespace lorax {
namespace {

struct Arrival {
  double at;
  Request request;
  bool flood;
};

struct Outcome {
  std::vector<double> first_token_times;  // of the others
  double tokens_per_unit = 0;             // computed, while there was something to come
  int32_t num_lost = 0;                   // of the others
};

double quantile(std::vector<double> values, double q) {
  std::ranges::sort(values);
  return values.at(std::min(values.size() - 1, static_cast<size_t>(q * values.size())));
}

class EngineFloodTest : public EngineFixture {
 protected:
  static constexpr int32_t kRows = 32;
  static constexpr double kUnitsPerRow = 1.0 / 16;
  static constexpr double kDuration = 4000;

  EngineFloodTest() {
    options_.limits.num_pages = 1500;
    options_.limits.context_tokens = 256;
    options_.max_batch_tokens = kRows;
  }

  double random() {
    state_ = mix(state_, 1);
    return static_cast<double>(state_ >> 11) / static_cast<double>(uint64_t{1} << 53);
  }
  int32_t around(int32_t mean) { return static_cast<int32_t>(mean * (0.5 + random())); }

  // At random times, `load` of what steps full of rows could serve.
  void add_arrivals(double load, int32_t num_tenants, bool flood, std::vector<Arrival>* arrivals) {
    const double capacity = 1 / ((kPrompt + kOutput) * (kUnitsPerRow + 1.0 / kRows));
    for (double at = 0;;) {
      at -= std::log(1 - random()) / (load * capacity);
      if (at > kDuration) return;
      const int32_t id = ++last_id_;
      Ints prompt(around(kPrompt));  // nothing that another begins with
      for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<int32_t>(mix(id, i) % 97);
      Request request = request_of(id, std::move(prompt), around(kOutput));
      request.tenant = flood ? "flood" : "other " + std::to_string(id % num_tenants);
      arrivals->push_back({at, std::move(request), flood});
    }
  }

  Outcome play(std::vector<Arrival> arrivals, EngineLimits limits) {
    std::ranges::sort(arrivals, {}, &Arrival::at);
    make(limits);
    log_.requests.clear();
    std::map<int32_t, double> waiting;  // for their first tokens, since when
    Outcome outcome;
    size_t next = 0;
    double now = 0;
    int64_t computed = 0;
    while (next < arrivals.size() || !waiting.empty()) {
      for (; next < arrivals.size() && arrivals[next].at <= now; ++next) {
        const Arrival& arrival = arrivals[next];
        submit(arrival.request);
        if (!arrival.flood) waiting[arrival.request.id] = arrival.at;
      }
      const int64_t steps = engine_->stats().steps;
      if (!engine_->step()) {
        if (next == arrivals.size()) break;
        now = arrivals[next].at;
        continue;
      }
      log_.add(engine_->take_events(), ++turn_);
      const EngineStats stats = engine_->stats();
      if (stats.steps > steps) {
        const EngineStats::Step step = stats.recent_steps.back();
        const int32_t rows = step.prefill_tokens + step.decode_tokens;
        now += 1 + rows * kUnitsPerRow;
        if (next < arrivals.size()) computed += rows;
      }
      std::erase_if(waiting, [&](const auto& entry) {
        const RequestLog& log = log_.requests[entry.first];
        if (log.ending == Ending::kFailed) ++outcome.num_lost;
        if (log.ending != Ending::kFailed && log.tokens.empty()) return false;
        if (!log.tokens.empty()) outcome.first_token_times.push_back(now - entry.second);
        return true;
      });
    }
    outcome.tokens_per_unit = static_cast<double>(computed) / kDuration;
    engine_->stop();
    engine_->take_events();
    return outcome;
  }

  static constexpr int32_t kPrompt = 48;
  static constexpr int32_t kOutput = 24;
  uint64_t state_ = 7;
  int32_t last_id_ = 0;
};

INSTANTIATE_TEST_SUITE_P(StepsAhead, EngineFloodTest, testing::Values(0));

// The others send a fifth, two fifths and three fifths of what the engine can serve; the flood
// fifty times as much. Where all have one name, there are no turns: so it would be without them.
TEST_P(EngineFloodTest, TheOthersFirstTokensComeNearlyAsSoonAndNothingIsLost) {
  for (const double load : {0.2, 0.4}) {
    SCOPED_TRACE("load " + std::to_string(load));
    std::vector<Arrival> others, all;
    add_arrivals(load, 4, false, &others);
    all = others;
    add_arrivals(50 * load, 1, true, &all);
    std::vector<Arrival> one_name = all;
    for (Arrival& arrival : one_name) arrival.request.tenant = "all";
    const EngineLimits limits{.max_batch_tokens = kRows, .max_queued = 200};
    const Outcome alone = play(others, limits), flood = play(all, limits),
                  unfair = play(one_name, limits);
    const auto p99 = [](const Outcome& outcome) {
      return quantile(outcome.first_token_times, 0.99);
    };
    RecordProperty("p99_ratio_at_" + std::to_string(load), std::to_string(p99(flood) / p99(alone)));
    EXPECT_LE(p99(flood), 1.5 * p99(alone));
    EXPECT_GE(flood.tokens_per_unit, 0.95 * unfair.tokens_per_unit);
    EXPECT_EQ(flood.num_lost, 0);
    EXPECT_EQ(flood.first_token_times.size(), others.size());
    // Else there was no flood.
    EXPECT_GT(p99(unfair), 10 * p99(flood));
    EXPECT_GT(unfair.num_lost, 0);
  }
}

// Where submitting computes: who comes for a tenant within its share is begun between two layers.
class EngineAsideTest : public EngineFixture {
 protected:
  EngineAsideTest() {
    options_.limits.num_pages = 400;
    options_.limits.can_set_aside = true;
    options_.num_layers = 4;
  }

  static Request of(Request request, const std::string& tenant) {
    request.tenant = tenant;
    return request;
  }

  // A token each, from the space on.
  static grammar::TokenBytes letters() {
    grammar::TokenBytes out{.bytes = {}, .offsets = {0}};
    for (uint32_t token = 0; token < 97; ++token) {
      out.bytes.push_back(static_cast<uint8_t>(32 + token % 95));
      out.offsets.push_back(token + 1);
    }
    return out;
  }

  // A flood that fills every step beside two others who have been served.
  void flood(EngineLimits limits = {.max_batch_tokens = 32, .max_sequences = 16}) {
    make(limits);
    submit(of(request_of(1, prompt_of(8, 71), 2), "a"));
    submit(of(request_of(2, prompt_of(8, 72), 2), "b"));
    run();
    for (int32_t id = 100; id < 160; ++id) {
      flooding_.push_back(submit(of(request_of(id, prompt_of(30, id), 8), "flood")));
    }
    for (int32_t i = 0; i < 3; ++i) step();
    EXPECT_EQ(model_->num_set_aside, 0);
  }

  // Once, before that layer of the next step.
  void before_layer(int32_t layer, const std::function<void()>& act) {
    model_->on_layer = [layer, act, done = false](int32_t at) mutable {
      if (at == layer && !std::exchange(done, true)) act();
    };
  }

  std::vector<Request> flooding_;
};

INSTANTIATE_TEST_SUITE_P(StepsAhead, EngineAsideTest, testing::Values(0));

TEST_P(EngineAsideTest, WhoComesIsAnsweredBeforeTheStepGoesOn) {
  flood();
  const Request late = of(request_of(3, prompt_of(20, 73), 4), "a");
  bool heard = false;
  before_layer(1, [&] { submit(late); });
  const int64_t before = model_->num_collects;
  model_->on_collect = [&](const StepPlan& plan) {
    if (model_->num_collects > before + 1) return;
    EXPECT_EQ(plan.num_rows(), 20) << "its prompt alone";
    EXPECT_EQ(model_->num_set_aside, 1);
  };
  const int32_t notified = notified_;
  engine_->take_events();
  model_->on_sample = [&](const StepPlan& plan) {
    if (plan.num_rows() == 20) return;
    heard |= notified_ > notified;
  };
  step();
  EXPECT_TRUE(heard) << "its first token is told before the step that was set aside ends";
  EXPECT_EQ(log_[3].tokens.size(), 1u);
  model_->on_collect = nullptr;
  run();
  expect_finished(late);
  for (const Request& request : flooding_) {
    if (log_[request.id].ending != Ending::kFailed) expect_finished(request);
  }
  expect_all_free();
}

TEST_P(EngineAsideTest, WhoCameBeforeTheStepIsAnsweredBeforeItsFirstLayer) {
  flood();
  const Request early = submit(of(request_of(3, prompt_of(20, 73), 4), "a"));
  before_layer(1, [&] { EXPECT_EQ(model_->num_set_aside, 1); });
  step();
  EXPECT_EQ(log_[3].tokens.size(), 1u);
  run();
  expect_finished(early);
}

// A prompt that takes more rows than a step has, and several that come together.
TEST_P(EngineAsideTest, SeveralAreComputedTogetherAndLongPromptsInParts) {
  flood();
  const Request long_one = of(request_of(3, prompt_of(56, 73), 2), "a");
  const Request second = of(request_of(4, prompt_of(8, 74), 2), "b");
  before_layer(2, [&] { submit(long_one), submit(second); });
  step();
  EXPECT_EQ(model_->num_set_aside, 2);
  EXPECT_EQ(log_[3].tokens.size(), 1u);
  EXPECT_EQ(log_[4].tokens.size(), 1u);
  run();
  expect_finished(long_one);
  expect_finished(second);
}

// What the step under way is still to compute is not there for others to begin with.
TEST_P(EngineAsideTest, APrefixIsSharedOnceItIsComputed) {
  flood();
  const Ints system = prompt_of(28, 77);
  Request first = of(request_of(3, system, 2), "flood");
  first.priority = 1;  // while the flood lasts
  submit(first);
  const Request second = of(request_of(4, system, 2), "a"),
                third = of(request_of(5, system, 2), "b");
  bool is_computed = false, is_submitted = false;  // the first, and the second
  // No other prompt begins with that token.
  const auto begins = [&](const StepPlan& plan, const SequenceSpan& span) {
    return span.first_position == 0 && plan.token_ids[span.first_row] == system[0];
  };
  model_->on_forward = [&](const StepPlan& plan) {
    is_computed = std::ranges::any_of(plan.spans, [&](const auto& s) { return begins(plan, s); });
  };
  model_->on_layer = [&](int32_t) {
    if (is_computed && !std::exchange(is_submitted, true)) submit(second);
  };
  run();
  expect_finished(first);
  expect_finished(second);
  EXPECT_EQ(log_[4].cached_tokens, 0) << "it came while that was computed";
  submit(third);
  run();
  EXPECT_EQ(log_[5].cached_tokens, 24);
  for (const Request& request : flooding_) {
    if (log_[request.id].ending != Ending::kFailed) expect_finished(request);
  }
}

TEST_P(EngineAsideTest, WhoIsCancelledMeanwhileStaysUntilTheStepIsOver) {
  flood();
  const Request late = of(request_of(3, prompt_of(20, 73), 4), "a");
  before_layer(1, [&] {
    for (const Request& request : flooding_) engine_->cancel(request.id);
    submit(late);
    engine_->cancel(late.id);
  });
  step();
  EXPECT_EQ(log_[3].tokens.size(), 1u);
  EXPECT_EQ(log_[3].ending, Ending::kAborted);
  run();
  for (const Request& request : flooding_) EXPECT_EQ(log_[request.id].ending, Ending::kAborted);
  expect_all_free();
}

TEST_P(EngineAsideTest, AdaptersComeAndGoMeanwhile) {
  flood();
  int32_t handle = -1;
  Request late, with_removed;
  before_layer(1, [&] {
    handle = engine_->add_adapter(fake_adapter("pirate", 3));
    late = submit(of(request_of(3, prompt_of(20, 73), 4, handle), "a"));
  });
  step();
  EXPECT_EQ(log_[3].tokens.size(), 1u);
  before_layer(0, [&] {
    engine_->remove_adapter(handle);
    with_removed = submit(of(request_of(4, prompt_of(8, 74), 4, handle), "b"));
  });
  run();
  expect_finished(late, "pirate");
  EXPECT_EQ(log_[4].failure.code, "ADAPTER_NOT_FOUND");
  expect_all_free();
}

TEST_P(EngineAsideTest, EmbeddingsAndGovernedOutputsAreAnsweredToo) {
  flood();
  engine_->set_vocabulary(letters());
  const Request embedded = of(embedding_of(3, prompt_of(20, 73)), "a");
  Request governed = of(request_of(4, prompt_of(8, 74), 6), "b");
  governed.grammar = engine_->compile_grammar("root ::= [0-9]{4}");
  before_layer(3, [&] { submit(embedded), submit(governed); });
  step();
  expect_embedded(embedded);
  EXPECT_GE(log_[4].tokens.size(), 1u);
  run();
  EXPECT_EQ(log_[4].ending, Ending::kFinished) << log_[4].failure.message;
  EXPECT_EQ(log_[4].tokens, expected_governed(governed, {}, options_.limits, 0).tokens);
}

// However many come, a step of the others gets on: it has one row in sixteen.
TEST_P(EngineAsideTest, TheOthersGetOnWhateverComes) {
  options_.num_layers = 8;
  flood();
  int32_t id = 1000, rows = 0;
  model_->on_layer = [&](int32_t) {
    for (const char* tenant : {"a", "b", "a", "b"}) {
      Ints prompt(30);
      for (int32_t i = 0; i < 30; ++i) prompt[i] = (id * (i + 1)) % 97;
      submit(of(request_of(++id, prompt, 1), tenant));
    }
  };
  model_->on_forward = [&](const StepPlan& plan) { rows += plan.num_rows(); };
  step();
  EXPECT_EQ(rows, 16 * 32) << "theirs are one row in sixteen";
  model_->on_layer = nullptr;
  run();
  expect_all_free();
}

TEST_P(EngineAsideTest, AFaultMeanwhileEndsEveryRequestOnce) {
  flood();
  submit(of(request_of(3, prompt_of(20, 73), 4), "a"));
  before_layer(1, [&] {
    engine_->cancel(1000);  // nobody
    submit(of(request_of(4, prompt_of(20, 74), 4), "b"));
  });
  model_->on_forward = [&](const StepPlan&) {
    if (model_->num_set_aside == 2) throw std::runtime_error("no layer like this");
  };
  run();
  EXPECT_EQ(log_[3].tokens.size(), 1u) << "it was told before";
  for (const auto& [id, log] : log_.requests) {
    if (log.ending == Ending::kFinished) continue;
    EXPECT_TRUE(log.failure.code == "ENGINE_LOST" || log.failure.code == "QUEUE_FULL")
        << log.failure.code;
  }
  EXPECT_EQ(log_[4].failure.code, "ENGINE_LOST");
  submit(of(request_of(5, prompt_of(8, 75), 4), "a"));
  engine_->cancel(5);
  run();
  EXPECT_EQ(log_[5].failure.code, "ENGINE_LOST");
  expect_all_free();
}

// One allocation fails of the turn in which a step is set aside, or all from it on.
TEST_P(EngineAsideTest, OutOfMemoryAnywhere) {
  int32_t num_lost = 0, num_set_aside = 0;
  for (const int64_t count : {int64_t{1}, int64_t{1} << 60}) {
    for (int64_t first = 0, last = 1; first < last; ++first) {
      SCOPED_TRACE("allocation " + std::to_string(first));
      log_.requests.clear();
      flooding_.clear();
      flood();
      const int32_t handle = engine_->add_adapter(fake_adapter("pirate", 3));
      const Request light = submit(of(request_of(3, prompt_of(20, 73), 4, handle), "a"));
      engine_->cancel(100);
      {
        const AllocationFaults faults(first, count);
        engine_->step();
        last = AllocationFaults::num_allocations();
      }
      num_set_aside += model_->num_set_aside > 0;
      log_.add(engine_->take_events(), ++turn_);
      run();
      run();  // what waited for memory is told by now
      num_lost += log_[3].ending == Ending::kFailed;
      if (log_[3].ending != Ending::kFailed) expect_finished(light, "pirate");
      for (const auto& [id, log] : log_.requests) ASSERT_NE(log.ending, Ending::kOpen) << id;
      expect_all_free();
      if (HasFailure()) return;
    }
  }
  EXPECT_GT(num_set_aside, 100);
  EXPECT_GT(num_lost, num_set_aside / 2);
}

// Without a flood nobody is put before anybody.
TEST_P(EngineAsideTest, EqualTenantsWaitForTheStep) {
  make({.max_batch_tokens = 32, .max_sequences = 16});
  submit(of(request_of(1, prompt_of(40, 71), 8), "a"));
  before_layer(1, [&] { submit(of(request_of(2, prompt_of(8, 72), 8), "b")); });
  run();
  EXPECT_EQ(model_->num_set_aside, 0);
}

class EnginePlansLateTest : public EngineFixture {};

INSTANTIATE_TEST_SUITE_P(StepsAhead, EnginePlansLateTest, testing::Values(0, 1));

// Who comes while a step of a flood's runs, before most of it is over, is in the next one. Without
// a flood nobody waits for that.
TEST_P(EnginePlansLateTest, WhoComesWhileAStepRunsIsInTheNext) {
  options_.limits.num_pages = 400;
  make({.max_batch_tokens = 32, .max_sequences = 16});
  const auto of = [&](int32_t id, const std::string& tenant, int32_t outputs = 6) {
    Request request = request_of(id, prompt_of(8, id), outputs);
    request.tenant = tenant;
    return request;
  };
  submit(of(1, "a"));
  submit(of(2, "b"));
  run();
  EXPECT_EQ(model_->num_awaited, 0);
  for (int32_t id = 10; id < 60; ++id) submit(of(id, "flood", 20));
  submit(of(3, "a", 12));
  for (int32_t i = 0; i < 3; ++i) step();
  EXPECT_EQ(model_->num_awaited > 0, lag() > 0)
      << "a step that is computed at once has none to wait for";
  if (lag() == 0) return run();
  int64_t submitted = 0;
  Request late = of(4, "b");
  model_->on_await = [&] {
    if (submitted > 0) return;
    submitted = turn_ + 1;  // the turn that waits
    submit(late);
  };
  run();
  expect_finished(late);
  EXPECT_EQ(log_[4].started_turn, submitted);
}

}  // namespace
}  // namespace lorax
