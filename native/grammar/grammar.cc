// Text -> syntax -> automaton -> costs; states and masks come with the sequences.
#include "grammar/grammar.h"

#include <utility>

#include "grammar/automaton_builder.h"
#include "grammar/gbnf_parser.h"

namespace lorax::grammar {

std::shared_ptr<Grammar> Grammar::compile(std::string_view text,
                                          std::shared_ptr<const Vocabulary> vocabulary) {
  auto out = std::make_shared<Grammar>(build_automaton(parse_gbnf(text)), std::move(vocabulary));
  if (out->shortest() >= kNever) {
    throw Fault(
        "every output takes tokens that the model's vocabulary lacks, or more than 2^30 of them",
        {});
  }
  return out;
}

Grammar::Grammar(Automaton automaton, std::shared_ptr<const Vocabulary> vocabulary)
    : vocabulary_(std::move(vocabulary)),
      automaton_(std::move(automaton)),
      costs_(completion_costs(automaton_, *vocabulary_)),
      states_(automaton_, costs_),
      masks_(states_, *vocabulary_) {}

std::shared_ptr<Grammar> Grammar::behind(std::span<const Trigger> triggers) {
  constexpr size_t kMaxKept = 16;
  const std::lock_guard lock(mutex_);
  std::vector<Trigger> key(triggers.begin(), triggers.end());
  if (const auto known = behind_.find(key); known != behind_.end()) return known->second;
  auto made = std::make_shared<Grammar>(with_triggers(automaton_, triggers), vocabulary_);
  if (behind_.size() >= kMaxKept) behind_.clear();
  behind_.emplace(std::move(key), made);
  return made;
}

void Grammar::tidy() {
  if (states_.tidy()) masks_.clear();
}

}  // namespace lorax::grammar
