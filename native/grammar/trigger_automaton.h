// Output that is free until a trigger, and a grammar's from there on.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <variant>

#include "grammar/automaton.h"

namespace lorax::grammar {

// The last bytes of the free output, or its last token.
using Trigger = std::variant<std::string, int32_t>;

// The root of `automaton` governs right after the first trigger; before it, output may end
// anywhere. Strings are not empty.
Automaton with_triggers(const Automaton& automaton, std::span<const Trigger> triggers);

}  // namespace lorax::grammar
