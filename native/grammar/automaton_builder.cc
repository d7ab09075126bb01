// From the end of each expression to its start (build), then without edges that consume nothing
// (without_empty_edges), then without what never ends or is never reached (trimmed).
#include "grammar/automaton_builder.h"

#include <algorithm>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "grammar/utf8.h"

namespace lorax::grammar {
namespace {

using Kind = Expression::Kind;
using Nodes = std::vector<Automaton::Node>;
using Rules = std::vector<Automaton::NamedRule>;

constexpr uint32_t kNone = 0xFFFFFFFF;

struct Draft {
  Nodes nodes;
  std::vector<std::vector<NodeId>> empty;  // [nodes]: edges that consume nothing
  Rules rules;
  std::vector<Place> places;  // [rules]
};

class Builder {
 public:
  Builder(const Syntax& syntax, const AutomatonLimits& limits)
      : syntax_(syntax), limits_(limits), sizes_(syntax.expressions.size()) {
    // Children come before their parents.
    for (size_t i = 0; i < sizes_.size(); ++i) sizes_[i] = size_of(syntax.expressions[i]);
  }

  Draft build() {
    for (const Rule& rule : syntax_.rules) add_rule(rule.name, rule.place, rule.expression);
    for (RuleId rule = 0; rule < draft_.rules.size(); ++rule) {  // more of them come meanwhile
      rule_ = rule;
      const NodeId end = add_node();
      draft_.nodes[end].ends = true;
      draft_.rules[rule].start = start_of(expressions_[rule], end);
    }
    return std::move(draft_);
  }

 private:
  // Nodes it takes, roughly.
  uint64_t size_of(const Expression& expression) const {
    constexpr uint64_t kMost = 1ull << 40;
    uint64_t size = 1;
    switch (expression.kind) {
      case Kind::kBytes:
        return 1 + expression.end - expression.begin;
      case Kind::kClass:
        return 1 + 4 * (expression.end - expression.begin);
      case Kind::kSequence:
      case Kind::kChoice:
        for (uint32_t i = expression.begin; i < expression.end; ++i) {
          size += sizes_[syntax_.children[i]];
        }
        return std::min(size, kMost);
      case Kind::kRepeat:
        return std::min(copies_of(expression) * sizes_[syntax_.children[expression.begin]], kMost);
      default:
        return size;
    }
  }
  static uint64_t copies_of(const Expression& repeat) {
    return repeat.most == kUnbounded ? repeat.least + 1ull : repeat.most;
  }

  RuleId add_rule(const std::string& name, Place place, uint32_t expression) {
    draft_.rules.push_back({name, kNone});
    draft_.places.push_back(place);
    expressions_.push_back(expression);
    return static_cast<RuleId>(draft_.rules.size() - 1);
  }

  NodeId add_node() {
    if (draft_.nodes.size() >= limits_.max_nodes) {
      throw Fault(
          "the grammar is too large: its repetitions and classes written out have more "
          "than " +
              std::to_string(limits_.max_nodes) + " states",
          draft_.places[rule_], draft_.rules[rule_].name);
    }
    draft_.nodes.emplace_back();
    draft_.empty.emplace_back();
    return static_cast<NodeId>(draft_.nodes.size() - 1);
  }

  // The node from which the expression leads to `end`.
  NodeId start_of(uint32_t index, NodeId end) {
    const Expression& expression = syntax_.expressions[index];
    switch (expression.kind) {
      case Kind::kBytes:
        return bytes(std::string_view(syntax_.bytes)
                         .substr(expression.begin, expression.end - expression.begin),
                     end);
      case Kind::kClass:
        return character_class(expression, end);
      case Kind::kToken: {
        const NodeId node = add_node();
        draft_.nodes[node].tokens.push_back({static_cast<int32_t>(expression.begin), end});
        return node;
      }
      case Kind::kRule:
        return call(expression.begin, end);
      case Kind::kSequence:
        for (uint32_t i = expression.end; i-- > expression.begin;) {
          end = start_of(syntax_.children[i], end);
        }
        return end;
      case Kind::kChoice:
        return choice(expression, end);
      case Kind::kRepeat:
        return repeat(expression, end);
    }
    return end;
  }

