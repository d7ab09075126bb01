// The grammars of an engine by their texts: the newest stay compiled. The vocabulary is laid out
// for them when the first one comes. Any thread.
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "backend/error.h"
#include "grammar/fault.h"
#include "grammar/grammar.h"

namespace lorax {

// What is wrong with a grammar, and where: GRAMMAR_INVALID.
Error grammar_invalid(const grammar::Fault& fault);

class GrammarCache {
 public:
  explicit GrammarCache(int32_t vocab_size) : vocab_size_(vocab_size) {}

  // Once.
  void set_vocabulary(grammar::TokenBytes tokens);

  // Throws Error.
  std::shared_ptr<grammar::Grammar> compile(const std::string& text);

  // Whether it was compiled here.
  bool owns(const grammar::Grammar& grammar) const;

 private:
  static constexpr size_t kMaxKept = 64;
  struct Entry {
    std::string text;
    std::shared_ptr<grammar::Grammar> grammar;
  };

  std::shared_ptr<grammar::Grammar> find(std::string_view text);
  std::shared_ptr<grammar::Grammar> keep(const std::string& text,
                                         std::shared_ptr<grammar::Grammar> made);
  std::shared_ptr<const grammar::Vocabulary> vocabulary();

  const int32_t vocab_size_;
  mutable std::mutex mutex_;
  std::optional<grammar::TokenBytes> tokens_;  // until they are laid out
  std::shared_ptr<const grammar::Vocabulary> vocabulary_;
  std::list<Entry> kept_;  // the newest first
  std::unordered_map<std::string_view, std::list<Entry>::iterator> by_text_;
};

}  // namespace lorax
