// Stepping, closing, sharing, forgetting.
#include "grammar/state_table.h"

#include <algorithm>
#include <bitset>
#include <stdexcept>
#include <string>
#include <utility>

#include "grammar/fault.h"

namespace lorax::grammar {
namespace {

uint64_t mixed(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9E3779B97F4A7C15u;
  return hash ^ (hash >> 29);
}

[[noreturn]] void broken(const std::string& what) { throw std::logic_error("states: " + what); }

}  // namespace

StateTable::StateTable(const Automaton& automaton, const std::vector<Cost>& costs,
                       StateLimits limits)
    : automaton_(automaton), costs_(costs), limits_(limits), work_left_(limits.max_work) {
  find_classes();
  unknown_row_.assign(num_classes_, kUnknown);
  dead_row_.assign(num_classes_, kDead);
  frames_.push_back({});  // kBottom
  const StateId dead = add_state(0);
  rows_[dead] = dead_row_.data();
  costs_of_states_[dead] = kNever;
  closure_ = {};
  add(automaton_.start(automaton_.root()), kBottom);
  start_ = finish_closure();
  pin(dead);
  pin(start_);
}

void StateTable::find_classes() {
  std::bitset<257> begins;
  // Plain text (vocabulary.h), and the bytes of UTF-8 that may stand for one another.
  for (const int byte : {0x00, 0x20, 0x22, 0x23, 0x5C, 0x5D, 0x7F, 0x80, 0x90, 0xA0,
                         0xC0, 0xC2, 0xE0, 0xE1, 0xED, 0xEE, 0xF0, 0xF1, 0xF4, 0xF5}) {
    begins.set(static_cast<size_t>(byte));
  }
  for (NodeId node = 0; node < automaton_.num_nodes(); ++node) {
    for (const ByteEdge& edge : automaton_.bytes(node)) {
      begins.set(edge.first);
      begins.set(edge.last + 1u);
    }
  }
  for (size_t byte = 0; byte < 256; ++byte) {
    if (begins[byte]) ++num_classes_;
    class_of_[byte] = static_cast<ClassId>(num_classes_ - 1);
  }
}

// ---- steps ----

StateId StateTable::find_step(StateId state, uint8_t byte) {
  closure_ = {};
  look_at(states_[state].items.size());
  for (const Item& item : states_[state].items) {
    for (const ByteEdge& edge : automaton_.bytes(item.node)) {
      if (edge.first <= byte && byte <= edge.last) add(edge.target, item.frame);
    }
  }
  const StateId next = finish_closure();
  if (own_rows_[state] == nullptr) {
    own_rows_[state] = std::make_unique<StateId[]>(num_classes_);
    std::fill_n(own_rows_[state].get(), num_classes_, kUnknown);
    rows_[state] = own_rows_[state].get();
    bytes_ += num_classes_ * sizeof(StateId);
  }
  own_rows_[state][class_of_[byte]] = next;
  return next;
}

StateId StateTable::step_token(StateId state, int32_t token) {
  closure_ = {};
  for (const Item& item : states_[state].items) {
    for (const TokenEdge& edge : automaton_.tokens(item.node)) {
      if (edge.token == token) add(edge.target, item.frame);
    }
  }
  return finish_closure();
}

StateId StateTable::merged(StateId a, StateId b) {
  if (a == kDead || a == b) return b;
  if (b == kDead) return a;
  closure_ = {};
  for (const StateId state : {a, b}) {
    const State& from = states_[state];
    for (uint32_t i = 0; i < from.num_outer; ++i) add(from.items[i].node, from.items[i].frame);
    closure_.complete |= from.complete;
  }
  return finish_closure();
}

void StateTable::look_at(size_t num_items) {
  if (num_items > work_left_) {
    throw Fault("the grammar is too ambiguous: a token takes more than " +
                    std::to_string(limits_.max_work) + " looks at what may be going on",
                {});
  }
  work_left_ -= num_items;
}

// ---- closing: what is called, and what returns, without another byte ----

void StateTable::add(NodeId node, FrameId frame) {
  constexpr size_t kFew = 32;
  std::vector<Item>& items = closure_.items;
  const Item item = {node, frame};
  const auto key = [](const Item& of) { return static_cast<uint64_t>(of.frame) << 32 | of.node; };
  if (items.size() < kFew) {
    if (std::find(items.begin(), items.end(), item) != items.end()) return;
  } else {
    if (items.size() == kFew) {
      in_closure_.clear();
      for (const Item& known : items) in_closure_.insert(key(known));
    }
    if (!in_closure_.insert(key(item)).second) return;
    if (items.size() >= limits_.max_items) {
      throw Fault("the grammar is too ambiguous: more than " + std::to_string(limits_.max_items) +
                      " ways lie open at once",
                  {});
    }
  }
  items.push_back(item);
}

void StateTable::expand(const Item& item) {
  for (const CallEdge& edge : automaton_.calls(item.node)) {
    if (automaton_.only_ends(edge.target)) {
      add(automaton_.start(edge.rule), item.frame);
      continue;
    }
    add(automaton_.start(edge.rule), kOwn | edge.rule);
    closure_.called.push_back(edge.rule);
    if (automaton_.nullable(edge.rule)) add(edge.target, item.frame);
  }
  if (automaton_.ends(item.node)) return_to(item.frame);
}

void StateTable::return_to(FrameId frame) {
  if (frame == kBottom) {
    closure_.complete = true;
    return;
  }
  if ((frame & kOwn) != 0) return;  // matched nothing, and its caller has gone on already
  const Frame to = frames_[frame];
  look_at(states_[to.state].items.size());
  for (const Item& item : states_[to.state].items) {
    for (const CallEdge& edge : automaton_.calls(item.node)) {
      if (edge.rule == to.rule && !automaton_.only_ends(edge.target)) {
        add(edge.target, item.frame);
      }
    }
  }
}

StateId StateTable::finish_closure() {
  std::vector<Item>& items = closure_.items;
  for (size_t i = 0; i < items.size(); ++i) expand(Item(items[i]));  // which grow
  std::erase_if(items, [&](const Item& item) { return automaton_.only_ends(item.node); });
  if (items.empty() && !closure_.complete) return kDead;
  std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) {
    return a.frame != b.frame ? a.frame < b.frame : a.node < b.node;
  });
  const auto own = std::find_if(items.begin(), items.end(),
                                [](const Item& item) { return (item.frame & kOwn) != 0; });
  const std::span<const Item> outer(items.begin(), own);
  uint64_t hash = closure_.complete ? 1 : 2;
  for (const Item& item : outer) hash = mixed(mixed(hash, item.node), item.frame);
  const StateId known = find_equal(hash, outer, closure_.complete);
  if (known != kUnknown) return known;
  const StateId id = add_state(hash);
  states_[id].num_outer = static_cast<uint32_t>(outer.size());
  states_[id].complete = closure_.complete;
  states_[id].items = std::move(items);
  add_frames(id);
  describe(id);
  bytes_ += bytes_of(states_[id]);
  return id;
}

