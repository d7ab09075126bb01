// Adapters in and out of the pool: shared batches, taking turns, eviction, removal.
#include <string>

#include "engine/engine_fixture.h"

namespace lorax {
namespace {

class EngineAdaptersTest : public EngineFixture {};

INSTANTIATE_TEST_SUITE_P(StepsAhead, EngineAdaptersTest, testing::Values(0, 1));

TEST_P(EngineAdaptersTest, ManyAdaptersInOneBatch) {
  make();
  std::vector<Request> requests;
  std::vector<std::string> names;
  Ints handles = {-1};
  for (int32_t i = 0; i < 3; ++i) {
    names.push_back("adapter" + std::to_string(i));
    handles.push_back(engine_->add_adapter(fake_adapter(names.back(), i + 1)));
  }
  ASSERT_EQ(engine_->adapters().size(), 3u) << "listed before any step";
  for (int32_t id = 1; id <= 8; ++id) {
    requests.push_back(submit(request_of(id, prompt_of(5, 3), 6, handles[id % 4])));
  }
  run();
  for (const Request& request : requests) {
    expect_finished(request, request.adapter < 0 ? "" : names[request.adapter - handles[1]]);
  }
  const EngineStats stats = engine_->stats();
  EXPECT_EQ(stats.steps, 6) << "one batch";
  EXPECT_EQ(stats.adapter_loads, 3);
  EXPECT_EQ(stats.recent_steps[0].adapters, 3);
  EXPECT_EQ(stats.pages.adapter, 6) << "idle adapters stay as cache";
  for (const AdapterStatus& status : engine_->adapters()) {
    EXPECT_TRUE(status.resident);
    EXPECT_EQ(status.active_requests, 0);
    EXPECT_EQ(status.bytes, 1024 * (status.handle - handles[1] + 1));
  }
}

TEST_P(EngineAdaptersTest, AdaptersThatDoNotFitTogetherTakeTurns) {
  options_.limits.num_pages = 8;
  make();
  const int32_t a = engine_->add_adapter(fake_adapter("a", 5));
  const int32_t b = engine_->add_adapter(fake_adapter("b", 6));
  std::vector<Request> requests;
  for (int32_t id = 1; id <= 6; ++id) {
    requests.push_back(submit(request_of(id, prompt_of(3, id), 4, id % 2 ? a : b)));
  }
  run();
  for (const Request& request : requests) {
    expect_finished(request, request.adapter == a ? "a" : "b");
  }
  EXPECT_GE(engine_->stats().adapter_evictions, 5);
  for (int32_t id = 2; id <= 6; ++id) {
    EXPECT_GT(log_[id].started_turn, log_[id - 1].started_turn) << "in order of arrival";
  }
}

TEST_P(EngineAdaptersTest, EvictsTheLeastRecentlyUsed) {
  options_.limits.num_pages = 10;
  make();
  Ints handles;
  for (const char* name : {"a", "b", "c"}) {
    handles.push_back(engine_->add_adapter(fake_adapter(name, 3)));
  }
  int32_t id = 0;
  const auto use = [&](int32_t index) {
    submit(request_of(++id, prompt_of(3), 2, handles[index]));
    run();
  };
  use(0), use(1), use(2), use(0);
  const Request big = submit(request_of(++id, prompt_of(12), 2));  // 4 pages: one has to go
  run();
  expect_finished(big);
  const std::vector<AdapterStatus> statuses = engine_->adapters();
  EXPECT_TRUE(statuses[0].resident);
  EXPECT_FALSE(statuses[1].resident);
  EXPECT_TRUE(statuses[2].resident);
}

TEST_P(EngineAdaptersTest, ARemovedAdapterDrainsThenGoes) {
  make();
  const int32_t a = engine_->add_adapter(fake_adapter("a", 3));
  const int32_t idle = engine_->add_adapter(fake_adapter("b", 2));
  const Request before = submit(request_of(1, prompt_of(4), 6, a));
  step();
  engine_->remove_adapter(a);
  engine_->remove_adapter(idle);
  EXPECT_THROW(engine_->remove_adapter(a), Error) << "it was removed already";
  EXPECT_THROW(engine_->remove_adapter(55), Error);
  submit(request_of(2, prompt_of(4), 6, a));
  step();
  EXPECT_EQ(log_[2].failure.code, "ADAPTER_NOT_FOUND");
  ASSERT_EQ(engine_->adapters().size(), 1u) << "the idle one is gone, the other drains";
  EXPECT_EQ(engine_->adapters()[0].active_requests, 1);
  run();
  expect_finished(before, "a");
  EXPECT_TRUE(engine_->adapters().empty());
  EXPECT_EQ(engine_->stats().pages.free, 32);
  EXPECT_NE(engine_->add_adapter(fake_adapter("a", 3)), a) << "handles are never used again";
}

TEST_P(EngineAdaptersTest, AnAdapterThatCannotFitIsRefusedWhenAdded) {
  options_.limits.num_pages = 8;
  make();
  try {
    engine_->add_adapter(fake_adapter("a", 8));
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), "POOL_EXHAUSTED");
    EXPECT_EQ(std::get<double>(error.data().at("adapterPages")), 8);
  }
  EXPECT_THROW(engine_->add_adapter(fake_adapter("a", 0)), Error);
  EXPECT_TRUE(engine_->adapters().empty()) << "nothing is left half loaded";
}

}  // namespace
}  // namespace lorax
