// Whatever is chosen among what the masks allow, the output ends whole within its budget; and what
// is forced is what would have been chosen anyway.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <string>

#include "grammar/gbnf_parser.h"
#include "grammar/matcher.h"
#include "grammar/naive_recognizer.h"
#include "grammar/random_grammar.h"

namespace lorax::grammar {
namespace {

std::shared_ptr<Grammar> compile_or_null(const std::string& text,
                                         const std::shared_ptr<const Vocabulary>& vocabulary) {
  try {
    return Grammar::compile(text, vocabulary);
  } catch (const Fault&) {
    return nullptr;  // matcher_test says when
  }
}

std::vector<int32_t> members(const TokenSet& set, int32_t size) {
  std::vector<int32_t> out;
  for (int32_t token = 0; token < size; ++token) {
    if (contains(set, token)) out.push_back(token);
  }
  return out;
}

struct Outcome {
  int32_t num_tokens = 0;
  bool whole = false;
  std::vector<int32_t> tokens;
};

// Random choices up to `budget`; ends where it may with a chance of one in `ends`.
Outcome run(const std::shared_ptr<Grammar>& grammar, int32_t budget, int32_t ends, bool jumps,
            RandomGrammar& random) {
  Matcher matcher(grammar);
  Outcome out;
  TokenSet mask(grammar->vocabulary()->num_words());
  while (true) {
    const int32_t left = budget - static_cast<int32_t>(out.tokens.size());
    if (matcher.may_end() && (left == 0 || matcher.is_final() || random.below(ends) == 0)) {
      out.whole = true;
      return out;
    }
    if (left == 0) return out;
    if (jumps) {
      const std::vector<int32_t> forced = matcher.take_forced(left, {}, true);
      out.tokens.insert(out.tokens.end(), forced.begin(), forced.end());
      if (!forced.empty()) continue;
    }
    matcher.fill_mask(left, mask);
    const std::vector<int32_t> allowed = members(mask, grammar->vocabulary()->size());
    if (allowed.empty()) {
      out.whole = matcher.may_end();  // it may end, and has no room for more
      return out;
    }
    const int32_t token =
        allowed[static_cast<size_t>(random.below(static_cast<int32_t>(allowed.size())))];
    EXPECT_TRUE(matcher.accept(token));
    out.tokens.push_back(token);
  }
}

void expect_all_close(bool every_byte, uint32_t first_seed) {
  int64_t runs = 0, at_the_limit = 0, not_shortest = 0;
  for (uint32_t seed = first_seed; seed < first_seed + 100; ++seed) {
    RandomGrammar random(seed);
    std::vector<std::string> tokens = random.tokens(40);
    if (every_byte) {
      for (const std::string& byte : all_bytes()) tokens.push_back(byte);
    }
    const auto vocabulary = vocabulary_of(tokens, 1);
    const std::string text = random.text(seed % 4 == 0 ? 10 : 0);
    SCOPED_TRACE("seed " + std::to_string(seed) + "\n" + text);
    const auto grammar = compile_or_null(text, vocabulary);
    if (grammar == nullptr || grammar->shortest() > 40) continue;
    const auto shortest = static_cast<int32_t>(grammar->shortest());
    for (int32_t i = 0; i < 20; ++i) {
      const int32_t budget = shortest + (i % 4 == 0 ? 0 : random.below(12));
      const Outcome out = run(grammar, budget, 1 + i * i, i % 2 == 0, random);
      ASSERT_TRUE(out.whole) << "budget " << budget << ", shortest " << shortest;
      ASSERT_LE(static_cast<int32_t>(out.tokens.size()), budget);
      ++runs;
      at_the_limit += static_cast<int32_t>(out.tokens.size()) == budget ? 1 : 0;
      not_shortest += static_cast<int32_t>(out.tokens.size()) > shortest ? 1 : 0;
      // It matches, if every token means its bytes.
      std::vector<int32_t> bytes;
      for (const int32_t token : out.tokens) {
        for (const char byte : vocabulary->bytes(token))
          bytes.push_back(static_cast<uint8_t>(byte));
      }
      if (seed % 4 != 0 && bytes.size() < 16 && i < 4) {
        ASSERT_TRUE(NaiveRecognizer(parse_gbnf(text), bytes).matches());
      }
    }
    grammar->states().check_invariants();
  }
  EXPECT_GT(runs, 400);
  EXPECT_GT(at_the_limit, runs / 8);
  EXPECT_GT(not_shortest, runs / 8);
}

TEST(Closing, RandomOutputsEndWholeWithinTheirBudget) { expect_all_close(true, 1); }

// Bytes that are no token by themselves: ways out that other tokens have to make.
TEST(Closing, AlsoWhereTheVocabularyLacksBytes) { expect_all_close(false, 1000); }

TEST(Closing, CostsAreThoseOfTheTokensThereAre) {
  std::vector<std::string> tokens = all_bytes();
  for (const char* more : {"ab", "abc", "cdef", "\"name\"", "\":"}) tokens.emplace_back(more);
  const auto vocabulary = vocabulary_of(tokens, 20);
  const auto shortest = [&](const std::string& text) {
    return Grammar::compile(text, vocabulary)->shortest();
  };
  EXPECT_EQ(shortest("root ::= \"abcdef\""), 2u) << "ab cdef, not abc d e f";
  EXPECT_EQ(shortest("root ::= \"abcabc\" | \"xyz\""), 3u) << "along the way with the fewest bytes";
  EXPECT_EQ(shortest("root ::= \"\""), 0u);
  EXPECT_EQ(shortest("root ::= [a-z]{7}"), 7u) << "a class has no token of its own";
  EXPECT_EQ(shortest("root ::= \"{\" ws \"\\\"name\\\"\" ws \":\" \"}\"\nws ::= \" \"*"), 4u)
      << "what may be nothing parts no token";
  EXPECT_EQ(shortest("root ::= <[270]> \"abc\""), 2u);
  EXPECT_EQ(shortest("root ::= list\nlist ::= \"[\" (list (\",\" list){2})? \"]\""), 2u);
  EXPECT_THROW(shortest("root ::= <[5000]>"), Fault) << "no such token";
}

// A bound may be too high, never too low: the true number of tokens by exhaustive search.
TEST(Closing, CostsAreNeverTooLow) {
  int64_t exact = 0, checked = 0;
  for (uint32_t seed = 1; seed <= 300; ++seed) {
    RandomGrammar random(seed);
    std::vector<std::string> tokens = random.tokens(12);
    for (const char* byte : {"a", "b", "\"", " "}) tokens.emplace_back(byte);
    const auto vocabulary = vocabulary_of(tokens);
    const auto grammar = compile_or_null(random.text(), vocabulary);
    if (grammar == nullptr || grammar->shortest() > 6) continue;
    StateTable& states = grammar->states();
    std::vector<StateId> here = {states.start()};
    Cost fewest = 0;
    const auto ends = [&](StateId state) { return states.is_complete(state); };
    while (std::none_of(here.begin(), here.end(), ends)) {
      std::vector<StateId> next;
      for (const StateId state : here) {
        for (int32_t token = 0; token < vocabulary->size(); ++token) {
          if (vocabulary->bytes(token).empty()) continue;
          StateId to = state;
          for (const char byte : vocabulary->bytes(token)) {
            to = states.step(to, static_cast<uint8_t>(byte));
          }
          if (to != StateTable::kDead) next.push_back(to);
        }
      }
      std::sort(next.begin(), next.end());
      next.erase(std::unique(next.begin(), next.end()), next.end());
      here = next;
      ASSERT_LT(++fewest, 8u);
    }
    ASSERT_LE(fewest, grammar->shortest()) << "seed " << seed;
    ++checked;
    exact += fewest == grammar->shortest() ? 1 : 0;
  }
  EXPECT_GT(checked, 100);
  EXPECT_GT(exact, checked / 2) << "and mostly it is just that";
}

// ---- forced tokens ----

std::string text_of(const Vocabulary& vocabulary, const std::vector<int32_t>& tokens) {
  std::string out;
  for (const int32_t token : tokens) out += vocabulary.bytes(token);
  return out;
}

TEST(Forced, TheLongestTokensThatNothingCouldPrecede) {
  std::vector<std::string> tokens = all_bytes();
  for (const char* more : {"{\"", "name", "\"name\"", "\":", "\": \"", "abc"}) {
    tokens.emplace_back(more);
  }
  const auto vocabulary = vocabulary_of(tokens, 4);
  const auto forced = [&](const std::string& text, int32_t left = 100, bool to_the_end = true) {
    Matcher matcher(Grammar::compile(text, vocabulary));
    std::vector<std::string> out;
    for (const int32_t token : matcher.take_forced(left, {}, to_the_end)) {
      out.emplace_back(vocabulary->bytes(token));
    }
    return out;
  };
  using Texts = std::vector<std::string>;
  EXPECT_EQ(forced("root ::= \"{\\\"name\\\":\" [0-9]"), (Texts{"{\"", "name", "\":"}));
  EXPECT_EQ(forced("root ::= \"{\\\"name\\\":\" [0-9 ]"), (Texts{"{\"", "name"}))
      << "the colon may turn out to be part of `\": \"`";
  EXPECT_EQ(forced("root ::= \"abc\" | \"abd\""), (Texts{})) << "abc would be one token";
  EXPECT_EQ(forced("root ::= \"xyz\""), (Texts{"x", "y", "z"}));
  EXPECT_EQ(forced("root ::= \"xyz\"", 100, false), (Texts{"x", "y"}));
  EXPECT_EQ(forced("root ::= \"xyz\" \"q\"?"), (Texts{"x", "y", "z"}));
  EXPECT_EQ(forced("root ::= <[258]> \"x\""), (Texts{"\"name\"", "x"}));
  EXPECT_EQ(forced("root ::= <[258]> | \"x\""), (Texts{}));
}

// Chooses by the bytes alone: of the bytes that may follow the one it likes best, and the longest
// token that spells what it likes. So the text is the same however it is cut.
std::string by_taste(const std::shared_ptr<Grammar>& grammar, uint64_t taste, bool jumps,
                     int32_t* num_jumped) {
  const Vocabulary& vocabulary = *grammar->vocabulary();
  constexpr int32_t kBudget = 1000;
  Matcher matcher(grammar);
  std::vector<int32_t> tokens;
  TokenSet mask(vocabulary.num_words());
  const auto liking = [&](const std::string& text) {
    uint64_t hash = taste;
    for (const char byte : text) hash = (hash ^ static_cast<uint8_t>(byte)) * 0x100000001B3u;
    return hash ^ (hash >> 31);
  };
  while (tokens.size() < 60 && !matcher.is_final()) {
    if (jumps) {
      const std::vector<int32_t> forced = matcher.take_forced(kBudget, {}, true);
      *num_jumped += static_cast<int32_t>(forced.size());
      tokens.insert(tokens.end(), forced.begin(), forced.end());
    }
    const std::string text = text_of(vocabulary, tokens);
    if (matcher.may_end() && liking(text + "!") % 7 == 0) break;
    grammar->masks().fill(matcher.state(), kBudget, mask);
    std::string liked;
    int32_t best = -1;
    while (true) {  // one more byte of what it likes
      std::string next;
      uint64_t most = 0;
      for (const int32_t token : members(mask, vocabulary.size())) {
        const std::string bytes(vocabulary.bytes(token));
        if (bytes.size() <= liked.size() || !bytes.starts_with(liked)) continue;
        const std::string longer = bytes.substr(0, liked.size() + 1);
        if (liking(text + longer) <= most) continue;
        most = liking(text + longer);
        next = longer;
      }
      if (next.empty()) break;
      liked = next;
      for (const int32_t token : members(mask, vocabulary.size())) {
        if (vocabulary.bytes(token) == liked) best = token;
      }
    }
    if (best < 0) break;
    EXPECT_TRUE(matcher.accept(best));
    tokens.push_back(best);
  }
  return text_of(vocabulary, tokens);
}

TEST(Forced, JumpingChangesNoText) {
  int32_t num_jumped = 0, compared = 0;
  for (uint32_t seed = 1; seed <= 120; ++seed) {
    RandomGrammar random(seed);
    std::vector<std::string> tokens = random.tokens(30);
    for (const std::string& byte : all_bytes()) tokens.push_back(byte);
    const std::string text = random.text();
    SCOPED_TRACE("seed " + std::to_string(seed) + "\n" + text);
    const auto grammar = compile_or_null(text, vocabulary_of(tokens));
    if (grammar == nullptr) continue;
    for (uint64_t taste = 1; taste <= 3; ++taste) {
      const std::string with = by_taste(grammar, taste * 77, true, &num_jumped);
      std::string without = by_taste(grammar, taste * 77, false, &num_jumped);
      // Each is cut off after so many tokens.
      const size_t both = std::min(with.size(), without.size());
      ASSERT_EQ(with.substr(0, both), without.substr(0, both));
      if (both < 40) {
        ASSERT_EQ(with, without);
      }
      ++compared;
    }
  }
  EXPECT_GT(compared, 200);
  EXPECT_GT(num_jumped, 100);
}

}  // namespace
}  // namespace lorax::grammar
