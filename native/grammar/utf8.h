// Code points and their UTF-8 bytes (RFC 3629).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/syntax.h"

namespace lorax::grammar {

inline constexpr uint32_t kLastCodePoint = 0x10FFFF;
inline constexpr uint32_t kFirstSurrogate = 0xD800;
inline constexpr uint32_t kLastSurrogate = 0xDFFF;

inline bool is_scalar(uint32_t code) {
  return code <= kLastCodePoint && (code < kFirstSurrogate || code > kLastSurrogate);
}

void append_utf8(uint32_t code, std::string* bytes);

// The code point that begins at `at`, which moves past it. False, and `at` stays, where no sound
// one begins.
bool read_utf8(std::string_view bytes, size_t* at, uint32_t* code);

// Bytes [i] of some code points: each within its range, independently of the others.
struct ByteRange {
  uint8_t first = 0;
  uint8_t last = 0;
};
struct ByteSequence {
  int32_t length = 0;
  std::array<ByteRange, 4> ranges = {};
};

// The code points of `range` as sequences of byte ranges, ascending, at most 13 of them.
void append_sequences(CodePoints range, std::vector<ByteSequence>* sequences);

}  // namespace lorax::grammar
