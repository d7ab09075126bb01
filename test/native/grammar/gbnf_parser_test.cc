// What the dialect allows, what it refuses and where, and that hostile texts cost little.
#include "grammar/gbnf_parser.h"

#include <gtest/gtest.h>

#include <string>

#include "grammar/naive_recognizer.h"

namespace lorax::grammar {
namespace {

bool matches(const std::string& grammar, const std::string& text) {
  const Syntax syntax = parse_gbnf(grammar);
  std::vector<int32_t> input;
  for (const char c : text) input.push_back(static_cast<uint8_t>(c));
  return NaiveRecognizer(syntax, input).matches();
}

struct Case {
  const char* grammar;
  int32_t line;
  int32_t column;
  const char* message;  // part of it
  const char* rule = "";
};

TEST(GbnfParser, SaysWhatIsWrongAndWhere) {
  const Case cases[] = {
      {"", 0, 0, "no rule \"root\"", "root"},
      {"a ::= \"x\"", 0, 0, "no rule \"root\"", "root"},
      {"root ::= \"a", 1, 10, "never closed"},
      {"root ::= [a", 1, 10, "never closed"},
      {"root ::= [a-", 1, 10, "never closed"},
      {"root ::= (\"a\" | ", 1, 10, "never closed"},
      {"root ::= \"a\" )", 1, 14, "closes nothing", "root"},
      {"root ::= a\n  b", 1, 10, "rule \"a\" is not defined", "a"},
      {"root ::= a\na ::= b", 2, 7, "rule \"b\" is not defined", "b"},
      {"root ::= \"a\"\n\n root ::= \"b\"", 3, 2, "defined already, in line 1", "root"},
      {"root = \"a\"", 1, 1, "a rule must begin here"},
      {"root ::= \"a\" @", 1, 14, "begins no item"},
      {"root ::= \"\\q\"", 1, 11, "no such escape"},
      {"root ::= \"\\x4\"", 1, 11, "2 hexadecimal digits"},
      {"root ::= \"\\uD800\"", 1, 11, "no such code point"},
      {"root ::= \"\\U00110000\"", 1, 11, "no such code point"},
      {"root ::= [b-a]", 1, 11, "runs backwards"},
      {"root ::= []", 1, 10, "matches no character"},
      {"root ::= [^\\U00000000-\\U0010FFFF]", 1, 34, "matches no character"},
      {"root ::= \"a\"{2,1}", 1, 13, "most is below its least"},
      {"root ::= \"a\"{x}", 1, 14, "{m}, {m,} or {m,n}"},
      {"root ::= \"a\"{1", 1, 15, "{m}, {m,} or {m,n}"},
      {"root ::= \"a\"{99999}", 1, 19, "at most 65536"},
      {"root ::= *", 1, 10, "nothing here to repeat"},
      {"root ::= \"a\"*+", 1, 14, "nothing here to repeat"},
      {"root ::= <[x]>", 1, 12, "<[ID]>"},
      {"root ::= <[1>", 1, 13, "<[ID]>"},
      {"root ::= \"\xC3\"", 1, 11, "not UTF-8"},
      {"# é\nroot ::= \"é\" !", 2, 14, "begins no item"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.grammar);
    try {
      parse_gbnf(c.grammar);
      ADD_FAILURE() << "it was accepted";
    } catch (const Fault& fault) {
      EXPECT_NE(std::string(fault.what()).find(c.message), std::string::npos) << fault.what();
      EXPECT_EQ(fault.place().line, c.line) << fault.what();
      EXPECT_EQ(fault.place().column, c.column) << fault.what();
      if (*c.rule != '\0') {
        EXPECT_EQ(fault.rule(), c.rule);
      }
    }
  }
}

TEST(GbnfParser, TheDialect) {
  EXPECT_TRUE(matches("root ::= \"a\" | \"b\"", "b"));
  EXPECT_FALSE(matches("root ::= \"a\" | \"b\"", "ab"));
  EXPECT_TRUE(matches("root ::=\n  | \"b\" # nothing, or b\n", "")) << "an empty sequence";
  EXPECT_TRUE(matches("root ::= a b\n| \"x\"\na ::= \"1\"\nb ::= \"2\"", "12"));
  EXPECT_TRUE(matches("root ::= a b\n| \"x\"\na ::= \"1\"\nb ::= \"2\"", "x"));
  EXPECT_TRUE(matches("root ::= (\"a\"\n\"b\")*", "abab"));
  EXPECT_TRUE(matches("root ::= \"\\n\\r\\t\\\\\\\"\\x41\\u00e9\\U0001F600\"", "\n\r\t\\\"Aé😀"));
  EXPECT_TRUE(matches("root ::= [\\]\\\\\\n-]+", "]\\\n-"));
  EXPECT_TRUE(matches("root ::= [a-c-]+", "a-c"));
  EXPECT_FALSE(matches("root ::= [a-c]+", "d"));
  EXPECT_TRUE(matches("root ::= [^a]", "😀"));
  EXPECT_TRUE(matches("root ::= [^]", "]")) << "any character";
  EXPECT_TRUE(matches("root ::= .", "€"));
  EXPECT_FALSE(matches("root ::= .", "\xE2\x82")) << "a code point, no byte";
  EXPECT_TRUE(matches("root ::= \"a\"{2}", "aa"));
  EXPECT_FALSE(matches("root ::= \"a\"{ 2 , 3 }", "aaaa"));
  EXPECT_TRUE(matches("root ::= \"a\"{2,}", "aaaa"));
  EXPECT_TRUE(matches("root::=under_score-1 \"x\"?\nunder_score-1::=\"y\"", "y"));
  EXPECT_TRUE(
      NaiveRecognizer(parse_gbnf("root ::= \"a\" <[12]>"), {'a', kTokenSymbol + 12}).matches());
}

TEST(GbnfParser, LimitsWhatATextMayAskFor) {
  const auto refusal = [](const std::string& text) {
    try {
      parse_gbnf(text);
    } catch (const Fault& fault) {
      return std::string(fault.what());
    }
    return std::string();
  };
  const std::string deep(100000, '(');
  EXPECT_NE(refusal("root ::= " + deep).find("nest more than 128"), std::string::npos);
  EXPECT_NE(refusal(std::string(2 << 20, ' ')).find("at most 1048576"), std::string::npos);
  EXPECT_EQ(refusal("root ::= " + std::string(128, '(') + "\"a\"" + std::string(128, ')')), "");
}

}  // namespace
}  // namespace lorax::grammar
