// The walk, what spares it, and what is kept.
#include "grammar/token_masks.h"

#include <algorithm>
#include <utility>

namespace lorax::grammar {
namespace {

// Frontiers of more states are no plain text.
constexpr size_t kMaxStates = 8;

// A folded trie has so many times fewer nodes, or is not kept.
constexpr size_t kWorthFolding = 4;

void insert_state(StateId state, std::vector<StateId>* states) {
  if (std::find(states->begin(), states->end(), state) == states->end()) states->push_back(state);
}

}  // namespace

TokenMasks::TokenMasks(StateTable& states, const Vocabulary& vocabulary, size_t max_bytes)
    : states_(states),
      vocabulary_(vocabulary),
      max_kept_(std::max<size_t>(
          2, max_bytes / 2 / (sizeof(Kept) + vocabulary.num_words() * sizeof(uint32_t)))),
      reached_(static_cast<size_t>(vocabulary.all().depth()) + 1) {
  fold_tries();
  using Range = std::pair<uint8_t, uint8_t>;
  constexpr Range kTrail = {0x80, 0xBF};
  const auto add = [&](const std::vector<std::vector<Range>>& bytes) {
    Character character;
    for (const std::vector<Range>& ranges : bytes) {
      std::vector<uint8_t>& of_classes = character.bytes.emplace_back();
      int32_t last = -1;
      for (const auto& [first_byte, last_byte] : ranges) {
        for (int32_t byte = first_byte; byte <= last_byte; ++byte) {
          const int32_t of = states_.class_of(static_cast<uint8_t>(byte));
          if (std::exchange(last, of) != of) of_classes.push_back(static_cast<uint8_t>(byte));
        }
      }
    }
    characters_.push_back(std::move(character));
  };
  add({{{0x20, 0x21}, {0x23, 0x5B}, {0x5D, 0x7E}}});
  add({{{0xC2, 0xDF}}, {kTrail}});
  add({{{0xE0, 0xE0}}, {{0xA0, 0xBF}}, {kTrail}});
  add({{{0xE1, 0xEC}, {0xEE, 0xEF}}, {kTrail}, {kTrail}});
  add({{{0xED, 0xED}}, {{0x80, 0x9F}}, {kTrail}});
  add({{{0xF0, 0xF0}}, {{0x90, 0xBF}}, {kTrail}, {kTrail}});
  add({{{0xF1, 0xF3}}, {kTrail}, {kTrail}, {kTrail}});
  add({{{0xF4, 0xF4}}, {{0x80, 0x8F}}, {kTrail}, {kTrail}});
}

void TokenMasks::fold_tries() {
  std::array<int32_t, 256> first_of_class;
  first_of_class.fill(-1);
  std::array<uint8_t, 256> first_of = {};
  for (int32_t byte = 0; byte < 256; ++byte) {
    int32_t& first =
        first_of_class[static_cast<size_t>(states_.class_of(static_cast<uint8_t>(byte)))];
    if (first < 0) first = byte;
    first_of[static_cast<size_t>(byte)] = static_cast<uint8_t>(first);
  }
  const auto fold = [&](const TokenTrie& trie) {
    TokenTrie folded = trie.folded(first_of);
    if (folded.nodes().size() * kWorthFolding > trie.nodes().size()) return &trie;
    return &std::as_const(tries_.folded.emplace_back(std::move(folded)));
  };
  tries_.all = fold(vocabulary_.all());
  const bool all_folded = tries_.all != &vocabulary_.all();
  tries_.not_plain = all_folded ? fold(vocabulary_.not_plain()) : &vocabulary_.not_plain();
  for (int32_t length = 1; length <= Vocabulary::kMaxPlain; ++length) {
    const TokenTrie& trie = vocabulary_.plain(length).trie;
    tries_.plain[static_cast<size_t>(length - 1)] = all_folded ? fold(trie) : &trie;
  }
}

// ---- what is kept ----

bool TokenMasks::Kept::admits(Cost cost, Cost most) {
  if (cost > most) {
    below = std::min(below, cost);
    return false;
  }
  from = std::max(from, cost);
  return true;
}

void TokenMasks::fill(StateId state, Cost most, std::span<uint32_t> mask) {
  const std::shared_ptr<const Kept> found = kept(state, std::min(most, kNever - 1));
  std::copy(found->allowed.begin(), found->allowed.end(), mask.begin());
}

std::shared_ptr<const TokenMasks::Kept> TokenMasks::kept(StateId state, Cost most) {
  const auto look_in = [&](const KeptMasks& masks) -> std::shared_ptr<const Kept> {
    const auto [begin, end] = masks.equal_range(state);
    for (auto at = begin; at != end; ++at) {
      if (at->second->from <= most && most < at->second->below) return at->second;
    }
    return nullptr;
  };
  std::shared_ptr<const Kept> mask = look_in(recent_);
  if (mask != nullptr) return mask;
  mask = look_in(older_);
  if (mask == nullptr) mask = find(state, most);
  if (recent_.size() >= max_kept_) older_ = std::exchange(recent_, {});
  recent_.emplace(state, mask);
  return mask;
}

void TokenMasks::clear() {
  recent_.clear();
  older_.clear();
}

// ---- finding ----

std::shared_ptr<const TokenMasks::Kept> TokenMasks::find(StateId state, Cost most) {
  const auto mask = std::make_shared<Kept>();
  mask->allowed.resize(vocabulary_.num_words());
  const PlainText plain = plain_text(state);
  if (plain.all_up_to == 0) {
    walk(*tries_.all, state, most, mask.get());
  } else {
    walk(*tries_.not_plain, state, most, mask.get());
    for (int32_t length = 1; length <= Vocabulary::kMaxPlain; ++length) {
      const Vocabulary::Plain& group = vocabulary_.plain(length);
      const bool longer_too = length == Vocabulary::kMaxPlain;
      if (group.empty || length >= plain.none_from) continue;
      if (longer_too ? plain.all_up_to < kEndless : length > plain.all_up_to) {
        walk(*tries_.plain[static_cast<size_t>(length - 1)], state, most, mask.get());
        continue;
      }
      if (!mask->admits(plain.costs[static_cast<size_t>(length)], most)) continue;
      for (size_t i = 0; i < mask->allowed.size(); ++i) mask->allowed[i] |= group.set[i];
    }
  }
  const bool is_free = states_.is_free(state);
  for (size_t i = 0; is_free && i < mask->allowed.size(); ++i) {
    mask->allowed[i] |= vocabulary_.silent()[i];
  }
  for (const int32_t token : states_.named_tokens(state)) {
    if (token >= vocabulary_.size()) continue;
    if (is_free) remove(mask->allowed, token);  // a trigger is nothing else
    const Cost cost = states_.cost(states_.step_token(state, token));
    if (mask->admits(cost, most)) insert(mask->allowed, token);
  }
  return mask;
}

void TokenMasks::walk(const TokenTrie& trie, StateId state, Cost most, Kept* mask) {
  const std::span<const TokenTrie::Node> nodes = trie.nodes();
  const auto num_nodes = static_cast<uint32_t>(nodes.size());
  reached_[0] = state;
  for (uint32_t i = 1; i < num_nodes;) {
    const TokenTrie::Node& node = nodes[i];
    const StateId next = states_.step(reached_[node.depth - 1u], node.byte);
    if (next == StateTable::kDead) {
      i = node.after;
      continue;
    }
    reached_[node.depth] = next;
    const std::span<const int32_t> tokens = trie.tokens(i++);
    if (tokens.empty() || !mask->admits(states_.cost(next), most)) continue;
    for (const int32_t token : tokens) insert(mask->allowed, token);
  }
}

TokenMasks::PlainText TokenMasks::plain_text(StateId state) {
  PlainText out;
  out.none_from = kEndless;
  out.costs.fill(kNever);
  std::vector<StateId> here = {state}, after;
  for (int32_t length = 1; length <= Vocabulary::kMaxPlain; ++length) {
    const bool all = after_any_character(here, length == 1, &after);
    if (after.empty()) {
      out.none_from = length;
      return out;
    }
    const Cost cost = states_.cost(after[0]);
    const bool alike = std::all_of(after.begin(), after.end(),
                                   [&](StateId next) { return states_.cost(next) == cost; });
    if (!all || !alike || after.size() > kMaxStates) return out;
    out.all_up_to = length;
    out.costs[static_cast<size_t>(length)] = cost;
    std::sort(after.begin(), after.end());
    if (after == here) {  // and so on for ever
      std::fill(out.costs.begin() + length, out.costs.end(), cost);
      out.all_up_to = kEndless;
      return out;
    }
    std::swap(here, after);
  }
  return out;
}

// Whether every character of plain text may follow every one of `before`; `after`: where they lead,
// some of it at least when there is more than fits. With `only_whether_all` the first that may not
// follow ends the search, with some of `after` there.
bool TokenMasks::after_any_character(const std::vector<StateId>& before, bool only_whether_all,
                                     std::vector<StateId>* after) {
  bool all = true;
  after->clear();
  std::vector<StateId> here, next;
  for (const Character& character : characters_) {
    here = before;
    for (const std::vector<uint8_t>& bytes : character.bytes) {
      next.clear();
      for (const StateId state : here) {
        for (const uint8_t byte : bytes) {
          const StateId to = states_.step(state, byte);
          if (to != StateTable::kDead) {
            insert_state(to, &next);
            continue;
          }
          all = false;
          if (!only_whether_all) continue;
          *after = before;
          return false;
        }
      }
      if (next.size() > kMaxStates) {
        *after = next;
        return false;
      }
      std::swap(here, next);
    }
    for (const StateId state : here) insert_state(state, after);
  }
  return all;
}

}  // namespace lorax::grammar
