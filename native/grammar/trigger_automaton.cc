// The automaton of Aho and Corasick (1975), in front of the root.
#include "grammar/trigger_automaton.h"

#include <array>
#include <deque>
#include <utility>
#include <vector>

namespace lorax::grammar {
namespace {

constexpr uint32_t kNone = 0xFFFFFFFF;

// How much of which triggers the output ends with.
struct Progress {
  std::array<uint32_t, 256> next;
  bool fires = false;
};

std::vector<Progress> find_progress(std::span<const Trigger> triggers) {
  std::vector<Progress> states(1);
  states[0].next.fill(kNone);
  for (const Trigger& trigger : triggers) {
    const auto* text = std::get_if<std::string>(&trigger);
    if (text == nullptr) continue;
    uint32_t at = 0;
    for (const char c : *text) {
      const auto byte = static_cast<uint8_t>(c);
      if (states[at].next[byte] == kNone) {
        states[at].next[byte] = static_cast<uint32_t>(states.size());
        states.emplace_back().next.fill(kNone);
      }
      at = states[at].next[byte];
    }
    states[at].fires = true;
  }
  // Breadth first: where nothing goes on, the longest shorter ending does.
  std::vector<uint32_t> shorter(states.size(), 0);
  std::deque<uint32_t> pending = {0};
  for (; !pending.empty(); pending.pop_front()) {
    const uint32_t state = pending.front();
    states[state].fires |= states[shorter[state]].fires;
    for (size_t byte = 0; byte < 256; ++byte) {
      uint32_t& next = states[state].next[byte];
      const uint32_t otherwise = state == 0 ? 0 : states[shorter[state]].next[byte];
      if (next == kNone) {
        next = otherwise;
      } else {
        shorter[next] = otherwise;
        pending.push_back(next);
      }
    }
  }
  return states;
}

}  // namespace

Automaton with_triggers(const Automaton& automaton, std::span<const Trigger> triggers) {
  std::vector<Automaton::Node> nodes = automaton.nodes();
  std::vector<Automaton::NamedRule> rules = automaton.rules();
  const std::vector<Progress> progress = find_progress(triggers);
  const auto end = static_cast<NodeId>(nodes.size());
  const NodeId fired = end + 1, first = end + 2;
  nodes.emplace_back().ends = true;
  nodes.emplace_back().calls.push_back({automaton.root(), end});
  const auto node_of = [&](uint32_t state) {
    return progress[state].fires ? fired : first + static_cast<NodeId>(state);
  };
  for (const Progress& state : progress) {
    Automaton::Node& node = nodes.emplace_back();
    if (state.fires) continue;
    node.ends = node.free = true;
    for (size_t byte = 0; byte < 256; ++byte) {
      const NodeId target = node_of(state.next[byte]);
      const auto value = static_cast<uint8_t>(byte);
      if (!node.bytes.empty() && node.bytes.back().target == target) {
        node.bytes.back().last = value;
      } else {
        node.bytes.push_back({value, value, target});
      }
    }
    for (const Trigger& trigger : triggers) {
      if (const auto* token = std::get_if<int32_t>(&trigger)) {
        node.tokens.push_back({*token, fired});
      }
    }
  }
  rules.push_back({"free output", first});
  const auto root = static_cast<RuleId>(rules.size() - 1);
  return Automaton(nodes, std::move(rules), root);
}

}  // namespace lorax::grammar
