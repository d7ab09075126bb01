// Shortest ways through a grammar (Knuth 1977, a generalization of Dijkstra's algorithm) over
// single bytes, then in the fewest tokens along those ways. Where the vocabulary lacks bytes that
// matter, over all of its tokens instead.
#include "grammar/completion_costs.h"

#include <algorithm>
#include <queue>
#include <utility>

#include "grammar/fault.h"

namespace lorax::grammar {
namespace {

// One token, or one byte, from node to node.
struct Step {
  NodeId from = 0;
  NodeId to = 0;
};

// How a node's shortest way begins: one of its edges.
struct Way {
  enum class Kind : uint8_t { kEnd, kByte, kToken, kCall };
  Kind kind = Kind::kEnd;
  uint32_t edge = 0;  // of that kind
};

struct ShortestWays {
  std::vector<Cost> costs;    // [nodes]
  std::vector<NodeId> order;  // nodes as they were settled: what a way leads to comes before
};

// Steps cost 1, calls what the called rule costs.
ShortestWays shortest_ways(const Automaton& automaton, const std::vector<Step>& steps) {
  const uint32_t num_nodes = automaton.num_nodes();
  std::vector<std::vector<NodeId>> before(num_nodes);  // by a step
  for (const Step& step : steps) before[step.to].push_back(step.from);
  struct Call {
    NodeId from = 0;
    RuleId rule = 0;
    NodeId to = 0;
  };
  std::vector<Call> calls;
  std::vector<std::vector<uint32_t>> calls_to(num_nodes), calls_of(automaton.num_rules());
  std::vector<std::vector<RuleId>> starts(num_nodes);
  for (RuleId rule = 0; rule < automaton.num_rules(); ++rule) {
    starts[automaton.start(rule)].push_back(rule);
  }
  ShortestWays out{std::vector<Cost>(num_nodes, kNever), {}};
  using Entry = std::pair<Cost, NodeId>;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> queue;
  const auto offer = [&](NodeId node, Cost cost) {
    if (cost >= out.costs[node]) return;
    out.costs[node] = cost;
    queue.push({cost, node});
  };
  for (NodeId node = 0; node < num_nodes; ++node) {
    for (const CallEdge& edge : automaton.calls(node)) {
      const auto index = static_cast<uint32_t>(calls.size());
      calls.push_back({node, edge.rule, edge.target});
      calls_to[edge.target].push_back(index);
      calls_of[edge.rule].push_back(index);
    }
    if (automaton.ends(node)) offer(node, 0);
  }
  std::vector<bool> settled(num_nodes);
  const auto offer_call = [&](const Call& call) {
    const NodeId start = automaton.start(call.rule);
    if (settled[call.to] && settled[start]) {
      offer(call.from, sum(out.costs[call.to], out.costs[start]));
    }
  };
  while (!queue.empty()) {
    const auto [cost, node] = queue.top();
    queue.pop();
    if (settled[node]) continue;
    settled[node] = true;
    out.order.push_back(node);
    for (const NodeId from : before[node]) offer(from, sum(cost, 1));
    for (const uint32_t call : calls_to[node]) offer_call(calls[call]);
    for (const RuleId rule : starts[node]) {
      for (const uint32_t call : calls_of[rule]) offer_call(calls[call]);
    }
  }
  return out;
}

class SingleBytes {
 public:
  explicit SingleBytes(const Vocabulary& vocabulary) : has_(256) {
    const TokenTrie& trie = vocabulary.all();
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const uint32_t node = trie.child(TokenTrie::kRoot, static_cast<uint8_t>(byte));
      has_[byte] = node != TokenTrie::kNone && !trie.tokens(node).empty();
    }
  }

  // One of the edge's bytes that is a token; -1 if none is.
  int32_t any_of(const ByteEdge& edge) const {
    for (int32_t byte = edge.first; byte <= edge.last; ++byte) {
      if (has_[static_cast<size_t>(byte)]) return byte;
    }
    return -1;
  }

 private:
  std::vector<bool> has_;
};

bool has_token(const TokenEdge& edge, const Vocabulary& vocabulary) {
  return edge.token < vocabulary.size();
}

// The fewest tokens along each node's shortest way in bytes.
class AlongTheWay {
 public:
  AlongTheWay(const Automaton& automaton, const Vocabulary& vocabulary, const SingleBytes& bytes)
      : automaton_(automaton), vocabulary_(vocabulary), bytes_(bytes) {}

  std::vector<Cost> costs(const ShortestWays& shortest) {
    ways_.resize(automaton_.num_nodes());
    costs_.assign(automaton_.num_nodes(), kNever);
    in_bytes_ = &shortest.costs;
    std::vector<bool> settled(automaton_.num_nodes());
    for (const NodeId node : shortest.order) {
      ways_[node] = way_of(node, settled);
      costs_[node] = cost_of(node);
      settled[node] = true;
    }
    return std::move(costs_);
  }

 private:
  Cost in_bytes(NodeId node) const { return (*in_bytes_)[node]; }

