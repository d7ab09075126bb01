// The compiled grammar against the naive recognizer, on random grammars: what it accepts, byte by
// byte and token by token, and which tokens its masks allow.
#include "grammar/matcher.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "grammar/gbnf_parser.h"
#include "grammar/naive_recognizer.h"
#include "grammar/random_grammar.h"

namespace lorax::grammar {
namespace {

constexpr int32_t kPlenty = 1 << 20;

// Null where nothing matches it, as the naive recognizer says too.
std::shared_ptr<Grammar> compile_or_null(const std::string& text,
                                         const std::shared_ptr<const Vocabulary>& vocabulary) {
  const bool possible = NaiveRecognizer(parse_gbnf(text), {}).begins();
  try {
    auto out = Grammar::compile(text, vocabulary);
    EXPECT_TRUE(possible);
    return out;
  } catch (const Fault& fault) {
    EXPECT_FALSE(possible) << fault.what();
    return nullptr;
  }
}

std::vector<int32_t> symbols_of(std::string_view bytes) {
  std::vector<int32_t> out;
  for (const char byte : bytes) out.push_back(static_cast<uint8_t>(byte));
  return out;
}

TEST(Matcher, AcceptsWhatTheNaiveRecognizerDoesByteByByte) {
  const auto vocabulary = vocabulary_of(all_bytes());
  const std::string alphabet = "ab\"é€😀";
  int64_t accepted = 0, refused = 0, complete = 0;
  for (uint32_t seed = 1; seed <= 150; ++seed) {
    RandomGrammar random(seed);
    const std::string text = random.text();
    SCOPED_TRACE("seed " + std::to_string(seed) + "\n" + text);
    const Syntax syntax = parse_gbnf(text);
    const auto grammar = compile_or_null(text, vocabulary);
    if (grammar == nullptr) continue;
    for (int32_t word = 0; word < 8; ++word) {
      Matcher matcher(grammar);
      std::vector<int32_t> input;
      TokenSet mask(vocabulary->num_words());
      for (int32_t length = 0; length < 9; ++length) {
        const NaiveRecognizer naive(syntax, input);
        ASSERT_EQ(matcher.may_end(), naive.matches());
        complete += naive.matches() ? 1 : 0;
        // Half of the time one of those that may follow.
        int32_t byte = static_cast<uint8_t>(
            alphabet[static_cast<size_t>(random.below(static_cast<int32_t>(alphabet.size())))]);
        if (random.below(2) == 0) {
          matcher.fill_mask(kPlenty, mask);
          std::vector<int32_t> allowed;
          for (int32_t b = 0; b < 256; ++b) {
            if (contains(mask, b)) allowed.push_back(b);
          }
          ASSERT_EQ(allowed.empty(), matcher.is_final());
          if (allowed.empty()) break;
          byte = allowed[static_cast<size_t>(random.below(static_cast<int32_t>(allowed.size())))];
        }
        input.push_back(byte);
        const bool begins = NaiveRecognizer(syntax, input).begins();
        ASSERT_EQ(matcher.accept(byte), begins) << "byte " << byte;
        ++(begins ? accepted : refused);
        if (!begins) input.pop_back();
      }
    }
    grammar->states().check_invariants();
  }
  EXPECT_GT(accepted, 1000);
  EXPECT_GT(refused, 1000);
  EXPECT_GT(complete, 300);
}

// All ways in which tokens may be meant: by their bytes, or by their name.
class Meanings {
 public:
  Meanings(const Syntax& syntax, const Vocabulary& vocabulary, std::set<int32_t> named)
      : syntax_(syntax), vocabulary_(vocabulary), named_(std::move(named)) {}

