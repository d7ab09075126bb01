// From sorted entries: what one shares with the one before is there already.
#include "grammar/token_trie.h"

#include <algorithm>

namespace lorax::grammar {

TokenTrie::TokenTrie(std::vector<Entry> entries) {
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return a.bytes != b.bytes ? a.bytes < b.bytes : a.token < b.token;
  });
  nodes_.emplace_back();
  std::vector<uint32_t> path = {kRoot};  // of the entry before, by depth
  const auto close = [&](size_t depth) {
    for (; path.size() > depth; path.pop_back()) {
      nodes_[path.back()].after = static_cast<uint32_t>(nodes_.size());
    }
  };
  std::string_view before;
  for (const Entry& entry : entries) {
    const auto end =
        std::mismatch(before.begin(), before.end(), entry.bytes.begin(), entry.bytes.end());
    const auto shared = static_cast<size_t>(end.first - before.begin());
    close(1 + shared);
    for (size_t i = shared; i < entry.bytes.size(); ++i) {
      Node node;
      node.byte = static_cast<uint8_t>(entry.bytes[i]);
      node.depth = static_cast<uint16_t>(i + 1);
      node.tokens_begin = static_cast<uint32_t>(tokens_.size());
      path.push_back(static_cast<uint32_t>(nodes_.size()));
      nodes_.push_back(node);
      depth_ = std::max(depth_, static_cast<int32_t>(i + 1));
    }
    tokens_.push_back(entry.token);
    before = entry.bytes;
  }
  close(0);
  Node end;
  end.tokens_begin = static_cast<uint32_t>(tokens_.size());
  nodes_.push_back(end);
}

uint32_t TokenTrie::child(uint32_t node, uint8_t byte) const {
  const uint32_t end = nodes_[node].after;
  for (uint32_t at = node + 1; at < end; at = nodes_[at].after) {
    if (nodes_[at].byte >= byte) return nodes_[at].byte == byte ? at : kNone;
  }
  return kNone;
}

}  // namespace lorax::grammar
