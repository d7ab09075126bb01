// Requests whose output a grammar governs, beside others: masks, forced tokens, ends, refusals. The
// parameter as in engine_fixture.h.
#include <algorithm>
#include <numeric>
#include <string>

#include "engine/engine_fixture.h"
#include "engine/expected_governed.h"
#include "grammar/random_grammar.h"

namespace lorax {
namespace {

constexpr int32_t kVocab = 300;
constexpr int32_t kEos = 299;

const char* const kPair =
    "root ::= \"{\\\"name\\\":\" [0-9]{1,20} \",\\\"more\\\":\" word \"}\"\n"
    "word ::= \"\\\"\" [a-z]* \"\\\"\"";

class EngineGrammarTest : public EngineFixture {
 protected:
  EngineGrammarTest() {
    options_.limits.vocab_size = kVocab;
    options_.limits.context_tokens = 200;
    options_.limits.num_pages = 200;
    tokens_ = grammar::all_bytes();
    for (const char* more : {"{\"", "name", "\":", "12", "345", ",\"", "\"}", "ab", "xyz"}) {
      tokens_.emplace_back(more);
    }
  }

  void make(EngineLimits limits = {}) {
    EngineFixture::make(limits);
    engine_->set_vocabulary(bytes_of(tokens_));
  }

  static grammar::TokenBytes bytes_of(const std::vector<std::string>& tokens) {
    grammar::TokenBytes out;
    out.offsets.push_back(0);
    for (const std::string& token : tokens) {
      out.bytes.insert(out.bytes.end(), token.begin(), token.end());
      out.offsets.push_back(static_cast<uint32_t>(out.bytes.size()));
    }
    return out;
  }

  Request governed(int32_t id, const std::string& text, int32_t max_output_tokens) {
    Request request = request_of(id, prompt_of(5, id), max_output_tokens);
    request.grammar = engine_->compile_grammar(text);
    request.sampling.stop_token_ids = {kEos};
    return request;
  }

  std::string text_of(int32_t id) {
    std::string out;
    for (const int32_t token : log_[id].tokens) {
      if (token < static_cast<int32_t>(tokens_.size())) out += tokens_[static_cast<size_t>(token)];
    }
    return out;
  }

  void expect_governed(const Request& request, const std::string& adapter = "") {
    SCOPED_TRACE("request " + std::to_string(request.id));
    const Expected expected = expected_governed(request, {adapter}, options_.limits);
    EXPECT_EQ(log_[request.id].ending, Ending::kFinished) << log_[request.id].failure.message;
    EXPECT_EQ(log_[request.id].reason, expected.reason);
    EXPECT_EQ(log_[request.id].tokens, expected.tokens) << text_of(request.id);
  }

  // Whether the output, up to a stop token, is all that its grammar asks for.
  bool is_whole(const Request& request) {
    grammar::Matcher matcher(request.grammar);
    for (const int32_t token : log_[request.id].tokens) {
      if (token == kEos) break;
      if (!matcher.accept(token)) return false;
    }
    return matcher.is_whole();
  }