StateId StateTable::find_equal(uint64_t hash, std::span<const Item> outer, bool complete) const {
  const auto [begin, end] = by_hash_.equal_range(hash);
  for (auto entry = begin; entry != end; ++entry) {
    const State& state = states_[entry->second];
    if (state.complete != complete || state.num_outer != outer.size()) continue;
    if (std::equal(outer.begin(), outer.end(), state.items.begin())) return entry->second;
  }
  return kUnknown;
}

// ---- new states ----

StateId StateTable::add_state(uint64_t hash) {
  if (bytes_ > limits_.hard_bytes) {
    throw Fault("the grammar is too ambiguous: its states take more than " +
                    std::to_string(limits_.hard_bytes >> 20) + " MiB",
                {});
  }
  StateId id = static_cast<StateId>(states_.size());
  if (unused_states_.empty()) {
    states_.emplace_back();
    rows_.push_back(nullptr);
    own_rows_.emplace_back();
    costs_of_states_.push_back(kNever);
    free_.push_back(false);
  } else {
    id = unused_states_.back();
    unused_states_.pop_back();
  }
  states_[id] = {};
  states_[id].used = true;
  states_[id].hash = hash;
  rows_[id] = unknown_row_.data();
  by_hash_.emplace(hash, id);
  return id;
}

// Gives the frames that are the state's own their numbers.
void StateTable::add_frames(StateId id) {
  std::vector<RuleId>& called = closure_.called;
  std::sort(called.begin(), called.end());
  called.erase(std::unique(called.begin(), called.end()), called.end());
  State& state = states_[id];
  for (const RuleId rule : called) {
    FrameId frame = static_cast<FrameId>(frames_.size());
    if (unused_frames_.empty()) {
      frames_.emplace_back();
    } else {
      frame = unused_frames_.back();
      unused_frames_.pop_back();
    }
    frames_[frame] = {id, rule, kNever};
    state.frames.push_back(frame);
  }
  for (Item& item : std::span(state.items).subspan(state.num_outer)) {
    item.frame = own_frame(id, item.frame & ~kOwn);
  }
}

StateTable::FrameId StateTable::own_frame(StateId state, RuleId rule) const {
  const std::vector<FrameId>& frames = states_[state].frames;
  return *std::lower_bound(frames.begin(), frames.end(), rule, [&](FrameId frame, RuleId wanted) {
    return frames_[frame].rule < wanted;
  });
}

