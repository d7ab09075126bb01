// One run of random steps on the fake model, which is looked at after each: the invariants hold,
// every request ends exactly once with what it gets alone, nobody waits for longer than the bound.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <set>
#include <string>

#include "engine/engine.h"
#include "engine/event_log.h"
#include "engine/expected_alone.h"
#include "engine/expected_governed.h"
#include "engine/fake_model.h"

namespace lorax {

// What came to pass over all episodes, to see that everything was tried.
struct SteadyTally {
  int64_t steps = 0, requests = 0, finished = 0, aborted = 0, preemptions = 0, evictions = 0;
  int64_t embedded = 0, chunked_embeddings = 0, set_aside = 0;
  std::map<std::string, int64_t> failures;
  std::map<FinishReason, int64_t> reasons;
  int64_t chunked_prefills = 0, longest_wait = 0, governed = 0, mixed = 0;
  int64_t cached = 0, cached_of_answers = 0, prefix_evictions = 0;
  double worst_wait_of_bound = 0.0;
};

class SteadyEpisode {
 public:
  SteadyEpisode(uint32_t seed, int32_t steps_ahead, SteadyTally* tally)
      : random_(seed), tally_(tally) {
    options_.steps_ahead = steps_ahead;
    options_.limits = {.vocab_size = between(2, 97),
                       .context_tokens = between(20, 90),
                       .num_pages = between(4, 48),
                       .page_bytes = 64,
                       .block_tokens = between(1, 6),
                       .hidden_size = between(1, 4)};
    limits_ = {.max_batch_tokens = between(1, 24),
               .max_queued = between(0, 12),
               .max_sequences = between(1, 9)};
    if (steps_ahead == 0) options_.num_layers = between(0, 3);
    options_.limits.can_set_aside = options_.num_layers > 0;
    options_.costs = {.page_ns = between(0, 2000), .token_ns = between(0, 2000)};
    options_.max_batch_tokens = limits_.max_batch_tokens;
    options_.max_logits_rows = limits_.max_sequences;
    auto model = std::make_unique<FakeModel>(options_);
    model_ = model.get();
    model_->on_layer = [this](int32_t) { ask(0.3); };
    engine_ = std::make_unique<Engine>(std::move(model), limits_, [] {});
    engine_->set_vocabulary(vocabulary());
  }

  void run(int64_t num_steps) {
    while (model_->num_forwards < num_steps && !testing::Test::HasFailure()) {
      if (turn_ % 300 == 0) arrivals_ = std::vector{0.02, 0.15, 0.5}[random_() % 3];
      ask(1);
      step();
      if (chance(0.6) || turn_ - last_take_ >= kLate) take();
    }
    model_->on_layer = nullptr;
    for (int32_t i = 0; step(); ++i) {
      ASSERT_LT(i, 100000) << "the engine does not come to rest";
      take();
    }
    take();
    tally_->steps += model_->num_forwards;
    tally_->set_aside += model_->num_set_aside;
    check_requests();
    check_no_leak();
  }

 private:
  struct Submitted {
    Request request;
    std::vector<std::string> adapter_names;
    int32_t adapter_pages = 0;
    bool adapter_known = true;
    int64_t turn = 0;
  };

  int32_t between(int32_t low, int32_t high) {
    return low + static_cast<int32_t>(random_() % static_cast<uint32_t>(high - low + 1));
  }
  bool chance(double p) { return static_cast<double>(random_()) < p * 4294967296.0; }

  void ask(double how_often) {
    while (chance(how_often * arrivals_)) submit();
    if (chance(how_often * 0.04)) cancel();
    if (chance(how_often * 0.02)) add_adapter();
    if (chance(how_often * 0.02)) remove_adapter();
  }

