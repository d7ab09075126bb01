// Which tokens may come next in a state: the vocabulary's tree walked along with the states.
//
// Masks of recent states are kept, each for all budgets that it is the mask of, so the inside of a
// string costs nothing after its first token, however much is left.
// Where a state allows any plain text, the tokens of plain text are taken as a whole; where the
// grammar tells few bytes apart, tokens that are alike to it are walked as one. One thread at a
// time.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "grammar/state_table.h"
#include "grammar/vocabulary.h"

namespace lorax::grammar {

class TokenMasks {
 public:
  // Both outlive it. It keeps at most about `max_bytes` of masks.
  TokenMasks(StateTable& states, const Vocabulary& vocabulary, size_t max_bytes = 8 << 20);
  TokenMasks(const TokenMasks&) = delete;
  TokenMasks& operator=(const TokenMasks&) = delete;

  // Tokens after which the output can be closed with `most` more: mask [num_words]. Throws Fault as
  // StateTable::step does.
  void fill(StateId state, Cost most, std::span<uint32_t> mask);

  // The states' ids mean something else now.
  void clear();

 private:
  // The mask where from <= most < below: nothing costs as much as lies between.
  struct Kept {
    TokenSet allowed;
    Cost from = 0;        // the highest cost after any of them
    Cost below = kNever;  // the lowest cost after any other
    // Whether a token after which it costs so much is allowed with `most`.
    bool admits(Cost cost, Cost most);
  };
  using KeptMasks = std::unordered_multimap<StateId, std::shared_ptr<const Kept>>;

  // The vocabulary's, or folded to the grammar's classes of bytes where that makes them much
  // smaller.
  struct Tries {
    const TokenTrie* all = nullptr;
    const TokenTrie* not_plain = nullptr;
    std::array<const TokenTrie*, Vocabulary::kMaxPlain> plain = {};
    std::deque<TokenTrie> folded;
  };

  // What plain text of so many characters meets: everything, or nothing at all.
  struct PlainText {
    int32_t all_up_to = 0;  // every text of so many characters is allowed
    int32_t none_from = 0;  // no text of so many is; kEndless: cannot be said
    std::array<Cost, Vocabulary::kMaxPlain + 1> costs = {};  // after so many characters
  };
  static constexpr int32_t kEndless = 1 << 30;

  std::shared_ptr<const Kept> kept(StateId state, Cost most);
  std::shared_ptr<const Kept> find(StateId state, Cost most);
  void fold_tries();
  void walk(const TokenTrie& trie, StateId state, Cost most, Kept* mask);
  PlainText plain_text(StateId state);
  bool after_any_character(const std::vector<StateId>& before, bool only_whether_all,
                           std::vector<StateId>* after);

  StateTable& states_;
  const Vocabulary& vocabulary_;
  Tries tries_;
  const size_t max_kept_;
  KeptMasks recent_, older_;
  std::vector<StateId> reached_;  // [depth + 1] of the walk
  // One byte of each class within the parts of UTF-8 that plain text is made of.
  struct Character {
    std::vector<std::vector<uint8_t>> bytes;  // [length]
  };
  std::vector<Character> characters_;
};

}  // namespace lorax::grammar
