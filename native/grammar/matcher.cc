// A pinned state, and the steps from it.
#include "grammar/matcher.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace lorax::grammar {

Matcher::Matcher(std::shared_ptr<Grammar> grammar)
    : grammar_(std::move(grammar)), state_(grammar_->states().start()) {
  states().pin(state_);
}

Matcher::~Matcher() { states().unpin(state_); }

void Matcher::move_to(StateId state) {
  states().pin(state);
  states().unpin(std::exchange(state_, state));
}

StateId Matcher::after(int32_t token) {
  const std::string_view bytes = grammar_->vocabulary()->bytes(token);
  StateId state = bytes.empty() ? states().step_silent(state_) : state_;
  for (const char byte : bytes) state = states().step(state, static_cast<uint8_t>(byte));
  const std::vector<int32_t>& named = states().named_tokens(state_);
  if (!std::binary_search(named.begin(), named.end(), token)) return state;
  // A free output's trigger ends it, whatever the token spells.
  const StateId by_name = states().step_token(state_, token);
  return states().is_free(state_) ? by_name : states().merged(state, by_name);
}

bool Matcher::accept(int32_t token) {
  states().begin_work();
  const StateId next = after(token);
  if (next == StateTable::kDead) return false;
  move_to(next);
  return true;
}

void Matcher::fill_mask(int32_t left, std::span<uint32_t> mask) {
  grammar_->tidy();
  states().begin_work();
  if (const Forced forced = next_forced(left); forced.token >= 0) {
    std::fill(mask.begin(), mask.end(), 0u);
    insert(mask, forced.token);
    return;
  }
  grammar_->masks().fill(state_, static_cast<Cost>(std::max(left - 1, 0)), mask);
}

std::vector<int32_t> Matcher::take_forced(int32_t left, std::span<const int32_t> stop_tokens,
                                          bool to_the_end) {
  states().begin_work();
  std::vector<int32_t> tokens;
  for (bool ends = false; left > 0 && !ends; --left) {
    const Forced next = next_forced(left);
    if (next.token < 0) break;
    ends = states().is_final(next.after) || std::ranges::count(stop_tokens, next.token) > 0;
    if (ends && !to_the_end) break;
    tokens.push_back(next.token);
    move_to(next.after);
  }
  return tokens;
}

Matcher::Forced Matcher::next_forced(int32_t left) {
  const Forced forced = only_continuation();
  const bool closes = forced.token >= 0 && states().cost(forced.after) < static_cast<Cost>(left);
  return closes ? forced : Forced();
}

Matcher::Forced Matcher::only_continuation() {
  Forced forced;
  if (states().has_only_token(state_)) {
    const int32_t token = states().named_tokens(state_)[0];
    if (token < grammar_->vocabulary()->size()) {
      forced = {token, states().step_token(state_, token)};
    }
    return forced;
  }
  const TokenTrie& trie = grammar_->vocabulary()->all();
  uint32_t at = TokenTrie::kRoot;
  for (StateId state = state_;;) {
    const int32_t byte = states().only_byte(state);
    if (byte < 0) return goes_on(at, state) ? Forced() : forced;
    at = trie.child(at, static_cast<uint8_t>(byte));
    if (at == TokenTrie::kNone) return forced;
    state = states().step(state, static_cast<uint8_t>(byte));
    if (!trie.tokens(at).empty()) forced = {trie.tokens(at)[0], state};
  }
}

// Whether a longer token may come instead.
bool Matcher::goes_on(uint32_t trie_node, StateId state) {
  const std::span<const TokenTrie::Node> nodes = grammar_->vocabulary()->all().nodes();
  const uint32_t end = nodes[trie_node].after;
  for (uint32_t child = trie_node + 1; child < end; child = nodes[child].after) {
    if (states().step(state, nodes[child].byte) != StateTable::kDead) return true;
  }
  return false;
}

}  // namespace lorax::grammar
