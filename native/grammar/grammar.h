// A grammar compiled for the vocabulary of an engine.
//
// Any thread may make, hold and let go of one. What its sequences find out as they go (states,
// masks) is kept with it, for all of them, and is the engine thread's alone.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <vector>

#include "grammar/automaton.h"
#include "grammar/completion_costs.h"
#include "grammar/state_table.h"
#include "grammar/token_masks.h"
#include "grammar/trigger_automaton.h"
#include "grammar/vocabulary.h"

namespace lorax::grammar {

class Grammar {
 public:
  // Throws Fault: see gbnf_parser.h and automaton_builder.h; or the vocabulary lacks the tokens.
  static std::shared_ptr<Grammar> compile(std::string_view text,
                                          std::shared_ptr<const Vocabulary> vocabulary);

  Grammar(Automaton automaton, std::shared_ptr<const Vocabulary> vocabulary);

  // The same behind triggers (trigger_automaton.h); equal triggers give the same one again.
  std::shared_ptr<Grammar> behind(std::span<const Trigger> triggers);

  const std::shared_ptr<const Vocabulary>& vocabulary() const { return vocabulary_; }
  const Automaton& automaton() const { return automaton_; }
  // Tokens in which an output can be closed that has not begun, at most.
  Cost shortest() const { return costs_[automaton_.start(automaton_.root())]; }

  // ---- engine thread ----

  StateTable& states() { return states_; }
  TokenMasks& masks() { return masks_; }
  // Before a mask: forgets what nobody needs if it has become too much.
  void tidy();

 private:
  const std::shared_ptr<const Vocabulary> vocabulary_;
  const Automaton automaton_;
  const std::vector<Cost> costs_;
  StateTable states_;
  TokenMasks masks_;

  std::mutex mutex_;
  std::map<std::vector<Trigger>, std::shared_ptr<Grammar>> behind_;
};

}  // namespace lorax::grammar
