// A list and a map into it; compiling happens outside of the lock.
#include "engine/grammar_cache.h"

#include <utility>

namespace lorax {

Error grammar_invalid(const grammar::Fault& fault) {
  ErrorData data;
  std::string where;
  if (fault.place().line > 0) {
    data["line"] = static_cast<double>(fault.place().line);
    data["column"] = static_cast<double>(fault.place().column);
    where = "line " + std::to_string(fault.place().line) + ", column " +
            std::to_string(fault.place().column) + ": ";
  }
  if (!fault.rule().empty()) data["rule"] = fault.rule();
  return Error("GRAMMAR_INVALID", "The grammar cannot be used: " + where + fault.what() + ".",
               std::move(data));
}

void GrammarCache::set_vocabulary(grammar::TokenBytes tokens) {
  const std::lock_guard lock(mutex_);
  if (tokens_ || vocabulary_ != nullptr) {
    throw Error("INVALID_OPTIONS", "The engine has its vocabulary already.",
                {{"field", std::string("vocabulary")}});
  }
  tokens_ = std::move(tokens);
}

std::shared_ptr<const grammar::Vocabulary> GrammarCache::vocabulary() {
  const std::lock_guard lock(mutex_);
  if (vocabulary_ != nullptr) return vocabulary_;
  if (!tokens_) {
    throw Error("INVALID_OPTIONS", "A grammar needs the vocabulary, which was not set.",
                {{"field", std::string("vocabulary")}});
  }
  vocabulary_ = std::make_shared<grammar::Vocabulary>(*std::move(tokens_), vocab_size_);
  tokens_.reset();
  return vocabulary_;
}

std::shared_ptr<grammar::Grammar> GrammarCache::compile(const std::string& text) {
  if (auto known = find(text)) return known;
  std::shared_ptr<grammar::Grammar> made;
  try {
    made = grammar::Grammar::compile(text, vocabulary());
  } catch (const grammar::Fault& fault) {
    throw grammar_invalid(fault);
  }
  return keep(text, std::move(made));
}

std::shared_ptr<grammar::Grammar> GrammarCache::keep(const std::string& text,
                                                     std::shared_ptr<grammar::Grammar> made) {
  const std::lock_guard lock(mutex_);
  // Somebody else may have been faster.
  if (const auto known = by_text_.find(text); known != by_text_.end()) {
    return known->second->grammar;
  }
  kept_.push_front({text, made});
  by_text_[kept_.front().text] = kept_.begin();
  if (kept_.size() > kMaxKept) {
    by_text_.erase(kept_.back().text);
    kept_.pop_back();
  }
  return made;
}

std::shared_ptr<grammar::Grammar> GrammarCache::find(std::string_view text) {
  const std::lock_guard lock(mutex_);
  const auto found = by_text_.find(text);
  if (found == by_text_.end()) return nullptr;
  kept_.splice(kept_.begin(), kept_, found->second);
  return found->second->grammar;
}

bool GrammarCache::owns(const grammar::Grammar& grammar) const {
  const std::lock_guard lock(mutex_);
  return grammar.vocabulary() == vocabulary_;
}

}  // namespace lorax
