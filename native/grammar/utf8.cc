// Ranges are split where lengths change and where a trailing byte would not run over all of its
// values.
#include "grammar/utf8.h"

#include <algorithm>
#include <iterator>

namespace lorax::grammar {
namespace {

int32_t encode(uint32_t code, std::array<uint8_t, 4>* bytes) {
  const auto trail = [&](int32_t shift) {
    return static_cast<uint8_t>(0x80 | ((code >> shift) & 0x3F));
  };
  if (code < 0x80) {
    *bytes = {static_cast<uint8_t>(code)};
    return 1;
  }
  if (code < 0x800) {
    *bytes = {static_cast<uint8_t>(0xC0 | (code >> 6)), trail(0)};
    return 2;
  }
  if (code < 0x10000) {
    *bytes = {static_cast<uint8_t>(0xE0 | (code >> 12)), trail(6), trail(0)};
    return 3;
  }
  *bytes = {static_cast<uint8_t>(0xF0 | (code >> 18)), trail(12), trail(6), trail(0)};
  return 4;
}

// `range` has code points of one length alone.
void split(CodePoints range, int32_t length, std::vector<ByteSequence>* sequences) {
  for (int32_t trailing = 1; trailing < length; ++trailing) {
    const uint32_t mask = (1u << (6 * trailing)) - 1;
    if ((range.first & ~mask) == (range.last & ~mask)) continue;
    if ((range.first & mask) != 0) {
      split({range.first, range.first | mask}, length, sequences);
      split({(range.first | mask) + 1, range.last}, length, sequences);
      return;
    }
    if ((range.last & mask) != mask) {
      split({range.first, (range.last & ~mask) - 1}, length, sequences);
      split({range.last & ~mask, range.last}, length, sequences);
      return;
    }
  }
  std::array<uint8_t, 4> first = {}, last = {};
  ByteSequence sequence;
  sequence.length = encode(range.first, &first);
  encode(range.last, &last);
  for (int32_t i = 0; i < length; ++i) sequence.ranges[i] = {first[i], last[i]};
  sequences->push_back(sequence);
}

}  // namespace

void append_utf8(uint32_t code, std::string* bytes) {
  std::array<uint8_t, 4> encoded = {};
  const int32_t length = encode(code, &encoded);
  bytes->append(reinterpret_cast<const char*>(encoded.data()), static_cast<size_t>(length));
}

bool read_utf8(std::string_view bytes, size_t* at, uint32_t* code) {
  if (*at >= bytes.size()) return false;
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(bytes[*at + i]); };
  const uint8_t lead = byte(0);
  size_t length = 1;
  uint32_t value = lead;
  if (lead >= 0xF0) {
    length = 4;
    value = lead & 0x07;
  } else if (lead >= 0xE0) {
    length = 3;
    value = lead & 0x0F;
  } else if (lead >= 0x80) {
    length = 2;
    value = lead & 0x1F;
  }
  if ((lead >= 0x80 && lead < 0xC2) || lead > 0xF4 || *at + length > bytes.size()) return false;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return false;
    value = value << 6 | (byte(i) & 0x3F);
  }
  constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  if (value < kLeast[length] || !is_scalar(value)) return false;
  *at += length;
  *code = value;
  return true;
}

void append_sequences(CodePoints range, std::vector<ByteSequence>* sequences) {
  constexpr CodePoints kOfLength[] = {{0, 0x7F},
                                      {0x80, 0x7FF},
                                      {0x800, kFirstSurrogate - 1},
                                      {kLastSurrogate + 1, 0xFFFF},
                                      {0x10000, kLastCodePoint}};
  constexpr int32_t kLength[] = {1, 2, 3, 3, 4};
  for (size_t i = 0; i < std::size(kOfLength); ++i) {
    const CodePoints part = {std::max(range.first, kOfLength[i].first),
                             std::min(range.last, kOfLength[i].last)};
    if (part.first <= part.last) split(part, kLength[i], sequences);
  }
}

}  // namespace lorax::grammar