  void submit() {
    Submitted submitted;
    Request& request = submitted.request;
    request.id = ++last_id_;
    const int32_t context = options_.limits.context_tokens;
    const int32_t longest = chance(0.03) ? context + 5 : chance(0.3) ? context - 1 : context / 4;
    const auto length = static_cast<size_t>(between(1, longest));
    const char* scopes[] = {"", "", "", "one", "two"};
    request.cache_scope = scopes[random_() % 5];
    const bool same_adapters = chance(0.5) && begin_alike(length, &submitted);
    while (request.prompt.size() < length) {
      request.prompt.push_back(between(0, options_.limits.vocab_size - 1));
    }
    SamplingParams& sampling = request.sampling;
    sampling.max_output_tokens = chance(0.15) ? 0 : between(1, chance(0.3) ? context : context / 3);
    sampling.seed = random_();
    sampling.num_logprobs = between(-1, 2);
    if (chance(0.3)) sampling.repetition_penalty = 1.5f;
    if (chance(0.2)) sampling.presence_penalty = 0.5f;
    for (int32_t i = between(0, 2); i > 0; --i) {
      sampling.stop_token_ids.push_back(between(0, options_.limits.vocab_size - 1));
    }
    if (chance(0.25)) {
      request.sampling = {};
      request.embedding = {static_cast<Pooling>(between(0, 2)), chance(0.5)};
    }
    if (!same_adapters && !adapters_.empty() && chance(0.7)) use_adapters(&submitted);
    if (chance(0.01)) {
      request.adapters.push_back({1000000, 1.0f});
      submitted.adapter_known = false;
    }
    if (!request.embedding && chance(0.35)) request.grammar = some_grammar();
    if (chance(0.4)) {
      request.tenant = chance(0.8) ? "greedy" : "modest";
      request.tenant_weight = chance(0.5) ? 1.0f : 4.0f;
    }
    if (chance(0.2)) request.priority = between(-1, 1);
    submitted.turn = turn_;
    open_.insert(request.id);
    engine_->submit(request);
    requests_[request.id] = std::move(submitted);
  }

  // As an earlier request and its answer, up to `length` tokens. True when it has that one's
  // adapters too.
  bool begin_alike(size_t length, Submitted* submitted) {
    const auto earlier = requests_.find(last_id_ - between(1, 12));
    if (earlier == requests_.end()) return false;
    const Submitted& other = earlier->second;
    submitted->request.prompt = whole_of(other);
    if (submitted->request.prompt.size() > length) submitted->request.prompt.resize(length);
    if (chance(0.7)) submitted->request.cache_scope = other.request.cache_scope;
    const bool all_there = std::ranges::all_of(other.request.adapters, [&](const AdapterUse& use) {
      return adapters_.contains(use.handle);
    });
    if (!all_there || chance(0.2)) return false;
    submitted->request.adapters = other.request.adapters;
    submitted->adapter_names = other.adapter_names;
    submitted->adapter_pages = other.adapter_pages;
    return true;
  }

  // Prompt and answer, as far as they are known.
  std::vector<int32_t> whole_of(const Submitted& submitted) {
    std::vector<int32_t> tokens = submitted.request.prompt;
    const RequestLog& log = log_[submitted.request.id];
    tokens.insert(tokens.end(), log.tokens.begin(), log.tokens.end());
    return tokens;
  }

  // One adapter, or a mix of some.
  void use_adapters(Submitted* submitted) {
    const bool mixes = chance(0.4);
    const auto first = between(0, static_cast<int32_t>(adapters_.size()) - 1);
    int32_t index = 0;
    for (const auto& [handle, spec] : adapters_) {
      if (index++ != first && !(mixes && chance(0.4))) continue;
      const float weight = mixes ? static_cast<float>(between(-8, 8)) / 4 : 1.0f;
      const int32_t first = chance(0.3) ? between(0, options_.limits.context_tokens / 2) : 0;
      submitted->request.adapters.push_back({handle, weight, first});
      submitted->adapter_names.push_back(spec.hash);
      submitted->adapter_pages += static_cast<int32_t>(spec.modules.size());
    }
  }

  // "a", "b", and what can be made of them, for any number of tokens.
  grammar::TokenBytes vocabulary() const {
    const char* pieces[] = {"a", "b", "ab", "ba", "aab", "bb", "abab", ""};
    grammar::TokenBytes out;
    out.offsets.push_back(0);
    for (int32_t token = 0; token < options_.limits.vocab_size; ++token) {
      const std::string piece = pieces[token % 8];
      out.bytes.insert(out.bytes.end(), piece.begin(), piece.end());
      out.offsets.push_back(static_cast<uint32_t>(out.bytes.size()));
    }
    return out;
  }

