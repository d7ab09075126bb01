// The engine when memory runs out or its sink throws, wherever that happens in a turn: no exception
// leaves a turn, every request still ends exactly once, nothing leaks.
#include <new>
#include <string>

#include "engine/allocation_faults.h"
#include "engine/engine_fixture.h"

namespace lorax {
namespace {

constexpr int64_t kForever = int64_t{1} << 60;

class EngineFaultsTest : public EngineFixture {
 protected:
  // A crowd that does a bit of everything: adapters that take turns, a mix of both, chunks,
  // preemptions, stops, embeddings.
  void submit_crowd() {
    const int32_t a = engine_->add_adapter(fake_adapter("a", 5));
    const int32_t b = engine_->add_adapter(fake_adapter("b", 4));
    names_ = {{a, "a"}, {b, "b"}};
    requests_.clear();
    for (int32_t id = 1; id <= 7; ++id) {
      Request request = request_of(id, prompt_of(4 + 2 * id, id), 12,
                                   id % 3 == 0   ? -1
                                   : id % 3 == 1 ? a
                                                 : b);
      request.sampling.num_logprobs = id % 2 == 0 ? 2 : -1;
      if (id == 2) request.adapters = {{a, 0.5f}, {b, 2.0f}};
      if (id % 2 == 1) request.sampling.repetition_penalty = 1.2f;
      if (id == 4) request.sampling.stop_token_ids = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
      requests_.push_back(submit(request));
    }
    engine_->submit(request_of(8, prompt_of(64), 9));  // refused
    engine_->submit(request_of(9, prompt_of(3), 9));
    engine_->cancel(9);
    embeddings_ = {submit(embedding_of(10, prompt_of(21), Pooling::kMean, a, true)),
                   submit(embedding_of(11, prompt_of(18, 2), Pooling::kLast))};
  }

  Names names_of(const Request& request) const {
    Names names;
    for (const AdapterUse& use : request.adapters) names.push_back(names_.at(use.handle));
    return names;
  }

  // Every request ended once (the log sees to that), the lost ones with what they got alone.
  void check_ends() {
    for (int32_t id = 1; id <= 11; ++id) {
      SCOPED_TRACE("request " + std::to_string(id));
      const RequestLog& log = log_[id];
      ASSERT_NE(log.ending, Ending::kOpen);
      if (id > 7) continue;
      const Request& request = requests_[id - 1];
      Ints alone = expected_alone(request, names_of(request), options_.limits).tokens;
      if (log.ending == Ending::kFailed) {
        EXPECT_EQ(log.failure.code, "ENGINE_LOST");
        ASSERT_LE(log.tokens.size(), alone.size());
        alone.resize(log.tokens.size());
      }
      EXPECT_EQ(log.tokens, alone);
    }
    for (const Request& request : embeddings_) {
      if (log_[request.id].ending == Ending::kFailed) {
        EXPECT_EQ(log_[request.id].failure.code, "ENGINE_LOST");
      } else {
        expect_embedded(request, names_of(request));
      }
    }
    expect_all_free();
    const EngineStats stats = engine_->stats();
    EXPECT_EQ(stats.finished + stats.aborted + stats.failed, 11);
  }

  std::vector<Request> requests_, embeddings_;
  std::map<int32_t, std::string> names_;
};

INSTANTIATE_TEST_SUITE_P(StepsAhead, EngineFaultsTest, testing::Values(0, 1));

// One allocation fails, or all from it to the end of its turn; every third one of a whole run.
TEST_P(EngineFaultsTest, OutOfMemoryAnywhere) {
  options_.limits.num_pages = 14;
  int32_t num_lost = 0, num_preempted = 0, num_ends = 0;
  for (const int64_t count : {int64_t{1}, kForever}) {
    for (int32_t turn = 1; turn < 200; ++turn) {
      bool had_turn = false;
      for (int64_t first = turn % 3, last = first + 1; first < last; first += 3) {
        SCOPED_TRACE("allocation " + std::to_string(first) + " of turn " + std::to_string(turn));
        log_.requests.clear();
        turn_ = 0;
        make({.max_batch_tokens = 16, .max_sequences = 4});
        submit_crowd();
        bool worked = true;
        while (worked && turn_ < turn - 1) worked = step();
        if (!worked) break;
        had_turn = true;
        {
          const AllocationFaults faults(first, count);
          engine_->step();
          last = AllocationFaults::num_allocations();
        }
        num_preempted += engine_->stats().preemptions > 0;
        engine_->check_invariants();
        log_.add(engine_->take_events(), ++turn_);
        run();
        run();  // what waited for memory is told by now
        check_ends();
        if (HasFailure()) return;
        num_lost += log_[7].ending == Ending::kFailed;
        ++num_ends;
      }
      if (!had_turn) break;
    }
  }
  // It was tried, and memory was wanted nearly everywhere.
  EXPECT_GT(num_ends, 1000);
  EXPECT_GT(num_lost, num_ends / 2);
  EXPECT_GT(num_preempted, 5);
}

TEST_P(EngineFaultsTest, StopsWithoutMemory) {
  make({.max_batch_tokens = 16, .max_sequences = 4});
  submit_crowd();
  step();
  step();
  engine_->submit(request_of(12, prompt_of(3), 9));  // seen by no turn
  {
    const AllocationFaults faults(0, 50);
    engine_->stop();
  }
  log_.add(engine_->take_events(), ++turn_);
  for (int32_t id = 1; id <= 12; ++id) EXPECT_NE(log_[id].ending, Ending::kOpen) << id;
  expect_all_free();
}

TEST_P(EngineFaultsTest, ASinkThatThrowsEndsTheEngineAndIsToldLater) {
  auto model = std::make_unique<FakeModel>(options_);
  int32_t told = 0;
  Engine engine(std::move(model), {}, [&told] {
    if (++told == 2) throw std::runtime_error("the sink is gone");
  });
  engine.submit(request_of(1, prompt_of(3), 9));
  for (int32_t turn = 0; turn < 3; ++turn) {
    engine.step();
    log_.add(engine.take_events());
  }
  EXPECT_GE(told, 2);
  engine.step();
  log_.add(engine.take_events());
  EXPECT_EQ(log_[1].failure.code, "ENGINE_LOST");
  EXPECT_EQ(std::get<std::string>(log_[1].failure.data.at("cause")), "the sink is gone");
  EXPECT_EQ(told, 3);
}

}  // namespace
}  // namespace lorax
