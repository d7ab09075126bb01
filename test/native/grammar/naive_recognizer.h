// What a grammar matches, said again in the plainest way: sets of ends by position, found over and
// over until nothing is new. On the syntax itself; no automaton, no states.
//
// Input is symbols: bytes, and kTokenSymbol + id for a token that stands for itself.
#pragma once

#include <cstdint>
#include <vector>

#include "grammar/syntax.h"
#include "grammar/utf8.h"

namespace lorax::grammar {

inline constexpr int32_t kTokenSymbol = 256;

class NaiveRecognizer {
 public:
  NaiveRecognizer(const Syntax& syntax, std::vector<int32_t> input);

  bool matches() const { return is_end(syntax_.rules[syntax_.root].expression, 0, size()); }
  // Some text that begins with the input matches.
  bool begins() const { return matches() || may_go_on(syntax_.rules[syntax_.root].expression, 0); }

 private:
  size_t size() const { return input_.size(); }
  size_t at(uint32_t expression, size_t begin, size_t end) const {
    return (expression * (size() + 1) + begin) * (size() + 1) + end;
  }
  bool is_end(uint32_t expression, size_t begin, size_t end) const {
    return ends_[at(expression, begin, end)];
  }
  // It matches the input from `begin` on, and then more than that.
  bool may_go_on(uint32_t expression, size_t begin) const {
    return goes_on_[expression * (size() + 1) + begin];
  }
  void find_possible();
  void match(uint32_t expression, size_t begin);
  void match_class(uint32_t expression, size_t begin);
  // children[i..], one after another.
  void match_sequence(uint32_t expression, size_t begin, const std::vector<uint32_t>& parts);
  void add_end(uint32_t expression, size_t begin, size_t end);
  void add_going_on(uint32_t expression, size_t begin);

  const Syntax& syntax_;
  const std::vector<int32_t> input_;
  std::vector<bool> possible_;                        // [expressions] something matches it
  std::vector<bool> ends_;                            // [expressions, begin, end]
  std::vector<bool> goes_on_;                         // [expressions, begin]
  std::vector<std::vector<ByteSequence>> sequences_;  // [classes]
  bool changed_ = false;
};

}  // namespace lorax::grammar
