// Adapters between disk, host memory and pages: what is dropped comes back, and nobody waits for
// what is another's.
#include <atomic>
#include <latch>
#include <random>
#include <string>

#include "engine/engine_fixture.h"

namespace lorax {
namespace {

constexpr int64_t kImage = 1024;  // bytes of a fake adapter's page

class EngineHostTierTest : public EngineFixture {
 protected:
  void make_with(int64_t num_images, EngineLimits limits = {}) {
    limits.host_memory_bytes = num_images * kImage;
    make(limits);
  }

  // Of a page each, told apart by their names; a turn after each, in which others are dropped.
  void add(int32_t count, int32_t num_pages = 1) {
    for (int32_t i = 0; i < count; ++i) {
      names_.push_back("adapter" + std::to_string(names_.size()));
      handles_.push_back(engine_->add_adapter(fake_adapter(names_.back(), num_pages)));
      step();
    }
  }

  int32_t num_in_host() {
    int32_t count = 0;
    for (const AdapterStatus& status : engine_->adapters()) count += status.in_host;
    return count;
  }

  Request ask(int32_t id, int32_t adapter, int32_t outputs = 4) {
    return submit(request_of(id, prompt_of(5, id), outputs, handles_[adapter]));
  }

  Names names_;
  Ints handles_;
};

INSTANTIATE_TEST_SUITE_P(StepsAhead, EngineHostTierTest, testing::Values(0, 1));

TEST_P(EngineHostTierTest, WhatWasDroppedIsReadAgain) {
  make_with(3);
  add(10);
  EXPECT_EQ(num_in_host(), 3);
  EXPECT_EQ(engine_->stats().host.bytes, 3 * kImage);
  EXPECT_EQ(engine_->stats().host.budget_bytes, 3 * kImage);
  EXPECT_EQ(engine_->stats().host_drops, 7);
  std::vector<Request> requests;
  for (int32_t i = 0; i < 10; ++i) requests.push_back(ask(1 + i, i));
  run_with_readings();
  for (int32_t i = 0; i < 10; ++i) expect_finished(requests[i], names_[i]);
  const EngineStats stats = engine_->stats();
  EXPECT_GE(stats.host_reads, 7);
  EXPECT_LE(stats.host_reads, 10) << "each once: those here may have gone before their turn";
  EXPECT_EQ(stats.adapter_loads, 10);
  EXPECT_EQ(stats.host.images, 3);
  EXPECT_EQ(stats.host.bytes, 3 * kImage);
  expect_all_free();
}

// Nothing of an adapter in pages is read, whether or not its image is still there.
TEST_P(EngineHostTierTest, WhatIsInPagesNeedsNoImage) {
  make_with(1);
  add(1);
  ask(1, 0);
  run();
  add(1);
  const Request again = ask(2, 0);
  run();
  expect_finished(again, names_[0]);
  EXPECT_EQ(engine_->stats().host_reads, 0);
  EXPECT_EQ(engine_->stats().adapter_hits, 1);
}

TEST_P(EngineHostTierTest, OthersGoOnWhileOneIsRead) {
  make_with(2);
  add(3);
  std::latch may_read(1);
  model_->on_read = [&](const AdapterSpec&) { may_read.wait(); };
  const Request cold = ask(1, 0);
  const Request base = submit(request_of(2, prompt_of(3), 5));
  const Request warm = ask(3, 2);
  while (step()) {
  }
  expect_finished(base);
  expect_finished(warm, names_[2]);
  EXPECT_EQ(log_[1].ending, Ending::kOpen);
  EXPECT_EQ(engine_->stats().waiting, 1);
  may_read.count_down();
  run_with_readings();
  expect_finished(cold, names_[0]);
}

// Those that wait have theirs read ahead, also where no more may run.
TEST_P(EngineHostTierTest, TheQueueIsReadAhead) {
  make_with(4, {.max_sequences = 1});
  add(5);
  const Request first = ask(1, 4, 40);
  const Request next = ask(2, 0);
  while (engine_->stats().host_reads == 0) ASSERT_TRUE(step());
  EXPECT_EQ(log_[1].ending, Ending::kOpen) << "read while the other ran";
  run_with_readings();
  expect_finished(first, names_[4]);
  expect_finished(next, names_[0]);
}

TEST_P(EngineHostTierTest, AReadingThatFailsIsHeardByWhoWaitsForItAlone) {
  make_with(2);
  add(3);
  std::atomic<bool> fails = true;
  model_->on_read = [&](const AdapterSpec& spec) {
    if (fails) throw Error("ADAPTER_INVALID", "the file was cut off", {{"file", spec.hash}});
  };
  ask(1, 0);
  ask(2, 0);
  const Request warm = ask(3, 2);
  run_with_readings();
  for (const int32_t id : {1, 2}) {
    EXPECT_EQ(log_[id].ending, Ending::kFailed);
    EXPECT_EQ(log_[id].failure.code, "ADAPTER_INVALID");
    EXPECT_EQ(std::get<std::string>(log_[id].failure.data.at("file")), "adapter0");
  }
  expect_finished(warm, names_[2]);
  for (int32_t i = 0; i < 1000; ++i) {
    ask(10 + i, 0);
    run_with_readings();
    ASSERT_EQ(log_[10 + i].ending, Ending::kFailed);
  }
  EXPECT_EQ(engine_->stats().host.bytes, kImage) << "what failures took is back";
  fails = false;
  const Request cured = ask(5000, 0);
  run_with_readings();
  expect_finished(cured, names_[0]);
}

// Each needs all of its own at once, and there is room for one mix alone.
TEST_P(EngineHostTierTest, MixesDoNotStarveEachOther) {
  make_with(2);
  add(6);
  std::vector<Request> requests;
  for (int32_t i = 0; i < 12; ++i) {
    const int32_t a = i % 6, b = (i + 1 + i / 6) % 6;
    std::vector<AdapterUse> uses = {{handles_[std::min(a, b)], 0.5f},
                                    {handles_[std::max(a, b)], 2.0f}};
    requests.push_back(submit(mixed(request_of(1 + i, prompt_of(6, i), 3), uses)));
  }
  run_with_readings();
  for (const Request& request : requests) {
    Names names;
    for (const AdapterUse& use : request.adapters)
      names.push_back(names_[use.handle - handles_[0]]);
    expect_finished(request, names);
  }
  std::vector<AdapterUse> three = {{handles_[0], 1}, {handles_[1], 1}, {handles_[2], 1}};
  submit(mixed(request_of(50, prompt_of(3), 2), three));
  run();
  EXPECT_EQ(log_[50].failure.code, "HOST_MEMORY_EXHAUSTED");
  EXPECT_EQ(number(log_[50].failure, "adapterBytes"), 3 * kImage);
}

TEST_P(EngineHostTierTest, WhatNeverFitsIsRefused) {
  make_with(2);
  try {
    engine_->add_adapter(fake_adapter("large", 3));
    FAIL() << "it was taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), "HOST_MEMORY_EXHAUSTED");
  }
  add(1);
  EXPECT_EQ(engine_->stats().host.bytes, kImage);
}

TEST_P(EngineHostTierTest, WhatIsRemovedWhileItIsReadLeavesNothing) {
  make_with(1);
  add(2);
  std::latch may_read(1);
  model_->on_read = [&](const AdapterSpec&) { may_read.wait(); };
  ask(1, 0);
  step();
  engine_->cancel(1);
  engine_->remove_adapter(handles_[0]);
  step();
  may_read.count_down();
  while (engine_->stats().host.bytes > 0) {
    step();
    std::this_thread::yield();
  }
  EXPECT_EQ(engine_->adapters().size(), 1u);
  const Request other = ask(2, 1);
  run_with_readings();
  expect_finished(other, names_[1]);
}

// ---- hints ----

TEST_P(EngineHostTierTest, AHintBringsItIntoPages) {
  make_with(2);
  add(4);
  for (const int32_t handle : handles_) engine_->prefetch_adapter(handle);
  const auto num_resident = [&] {
    int32_t count = 0;
    for (const AdapterStatus& status : engine_->adapters()) count += status.resident;
    return count;
  };
  while (num_resident() < 4) {
    step();
    std::this_thread::yield();
  }
  EXPECT_EQ(engine_->stats().pages.adapter, 4);
  for (int32_t i = 0; i < 4; ++i) ask(1 + i, i);
  run();
  EXPECT_EQ(engine_->stats().adapter_loads, 4) << "by the hints";
  EXPECT_EQ(engine_->stats().adapter_hits, 4);
}

// Neither from those that run, nor the page that each of them may need next.
TEST_P(EngineHostTierTest, AHintTakesNothingFromWhoRuns) {
  options_.limits.num_pages = 8;
  make_with(100);
  add(1, 4);
  add(1, 4);
  const Request runs = ask(1, 0, 6);
  step();
  engine_->prefetch_adapter(handles_[1]);
  run();
  expect_finished(runs, names_[0]);
  EXPECT_EQ(engine_->stats().preemptions, 0);
  EXPECT_FALSE(engine_->adapters()[1].resident) << "the hint came to nothing";
}

// ---- copies beside steps ----

class EngineCopiesTest : public EngineHostTierTest {
 protected:
  EngineCopiesTest() {
    options_.limits.copies_beside_steps = true;
    options_.turns_to_arrive = 5;
  }
};

INSTANTIATE_TEST_SUITE_P(StepsAhead, EngineCopiesTest, testing::Values(0, 1));

// The fake model throws where a copy holds others up.
TEST_P(EngineCopiesTest, WhoseAdapterIsOnItsWaySitsOut) {
  make_with(100);
  add(2);
  const Request runs = submit(request_of(1, prompt_of(3), 20));
  step();
  const int64_t placed = turn_;
  const Request a = ask(2, 0);
  const Request b = ask(3, 1);
  run();
  expect_finished(runs);
  expect_finished(a, names_[0]);
  expect_finished(b, names_[1]);
  EXPECT_GE(log_[2].token_turns.at(0), placed + 5);
  const std::vector<int64_t>& turns = log_[1].token_turns;
  for (size_t i = 1; i < turns.size(); ++i) EXPECT_EQ(turns[i], turns[i - 1] + 1);
}

TEST_P(EngineCopiesTest, OneAloneStartsAtOnce) {
  make_with(100);
  add(1);
  const int64_t before = turn_;
  const Request request = ask(1, 0);
  run();
  expect_finished(request, names_[0]);
  EXPECT_EQ(log_[1].token_turns.at(0), before + 1 + lag());
}

// ---- all of it, at random ----

TEST_P(EngineCopiesTest, AnyAdaptersInAnyOrder) {
  for (uint32_t seed = 1; seed <= 60 && !HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    const auto between = [&](int32_t low, int32_t high) {
      return low + static_cast<int32_t>(random() % static_cast<uint32_t>(high - low + 1));
    };
    options_.turns_to_arrive = between(0, 6);
    options_.limits.num_pages = between(24, 48);
    names_.clear();
    handles_.clear();
    log_ = {};
    make_with(between(3, 12), {.max_batch_tokens = between(8, 64), .max_sequences = between(1, 9)});
    for (int32_t i = 0; i < 12; ++i) add(1, between(1, 3));
    std::map<int32_t, std::pair<Request, Names>> requests;
    for (int32_t id = 1; id <= 80; ++id) {
      Request request = request_of(id, prompt_of(between(1, 20), id), between(1, 12));
      Names names;
      if (between(0, 5) > 0) {
        const int32_t first = between(0, 10);
        const int32_t count = between(0, 3) == 0 ? 2 : 1;
        int64_t images = 0;
        for (int32_t i = first; i < first + count; ++i) {
          request.adapters.push_back({handles_[i], 0.5f});
          names.push_back(names_[i]);
          images += engine_->adapters()[i].bytes / kImage;
        }
        if (images * kImage > engine_->stats().host.budget_bytes) continue;
      }
      if (between(0, 3) == 0) request.tenant = "tenant" + std::to_string(between(0, 3));
      if (between(0, 9) == 0) engine_->prefetch_adapter(handles_[between(0, 11)]);
      requests[id] = {submit(request), names.empty() ? Names{""} : names};
      for (int32_t i = between(0, 2); i > 0; --i) step();
      EXPECT_LE(engine_->stats().host.bytes, engine_->stats().host.budget_bytes);
    }
    run_with_readings();
    for (const auto& [id, made] : requests) {
      SCOPED_TRACE("request " + std::to_string(id) + " of " + made.second[0]);
      expect_finished(made.first, made.second);
    }
    expect_all_free();
  }
}

}  // namespace
}  // namespace lorax