  NodeId bytes(std::string_view text, NodeId end) {
    for (size_t i = text.size(); i-- > 0;) {
      const auto byte = static_cast<uint8_t>(text[i]);
      const NodeId node = add_node();
      draft_.nodes[node].bytes.push_back({byte, byte, end});
      end = node;
    }
    return end;
  }

  // Sequences that end alike share their end.
  NodeId character_class(const Expression& expression, NodeId end) {
    std::vector<ByteSequence> sequences;
    for (uint32_t i = expression.begin; i < expression.end; ++i) {
      append_sequences(syntax_.classes[i], &sequences);
    }
    const NodeId start = add_node();
    std::unordered_map<uint64_t, NodeId> node_before;  // (range, node) -> who leads there
    for (const ByteSequence& sequence : sequences) {
      NodeId target = end;
      for (int32_t i = sequence.length; i-- > 1;) {
        const auto [first, last] = sequence.ranges[i];
        const uint64_t key = static_cast<uint64_t>(target) << 16 | first << 8 | last;
        const auto known = node_before.find(key);
        if (known != node_before.end()) {
          target = known->second;
          continue;
        }
        const NodeId node = add_node();
        draft_.nodes[node].bytes.push_back({first, last, target});
        node_before[key] = target = node;
      }
      const auto [first, last] = sequence.ranges[0];
      std::vector<ByteEdge>& edges = draft_.nodes[start].bytes;
      const bool joins =
          !edges.empty() && edges.back().target == target && edges.back().last + 1 == first;
      if (joins) {
        edges.back().last = last;
      } else {
        edges.push_back({first, last, target});
      }
    }
    return start;
  }

  NodeId call(RuleId rule, NodeId end) {
    const NodeId node = add_node();
    draft_.nodes[node].calls.push_back({rule, end});
    return node;
  }

  NodeId choice(const Expression& expression, NodeId end) {
    const NodeId start = add_node();
    std::unordered_map<uint64_t, NodeId> after;  // (node, byte): literals share their beginnings
    for (uint32_t i = expression.begin; i < expression.end; ++i) {
      const Expression& option = syntax_.expressions[syntax_.children[i]];
      if (option.kind != Kind::kBytes) {
        const NodeId node = start_of(syntax_.children[i], end);
        draft_.empty[start].push_back(node);
        continue;
      }
      NodeId node = start;
      for (uint32_t at = option.begin; at < option.end; ++at) {
        const auto byte = static_cast<uint8_t>(syntax_.bytes[at]);
        const uint64_t key = static_cast<uint64_t>(node) << 8 | byte;
        auto next = after.find(key);
        if (next == after.end()) {
          next = after.emplace(key, add_node()).first;
          draft_.nodes[node].bytes.push_back({byte, byte, next->second});
        }
        node = next->second;
      }
      draft_.empty[node].push_back(end);
    }
    return start;
  }

  NodeId repeat(const Expression& expression, NodeId end) {
    constexpr uint64_t kWrittenOut = 2048;  // nodes
    const uint32_t child = syntax_.children[expression.begin];
    RuleId called = kNone;
    const bool multiplies = copies_of(expression) > 1 && sizes_[child] > 2;
    if (multiplies && copies_of(expression) * sizes_[child] > kWrittenOut) {
      called = add_rule(draft_.rules[rule_].name, draft_.places[rule_], child);
    }
    const auto once = [&](NodeId to) {
      return called == kNone ? start_of(child, to) : call(called, to);
    };
    if (expression.most == kUnbounded) {
      const NodeId loop = add_node();
      const NodeId start = once(loop);
      draft_.empty[loop] = {start, end};
      end = expression.least == 0 ? loop : start;
      for (uint32_t i = 1; i < expression.least; ++i) end = once(end);
      return end;
    }
    NodeId rest = end;
    for (uint32_t i = expression.least; i < expression.most; ++i) {
      const NodeId start = once(rest);
      const NodeId optional = add_node();
      draft_.empty[optional] = {start, end};
      rest = optional;
    }
    for (uint32_t i = 0; i < expression.least; ++i) rest = once(rest);
    return rest;
  }