  std::set<std::vector<int32_t>> after(const std::set<std::vector<int32_t>>& before,
                                       int32_t token) const {
    std::set<std::vector<int32_t>> out;
    for (const std::vector<int32_t>& input : before) {
      const std::string_view bytes = vocabulary_.bytes(token);
      std::vector<int32_t> spelled = input;
      for (const int32_t symbol : symbols_of(bytes)) spelled.push_back(symbol);
      if (!bytes.empty() && NaiveRecognizer(syntax_, spelled).begins()) out.insert(spelled);
      if (named_.count(token) == 0) continue;
      std::vector<int32_t> by_name = input;
      by_name.push_back(kTokenSymbol + token);
      if (NaiveRecognizer(syntax_, by_name).begins()) out.insert(by_name);
    }
    return out;
  }

 private:
  const Syntax& syntax_;
  const Vocabulary& vocabulary_;
  const std::set<int32_t> named_;
};

std::set<int32_t> named_tokens(const Syntax& syntax) {
  std::set<int32_t> out;
  for (const Expression& e : syntax.expressions) {
    if (e.kind == Expression::Kind::kToken) out.insert(static_cast<int32_t>(e.begin));
  }
  return out;
}

// Every token of small vocabularies, whatever it is cut from.
TEST(Matcher, MasksAreWhatTheNaiveRecognizerAllows) {
  int64_t allowed = 0, excluded = 0, forced = 0;
  for (uint32_t seed = 1; seed <= 100; ++seed) {
    RandomGrammar random(seed);
    std::vector<std::string> tokens = random.tokens(24);
    for (const std::string& byte : all_bytes()) tokens.push_back(byte);
    const auto vocabulary = vocabulary_of(tokens, 2);
    const std::string text = random.text(seed % 3 == 0 ? 8 : 0);
    SCOPED_TRACE("seed " + std::to_string(seed) + "\n" + text);
    const Syntax syntax = parse_gbnf(text);
    const auto grammar = compile_or_null(text, vocabulary);
    if (grammar == nullptr) continue;
    const Meanings meanings(syntax, *vocabulary, named_tokens(syntax));
    Matcher matcher(grammar);
    std::set<std::vector<int32_t>> inputs = {{}};
    TokenSet mask(vocabulary->num_words());
    for (int32_t length = 0; length < 4; ++length) {
      TokenSet of_forced(mask);
      grammar->masks().fill(matcher.state(), kPlenty, mask);
      matcher.fill_mask(kPlenty, of_forced);
      std::vector<int32_t> may_come, must_come;
      for (int32_t token = 0; token < vocabulary->size(); ++token) {
        // Single bytes are in the other test; those that no character has are dear here.
        const bool byte = token >= 24 && token < 24 + 256;
        if (byte && (token - 24) % 5 != static_cast<int32_t>(seed % 5)) continue;
        const bool expected = !meanings.after(inputs, token).empty();
        ASSERT_EQ(contains(mask, token), expected)
            << "token " << token << " \"" << vocabulary->bytes(token) << "\"";
        ++(expected ? allowed : excluded);
      }
      for (int32_t token = 0; token < vocabulary->size(); ++token) {
        if (contains(mask, token)) may_come.push_back(token);
        if (contains(of_forced, token)) must_come.push_back(token);
      }
      if (may_come.empty()) break;
      if (must_come.size() < may_come.size()) {
        ASSERT_EQ(must_come.size(), 1u);
        ASSERT_TRUE(contains(mask, must_come[0]));
        ++forced;
      }
      const int32_t next =
          may_come[static_cast<size_t>(random.below(static_cast<int32_t>(may_come.size())))];
      inputs = meanings.after(inputs, next);
      ASSERT_FALSE(inputs.empty());
      ASSERT_TRUE(matcher.accept(next));
    }
    grammar->states().check_invariants();
  }
  EXPECT_GT(allowed, 1000);
  EXPECT_GT(excluded, 5000);
  EXPECT_GT(forced, 10);
}

TEST(Matcher, ATokenThatIsNotAllowedChangesNothing) {
  const auto vocabulary = vocabulary_of(all_bytes());
  Matcher matcher(Grammar::compile("root ::= \"ab\"", vocabulary));
  EXPECT_FALSE(matcher.accept('b'));
  EXPECT_FALSE(matcher.accept(1000));
  EXPECT_TRUE(matcher.accept('a'));
  EXPECT_FALSE(matcher.accept('a'));
  EXPECT_TRUE(matcher.accept('b'));
  EXPECT_TRUE(matcher.is_final());
}

// Recursion on the left, in the middle, on the right, hidden behind what may be nothing; a rule
// that is itself; ambiguity without end.
TEST(Matcher, RecursionOfEveryKind) {
  const auto vocabulary = vocabulary_of(all_bytes());
  const auto accepts = [&](const std::string& grammar, const std::string& text) {
    Matcher matcher(Grammar::compile(grammar, vocabulary));
    for (const char byte : text) {
      if (!matcher.accept(static_cast<uint8_t>(byte))) return false;
    }
    return matcher.may_end();
  };
  const std::string many(3000, 'a');
  EXPECT_TRUE(accepts("root ::= root \"a\" | \"a\"", many));
  EXPECT_TRUE(accepts("root ::= \"a\" root | \"a\"", many));
  EXPECT_TRUE(accepts("root ::= \"a\" root? ", many));
  EXPECT_TRUE(
      accepts("root ::= \"(\" root \")\" root | ", std::string(500, '(') + std::string(500, ')')));
  EXPECT_FALSE(
      accepts("root ::= \"(\" root \")\" root | ", std::string(500, '(') + std::string(499, ')')));
  EXPECT_TRUE(accepts("root ::= nothing root \"a\" | \"b\"\nnothing ::= \"x\"?", "baaa"));
  EXPECT_TRUE(accepts("root ::= root | \"a\"", "a"));
  EXPECT_TRUE(accepts("root ::= one | root one\none ::= two\ntwo ::= one | \"a\"", "aaa"));
  EXPECT_TRUE(accepts("root ::= root root | \"a\" | ", std::string(60, 'a')));
}

TEST(Matcher, RefusesGrammarsThatNeverEndAndNamesTheRule) {
  const auto vocabulary = vocabulary_of(all_bytes());
  const auto fault_of = [&](const std::string& text) {
    try {
      Grammar::compile(text, vocabulary);
    } catch (const Fault& fault) {
      return fault;
    }
    return Fault("none", {});
  };
  const Fault direct = fault_of("root ::= \"a\" root");
  EXPECT_EQ(direct.rule(), "root");
  EXPECT_EQ(direct.place().line, 1);
  const Fault behind = fault_of("root ::= \"a\" list\n\nlist ::= \"x\" item\nitem ::= \"y\" list");
  EXPECT_EQ(behind.rule(), "list") << behind.what();
  EXPECT_EQ(behind.place().line, 3);
  EXPECT_NO_THROW(
      Grammar::compile("root ::= \"a\" | endless\nendless ::= \"x\" endless", vocabulary));
}

// None of these may take long, or much.
TEST(Matcher, HostileGrammarsAreRefusedOrCheap) {
  const auto vocabulary = vocabulary_of(all_bytes());
  const auto compile = [&](const std::string& text) { return Grammar::compile(text, vocabulary); };
  EXPECT_EQ(compile("root ::= ((\"a\"{1000}){1000}){100}")->shortest(), 100000000u)
      << "what would multiply is called instead";
  EXPECT_THROW(compile("root ::= (((\"a\"{1000}){1000}){1000}){1000}"), Fault);
  std::string wide = "root ::= ";
  for (int32_t i = 0; i < 200; ++i) wide += "[a-z]{0,60000} ";
  EXPECT_THROW(compile(wide), Fault);
  std::string nullable = "root ::= ";
  for (int32_t i = 0; i < 20000; ++i) nullable += "\"a\"? ";
  EXPECT_THROW(compile(nullable), Fault);
  std::string chain = "root ::= r1\n";
  for (int32_t i = 1; i < 20000; ++i) {
    chain += "r" + std::to_string(i) + " ::= r" + std::to_string(i + 1) + " r" +
             std::to_string(i + 1) + "\n";
  }
  EXPECT_THROW(compile(chain + "r20000 ::= \"a\""), Fault) << "2^19999 tokens";
}

}  // namespace
}  // namespace lorax::grammar
