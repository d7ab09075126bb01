// What the tokens of a model spell, ordered for the walks of token_masks.
//
// Immutable, shared by all grammars of an engine. Tokens of plain text (whole characters, none a
// control character, " or \) are kept apart by their length in characters: where a grammar allows
// any text, as inside a JSON string, they need not be looked at one by one.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "grammar/token_trie.h"

namespace lorax::grammar {

// A set of tokens: bit t % 32 of word t / 32.
using TokenSet = std::vector<uint32_t>;

inline size_t num_words(int32_t vocab_size) { return (static_cast<size_t>(vocab_size) + 31) / 32; }
inline bool contains(std::span<const uint32_t> set, int32_t token) {
  return (set[static_cast<size_t>(token) / 32] >> (token % 32) & 1) != 0;
}
inline void insert(std::span<uint32_t> set, int32_t token) {
  set[static_cast<size_t>(token) / 32] |= 1u << (token % 32);
}
inline void remove(std::span<uint32_t> set, int32_t token) {
  set[static_cast<size_t>(token) / 32] &= ~(1u << (token % 32));
}
inline bool any(std::span<const uint32_t> set) {
  return std::any_of(set.begin(), set.end(), [](uint32_t word) { return word != 0; });
}

// Bytes of token i: bytes[offsets[i], offsets[i + 1]).
struct TokenBytes {
  std::vector<uint8_t> bytes;
  std::vector<uint32_t> offsets;  // ascend, within `bytes`; one more than there are tokens
};

class Vocabulary {
 public:
  // `size` is the model's number of tokens: of the others those that `tokens` lacks spell nothing,
  // and those that the model lacks are left out.
  Vocabulary(TokenBytes tokens, int32_t size);

  int32_t size() const { return size_; }
  size_t num_words() const { return grammar::num_words(size_); }  // of a TokenSet
  // Empty for tokens that spell nothing.
  std::string_view bytes(int32_t token) const;

  const TokenTrie& all() const { return all_; }
  // Tokens that spell nothing.
  const TokenSet& silent() const { return silent_; }

  // Tokens of plain text with `length` characters; those with kMaxPlain or more are together.
  static constexpr int32_t kMaxPlain = 16;
  struct Plain {
    TokenTrie trie;
    TokenSet set;
    bool empty = true;
  };
  const Plain& plain(int32_t length) const { return plain_[static_cast<size_t>(length - 1)]; }
  int32_t longest_plain() const { return longest_plain_; }  // in characters
  // All others.
  const TokenTrie& not_plain() const { return not_plain_; }

 private:
  const TokenBytes tokens_;
  const int32_t size_;
  TokenTrie all_;
  TokenTrie not_plain_;
  TokenSet silent_;
  std::array<Plain, kMaxPlain> plain_;
  int32_t longest_plain_ = 0;
};

}  // namespace lorax::grammar
