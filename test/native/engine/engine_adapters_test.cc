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
    expect_finished(request,
                    request.adapters.empty() ? "" : names[request.adapters[0].handle - handles[1]]);
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

// Base, single adapters and mixes of them in one batch: each as it is alone. Handles may come in
// any order.
TEST_P(EngineAdaptersTest, MixesShareABatchWithTheirAdapters) {
  make();
  const int32_t a = engine_->add_adapter(fake_adapter("a", 2));
  const int32_t b = engine_->add_adapter(fake_adapter("b", 3));
  const int32_t c = engine_->add_adapter(fake_adapter("c", 1));
  const auto submit_mix = [&](int32_t id, std::vector<AdapterUse> adapters) {
    return submit(mixed(request_of(id, prompt_of(5, 3), 6), std::move(adapters)));
  };
  const Request base = submit(request_of(1, prompt_of(5, 3), 6));
  const Request single = submit(request_of(2, prompt_of(5, 3), 6, b));
  const Request mix = submit_mix(3, {{a, 0.75f}, {b, 0.25f}});
  const Request other_weights = submit_mix(4, {{a, 0.25f}, {b, 0.75f}});
  submit_mix(5, {{c, -1.0f}, {a, 2.0f}});
  const Request embedding = submit(mixed(embedding_of(6, prompt_of(7)), {{b, 0.5f}, {c, 0.5f}}));
  run();
  expect_finished(base);
  expect_finished(single, "b");
  expect_finished(mix, Names{"a", "b"});
  expect_finished(other_weights, Names{"a", "b"});
  expect_finished(mixed(request_of(5, prompt_of(5, 3), 6), {{a, 2.0f}, {c, -1.0f}}),
                  Names{"a", "c"});
  expect_embedded(embedding, Names{"b", "c"});
  EXPECT_NE(log_[3].tokens, log_[4].tokens);
  EXPECT_EQ(engine_->stats().recent_steps[0].adapters, 3);
  EXPECT_EQ(engine_->stats().adapter_loads, 3);
  for (const AdapterStatus& status : engine_->adapters()) EXPECT_EQ(status.active_requests, 0);
}

// It holds both: neither goes while it runs, and removing one lets it finish.
TEST_P(EngineAdaptersTest, AMixHoldsAllItsAdapters) {
  options_.limits.num_pages = 12;
  make();
  const int32_t a = engine_->add_adapter(fake_adapter("a", 3));
  const int32_t b = engine_->add_adapter(fake_adapter("b", 4));
  const int32_t c = engine_->add_adapter(fake_adapter("c", 6));
  const Request mix = submit(mixed(request_of(1, prompt_of(4), 6), {{a, 0.5f}, {b, 0.5f}}));
  const Request waits = submit(request_of(2, prompt_of(3), 4, c));
  step();
  for (const AdapterStatus& status : engine_->adapters()) {
    EXPECT_EQ(status.resident, status.handle != c);
    EXPECT_EQ(status.active_requests, 1);
  }
  engine_->remove_adapter(b);
  submit(mixed(request_of(3, prompt_of(4), 6), {{a, 1.0f}, {b, 1.0f}}));
  run();
  expect_finished(mix, Names{"a", "b"});
  expect_finished(waits, "c");
  EXPECT_GE(log_[2].started_turn, log_[1].ended_turn) << "there was no room for its adapter";
  EXPECT_EQ(log_[3].failure.code, "ADAPTER_NOT_FOUND");
  EXPECT_EQ(number(log_[3].failure, "adapter"), b);
  EXPECT_EQ(engine_->adapters().size(), 2u);
  submit(mixed(request_of(4, prompt_of(9), 8), {{a, 1.0f}, {c, 1.0f}}));
  run();
  EXPECT_EQ(log_[4].failure.code, "POOL_EXHAUSTED");
  EXPECT_EQ(number(log_[4].failure, "adapterPages"), 9);
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
    expect_finished(request, request.adapters[0].handle == a ? "a" : "b");
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
    submit(request_of(++id, prompt_of(3), 1, handles[index]));
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
