// Sharing, forgetting, triggers and the plain-text shortcut.
#include "grammar/state_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "grammar/automaton_builder.h"
#include "grammar/gbnf_parser.h"
#include "grammar/matcher.h"
#include "grammar/random_grammar.h"

namespace lorax::grammar {
namespace {

constexpr int32_t kPlenty = 1 << 20;

const char* const kJson = R"gbnf(
root ::= object
value ::= object | array | string | number | "true" | "false" | "null"
object ::= "{" ws (member ("," ws member)*)? "}" ws
member ::= string ws ":" ws value
array ::= "[" ws (value ("," ws value)*)? "]" ws
string ::= "\"" ([^"\\\x00-\x1F\x7F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}))* "\"" ws
number ::= "-"? ("0" | [1-9] [0-9]{0,15}) ("." [0-9]+)? ([eE] [-+]? [0-9]+)? ws
ws ::= [ \n\t]*
)gbnf";

StateId after(StateTable& states, const std::string& text) {
  StateId state = states.start();
  for (const char byte : text) state = states.step(state, static_cast<uint8_t>(byte));
  return state;
}

TEST(StateTable, EqualSituationsAreOneState) {
  const auto grammar = Grammar::compile(kJson, vocabulary_of(all_bytes()));
  StateTable& states = grammar->states();
  const auto same = [&](const std::string& a, const std::string& b) {
    EXPECT_NE(after(states, a), StateTable::kDead) << a;
    EXPECT_NE(after(states, b), StateTable::kDead) << b;
    return after(states, a) == after(states, b);
  };
  EXPECT_TRUE(same("{\"", "{\"abc"));
  EXPECT_TRUE(same("{\"a\":\"x", "{\"b\" :   \"yz"));
  EXPECT_TRUE(same("{\"a\":[1,", "{\"b\":[\"x\",[],"));
  EXPECT_FALSE(same("{\"a\":[1,", "{\"b\":[[1,"));
  EXPECT_TRUE(same("{\"a\":[[1],", "{\"a\":[2,"));
  states.check_invariants();
}

// The last of a rule's calls passes its frame on, so that lists do not pile up.
TEST(StateTable, RightRecursionTakesNoMoreStates) {
  const auto grammar = Grammar::compile("root ::= \"a\" root | \"b\"", vocabulary_of(all_bytes()));
  StateTable& states = grammar->states();
  const StateId once = after(states, "aa");
  const size_t bytes = states.bytes();
  EXPECT_EQ(after(states, std::string(1000, 'a')), once);
  EXPECT_EQ(states.bytes(), bytes);
}

TEST(StateTable, ForgetsWhatNobodyNeeds) {
  const Automaton automaton =
      build_automaton(parse_gbnf("root ::= \"(\" root \")\" | [a-z]{0,300}"));
  const auto vocabulary = vocabulary_of(all_bytes());
  const std::vector<Cost> costs = completion_costs(automaton, *vocabulary);
  StateTable states(automaton, costs, {.soft_bytes = 40000});
  const StateId start = states.start();
  StateId pinned = after(states, "((");
  states.pin(pinned);
  int32_t forgotten = 0;
  for (int32_t round = 0; round < 300; ++round) {
    const std::string text = std::string(static_cast<size_t>(round % 17), '(') +
                             std::string(static_cast<size_t>(round % 90), 'x');
    EXPECT_NE(after(states, text), StateTable::kDead);
    states.check_invariants();
    forgotten += states.tidy() ? 1 : 0;
    states.check_invariants();
    EXPECT_LE(states.bytes(), 60000u);
  }
  EXPECT_GT(forgotten, 3);
  EXPECT_EQ(states.start(), start);
  StateId end = pinned;
  for (const char byte : std::string("x))")) end = states.step(end, static_cast<uint8_t>(byte));
  EXPECT_TRUE(states.is_complete(end)) << "what was pinned still knows its way back";
  states.unpin(pinned);
}

TEST(StateTable, AGrammarTooAmbiguousIsAFault) {
  const Automaton automaton = build_automaton(parse_gbnf("root ::= root root | [ab]{1,3} | "));
  const auto vocabulary = vocabulary_of(all_bytes());
  const std::vector<Cost> costs = completion_costs(automaton, *vocabulary);
  StateTable states(automaton, costs, {.max_items = 200});
  EXPECT_THROW(after(states, std::string(500, 'a')), Fault);
  states.check_invariants();
  EXPECT_NE(after(states, "ab"), StateTable::kDead) << "it can still be used";
  StateTable slow(automaton, costs, {.max_work = 20000});
  EXPECT_THROW(after(slow, std::string(500, 'a')), Fault);
  slow.begin_work();
  EXPECT_NE(after(slow, "ab"), StateTable::kDead);
  StateTable small(automaton, costs, {.hard_bytes = 30000});
  EXPECT_THROW(after(small, std::string(500, 'a')), Fault);
  small.check_invariants();
}

// ---- tries ----

// Every token is at the node of its bytes' classes, and the nodes lie as a trie's do.
TEST(TokenTrie, FoldedHoldsTheSameTokens) {
  std::vector<std::string> tokens = all_bytes();
  RandomGrammar random(11);
  for (int32_t i = 0; i < 2000; ++i) {
    std::string token;
    for (int32_t length = random.below(9); length >= 0; --length) {
      token += static_cast<char>('a' + random.below(26));
    }
    tokens.push_back(token);
  }
  const auto vocabulary = vocabulary_of(tokens);
  std::array<uint8_t, 256> first_of = {};
  for (int32_t byte = 0; byte < 256; ++byte) {
    first_of[byte] = static_cast<uint8_t>(byte / 16 * 16);
  }
  const TokenTrie folded = vocabulary->all().folded(first_of);
  EXPECT_LT(folded.nodes().size() * 4, vocabulary->all().nodes().size());
  size_t num_tokens = 0;
  for (uint32_t i = 0; i < folded.nodes().size(); ++i) {
    const TokenTrie::Node& node = folded.nodes()[i];
    ASSERT_GT(node.after, i);
    ASSERT_TRUE(i == 0 || node.byte % 16 == 0);
    EXPECT_TRUE(std::ranges::is_sorted(folded.tokens(i)));
    num_tokens += folded.tokens(i).size();
  }
  EXPECT_EQ(num_tokens, tokens.size());
  for (int32_t token = 0; token < vocabulary->size(); ++token) {
    uint32_t at = TokenTrie::kRoot;
    for (const char byte : vocabulary->bytes(token)) {
      at = folded.child(at, first_of[static_cast<uint8_t>(byte)]);
      ASSERT_NE(at, TokenTrie::kNone);
    }
    EXPECT_EQ(std::ranges::count(folded.tokens(at), token), 1);
  }
}

// ---- masks ----

// Where plain text is taken as a whole the mask is what going through all tokens gives.
TEST(TokenMasks, ThePlainTextShortcutChangesNothing) {
  std::vector<std::string> tokens = all_bytes();
  RandomGrammar random(7);
  const std::string letters = "abcXYZ 0189.,:{}é€😀";
  for (int32_t i = 0; i < 3000; ++i) {
    std::string token;
    for (int32_t length = random.below(24); length >= 0; --length) {
      // Characters, mostly whole.
      const auto at = static_cast<size_t>(random.below(static_cast<int32_t>(letters.size())));
      token += at < 16 ? letters.substr(at, 1) : random.below(2) == 0 ? "é" : "😀";
      if (random.below(40) == 0) token += random.below(2) == 0 ? "\"" : "\n";
    }
    tokens.push_back(token);
  }
  const auto vocabulary = vocabulary_of(tokens);
  ASSERT_GT(vocabulary->longest_plain(), Vocabulary::kMaxPlain);
  const char* grammars[] = {
      "root ::= \"\\\"\" [^\"\\\\]* \"\\\"\"",
      "root ::= \"\\\"\" [^\"\\\\]{0,40} \"\\\"\"",
      "root ::= \"\\\"\" [^\"\\\\]{3,9} \"\\\"\" [0-9]+",
      "root ::= \"\\\"\" ([^\"\\\\] \"x\"?){0,30} \"\\\"\"",
      "root ::= \"\\\"\" ([^\"\\\\é] | \"é\" [a-z])* \"\\\"\"",
      "root ::= \"\\\"\" ([ -~] | [^ -~\"] [^ -~\"])* \"\\\"\"",
      "root ::= \"\\\"\" .{0,5} \"\\\"\" \"xyz\"",
      "root ::= \"\\\"\" ([^\"] | \"abc\\\"\" .)* \"\\\"\"",
  };
  int64_t members = 0;
  for (const char* text : grammars) {
    SCOPED_TRACE(text);
    const auto grammar = Grammar::compile(text, vocabulary);
    StateTable& states = grammar->states();
    TokenSet mask(vocabulary->num_words());
    for (const char* begun :
         {"\"", "\"a", "\"abcde", "\"aaaaaaaa", "\"1234567890123456789012345"}) {
      const StateId state = after(states, begun);
      if (state == StateTable::kDead) continue;
      for (const Cost most : {0u, 1u, 2u, 3u, 5u, 100u}) {
        grammar->masks().fill(state, most, mask);
        for (int32_t token = 0; token < vocabulary->size(); ++token) {
          StateId to = state;
          for (const char byte : vocabulary->bytes(token)) {
            to = states.step(to, static_cast<uint8_t>(byte));
          }
          const bool allowed = !vocabulary->bytes(token).empty() && states.cost(to) <= most;
          ASSERT_EQ(contains(mask, token), allowed)
              << begun << " + " << vocabulary->bytes(token) << " within " << most;
          members += allowed ? 1 : 0;
        }
      }
    }
  }
  EXPECT_GT(members, 20000);
}

// Masks are the same after states were forgotten and their numbers given to others.
TEST(TokenMasks, StayRightWhenStatesAreForgotten) {
  const auto all = vocabulary_of(all_bytes());
  const Automaton automaton = build_automaton(parse_gbnf(kJson));
  const std::vector<Cost> costs = completion_costs(automaton, *all);
  StateTable few(automaton, costs, {.soft_bytes = 8000}), many(automaton, costs);
  TokenMasks of_few(few, *all, 4096), of_many(many, *all);
  RandomGrammar random(5);
  int32_t forgotten = 0;
  for (int32_t round = 0; round < 60; ++round) {
    StateId a = few.start(), b = many.start();
    few.pin(a);
    TokenSet mask(all->num_words()), expected(all->num_words());
    for (int32_t i = 0; i < 40; ++i) {
      if (few.tidy()) {
        of_few.clear();
        ++forgotten;
      }
      of_few.fill(a, kPlenty, mask);
      of_many.fill(b, kPlenty, expected);
      ASSERT_EQ(mask, expected);
      std::vector<int32_t> allowed;
      for (int32_t t = 0; t < all->size(); ++t) {
        if (contains(mask, t)) allowed.push_back(t);
      }
      if (allowed.empty()) break;
      const auto byte = static_cast<uint8_t>(
          allowed[static_cast<size_t>(random.below(static_cast<int32_t>(allowed.size())))]);
      const StateId next = few.step(a, byte);
      few.pin(next);
      few.unpin(a);
      a = next;
      b = many.step(b, byte);
    }
    few.unpin(a);
    few.check_invariants();
  }
  EXPECT_GT(forgotten, 5);
}

// ---- triggers ----

class TriggerTest : public testing::Test {
 protected:
  TriggerTest() {
    tokens_ = all_bytes();
    for (const char* more :
         {"<tool", "_call>", "<tool_call>", "<tool_call>{", "<tool_call>x", ">{}"}) {
      tokens_.emplace_back(more);
    }
    vocabulary_ = vocabulary_of(tokens_, 3);  // and three that spell nothing
    silent_ = static_cast<int32_t>(tokens_.size());
  }
  int32_t id(const std::string& token) const {
    return static_cast<int32_t>(std::find(tokens_.begin(), tokens_.end(), token) - tokens_.begin());
  }
  bool allows(Matcher& matcher, int32_t token, int32_t left = kPlenty) {
    TokenSet mask(vocabulary_->num_words());
    matcher.fill_mask(left, mask);
    return contains(mask, token);
  }
  void say(Matcher& matcher, const std::string& text) {
    for (const char byte : text) ASSERT_TRUE(matcher.accept(static_cast<uint8_t>(byte)));
  }
  Matcher behind(std::vector<Trigger> triggers) {
    return Matcher(Grammar::compile("root ::= \"{\" [a-z]* \"}\" \"</tool_call>\"?", vocabulary_)
                       ->behind(triggers));
  }

  std::vector<std::string> tokens_;
  std::shared_ptr<const Vocabulary> vocabulary_;
  int32_t silent_ = 0;
};

TEST_F(TriggerTest, OutputIsFreeUntilOneAndGovernedFromThereOn) {
  Matcher matcher = behind({std::string("<tool_call>")});
  EXPECT_TRUE(matcher.may_end());
  EXPECT_FALSE(matcher.is_whole()) << "it has yet to begin";
  say(matcher, "any text { \xFF <tool_cal");
  EXPECT_TRUE(matcher.may_end());
  EXPECT_TRUE(allows(matcher, silent_)) << "special tokens are free too";
  EXPECT_TRUE(allows(matcher, 'x'));
  say(matcher, "l>");
  EXPECT_FALSE(matcher.may_end());
  EXPECT_FALSE(allows(matcher, 'x'));
  EXPECT_FALSE(allows(matcher, silent_));
  EXPECT_TRUE(allows(matcher, '{'));
  say(matcher, "{abc}");
  EXPECT_TRUE(matcher.may_end());
  EXPECT_TRUE(matcher.is_whole());
  say(matcher, "</tool_call>");
  EXPECT_TRUE(matcher.is_final());
}

TEST_F(TriggerTest, ATokenThatCrossesItsEndHasToGoOnAsTheGrammarSays) {
  Matcher matcher = behind({std::string("<tool_call>")});
  say(matcher, "so: ");
  EXPECT_TRUE(allows(matcher, id("<tool")));
  EXPECT_TRUE(allows(matcher, id("<tool_call>")));
  EXPECT_TRUE(allows(matcher, id("<tool_call>{")));
  EXPECT_FALSE(allows(matcher, id("<tool_call>x")));
  EXPECT_TRUE(allows(matcher, id(">{}"))) << "no trigger ends here";
  say(matcher, "<tool_call");
  EXPECT_TRUE(allows(matcher, id(">{}")));
  ASSERT_TRUE(matcher.accept(id(">{}")));
  EXPECT_TRUE(matcher.is_whole());
}

TEST_F(TriggerTest, NothingBeginsThatCannotBeEndedInTime) {
  Matcher matcher = behind({std::string("<tool_call>")});
  EXPECT_TRUE(allows(matcher, id("<tool_call>"), 3));
  EXPECT_FALSE(allows(matcher, id("<tool_call>"), 2)) << "it takes { and } still";
  EXPECT_TRUE(allows(matcher, id("<tool_call>{"), 2));
  EXPECT_TRUE(allows(matcher, 'x', 1));
}

TEST_F(TriggerTest, SeveralAndTheirBeginningsWithinEachOther) {
  Matcher matcher = behind({std::string("aab"), std::string("abc"), std::string("b!")});
  say(matcher, "aaaa");
  EXPECT_FALSE(allows(matcher, silent_ + 3 - 1) && matcher.is_whole());
  say(matcher, "b");
  EXPECT_FALSE(matcher.may_end());
  Matcher other = behind({std::string("aab"), std::string("abc"), std::string("b!")});
  say(other, "abab!");
  EXPECT_FALSE(other.may_end());
  EXPECT_TRUE(allows(other, '{'));
}

TEST_F(TriggerTest, ATokenByItsName) {
  Matcher matcher = behind({silent_ + 1});
  say(matcher, "text");
  ASSERT_TRUE(matcher.accept(silent_));
  EXPECT_TRUE(matcher.may_end());
  EXPECT_TRUE(allows(matcher, silent_ + 1));
  EXPECT_FALSE(allows(matcher, silent_ + 1, 2));
  ASSERT_TRUE(matcher.accept(silent_ + 1));
  EXPECT_FALSE(matcher.may_end());
  EXPECT_FALSE(matcher.accept('x'));
  say(matcher, "{}");
  EXPECT_TRUE(matcher.is_whole());
}

TEST_F(TriggerTest, EqualTriggersShareOneGrammar) {
  const auto grammar = Grammar::compile("root ::= \"x\"", vocabulary_);
  const std::vector<Trigger> one = {std::string("a")}, two = {std::string("a"), 7};
  EXPECT_EQ(grammar->behind(one), grammar->behind(one));
  EXPECT_NE(grammar->behind(one), grammar->behind(two));
}

}  // namespace
}  // namespace lorax::grammar