  std::shared_ptr<grammar::Grammar> some_grammar() {
    const char* texts[] = {
        "root ::= \"a\" root \"b\" | ",
        "root ::= [ab]{3,8}",
        "root ::= \"aabbab\" [ab]* \"ababbb\"",
        "root ::= [ab]* (\"ab\" | \"ba\" root)",
        "root ::= \"a\" (\"bbbbbbbb\" | [ab]{2}) root?",
        "root ::= root \"ab\" | root root \"b\" | \"aa\"",
    };
    auto made = engine_->compile_grammar(texts[random_() % 6]);
    if (!chance(0.2)) return made;
    const std::vector<grammar::Trigger> triggers = {std::string("ba"), int32_t{0}};
    return made->behind(triggers);
  }

  void cancel() {
    if (open_.empty()) return;
    auto victim = open_.begin();
    std::advance(victim, between(0, static_cast<int32_t>(open_.size()) - 1));
    engine_->cancel(*victim);
  }

  void add_adapter() {
    if (adapters_.size() >= 6) return;
    const int32_t pages = between(1, std::max(1, options_.limits.num_pages * 2 / 3));
    const AdapterSpec spec = fake_adapter("adapter" + std::to_string(random_()), pages);
    adapters_[engine_->add_adapter(spec)] = spec;
  }

  void remove_adapter() {
    if (adapters_.empty()) return;
    auto adapter = adapters_.begin();
    std::advance(adapter, between(0, static_cast<int32_t>(adapters_.size()) - 1));
    engine_->remove_adapter(adapter->first);
    adapters_.erase(adapter);
  }

  bool step() {
    ++turn_;
    const bool worked = engine_->step();
    try {
      engine_->check_invariants();
    } catch (const std::logic_error& error) {
      ADD_FAILURE() << "turn " << turn_ << ": " << error.what();
      return false;
    }
    const EngineStats::Pages pages = engine_->stats().pages;
    EXPECT_EQ(pages.free + pages.kv + pages.cold + pages.adapter + pages.retiring, pages.total);
    return worked;
  }

  void take() {
    const std::vector<int32_t> started = log_.add(engine_->take_events(), turn_);
    last_take_ = turn_;
    for (const int32_t id : started) {
      const Request& request = requests_.at(id).request;
      int32_t& last = last_started_[{line_of(request), request.priority}];
      EXPECT_GT(id, last) << "a tenant's requests start in order of arrival";
      last = id;
    }
    for (auto id = open_.begin(); id != open_.end();) {
      EXPECT_NE(log_[*id].failure.code, "ENGINE_LOST") << log_[*id].failure.message;
      id = log_[*id].ending == Ending::kOpen ? std::next(id) : open_.erase(id);
    }
  }

  std::string expected_refusal(const Submitted& submitted) const {
    const Request& request = submitted.request;
    const auto prompt = static_cast<int32_t>(request.prompt.size());
    const int32_t outputs = request.embedding ? 0 : std::max(1, request.sampling.max_output_tokens);
    if (!submitted.adapter_known) return "ADAPTER_NOT_FOUND";
    if (prompt + outputs > options_.limits.context_tokens) return "CONTEXT_TOO_LONG";
    const int32_t block = options_.limits.block_tokens;
    const int32_t kv = request.embedding ? prompt : prompt + outputs - 1;
    const int32_t pages = (kv + block - 1) / block + submitted.adapter_pages;
    if (pages > options_.limits.num_pages) return "POOL_EXHAUSTED";
    if (request.grammar == nullptr) return "";
    const int32_t left =
        max_sequence_tokens(request, options_.limits, submitted.adapter_pages) - prompt;
    if (static_cast<int32_t>(request.grammar->shortest()) <= left) return "";
    return request.sampling.max_output_tokens > 0 ? "INVALID_OPTIONS" : "CONTEXT_TOO_LONG";
  }

