// One sequence's way through its grammar: what it may say next, what it must, and when it is done.
//
// Always holds: after every token that the mask allows, the output can be closed within the tokens
// that are left. Engine thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "grammar/grammar.h"

namespace lorax::grammar {

class Matcher {
 public:
  explicit Matcher(std::shared_ptr<Grammar> grammar);
  ~Matcher();
  Matcher(const Matcher&) = delete;
  Matcher& operator=(const Matcher&) = delete;

  // False, and nothing changes, for a token that the grammar does not allow here.
  bool accept(int32_t token);

  // The tokens that may come next when `left` are left, this one too: mask [num_words]. One that is
  // forced comes alone. Throws Fault when the grammar is too ambiguous to tell.
  void fill_mask(int32_t left, std::span<uint32_t> mask);

  // The tokens that have to come next, however the bytes that have to come are cut: each the
  // longest that fits, and none that could go on into bytes that are not sure. Accepts them: at
  // most `left`, up to the first that ends the output, because it is a stop token or nothing can
  // follow; that one too if `to_the_end`.
  std::vector<int32_t> take_forced(int32_t left, std::span<const int32_t> stop_tokens,
                                   bool to_the_end);

  // The output may end here.
  bool may_end() const { return states().is_complete(state_); }
  // It may, and not because the grammar has yet to begin.
  bool is_whole() const { return may_end() && !states().is_free(state_); }
  // Nothing can follow.
  bool is_final() const { return states().is_final(state_); }
  // Tokens in which it can be closed, at most.
  Cost cost() const { return states().cost(state_); }
  StateId state() const { return state_; }

 private:
  struct Forced {
    int32_t token = -1;
    StateId after = StateTable::kDead;
  };
  StateTable& states() const { return grammar_->states(); }
  StateId after(int32_t token);
  Forced next_forced(int32_t left);
  Forced only_continuation();
  bool goes_on(uint32_t trie_node, StateId state);
  void move_to(StateId state);

  std::shared_ptr<Grammar> grammar_;
  StateId state_;
};

}  // namespace lorax::grammar
