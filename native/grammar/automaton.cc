// Edges in three flat arrays, in the order of their nodes.
#include "grammar/automaton.h"

#include <utility>

namespace lorax::grammar {

Automaton::Automaton(const std::vector<Node>& nodes, std::vector<NamedRule> rules, RuleId root)
    : rules_(std::move(rules)), root_(root) {
  const auto append = [](const auto& from, auto* edges, std::vector<uint32_t>* begin) {
    begin->push_back(static_cast<uint32_t>(edges->size()));
    edges->insert(edges->end(), from.begin(), from.end());
  };
  for (const Node& node : nodes) {
    append(node.bytes, &bytes_, &byte_begin_);
    append(node.calls, &calls_, &call_begin_);
    append(node.tokens, &tokens_, &token_begin_);
    const bool last = node.bytes.empty() && node.calls.empty() && node.tokens.empty();
    flags_.push_back(static_cast<uint8_t>(
        (node.ends ? kEnds : 0) | (node.ends && last ? kOnlyEnds : 0) | (node.free ? kFree : 0)));
  }
  byte_begin_.push_back(static_cast<uint32_t>(bytes_.size()));
  call_begin_.push_back(static_cast<uint32_t>(calls_.size()));
  token_begin_.push_back(static_cast<uint32_t>(tokens_.size()));
  find_nullable();
}

// Edges are gone over again while that finds another nullable node; a call chain that ends in
// nothing is as long as it is.
void Automaton::find_nullable() {
  std::vector<bool> node_nullable(num_nodes());
  std::vector<std::vector<NodeId>> waiting(num_nodes());  // on a node
  std::vector<std::vector<NodeId>> callers(num_rules());  // on a rule
  std::vector<std::vector<RuleId>> starts(num_nodes());
  std::vector<NodeId> found;
  nullable_.assign(num_rules(), false);
  for (RuleId rule = 0; rule < num_rules(); ++rule) starts[start(rule)].push_back(rule);
  for (NodeId node = 0; node < num_nodes(); ++node) {
    for (const CallEdge& call : calls(node)) {
      waiting[call.target].push_back(node);
      callers[call.rule].push_back(node);
    }
    if (!ends(node)) continue;
    node_nullable[node] = true;
    found.push_back(node);
  }
  const auto look_again = [&](NodeId node) {
    if (node_nullable[node]) return;
    for (const CallEdge& call : calls(node)) {
      if (!nullable_[call.rule] || !node_nullable[call.target]) continue;
      node_nullable[node] = true;
      found.push_back(node);
      return;
    }
  };
  while (!found.empty()) {
    const NodeId node = found.back();
    found.pop_back();
    for (const RuleId rule : starts[node]) {
      nullable_[rule] = true;
      for (const NodeId caller : callers[rule]) look_again(caller);
    }
    for (const NodeId caller : waiting[node]) look_again(caller);
  }
}

std::vector<Automaton::Node> Automaton::nodes() const {
  std::vector<Node> out(num_nodes());
  for (NodeId node = 0; node < num_nodes(); ++node) {
    out[node].bytes.assign(bytes(node).begin(), bytes(node).end());
    out[node].calls.assign(calls(node).begin(), calls(node).end());
    out[node].tokens.assign(tokens(node).begin(), tokens(node).end());
    out[node].ends = ends(node);
    out[node].free = is_free(node);
  }
  return out;
}

}  // namespace lorax::grammar