  void check_requests() {
    ASSERT_EQ(log_.requests.size(), requests_.size()) << "every request is heard of";
    for (const auto& [id, submitted] : requests_) {
      SCOPED_TRACE("request " + std::to_string(id));
      const RequestLog& log = log_[id];
      ++tally_->requests;
      const Expected alone = expected_alone_or_empty(submitted);
      ASSERT_LE(log.tokens.size(), alone.tokens.size());
      ASSERT_TRUE(std::equal(log.tokens.begin(), log.tokens.end(), alone.tokens.begin()))
          << "its tokens are not those it gets alone";
      const std::string refusal = expected_refusal(submitted);
      switch (log.ending) {
        case Ending::kOpen:
          FAIL() << "it never ended";
        case Ending::kAborted:
          ++tally_->aborted;
          break;
        case Ending::kFailed:
          ++tally_->failures[log.failure.code];
          ASSERT_TRUE(log.tokens.empty()) << log.failure.message;
          if (refusal.empty()) {
            ASSERT_EQ(log.failure.code, "QUEUE_FULL") << log.failure.message;
            ASSERT_GE(std::get<double>(log.failure.data.at("waiting")), limits_.max_queued);
          } else {
            ASSERT_EQ(log.failure.code, refusal);
          }
          break;
        case Ending::kFinished:
          ++tally_->finished;
          ++tally_->reasons[log.reason];
          ASSERT_EQ(refusal, "");
          check_finished(submitted, log, alone);
          break;
        case Ending::kEmbedded:
          ASSERT_EQ(refusal, "");
          check_embedded(submitted, log);
          break;
      }
      if (!log.started) continue;
      check_wait(submitted, log);
      check_cached(submitted, log);
    }
    tally_->prefix_evictions += engine_->stats().prefix_evictions;
    tally_->preemptions += engine_->stats().preemptions;
    tally_->evictions += engine_->stats().adapter_evictions;
  }

  Expected expected_alone_or_empty(const Submitted& submitted) const {
    if (!expected_refusal(submitted).empty() || submitted.request.embedding) return {};
    if (submitted.request.grammar != nullptr) {
      return expected_governed(submitted.request, submitted.adapter_names, options_.limits,
                               submitted.adapter_pages);
    }
    return expected_alone(submitted.request, submitted.adapter_names, options_.limits);
  }

  void check_finished(const Submitted& submitted, const RequestLog& log, const Expected& alone) {
    const auto prompt = static_cast<int32_t>(submitted.request.prompt.size());
    if (prompt > limits_.max_batch_tokens) ++tally_->chunked_prefills;
    if (submitted.request.grammar != nullptr) ++tally_->governed;
    if (submitted.request.adapters.size() > 1) ++tally_->mixed;
    if (log.reason == FinishReason::kPool && submitted.request.grammar == nullptr) {
      ASSERT_EQ(submitted.request.sampling.max_output_tokens, 0);
      const int32_t tokens = prompt + static_cast<int32_t>(log.tokens.size());
      const int32_t block = options_.limits.block_tokens;
      ASSERT_GT((tokens + block - 1) / block + submitted.adapter_pages, options_.limits.num_pages)
          << "the pool was not full";
      return;
    }
    ASSERT_EQ(log.reason, alone.reason);
    ASSERT_EQ(log.tokens.size(), alone.tokens.size());
  }

  void check_embedded(const Submitted& submitted, const RequestLog& log) {
    const Request& request = submitted.request;
    ASSERT_TRUE(request.embedding.has_value());
    ASSERT_EQ(log.embedding, embedding_alone(request, submitted.adapter_names, options_.limits));
    ++tally_->embedded;
    const bool chunked = static_cast<int32_t>(request.prompt.size()) > limits_.max_batch_tokens;
    if (chunked && request.embedding->pooling == Pooling::kMean) ++tally_->chunked_embeddings;
  }

  // Whose line it waits in.
  static std::string line_of(const Request& request) {
    if (!request.tenant.empty()) return request.tenant;
    std::string line = "of adapters";
    for (const AdapterUse& use : request.adapters) line += " " + std::to_string(use.handle);
    return line;
  }

  // Of those that had a turn, the first is never preempted and computes at least a token a step: so
  // a request waits no longer than all together have tokens that had theirs before it (plus a step
  // each in which a full pool is noticed).
  void check_wait(const Submitted& submitted, const RequestLog& log) {
    int64_t bound = 1;
    for (const auto& [id, other] : requests_) {
      const RequestLog& before = log_[id];
      if (!before.started || before.started_turn > log.started_turn) continue;
      if (before.ended_turn < submitted.turn || &before == &log) continue;
      bound += static_cast<int64_t>(other.request.prompt.size() + before.tokens.size()) + 1;
    }
    const int64_t wait = log.started_turn - submitted.turn;
    ASSERT_LE(wait, bound + kLate) << "it starved";
    const int64_t own =
        static_cast<int64_t>(submitted.request.prompt.size() + log.tokens.size()) + 1;
    ASSERT_LE(log.ended_turn - submitted.turn, bound + own + kLate) << "it starved";
    tally_->longest_wait = std::max(tally_->longest_wait, wait);
    if (bound > 50) {
      tally_->worst_wait_of_bound =
          std::max(tally_->worst_wait_of_bound, static_cast<double>(wait) / bound);
    }
  }

