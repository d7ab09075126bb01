// One pass over the tokens, then the tries.
#include "grammar/vocabulary.h"

#include <algorithm>
#include <utility>

#include "grammar/utf8.h"

namespace lorax::grammar {
namespace {

bool is_plain(uint32_t code) { return code >= 0x20 && code != '"' && code != '\\' && code != 0x7F; }

// Characters of plain text; 0 where it is none.
int32_t plain_length(std::string_view bytes) {
  int32_t length = 0;
  uint32_t code = 0;
  for (size_t at = 0; at < bytes.size(); ++length) {
    if (!read_utf8(bytes, &at, &code) || !is_plain(code)) return 0;
  }
  return length;
}

}  // namespace

Vocabulary::Vocabulary(TokenBytes tokens, int32_t size) : tokens_(std::move(tokens)), size_(size) {
  std::vector<TokenTrie::Entry> all, not_plain;
  std::array<std::vector<TokenTrie::Entry>, kMaxPlain> plain;
  silent_.resize(num_words());
  for (Plain& group : plain_) group.set.resize(num_words());
  for (int32_t token = 0; token < size_; ++token) {
    const TokenTrie::Entry entry = {bytes(token), token};
    if (entry.bytes.empty()) insert(silent_, token);
    if (entry.bytes.empty() || entry.bytes.size() > TokenTrie::kMaxTokenBytes) continue;
    all.push_back(entry);
    const int32_t length = plain_length(entry.bytes);
    if (length == 0) {
      not_plain.push_back(entry);
      continue;
    }
    const auto group = static_cast<size_t>(std::min(length, kMaxPlain) - 1);
    plain[group].push_back(entry);
    insert(plain_[group].set, token);
    plain_[group].empty = false;
    longest_plain_ = std::max(longest_plain_, length);
  }
  all_ = TokenTrie(std::move(all));
  not_plain_ = TokenTrie(std::move(not_plain));
  for (size_t i = 0; i < plain.size(); ++i) plain_[i].trie = TokenTrie(std::move(plain[i]));
}

std::string_view Vocabulary::bytes(int32_t token) const {
  const auto index = static_cast<size_t>(token);
  if (token < 0 || token >= size_ || index + 1 >= tokens_.offsets.size()) return {};
  const uint32_t begin = tokens_.offsets[index];
  return {reinterpret_cast<const char*>(tokens_.bytes.data()) + begin,
          tokens_.offsets[index + 1] - begin};
}

}  // namespace lorax::grammar