  const Syntax& syntax_;
  const AutomatonLimits limits_;
  std::vector<uint64_t> sizes_;  // [expressions]
  Draft draft_;
  std::vector<uint32_t> expressions_;  // [rules]
  RuleId rule_ = 0;                    // being built
};

// Every node that something leads to gets the edges of all nodes it reaches by empty edges.
Nodes without_empty_edges(const Draft& draft, const AutomatonLimits& limits) {
  const size_t num_nodes = draft.nodes.size();
  std::vector<bool> needed(num_nodes);
  for (const Automaton::NamedRule& rule : draft.rules) needed[rule.start] = true;
  for (const Automaton::Node& node : draft.nodes) {
    for (const ByteEdge& edge : node.bytes) needed[edge.target] = true;
    for (const CallEdge& edge : node.calls) needed[edge.target] = true;
    for (const TokenEdge& edge : node.tokens) needed[edge.target] = true;
  }
  Nodes out(num_nodes);
  std::vector<NodeId> seen_from(num_nodes, kNone);
  std::vector<NodeId> pending;
  uint64_t left = 16ull * limits.max_edges;  // steps along empty edges
  uint64_t num_edges = 0;
  const auto append = [&](const auto& from, auto* to) {
    to->insert(to->end(), from.begin(), from.end());
    num_edges += from.size();
  };
  for (NodeId node = 0; node < num_nodes; ++node) {
    if (!needed[node]) continue;
    pending = {node};
    seen_from[node] = node;
    while (!pending.empty()) {
      const NodeId from = pending.back();
      pending.pop_back();
      append(draft.nodes[from].bytes, &out[node].bytes);
      append(draft.nodes[from].calls, &out[node].calls);
      append(draft.nodes[from].tokens, &out[node].tokens);
      out[node].ends |= draft.nodes[from].ends;
      for (const NodeId next : draft.empty[from]) {
        if (left-- == 0 || num_edges > limits.max_edges) {
          throw Fault("the grammar is too large: its states have more than " +
                          std::to_string(limits.max_edges) + " edges",
                      {});
        }
        if (std::exchange(seen_from[next], node) != node) pending.push_back(next);
      }
    }
  }
  return out;
}

// Nodes from which their rule can come to an end.
std::vector<bool> find_ending(const Nodes& nodes, const Rules& rules) {
  std::vector<bool> ending(nodes.size());
  std::vector<std::vector<NodeId>> before(nodes.size());   // by any edge
  std::vector<std::vector<NodeId>> callers(rules.size());  // of a rule
  std::vector<std::vector<RuleId>> starts(nodes.size());   // of rules
  std::vector<NodeId> found;
  for (RuleId rule = 0; rule < rules.size(); ++rule) starts[rules[rule].start].push_back(rule);
  for (NodeId node = 0; node < nodes.size(); ++node) {
    for (const ByteEdge& edge : nodes[node].bytes) before[edge.target].push_back(node);
    for (const TokenEdge& edge : nodes[node].tokens) before[edge.target].push_back(node);
    for (const CallEdge& edge : nodes[node].calls) {
      before[edge.target].push_back(node);
      callers[edge.rule].push_back(node);
    }
    if (!nodes[node].ends) continue;
    ending[node] = true;
    found.push_back(node);
  }
  const auto may_end = [&](const Automaton::Node& node) {
    const auto target_ends = [&](const auto& edge) { return ending[edge.target]; };
    const auto call_ends = [&](const CallEdge& edge) {
      return ending[edge.target] && ending[rules[edge.rule].start];
    };
    return std::any_of(node.bytes.begin(), node.bytes.end(), target_ends) ||
           std::any_of(node.tokens.begin(), node.tokens.end(), target_ends) ||
           std::any_of(node.calls.begin(), node.calls.end(), call_ends);
  };
  const auto look_again = [&](NodeId node) {
    if (ending[node] || !may_end(nodes[node])) return;
    ending[node] = true;
    found.push_back(node);
  };
  while (!found.empty()) {
    const NodeId node = found.back();
    found.pop_back();
    for (const NodeId from : before[node]) look_again(from);
    for (const RuleId rule : starts[node]) {
      for (const NodeId caller : callers[rule]) look_again(caller);
    }
  }
  return ending;
}

// A rule that root needs and that needs itself.
RuleId find_endless(const Nodes& nodes, const Rules& rules, const std::vector<bool>& ending,
                    RuleId root) {
  RuleId rule = root;
  std::vector<uint8_t> seen(rules.size());
  while (std::exchange(seen[rule], uint8_t{1}) == 0) {
    // One of the rules called on the way that never ends, nearest first.
    std::deque<NodeId> pending = {rules[rule].start};
    std::vector<uint8_t> visited(nodes.size());
    for (bool found = false; !found && !pending.empty(); pending.pop_front()) {
      const Automaton::Node& node = nodes[pending.front()];
      if (std::exchange(visited[pending.front()], uint8_t{1}) != 0) continue;
      for (const CallEdge& edge : node.calls) {
        if (!found && !ending[rules[edge.rule].start]) {
          rule = edge.rule;
          found = true;
        }
        pending.push_back(edge.target);
      }
      for (const ByteEdge& edge : node.bytes) pending.push_back(edge.target);
      for (const TokenEdge& edge : node.tokens) pending.push_back(edge.target);
    }
  }
  return rule;
}

// Only what root reaches, and of that what ends.
Automaton trimmed(const Nodes& nodes, const Draft& draft, RuleId root) {
  const Rules& rules = draft.rules;
  const std::vector<bool> ending = find_ending(nodes, rules);
  if (!ending[rules[root].start]) {
    const RuleId endless = find_endless(nodes, rules, ending, root);
    throw Fault("no text matches the grammar: rule \"" + rules[endless].name + "\" never ends",
                draft.places[endless], rules[endless].name);
  }
  std::vector<NodeId> new_node(nodes.size(), kNone);
  std::vector<RuleId> new_rule(rules.size(), kNone);
  std::vector<NodeId> order;
  Rules kept_rules;
  const auto reach = [&](NodeId node) {
    if (new_node[node] != kNone) return;
    new_node[node] = static_cast<NodeId>(order.size());
    order.push_back(node);
  };
  const auto reach_rule = [&](RuleId rule) {
    if (new_rule[rule] != kNone) return;
    new_rule[rule] = static_cast<RuleId>(kept_rules.size());
    reach(rules[rule].start);
    kept_rules.push_back({rules[rule].name, new_node[rules[rule].start]});
  };
  reach_rule(root);
  Nodes kept;
  for (size_t i = 0; i < order.size(); ++i) {  // which grows
    const Automaton::Node& node = nodes[order[i]];
    Automaton::Node out;
    out.ends = node.ends;
    for (const ByteEdge& edge : node.bytes) {
      if (!ending[edge.target]) continue;
      reach(edge.target);
      out.bytes.push_back({edge.first, edge.last, new_node[edge.target]});
    }
    for (const TokenEdge& edge : node.tokens) {
      if (!ending[edge.target]) continue;
      reach(edge.target);
      out.tokens.push_back({edge.token, new_node[edge.target]});
    }
    for (const CallEdge& edge : node.calls) {
      if (!ending[edge.target] || !ending[rules[edge.rule].start]) continue;
      reach_rule(edge.rule);
      reach(edge.target);
      out.calls.push_back({new_rule[edge.rule], new_node[edge.target]});
    }
    kept.push_back(std::move(out));
  }
  return Automaton(kept, std::move(kept_rules), new_rule[root]);
}

}  // namespace

Automaton build_automaton(const Syntax& syntax, const AutomatonLimits& limits) {
  const Draft draft = Builder(syntax, limits).build();
  return trimmed(without_empty_edges(draft, limits), draft, syntax.root);
}

}  // namespace lorax::grammar
