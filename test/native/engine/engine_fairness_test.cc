// Tenants beside one another on the fake model: a flood delays nobody else for long, weights share,
// a full queue refuses the flood.
#include <algorithm>
#include <limits>
#include <string>

#include "engine/engine_fixture.h"

namespace lorax {
namespace {

class EngineFairnessTest : public EngineFixture {
 protected:
  EngineFairnessTest() { options_.limits.num_pages = 200; }

  static Request of(const std::string& tenant, Request request, float weight = 1.0f,
                    int32_t priority = 0) {
    request.tenant = tenant;
    request.tenant_weight = weight;
    request.priority = priority;
    return request;
  }

  // Of the ids [first, last], those that started before `turn`.
  int32_t num_started(int32_t first, int32_t last, int64_t turn) {
    int32_t count = 0;
    for (int32_t id = first; id <= last; ++id) {
      count += log_[id].started && log_[id].started_turn < turn;
    }
    return count;
  }
};

INSTANTIATE_TEST_SUITE_P(StepsAhead, EngineFairnessTest, testing::Values(0, 1));

TEST_P(EngineFairnessTest, AFloodOfOneAdapterDelaysNoOther) {
  make({.max_batch_tokens = 16, .max_sequences = 4});
  const int32_t a = engine_->add_adapter(fake_adapter("a", 2));
  const int32_t b = engine_->add_adapter(fake_adapter("b", 2));
  for (int32_t id = 1; id <= 200; ++id) submit(request_of(id, prompt_of(8, id), 6, a));
  for (int32_t i = 0; i < 20; ++i) step();
  const Request other = submit(request_of(1000, prompt_of(8), 6, b));
  const Request base = submit(request_of(1001, prompt_of(8, 1), 6));
  const int64_t submitted = turn_;
  run();
  expect_finished(other, "b");
  expect_finished(base);
  for (const int32_t id : {1000, 1001}) {
    EXPECT_LE(log_[id].started_turn - submitted, 8) << "as soon as one of four places is free";
    const int64_t turn = log_[id].started_turn;
    EXPECT_LE(num_started(1, 200, turn) - num_started(1, 200, submitted + 1), 2);
  }
  for (int32_t id = 1; id <= 200; ++id) EXPECT_EQ(log_[id].ending, Ending::kFinished);
  expect_all_free();
}

TEST_P(EngineFairnessTest, TenantsShareByTheirWeights) {
  make({.max_batch_tokens = 16, .max_queued = 5000, .max_sequences = 4});
  for (int32_t id = 1; id <= 400; ++id) {
    submit(of(id % 2 == 0 ? "light" : "heavy", request_of(id, prompt_of(8, id), 6),
              id % 2 == 0 ? 1.0f : 3.0f));
  }
  while (num_started(1, 400, turn_ + 1) < 200) ASSERT_TRUE(step());
  int32_t num_heavy = 0;
  for (int32_t id = 1; id <= 400; id += 2) num_heavy += log_[id].started;
  EXPECT_NEAR(num_heavy, 150, 5);
}

// Two tenants that use one adapter are two, and one tenant that uses two is one.
TEST_P(EngineFairnessTest, ATenantIsItsNameNotItsAdapter) {
  make({.max_batch_tokens = 16, .max_sequences = 2});
  const int32_t a = engine_->add_adapter(fake_adapter("a", 2));
  const int32_t b = engine_->add_adapter(fake_adapter("b", 2));
  for (int32_t id = 1; id <= 100; ++id) {
    submit(of("flood", request_of(id, prompt_of(8, id), 6, id % 2 == 0 ? a : b)));
  }
  for (int32_t i = 0; i < 10; ++i) step();
  submit(of("quiet", request_of(1000, prompt_of(8), 6, a)));
  const int64_t submitted = turn_;
  run();
  EXPECT_LE(log_[1000].started_turn - submitted, 8);
}

TEST_P(EngineFairnessTest, AFullQueueRefusesTheFlood) {
  make({.max_batch_tokens = 16, .max_queued = 10, .max_sequences = 2});
  for (int32_t id = 1; id <= 12; ++id) submit(of("flood", request_of(id, prompt_of(8, id), 6)));
  step();
  for (int32_t id = 13; id <= 20; ++id) submit(of("flood", request_of(id, prompt_of(8, id), 6)));
  const Request quiet = submit(of("quiet", request_of(1000, prompt_of(8), 6)));
  step();
  EXPECT_EQ(log_[1000].ending, Ending::kOpen);
  int32_t num_refused = 0;
  for (int32_t id = 1; id <= 20; ++id) num_refused += log_[id].failure.code == "QUEUE_FULL";
  EXPECT_EQ(num_refused, 20 - 2 - 9) << "two run, nine wait beside the other one";
  run();
  expect_finished(quiet);
}

TEST_P(EngineFairnessTest, PrioritiesComeFirstWithinATenant) {
  make({.max_batch_tokens = 16, .max_sequences = 1});
  for (int32_t id = 1; id <= 6; ++id) {
    submit(of("tenant", request_of(id, prompt_of(8, id), 3), 1.0f, id <= 3 ? 0 : id));
  }
  run();
  const int32_t order[] = {6, 5, 4, 1, 2, 3};
  for (size_t i = 1; i < 6; ++i) {
    EXPECT_GT(log_[order[i]].started_turn, log_[order[i - 1]].started_turn) << i;
  }
}

TEST_P(EngineFairnessTest, AWeightHasToBeANumberAboveNothing) {
  make();
  const float weights[] = {0.0f, -1.0f, std::numeric_limits<float>::infinity(),
                           std::numeric_limits<float>::quiet_NaN()};
  for (int32_t id = 1; id <= 4; ++id) {
    submit(of("tenant", request_of(id, prompt_of(3), 3), weights[id - 1]));
  }
  run();
  for (int32_t id = 1; id <= 4; ++id) {
    EXPECT_EQ(log_[id].failure.code, "INVALID_OPTIONS");
    EXPECT_EQ(std::get<std::string>(log_[id].failure.data.at("field")), "tenantWeight");
  }
}

// Those that were preempted had their turn: they come back before anyone has a first one.
TEST_P(EngineFairnessTest, ThePreemptedComeBackFirst) {
  options_.limits.num_pages = 12;
  make({.max_batch_tokens = 16, .max_sequences = 4});
  std::vector<Request> requests;
  for (int32_t id = 1; id <= 8; ++id) {
    requests.push_back(submit(of(std::to_string(id % 4), request_of(id, prompt_of(6, id), 22),
                                 id % 4 == 0 ? 100.0f : 1)));
  }
  run();
  EXPECT_GT(engine_->stats().preemptions, 0);
  for (const Request& request : requests) expect_finished(request);
}

}  // namespace
}  // namespace lorax