  // Full blocks, never all of the prompt, and each was computed by another request of the same
  // adapters and scope.
  void check_cached(const Submitted& submitted, const RequestLog& log) {
    const Request& request = submitted.request;
    const auto num_prompt = static_cast<int32_t>(request.prompt.size());
    ASSERT_LE(log.cached_tokens, num_prompt);
    if (log.cached_tokens == 0) return;
    ASSERT_FALSE(request.embedding);
    const bool has_forced_tokens = request.grammar != nullptr && log.cached_tokens == num_prompt;
    ASSERT_TRUE(has_forced_tokens || (log.cached_tokens < num_prompt &&
                                      log.cached_tokens % options_.limits.block_tokens == 0));
    ++tally_->cached;
    const auto same = [](const AdapterUse& a, const AdapterUse& b) {
      return a.handle == b.handle && a.weight == b.weight && a.first_position == b.first_position;
    };
    const auto is_of_base = [&](const Request& any) {
      return std::ranges::all_of(any.adapters, [&](const AdapterUse& use) {
        return use.first_position >= log.cached_tokens;
      });
    };
    bool of_prompt = false, of_answer = false;
    for (const auto& [id, other] : requests_) {
      if (id == request.id || log_[id].started_turn > log.started_turn) continue;
      if (other.request.embedding || !log_[id].started ||
          other.request.cache_scope != request.cache_scope ||
          !(is_of_base(request)
                ? is_of_base(other.request)
                : std::ranges::equal(other.request.adapters, request.adapters, same))) {
        continue;
      }
      const std::vector<int32_t> whole = whole_of(other);
      const auto differs = std::ranges::mismatch(whole, request.prompt).in1 - whole.begin();
      if (differs < log.cached_tokens) continue;
      const bool in_prompt = static_cast<int32_t>(other.request.prompt.size()) >= log.cached_tokens;
      (in_prompt ? of_prompt : of_answer) = true;
    }
    ASSERT_TRUE(of_prompt || of_answer) << "it was given what nobody computed";
    tally_->cached_of_answers += !of_prompt;
  }

  void check_no_leak() {
    EngineStats stats = engine_->stats();
    ASSERT_EQ(stats.running + stats.waiting, 0);
    ASSERT_EQ(stats.pages.kv, 0);
    ASSERT_EQ(stats.pages.retiring, 0);
    ASSERT_EQ(stats.pages.free + stats.pages.cold + stats.pages.adapter, stats.pages.total);
    ASSERT_EQ(engine_->adapters().size(), adapters_.size()) << "removed adapters are gone";
    for (const AdapterStatus& status : engine_->adapters()) ASSERT_EQ(status.active_requests, 0);
    for (const auto& [handle, spec] : adapters_) engine_->remove_adapter(handle);
    step();
    stats = engine_->stats();
    ASSERT_EQ(stats.pages.free + stats.pages.cold, stats.pages.total);
    const auto ended = static_cast<int64_t>(requests_.size());
    ASSERT_EQ(stats.finished + stats.aborted + stats.failed, ended);
  }

  static constexpr int64_t kLate = 3;  // turns after which events are taken at the latest

  std::mt19937 random_;
  SteadyTally* tally_;
  FakeModelOptions options_;
  EngineLimits limits_;
  FakeModel* model_ = nullptr;
  std::unique_ptr<Engine> engine_;
  EventLog log_;
  std::map<int32_t, Submitted> requests_;
  std::set<int32_t> open_;
  std::map<int32_t, AdapterSpec> adapters_;
  double arrivals_ = 0.1;
  int64_t turn_ = 0, last_take_ = 0;
  int32_t last_id_ = 0;
  std::map<std::pair<std::string, int32_t>, int32_t> last_started_;  // by line and priority
};

}  // namespace lorax
