// The text of a grammar to its syntax. The dialect is that of llama.cpp's GBNF, with token ids:
//
//   grammar      rule*                               white space and # comments lie between words
//   rule         name "::=" alternatives             ends where the next rule begins
//   alternatives sequence ("|" sequence)*            a sequence may be empty
//   sequence     (item ("*" | "+" | "?" | "{m}" | "{m,}" | "{m,n}")?)*
//   item         name | "literal" | [class] | [^class] | . | ( alternatives ) | <[token id]>
//
// Names are letters, digits, - and _. Literals, classes and . are of code points, which match as
// UTF-8 bytes. Escapes: \n \r \t \\ \" \] \[ \- \^ \xHH \uHHHH \UHHHHHHHH. The start rule is
// `root`.
#pragma once

#include <string_view>

#include "grammar/syntax.h"

namespace lorax::grammar {

// Limits that keep a hostile text from taking more than its share.
struct ParserLimits {
  size_t max_bytes = 1 << 20;
  int32_t max_depth = 128;         // of groups within groups
  uint32_t max_repeats = 1 << 16;  // m and n of {m,n}
};

// Throws Fault: malformed text, a rule defined twice or never, no `root`, a limit.
Syntax parse_gbnf(std::string_view text, const ParserLimits& limits = {});

}  // namespace lorax::grammar
