// A grammar as recursive transition networks over bytes: one automaton per rule, whose edges are
// bytes, calls of other rules, or single tokens.
//
// Immutable. Always holds: from every node its rule can be brought to an end (in bytes and tokens
// that some vocabulary may have), every node can be reached, no edge is empty. Made by
// automaton_builder and trigger_automaton.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace lorax::grammar {

using NodeId = uint32_t;
using RuleId = uint32_t;

struct ByteEdge {
  uint8_t first = 0;
  uint8_t last = 0;  // inclusive
  NodeId target = 0;
};
struct CallEdge {
  RuleId rule = 0;
  NodeId target = 0;  // where the caller goes on when the rule has ended
};
struct TokenEdge {
  int32_t token = 0;
  NodeId target = 0;
};

class Automaton {
 public:
  struct Node {
    std::vector<ByteEdge> bytes = {};
    std::vector<CallEdge> calls = {};
    std::vector<TokenEdge> tokens = {};
    bool ends = false;
    bool free = false;
  };
  struct NamedRule {
    std::string name;
    NodeId start = 0;
  };

  Automaton(const std::vector<Node>& nodes, std::vector<NamedRule> rules, RuleId root);

  uint32_t num_nodes() const { return static_cast<uint32_t>(flags_.size()); }
  uint32_t num_rules() const { return static_cast<uint32_t>(rules_.size()); }
  std::span<const ByteEdge> bytes(NodeId node) const { return slice(bytes_, byte_begin_, node); }
  std::span<const CallEdge> calls(NodeId node) const { return slice(calls_, call_begin_, node); }
  std::span<const TokenEdge> tokens(NodeId node) const {
    return slice(tokens_, token_begin_, node);
  }

  // The node's rule may end here.
  bool ends(NodeId node) const { return (flags_[node] & kEnds) != 0; }
  // It ends here, and there is nothing else it could do.
  bool only_ends(NodeId node) const { return (flags_[node] & kOnlyEnds) != 0; }
  // Output is free here: tokens that spell nothing may come, and leave things as they are.
  bool is_free(NodeId node) const { return (flags_[node] & kFree) != 0; }

  RuleId root() const { return root_; }
  NodeId start(RuleId rule) const { return rules_[rule].start; }
  const std::string& name(RuleId rule) const { return rules_[rule].name; }
  // The rule matches nothing at all, too.
  bool nullable(RuleId rule) const { return nullable_[rule]; }

  // The inverse of the constructor, for who extends it.
  std::vector<Node> nodes() const;
  const std::vector<NamedRule>& rules() const { return rules_; }

 private:
  static constexpr uint8_t kEnds = 1, kOnlyEnds = 2, kFree = 4;

  template <typename Edge>
  static std::span<const Edge> slice(const std::vector<Edge>& edges,
                                     const std::vector<uint32_t>& begin, NodeId node) {
    return std::span(edges).subspan(begin[node], begin[node + 1] - begin[node]);
  }
  void find_nullable();

  std::vector<ByteEdge> bytes_;
  std::vector<CallEdge> calls_;
  std::vector<TokenEdge> tokens_;
  std::vector<uint32_t> byte_begin_, call_begin_, token_begin_;  // [num_nodes + 1]
  std::vector<uint8_t> flags_;                                   // [num_nodes]
  std::vector<NamedRule> rules_;
  std::vector<bool> nullable_;  // [num_rules]
  RuleId root_;
};

}  // namespace lorax::grammar