  std::vector<std::string> tokens_;
};

INSTANTIATE_TEST_SUITE_P(StepsAhead, EngineGrammarTest, testing::Values(0, 1));

TEST_P(EngineGrammarTest, GovernedAndFreeInOneBatch) {
  make();
  const int32_t a = engine_->add_adapter(fake_adapter("a", 3));
  std::vector<Request> all;
  for (int32_t id = 1; id <= 12; ++id) {
    Request request = request_of(id, prompt_of(3 + id, id), 30, id % 3 == 0 ? a : -1);
    if (id % 2 == 0) {
      request.grammar =
          engine_->compile_grammar(id % 4 == 0 ? kPair : "root ::= [a-z]{3,} | root \"!\"");
      request.sampling.stop_token_ids = {kEos};
    }
    if (id % 5 == 0) request.sampling.repetition_penalty = 1.3f;
    all.push_back(submit(request));
  }
  run();
  for (const Request& request : all) {
    const std::string adapter = request.adapters.empty() ? "" : "a";
    if (request.grammar == nullptr) {
      expect_finished(request, adapter);
    } else {
      expect_governed(request, adapter);
      EXPECT_TRUE(is_whole(request)) << text_of(request.id);
    }
  }
  expect_all_free();
}

// Those beside it take as many steps as they have tokens.
TEST_P(EngineGrammarTest, NobodyWaitsForAMask) {
  make();
  const Request governed_one = submit(governed(1, "root ::= [a-z]{40}", 50));
  const Request other = submit(request_of(2, prompt_of(5), 40));
  run();
  expect_governed(governed_one);
  expect_finished(other);
  EXPECT_EQ(log_[2].ended_turn, 40 + lag());
  EXPECT_LE(log_[1].ended_turn, 40 + lag());
  EXPECT_EQ(engine_->stats().steps, 40);
}

// A step's masks are filled when the step before is known, and read when it is sampled.
TEST_P(EngineGrammarTest, MasksAreFilledBeforeTheStepIsSampled) {
  make();
  int32_t num_filled = 0, num_empty = 0;
  model_->on_sample = [&](const StepPlan& plan) {
    for (const SampleRow& row : plan.samples) {
      if (row.mask == nullptr) continue;
      const bool filled = std::any_of(row.mask, row.mask + (kVocab + 31) / 32,
                                      [](uint32_t word) { return word != 0; });
      ++(filled ? num_filled : num_empty);
    }
  };
  submit(governed(1, "root ::= \"q\" [cd]{9}", 20));
  run();
  EXPECT_EQ(log_[1].tokens.size(), 11u) << "q and what ends it are forced: " << text_of(1);
  EXPECT_EQ(num_filled, 9) << "one for each token with a choice";
  EXPECT_EQ(num_empty, lag()) << "of a step that nobody waits for";
}

TEST_P(EngineGrammarTest, ForcedTokensAreOutputsThatTakeNoSteps) {
  make();
  const Request request = submit(governed(1, "root ::= \"cdefghijklmn\" [01] \"opqrstuvwx\"", 40));
  run();
  expect_governed(request);
  EXPECT_EQ(log_[1].tokens.size(), 12u + 1 + 10 + 1) << text_of(1);
  EXPECT_EQ(log_[1].reason, FinishReason::kStopToken);
  EXPECT_EQ(engine_->stats().output_tokens, 24);
  EXPECT_EQ(engine_->stats().steps, 1 + lag()) << "the one token with a choice";
  EXPECT_EQ(model_->num_rows, 5 + 12 + lag());
  const Request both = submit(governed(2, "root ::= [01] \"cdefghijklmn\" [01]", 40));
  run();
  expect_governed(both);
  EXPECT_EQ(log_[2].tokens.size(), 1u + 12 + 1 + 1);
  EXPECT_EQ(engine_->stats().steps, 1 + lag() + 2 + 2 * lag())
      << "what was in flight is not sampled";
  EXPECT_EQ(model_->num_rows, 5 + 12 + lag() + 5 + 13 + lag()) << "nothing is computed twice";
  expect_all_free();
}

// A forced token is worth a row, a free one too: a long run does not hold up the others.
TEST_P(EngineGrammarTest, ALongRunLeavesTheOthersTheirRows) {
  make({.max_batch_tokens = 8});
  const Request other = submit(request_of(2, prompt_of(3), 30));
  Request request = governed(1, "root ::= [01] \"" + std::string(60, 'q') + "\" [01]", 80);
  submit(request);
  run();
  expect_governed(request);
  expect_finished(other);
  EXPECT_EQ(log_[2].ended_turn, 30 + lag());
}

TEST_P(EngineGrammarTest, WithLogprobsTheTokensAreTheSame) {
  make();
  const Request plain = submit(governed(1, kPair, 60));
  run();
  Request reporting = plain;
  reporting.id = 2;
  reporting.sampling.num_logprobs = 1;
  submit(reporting);
  run();
  expect_governed(reporting);
  EXPECT_EQ(log_[2].tokens, log_[1].tokens);
  EXPECT_EQ(log_[2].logprobs.size(), log_[2].tokens.size());
  EXPECT_EQ(log_[2].reason, log_[1].reason);
}

TEST_P(EngineGrammarTest, HowOutputsEnd) {
  make();
  const auto reason_of = [&](Request request) {
    log_.requests.erase(request.id);
    submit(request);
    run();
    expect_governed(request);
    EXPECT_TRUE(is_whole(request)) << text_of(request.id);
    return log_[request.id].reason;
  };
  EXPECT_EQ(reason_of(governed(1, "root ::= \"abc\"", 40)), FinishReason::kStopToken);
  EXPECT_EQ(log_[1].tokens.back(), kEos);
  EXPECT_EQ(reason_of(governed(1, "root ::= [ab]", 1)), FinishReason::kGrammar)
      << "whole, with no room for a stop token";
  Request at_the_end = governed(1, "root ::= [a-c]{5,}", 5);
  at_the_end.sampling.stop_token_ids.clear();
  EXPECT_EQ(reason_of(at_the_end), FinishReason::kGrammar) << "whole at its budget's end";
  Request endless = governed(1, "root ::= [cd]{7}", 40);
  endless.sampling.stop_token_ids.clear();
  EXPECT_EQ(reason_of(endless), FinishReason::kGrammar) << "there is no stop token";
  EXPECT_EQ(log_[1].tokens.size(), 7u);
  expect_all_free();
}

// Outputs end whole whatever their budget, down to the shortest there is.
TEST_P(EngineGrammarTest, EveryBudgetIsKept) {
  make();
  const auto shortest = static_cast<int32_t>(engine_->compile_grammar(kPair)->shortest());
  std::vector<Request> all;
  for (int32_t budget = shortest; budget < shortest + 25; ++budget) {
    all.push_back(submit(governed(budget, kPair, budget)));
  }
  run();
  for (const Request& request : all) {
    expect_governed(request);
    EXPECT_TRUE(is_whole(request)) << text_of(request.id);
  }
}

// With no maximum of its own an output still ends whole: before the context does, or the pool.
TEST_P(EngineGrammarTest, TheContextAndThePoolAreBudgetsToo) {
  options_.limits.context_tokens = 40;
  make();
  const Request in_context = submit(governed(1, "root ::= \"(\" [a-z]* \")\"", 0));
  run();
  expect_governed(in_context);
  EXPECT_TRUE(is_whole(in_context)) << text_of(1);
  log_.requests.clear();
  options_.limits.num_pages = 5;  // of 4 tokens
  make();
  Request in_pool = governed(2, "root ::= \"(\" [a-z]* \")\"", 0);
  in_pool.sampling.stop_token_ids.clear();
  submit(in_pool);
  run();
  expect_governed(in_pool);
  EXPECT_TRUE(is_whole(in_pool)) << text_of(2);
  EXPECT_LE(log_[2].tokens.size(), 16u);
}

TEST_P(EngineGrammarTest, BehindATrigger) {
  make();
  const std::vector<grammar::Trigger> triggers = {std::string("q"), int32_t{298}};
  std::vector<Request> all;
  int32_t num_fired = 0;
  for (int32_t id = 1; id <= 40; ++id) {
    Request request = governed(id, "root ::= \"{\" [0-9]{2,4} \"}\"", 40);
    request.grammar = request.grammar->behind(triggers);
    all.push_back(submit(request));
  }
  run();
  for (const Request& request : all) {
    expect_governed(request);
    const auto& tokens = log_[request.id].tokens;
    const bool fired = std::any_of(tokens.begin(), tokens.end(),
                                   [](int32_t token) { return token == 'q' || token == 298; });
    num_fired += fired;
    EXPECT_EQ(is_whole(request), fired) << text_of(request.id);
  }
  EXPECT_GT(num_fired, 3);
  EXPECT_LT(num_fired, 40);
}

TEST_P(EngineGrammarTest, APreemptedSequenceKeepsItsPlaceInTheGrammar) {
  options_.limits.num_pages = 9;
  options_.limits.context_tokens = 36;
  make();
  std::vector<Request> all;
  for (int32_t id = 1; id <= 3; ++id) {
    all.push_back(submit(governed(id, "root ::= [a-z]{4} \"abcdefg\" [a-z]{6,} \"!\"", 26)));
  }
  run();
  EXPECT_GT(engine_->stats().preemptions, 0);
  for (const Request& request : all) {
    expect_governed(request);
    EXPECT_TRUE(is_whole(request)) << text_of(request.id);
  }
  expect_all_free();
}

TEST_P(EngineGrammarTest, CancelledAtAnyTime) {
  make();
  const Request other = submit(governed(100, kPair, 50));
  for (int32_t after = 0; after < 12; ++after) {
    const int32_t id = 1 + after;
    submit(governed(id, "root ::= \"cdefgh\" [g-k]{3} \"cdefgh\" [g-k]{20}", 60));
    for (int32_t i = 0; i < after; ++i) step();
    engine_->cancel(id);
    step();
    EXPECT_EQ(log_[id].ending, Ending::kAborted);
  }
  run();
  expect_governed(other);
  expect_all_free();
}

TEST_P(EngineGrammarTest, WhatCannotBeIsRefused) {
  make();
  Request request = governed(1, "root ::= [a-z]{30}", 29);
  submit(request);
  run();
  EXPECT_EQ(log_[1].failure.code, "INVALID_OPTIONS");
  EXPECT_EQ(number(log_[1].failure, "shortestTokens"), 30);
  EXPECT_EQ(number(log_[1].failure, "maxOutputTokens"), 29);
  request.id = 2;
  request.grammar = engine_->compile_grammar("root ::= [a-z]{400}");
  request.sampling.max_output_tokens = 0;
  submit(request);
  run();
  EXPECT_EQ(log_[2].failure.code, "CONTEXT_TOO_LONG");
  EXPECT_EQ(number(log_[2].failure, "shortestTokens"), 400);

  try {
    engine_->compile_grammar("root ::= \"a\"\nother ::= missing");
    ADD_FAILURE() << "it was compiled";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), "GRAMMAR_INVALID");
    EXPECT_EQ(std::get<double>(error.data().at("line")), 2);
    EXPECT_EQ(std::get<double>(error.data().at("column")), 11);
    EXPECT_EQ(std::get<std::string>(error.data().at("rule")), "missing");
  }
  EXPECT_THROW(engine_->set_vocabulary(bytes_of(tokens_)), Error) << "it has one";
  request.grammar = grammar::Grammar::compile("root ::= \"a\"", grammar::vocabulary_of(tokens_));
  request.id = 3;
  EXPECT_THROW(engine_->submit(request), Error) << "another engine's";
  EngineFixture::make();
  EXPECT_THROW(engine_->compile_grammar("root ::= \"a\""), Error) << "there is no vocabulary yet";
}