  Way way_of(NodeId node, const std::vector<bool>& settled) const {
    if (automaton_.ends(node)) return {};
    const Cost cost = in_bytes(node);
    const auto leads = [&](NodeId target, Cost step) {
      return settled[target] && sum(in_bytes(target), step) == cost;
    };
    for (uint32_t i = 0; i < automaton_.bytes(node).size(); ++i) {
      const ByteEdge& edge = automaton_.bytes(node)[i];
      if (leads(edge.target, 1) && bytes_.any_of(edge) >= 0) return {Way::Kind::kByte, i};
    }
    for (uint32_t i = 0; i < automaton_.tokens(node).size(); ++i) {
      const TokenEdge& edge = automaton_.tokens(node)[i];
      if (leads(edge.target, 1) && has_token(edge, vocabulary_)) return {Way::Kind::kToken, i};
    }
    for (uint32_t i = 0; i < automaton_.calls(node).size(); ++i) {
      const CallEdge& edge = automaton_.calls(node)[i];
      const NodeId start = automaton_.start(edge.rule);
      if (settled[start] && leads(edge.target, in_bytes(start))) return {Way::Kind::kCall, i};
    }
    return {};
  }

  Cost cost_of(NodeId node) const {
    const Way way = ways_[node];
    if (way.kind == Way::Kind::kEnd) return 0;
    if (way.kind == Way::Kind::kToken) {
      return sum(1, costs_[automaton_.tokens(node)[way.edge].target]);
    }
    if (way.kind == Way::Kind::kCall) {
      const CallEdge& edge = automaton_.calls(node)[way.edge];
      return sum(costs_[automaton_.start(edge.rule)], costs_[edge.target]);
    }
    // Every token that the way's bytes begin with.
    const TokenTrie& trie = vocabulary_.all();
    Cost best = kNever;
    uint32_t at = TokenTrie::kRoot;
    for (NodeId next = node;;) {
      const Way step = ways_[next];
      if (step.kind == Way::Kind::kCall && in_bytes(automaton_.start(call(next).rule)) == 0) {
        next = call(next).target;  // of a rule that may match nothing
        continue;
      }
      if (step.kind != Way::Kind::kByte) return best;
      const ByteEdge& edge = automaton_.bytes(next)[step.edge];
      at = trie.child(at, static_cast<uint8_t>(bytes_.any_of(edge)));
      if (at == TokenTrie::kNone) return best;
      next = edge.target;
      if (!trie.tokens(at).empty()) best = std::min(best, sum(1, costs_[next]));
    }
  }
  const CallEdge& call(NodeId node) const { return automaton_.calls(node)[ways_[node].edge]; }

  const Automaton& automaton_;
  const Vocabulary& vocabulary_;
  const SingleBytes& bytes_;
  const std::vector<Cost>* in_bytes_ = nullptr;
  std::vector<Way> ways_;
  std::vector<Cost> costs_;
};

// Where every token leads within a rule's own bytes.
std::vector<Step> token_steps(const Automaton& automaton, const TokenTrie& trie) {
  constexpr uint64_t kMaxWork = 1 << 27;
  uint64_t work = 0;
  std::vector<Step> steps;
  std::vector<std::vector<NodeId>> reached(static_cast<size_t>(trie.depth()) + 1);
  std::vector<NodeId> targets;
  for (NodeId from = 0; from < automaton.num_nodes(); ++from) {
    if (automaton.bytes(from).empty()) continue;
    reached[0] = {from};
    targets.clear();
    for (uint32_t i = 1; i < trie.nodes().size();) {
      const TokenTrie::Node& node = trie.nodes()[i];
      std::vector<NodeId>& here = reached[node.depth];
      here.clear();
      for (const NodeId before : reached[node.depth - 1]) {
        for (const ByteEdge& edge : automaton.bytes(before)) {
          if (edge.first <= node.byte && node.byte <= edge.last) here.push_back(edge.target);
        }
        work += automaton.bytes(before).size();
      }
      if (work > kMaxWork) {
        throw Fault("the grammar is too large for a vocabulary without a token for every byte", {});
      }
      if (!trie.tokens(i).empty()) targets.insert(targets.end(), here.begin(), here.end());
      i = here.empty() ? node.after : i + 1;
    }
    std::sort(targets.begin(), targets.end());
    targets.erase(std::unique(targets.begin(), targets.end()), targets.end());
    for (const NodeId target : targets) steps.push_back({from, target});
  }
  return steps;
}

}  // namespace

std::vector<Cost> completion_costs(const Automaton& automaton, const Vocabulary& vocabulary) {
  const SingleBytes bytes(vocabulary);
  std::vector<Step> byte_steps, token_edges;
  bool lacks_bytes = false;
  for (NodeId node = 0; node < automaton.num_nodes(); ++node) {
    for (const ByteEdge& edge : automaton.bytes(node)) {
      if (bytes.any_of(edge) >= 0) byte_steps.push_back({node, edge.target});
    }
    for (const TokenEdge& edge : automaton.tokens(node)) {
      if (has_token(edge, vocabulary)) token_edges.push_back({node, edge.target});
    }
  }
  byte_steps.insert(byte_steps.end(), token_edges.begin(), token_edges.end());
  const ShortestWays shortest = shortest_ways(automaton, byte_steps);
  lacks_bytes = shortest.order.size() < automaton.num_nodes();
  if (!lacks_bytes) return AlongTheWay(automaton, vocabulary, bytes).costs(shortest);
  std::vector<Step> steps = token_steps(automaton, vocabulary.all());
  steps.insert(steps.end(), token_edges.begin(), token_edges.end());
  return shortest_ways(automaton, steps).costs;
}

}  // namespace lorax::grammar
