// All that can be going on at once after some output, found as it is needed: Earley's algorithm
// (1970) as a machine whose states are shared.
//
// An item is a node of the automaton and the frame to return to when the node's rule ends. A frame
// is (state, rule): it returns to every item of that state which calls the rule, so that any number
// of stacks of calls share what they have in common, ambiguous or recursive as the grammar may be.
// A call with nothing left to do after it passes its own frame on. A state is a set of items; equal
// sets are one state, so the way from state to state by a byte is found once.
//
// Always holds: a state's frames are of older states or its own; what a pinned state needs is kept.
// One thread at a time.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "grammar/automaton.h"
#include "grammar/completion_costs.h"

namespace lorax::grammar {

using StateId = uint32_t;

struct StateLimits {
  // Beyond these a grammar is too ambiguous: items of one state, and items looked at for one mask
  // or one token (some 50 ms).
  size_t max_items = 1 << 13;
  uint64_t max_work = 1 << 24;
  size_t soft_bytes = 16 << 20;  // states that nobody needs are forgotten from here on
  size_t hard_bytes = 64 << 20;
};

class StateTable {
 public:
  static constexpr StateId kDead = 0;

  // Both outlive it. `costs` [num_nodes].
  StateTable(const Automaton& automaton, const std::vector<Cost>& costs, StateLimits limits = {});

  StateId start() const { return start_; }

  // What follows may take max_work anew.
  void begin_work() { work_left_ = limits_.max_work; }

  // The state after one more byte, kDead if the grammar has none. Throws Fault when that takes more
  // than the limits allow.
  StateId step(StateId state, uint8_t byte) {
    const StateId known = rows_[state][class_of_[byte]];
    return known != kUnknown ? known : find_step(state, byte);
  }
  // The same after a whole token that the grammar names (TokenEdge).
  StateId step_token(StateId state, int32_t token);
  // After a token that spells nothing: kDead but where output is free.
  StateId step_silent(StateId state) { return free_[state] ? state : kDead; }
  // What either state allows.
  StateId merged(StateId a, StateId b);

  // The whole output may end here.
  bool is_complete(StateId state) const { return states_[state].complete; }
  // Tokens until that is so, at most; kNever when the vocabulary has no way.
  Cost cost(StateId state) const { return costs_of_states_[state]; }
  // Output is free here (Automaton::is_free).
  bool is_free(StateId state) const { return free_[state]; }
  // The one byte that can follow; -1 when there are none or several, or the output may end.
  int32_t only_byte(StateId state) const { return states_[state].only_byte; }
  // One named token can follow, and nothing else.
  bool has_only_token(StateId state) const { return states_[state].only_token; }
  // Nothing can follow.
  bool is_final(StateId state) const { return states_[state].is_final; }
  // The tokens that the grammar names here, ascending.
  const std::vector<int32_t>& named_tokens(StateId state) const {
    return states_[state].named_tokens;
  }

  // Bytes of one class lead everywhere to the same state. Plain text and the parts of UTF-8 are
  // unions of classes.
  int32_t class_of(uint8_t byte) const { return class_of_[byte]; }

  // A pinned state, and all it needs, is never forgotten. Pins are counted.
  void pin(StateId state) { ++states_[state].pins; }
  void unpin(StateId state) { --states_[state].pins; }

  // Forgets states that no pinned one needs, if there is too much; true if so: ids that are not
  // pinned mean nothing any more. Never happens by itself.
  bool tidy();
  size_t bytes() const { return bytes_; }

  // Throws std::logic_error with what is broken. For tests.
  void check_invariants() const;

 private:
  using FrameId = uint32_t;
  using ClassId = uint16_t;
  static constexpr StateId kUnknown = 0xFFFFFFFF;
  static constexpr FrameId kBottom = 0;        // of the root: whoever returns there is done
  static constexpr FrameId kOwn = 0x80000000;  // | rule: a frame of the state being made

  struct Item {
    NodeId node = 0;
    FrameId frame = 0;
    bool operator==(const Item&) const = default;
    auto operator<=>(const Item&) const = default;
  };
  struct Frame {
    StateId state = 0;
    RuleId rule = 0;
    Cost cost = 0;  // after the return, to the end of the output
  };
  struct State {
    std::vector<Item> items;  // ascending; those that came from outside first, then its own
    uint32_t num_outer = 0;
    std::vector<FrameId> frames;  // its own, by ascending rule
    std::vector<int32_t> named_tokens;
    uint64_t hash = 0;
    int32_t pins = 0;
    int32_t only_byte = -1;
    bool complete = false;
    bool only_token = false;
    bool is_final = false;
    bool used = false;
  };
  // The items of a state on its way, with all that follows from them.
  struct Closure {
    std::vector<Item> items;
    std::vector<RuleId> called;  // by items of it
    bool complete = false;
  };

  void find_classes();
  StateId find_step(StateId state, uint8_t byte);
  void add(NodeId node, FrameId frame);
  void look_at(size_t num_items);
  void expand(const Item& item);
  void return_to(FrameId frame);
  StateId finish_closure();
  StateId find_equal(uint64_t hash, std::span<const Item> outer, bool complete) const;
  StateId add_state(uint64_t hash);
  void add_frames(StateId id);
  void describe(StateId id);
  FrameId own_frame(StateId state, RuleId rule) const;
  size_t bytes_of(const State& state) const;
  void forget(StateId id);

  const Automaton& automaton_;
  const std::vector<Cost>& costs_;  // [nodes]
  const StateLimits limits_;
  std::array<ClassId, 256> class_of_ = {};
  size_t num_classes_ = 0;
  std::vector<StateId> unknown_row_;  // [num_classes_] kUnknown, of states no step was asked of
  std::vector<StateId> dead_row_;     // [num_classes_] kDead

  std::vector<State> states_;
  std::vector<const StateId*> rows_;                  // [states][num_classes_]
  std::vector<std::unique_ptr<StateId[]>> own_rows_;  // [states], where a step was asked
  std::vector<Cost> costs_of_states_;                 // [states]
  std::vector<bool> free_;                            // [states]
  std::vector<StateId> unused_states_;
  std::vector<Frame> frames_;
  std::vector<FrameId> unused_frames_;
  std::unordered_multimap<uint64_t, StateId> by_hash_;
  StateId start_ = 0;
  size_t bytes_ = 0;
  uint64_t work_left_;

  Closure closure_;
  std::unordered_set<uint64_t> in_closure_;  // its items, once they are many
};

}  // namespace lorax::grammar