TEST_P(EngineGrammarTest, EqualTextsShareOneGrammarAndHandlesLetGo) {
  make();
  auto handle = engine_->compile_grammar(kPair);
  EXPECT_EQ(engine_->compile_grammar(kPair), handle);
  const std::weak_ptr<grammar::Grammar> compiled = handle;
  submit(governed(1, kPair, 40));
  for (int32_t i = 0; i < 200; ++i) {
    engine_->compile_grammar("root ::= \"" + std::to_string(i) + "\"");
  }
  EXPECT_NE(engine_->compile_grammar(kPair), handle) << "it was pushed out";
  handle.reset();
  EXPECT_FALSE(compiled.expired()) << "the request still has it";
  run();
  EXPECT_EQ(log_[1].ending, Ending::kFinished);
  EXPECT_TRUE(compiled.expired());
}

// A grammar that gets out of hand ends the request that uses it, and nobody else's.
TEST_P(EngineGrammarTest, TooAmbiguousAGrammarFailsItsRequest) {
  options_.limits.context_tokens = 9000;
  options_.limits.num_pages = 4000;
  make();
  // After n tokens every one of 40 rules may have begun at any of them.
  std::string any = "root ::= root root", rules;
  for (int32_t i = 0; i < 40; ++i) {
    const std::string name = "d" + std::to_string(i);
    any += " | " + name;
    rules += name + " ::= \"a\" root? d" + std::to_string((i + 1) % 40) + "?\n";
  }
  Request wild = governed(1, any + "\n" + rules, 6000);
  wild.sampling.stop_token_ids.clear();
  submit(wild);
  const Request other = submit(request_of(2, prompt_of(5), 40));
  run();
  expect_finished(other);
  EXPECT_EQ(log_[1].ending, Ending::kFailed);
  EXPECT_EQ(log_[1].failure.code, "GRAMMAR_INVALID");
  EXPECT_NE(log_[1].failure.message.find("too ambiguous"), std::string::npos);
  expect_all_free();
}

TEST_P(EngineGrammarTest, AStopTokenTheGrammarNeedsIsTheLastResort) {
  make();
  // 'b' stops, says the request; the grammar has other ways, then none.
  Request request = governed(1, "root ::= [abc]{5} \"x\"", 40);
  request.sampling.stop_token_ids = {'b'};
  submit(request);
  Request without = governed(2, "root ::= \"c\" \"d\" \"e\"", 40);
  without.sampling.stop_token_ids = {'d'};
  submit(without);
  run();
  expect_governed(request);
  EXPECT_EQ(std::count(log_[1].tokens.begin(), log_[1].tokens.end() - 1, 'b'), 0);
  EXPECT_TRUE(is_whole(request) || log_[1].tokens.back() == 'b');
  EXPECT_EQ(log_[2].tokens, (Ints{'c', 'd'}));
  EXPECT_EQ(log_[2].reason, FinishReason::kStopToken);
}

TEST_P(EngineGrammarTest, AModelThatIgnoresItsMaskEndsTheEngine) {
  make();
  submit(governed(1, "root ::= [a-z]{20}", 40));
  model_->ignores_masks = true;
  run();
  EXPECT_EQ(log_[1].failure.code, "ENGINE_LOST");
}

}  // namespace
}  // namespace lorax