void StateTable::describe(StateId id) {
  State& state = states_[id];
  // A call within a call returns through both: until nothing gets shorter.
  for (bool changed = true; changed;) {
    changed = false;
    for (const Item& item : state.items) {
      for (const CallEdge& edge : automaton_.calls(item.node)) {
        if (automaton_.only_ends(edge.target)) continue;
        Frame& frame = frames_[own_frame(id, edge.rule)];
        const Cost cost = sum(costs_[edge.target], frames_[item.frame].cost);
        changed |= cost < frame.cost;
        frame.cost = std::min(frame.cost, cost);
      }
    }
  }
  Cost cost = state.complete ? 0 : kNever;
  int32_t first = 256, last = -1;
  bool is_free = false;
  for (uint32_t i = 0; i < state.items.size(); ++i) {
    const NodeId node = state.items[i].node;
    if (i < state.num_outer) {
      cost = std::min(cost, sum(costs_[node], frames_[state.items[i].frame].cost));
    }
    for (const ByteEdge& edge : automaton_.bytes(node)) {
      first = std::min<int32_t>(first, edge.first);
      last = std::max<int32_t>(last, edge.last);
    }
    for (const TokenEdge& edge : automaton_.tokens(node)) state.named_tokens.push_back(edge.token);
    is_free |= automaton_.is_free(node);
  }
  std::vector<int32_t>& named = state.named_tokens;
  std::sort(named.begin(), named.end());
  named.erase(std::unique(named.begin(), named.end()), named.end());
  state.is_final = last < 0 && named.empty();
  state.only_token = last < 0 && named.size() == 1 && !state.complete;
  if (first == last && named.empty() && !state.complete) state.only_byte = first;
  costs_of_states_[id] = cost;
  free_[id] = is_free;
}

// ---- forgetting ----

size_t StateTable::bytes_of(const State& state) const {
  return sizeof(State) + sizeof(StateId*) * 2 + 64 + state.items.size() * sizeof(Item) +
         state.frames.size() * (sizeof(Frame) + sizeof(FrameId)) +
         state.named_tokens.size() * sizeof(int32_t);
}

void StateTable::forget(StateId id) {
  State& state = states_[id];
  bytes_ -= bytes_of(state);
  if (own_rows_[id] != nullptr) bytes_ -= num_classes_ * sizeof(StateId);
  const auto [begin, end] = by_hash_.equal_range(state.hash);
  by_hash_.erase(std::find_if(begin, end, [&](const auto& entry) { return entry.second == id; }));
  unused_frames_.insert(unused_frames_.end(), state.frames.begin(), state.frames.end());
  unused_states_.push_back(id);
  state = {};
  own_rows_[id] = nullptr;
  rows_[id] = unknown_row_.data();
}

bool StateTable::tidy() {
  if (bytes_ <= limits_.soft_bytes) return false;
  std::vector<bool> needed(states_.size());
  std::vector<StateId> pending;
  const auto need = [&](StateId id) {
    if (needed[id]) return;
    needed[id] = true;
    pending.push_back(id);
  };
  for (StateId id = 0; id < states_.size(); ++id) {
    if (states_[id].used && states_[id].pins > 0) need(id);
  }
  while (!pending.empty()) {
    const StateId id = pending.back();
    pending.pop_back();
    for (const Item& item : states_[id].items) need(frames_[item.frame].state);
  }
  for (StateId id = 0; id < states_.size(); ++id) {
    if (states_[id].used && !needed[id]) forget(id);
  }
  // Steps lead to states that may be gone.
  for (StateId id = 0; id < states_.size(); ++id) {
    if (own_rows_[id] == nullptr) continue;
    own_rows_[id] = nullptr;
    rows_[id] = unknown_row_.data();
    bytes_ -= num_classes_ * sizeof(StateId);
  }
  return true;
}

void StateTable::check_invariants() const {
  size_t bytes = 0, num_used = 0, num_frames = 1;  // kBottom is nobody's
  for (StateId id = 0; id < states_.size(); ++id) {
    const State& state = states_[id];
    if (!state.used) continue;
    ++num_used;
    num_frames += state.frames.size();
    if (id != kDead) bytes += bytes_of(state);
    if (own_rows_[id] != nullptr) bytes += num_classes_ * sizeof(StateId);
    if (state.pins < 0) broken("a state was unpinned more often than pinned");
    for (const Item& item : state.items) {
      if (!states_[frames_[item.frame].state].used) broken("a frame's state was forgotten");
    }
    for (const FrameId frame : state.frames) {
      if (frames_[frame].state != id) broken("a frame has two states");
    }
    for (size_t i = 0; own_rows_[id] != nullptr && i < num_classes_; ++i) {
      const StateId next = own_rows_[id][i];
      if (next != kUnknown && !states_[next].used) broken("a step leads to a forgotten state");
    }
  }
  if (bytes != bytes_) broken("bytes are miscounted");
  if (num_used + unused_states_.size() != states_.size()) broken("a state leaked");
  if (num_frames + unused_frames_.size() != frames_.size()) broken("a frame leaked");
  if (by_hash_.size() != num_used) broken("a state is not found by its hash");
}

}  // namespace lorax::grammar
