// The syntax of a grammar to its automaton.
//
// Repetitions are written out; where that would multiply something large, it becomes a rule of its
// own that is called as often. What can never come to an end is left out.
#pragma once

#include "grammar/automaton.h"
#include "grammar/syntax.h"

namespace lorax::grammar {

struct AutomatonLimits {
  uint32_t max_nodes = 1 << 18;
  uint32_t max_edges = 1 << 21;
};

// Throws Fault: a grammar that is too large, or no text at all matches it.
Automaton build_automaton(const Syntax& syntax, const AutomatonLimits& limits = {});

}  // namespace lorax::grammar
