// Tokens by their bytes, as a tree in one array: a node is followed by all that begins with it.
//
// Immutable. So a walk goes through the array from front to back and skips what is out of question.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace lorax::grammar {

class TokenTrie {
 public:
  struct Node {
    uint32_t after = 0;         // the first node that does not begin with this one
    uint32_t tokens_begin = 0;  // of tokens()
    uint16_t depth = 0;         // bytes; the root has none
    uint8_t byte = 0;           // the last of them
  };
  struct Entry {
    std::string_view bytes;  // 1 to kMaxTokenBytes
    int32_t token = 0;
  };
  static constexpr size_t kMaxTokenBytes = 1 << 12;
  static constexpr uint32_t kRoot = 0, kNone = 0xFFFFFFFF;

  TokenTrie() : TokenTrie(std::vector<Entry>()) {}
  explicit TokenTrie(std::vector<Entry> entries);

  // The same tokens where every byte stands for all of its class, `first_of` [256] the lowest of
  // each byte's: what differs only within classes is one node.
  TokenTrie folded(std::span<const uint8_t> first_of) const;

  // nodes[0] is the root.
  std::span<const Node> nodes() const { return {nodes_.data(), nodes_.size() - 1}; }
  // The tokens that are spelled by just this node's bytes, ascending.
  std::span<const int32_t> tokens(uint32_t node) const {
    const uint32_t begin = nodes_[node].tokens_begin;
    return std::span(tokens_).subspan(begin, nodes_[node + 1].tokens_begin - begin);
  }
  int32_t depth() const { return depth_; }  // of the deepest node

  // The node after one more byte, kNone if no token goes on so.
  uint32_t child(uint32_t node, uint8_t byte) const;
  bool has_children(uint32_t node) const { return nodes_[node].after > node + 1; }

 private:
  std::vector<Node> nodes_;  // and one more, where all tokens end
  std::vector<int32_t> tokens_;
  int32_t depth_ = 0;
};

}  // namespace lorax::grammar
