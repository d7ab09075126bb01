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

TokenTrie TokenTrie::folded(std::span<const uint8_t> first_of) const {
  struct Draft {
    uint32_t first_child = kNone, next_sibling = kNone;  // ascending by byte
    uint32_t num_tokens = 0;
    uint8_t byte = 0;
  };
  std::vector<Draft> drafts(1);
  const auto child_of = [&](uint32_t parent, uint8_t byte) {
    uint32_t before = kNone, at = drafts[parent].first_child;
    while (at != kNone && drafts[at].byte < byte) at = drafts[before = at].next_sibling;
    if (at != kNone && drafts[at].byte == byte) return at;
    const auto made = static_cast<uint32_t>(drafts.size());
    drafts.push_back({kNone, at, 0, byte});
    (before == kNone ? drafts[parent].first_child : drafts[before].next_sibling) = made;
    return made;
  };
  std::vector<uint32_t> draft_of(nodes().size(), kRoot);  // by node
  std::vector<uint32_t> path(static_cast<size_t>(depth_) + 1, kRoot);
  for (uint32_t i = 1; i < nodes().size(); ++i) {
    const Node& node = nodes_[i];
    path[node.depth] = child_of(path[node.depth - 1u], first_of[node.byte]);
    draft_of[i] = path[node.depth];
    drafts[draft_of[i]].num_tokens += static_cast<uint32_t>(tokens(i).size());
  }

  TokenTrie out;
  out.nodes_.clear();
  out.depth_ = depth_;
  std::vector<uint32_t> place(drafts.size());  // in `out`
  uint32_t num_tokens = 0;
  const auto lay_out = [&](const auto& self, uint32_t draft, uint16_t depth) -> void {
    const auto at = static_cast<uint32_t>(out.nodes_.size());
    place[draft] = at;
    out.nodes_.push_back({0, num_tokens, depth, drafts[draft].byte});
    num_tokens += drafts[draft].num_tokens;
    for (uint32_t i = drafts[draft].first_child; i != kNone; i = drafts[i].next_sibling) {
      self(self, i, static_cast<uint16_t>(depth + 1));
    }
    out.nodes_[at].after = static_cast<uint32_t>(out.nodes_.size());
  };
  lay_out(lay_out, kRoot, 0);
  out.nodes_.push_back({0, num_tokens, 0, 0});

  out.tokens_.resize(num_tokens);
  std::vector<uint32_t> filled(out.nodes_.size());
  for (uint32_t i = 1; i < nodes().size(); ++i) {
    const uint32_t at = place[draft_of[i]];
    for (const int32_t token : tokens(i)) {
      out.tokens_[out.nodes_[at].tokens_begin + filled[at]++] = token;
    }
  }
  for (uint32_t i = 0; i + 1 < out.nodes_.size(); ++i) {
    std::sort(out.tokens_.begin() + out.nodes_[i].tokens_begin,
              out.tokens_.begin() + out.nodes_[i + 1].tokens_begin);
  }
  return out;
}

uint32_t TokenTrie::child(uint32_t node, uint8_t byte) const {
  const uint32_t end = nodes_[node].after;
  for (uint32_t at = node + 1; at < end; at = nodes_[at].after) {
    if (nodes_[at].byte >= byte) return nodes_[at].byte == byte ? at : kNone;
  }
  return kNone;
}

}  // namespace lorax::grammar
