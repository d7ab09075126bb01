// A grammar as it was written: expressions in flat arrays, named by index.
//
// Made by gbnf_parser, read by automaton_builder. Always holds: every index is in range, no rule is
// undefined, and expressions nest no deeper than the parser allows.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "grammar/fault.h"

namespace lorax::grammar {

// Inclusive; no surrogates.
struct CodePoints {
  uint32_t first = 0;
  uint32_t last = 0;
};

inline constexpr uint32_t kUnbounded = 0xFFFFFFFF;

struct Expression {
  enum class Kind : uint8_t {
    kBytes,     // bytes[begin, end)
    kClass,     // one code point of classes[begin, end), which ascend
    kToken,     // the token with id `begin`
    kRule,      // what rules[begin] matches
    kSequence,  // children[begin, end), one after another
    kChoice,    // one of children[begin, end)
    kRepeat,    // children[begin], `least` to `most` times
  };
  Kind kind = Kind::kSequence;
  uint32_t begin = 0;
  uint32_t end = 0;
  uint32_t least = 0;
  uint32_t most = 0;
};

struct Rule {
  std::string name;
  uint32_t expression = 0;
  Place place;  // of its definition
};

struct Syntax {
  std::vector<Rule> rules;
  uint32_t root = 0;  // the rule `root`
  std::vector<Expression> expressions;
  std::vector<uint32_t> children;  // expressions
  std::vector<CodePoints> classes;
  std::string bytes;  // UTF-8
};

}  // namespace lorax::grammar
