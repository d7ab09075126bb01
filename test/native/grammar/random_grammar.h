// Grammars at random: nullable, ambiguous, recursive on every side, over characters of one to four
// bytes; and vocabularies whose tokens cut across them.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "grammar/vocabulary.h"

namespace lorax::grammar {

inline std::shared_ptr<const Vocabulary> vocabulary_of(const std::vector<std::string>& tokens,
                                                       int32_t more = 0) {
  TokenBytes out;
  out.offsets.push_back(0);
  for (const std::string& token : tokens) {
    out.bytes.insert(out.bytes.end(), token.begin(), token.end());
    out.offsets.push_back(static_cast<uint32_t>(out.bytes.size()));
  }
  return std::make_shared<Vocabulary>(std::move(out), static_cast<int32_t>(tokens.size()) + more);
}

inline std::vector<std::string> all_bytes() {
  std::vector<std::string> out;
  for (int32_t byte = 0; byte < 256; ++byte) out.emplace_back(1, static_cast<char>(byte));
  return out;
}

class RandomGrammar {
 public:
  explicit RandomGrammar(uint32_t seed) : random_(seed) {}

  // With `num_tokens` > 0 it may name tokens below that.
  std::string text(int32_t num_tokens = 0) {
    num_tokens_ = num_tokens;
    num_rules_ = below(4) + 1;
    std::string out;
    for (int32_t rule = 0; rule < num_rules_; ++rule) {
      out += name(rule) + " ::= " + choice(2) + "\n";
    }
    return out;
  }

  // Pieces of what such grammars match, with characters cut in two.
  std::vector<std::string> tokens(int32_t count) {
    const std::string text = "ab\"aba é€ab😀\xC3";
    std::vector<std::string> out;
    for (int32_t i = 0; i < count; ++i) {
      const auto begin = static_cast<size_t>(below(static_cast<int32_t>(text.size())));
      std::string token = text.substr(begin, static_cast<size_t>(below(5)));
      if (below(3) == 0) token += piece();
      out.push_back(token);
    }
    return out;
  }

  int32_t below(int32_t n) { return static_cast<int32_t>(random_() % static_cast<uint32_t>(n)); }
  std::mt19937& random() { return random_; }

 private:
  static std::string name(int32_t rule) {
    return rule == 0 ? "root" : "rule-" + std::to_string(rule);
  }

  std::string piece() {
    const char* pieces[] = {"a", "b", "ab", "aba", "é", "€", "😀", ""};
    return pieces[below(8)];
  }

  std::string choice(int32_t depth) {
    std::string out = sequence(depth);
    for (int32_t more = below(3); more > 0; --more) out += " | " + sequence(depth);
    return out;
  }

  std::string sequence(int32_t depth) {
    std::string out;
    for (int32_t items = below(4); items > 0; --items) out += item(depth) + " ";
    return out;
  }

  std::string item(int32_t depth) {
    const char* repeats[] = {"", "", "", "", "*", "+", "?", "{2}", "{1,}", "{0,3}", "{1,2}"};
    return atom(depth) + repeats[below(11)];
  }

  std::string atom(int32_t depth) {
    switch (below(num_tokens_ > 0 ? 9 : 8)) {
      case 0:
      case 1:
        return "\"" + piece() + "\"";
      case 2:
        return "[ab]";
      case 3:
        return below(2) == 0 ? "[^b]" : "[é-😀]";
      case 4:
        return below(4) == 0 ? "." : "[a-bé]";
      case 5:
      case 6:
        return name(below(num_rules_));
      case 8:
        return "<[" + std::to_string(below(num_tokens_)) + "]>";
      default:
        return depth == 0 ? "\"b\"" : "( " + choice(depth - 1) + " )";
    }
  }

  std::mt19937 random_;
  int32_t num_rules_ = 1;
  int32_t num_tokens_ = 0;
};

}  // namespace lorax::grammar
