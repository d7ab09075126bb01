// How many tokens it takes to bring each rule to its end, from each of its nodes: an upper bound.
//
// A bound that can be kept: from a node with cost c > 0 some token leads to one with cost c - 1 or
// less, counted within the rule and the rules that it calls. Tokens that reach across the end of a
// rule are not counted on. Immutable.
#pragma once

#include <cstdint>
#include <vector>

#include "grammar/automaton.h"
#include "grammar/vocabulary.h"

namespace lorax::grammar {

// Tokens. Sums of two stay in range.
using Cost = uint32_t;
inline constexpr Cost kNever = 1u << 30;

inline Cost sum(Cost a, Cost b) { return a >= kNever || b >= kNever - a ? kNever : a + b; }

// [num_nodes]; kNever where the vocabulary lacks the tokens. Throws Fault when that takes too long
// to find out.
std::vector<Cost> completion_costs(const Automaton& automaton, const Vocabulary& vocabulary);

}  // namespace lorax::grammar
