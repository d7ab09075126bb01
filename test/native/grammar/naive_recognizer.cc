// Fixpoints over all expressions and positions.
#include "grammar/naive_recognizer.h"

#include <algorithm>
#include <string>

#include "grammar/utf8.h"

namespace lorax::grammar {

using Kind = Expression::Kind;

NaiveRecognizer::NaiveRecognizer(const Syntax& syntax, std::vector<int32_t> input)
    : syntax_(syntax), input_(std::move(input)) {
  const size_t num = syntax.expressions.size();
  ends_.assign(num * (size() + 1) * (size() + 1), false);
  goes_on_.assign(num * (size() + 1), false);
  sequences_.resize(syntax.classes.size());
  for (size_t i = 0; i < sequences_.size(); ++i) {
    append_sequences(syntax.classes[i], &sequences_[i]);
  }
  find_possible();
  for (size_t begin = size() + 1; begin-- > 0;) {  // what follows is known by then
    do {
      changed_ = false;
      for (uint32_t expression = 0; expression < num; ++expression) match(expression, begin);
    } while (changed_);
  }
}

void NaiveRecognizer::find_possible() {
  possible_.assign(syntax_.expressions.size(), false);
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t i = 0; i < possible_.size(); ++i) {
      const Expression& e = syntax_.expressions[i];
      bool possible = true;
      if (e.kind == Kind::kRule) possible = possible_[syntax_.rules[e.begin].expression];
      if (e.kind == Kind::kRepeat) {
        possible = e.least == 0 || possible_[syntax_.children[e.begin]];
      }
      if (e.kind == Kind::kSequence || e.kind == Kind::kChoice) {
        const auto begin = syntax_.children.begin();
        const auto is_possible = [&](uint32_t child) { return possible_[child]; };
        possible = e.kind == Kind::kSequence
                       ? std::all_of(begin + e.begin, begin + e.end, is_possible)
                       : std::any_of(begin + e.begin, begin + e.end, is_possible);
      }
      if (possible && !possible_[i]) possible_[i] = changed = true;
    }
  }
}

void NaiveRecognizer::add_end(uint32_t expression, size_t begin, size_t end) {
  if (is_end(expression, begin, end)) return;
  ends_[at(expression, begin, end)] = changed_ = true;
}

void NaiveRecognizer::add_going_on(uint32_t expression, size_t begin) {
  if (may_go_on(expression, begin)) return;
  goes_on_[expression * (size() + 1) + begin] = changed_ = true;
}

void NaiveRecognizer::match(uint32_t expression, size_t begin) {
  const Expression& e = syntax_.expressions[expression];
  switch (e.kind) {
    case Kind::kBytes: {
      size_t same = 0;
      const size_t length = e.end - e.begin;
      while (same < length && begin + same < size() &&
             input_[begin + same] == static_cast<uint8_t>(syntax_.bytes[e.begin + same])) {
        ++same;
      }
      if (same == length) {
        add_end(expression, begin, begin + length);
      } else if (begin + same == size()) {
        add_going_on(expression, begin);
      }
      return;
    }
    case Kind::kClass:
      return match_class(expression, begin);
    case Kind::kToken:
      if (begin == size()) {
        add_going_on(expression, begin);
      } else if (input_[begin] == kTokenSymbol + static_cast<int32_t>(e.begin)) {
        add_end(expression, begin, begin + 1);
      }
      return;
    case Kind::kRule:
    case Kind::kChoice: {
      std::vector<uint32_t> options;
      if (e.kind == Kind::kRule) {
        options = {syntax_.rules[e.begin].expression};
      } else {
        options.assign(syntax_.children.begin() + e.begin, syntax_.children.begin() + e.end);
      }
      for (const uint32_t option : options) {
        for (size_t end = begin; end <= size(); ++end) {
          if (is_end(option, begin, end)) add_end(expression, begin, end);
        }
        if (may_go_on(option, begin)) add_going_on(expression, begin);
      }
      return;
    }
    case Kind::kSequence:
      return match_sequence(expression, begin,
                            {syntax_.children.begin() + e.begin, syntax_.children.begin() + e.end});
    case Kind::kRepeat: {
      const uint32_t child = syntax_.children[e.begin];
      const uint32_t longest = static_cast<uint32_t>(size() - begin) + e.least + 1;
      for (uint32_t times = e.least; times <= std::min(e.most, longest); ++times) {
        match_sequence(expression, begin, std::vector<uint32_t>(times, child));
      }
      return;
    }
  }
}

void NaiveRecognizer::match_class(uint32_t expression, size_t begin) {
  const Expression& e = syntax_.expressions[expression];
  for (uint32_t i = e.begin; i < e.end; ++i) {
    for (const ByteSequence& sequence : sequences_[i]) {
      int32_t same = 0;
      while (same < sequence.length && begin + same < size() &&
             input_[begin + same] >= sequence.ranges[same].first &&
             input_[begin + same] <= sequence.ranges[same].last) {
        ++same;
      }
      if (same == sequence.length) {
        add_end(expression, begin, begin + same);
      } else if (begin + same == size()) {
        add_going_on(expression, begin);
      }
    }
  }
}

void NaiveRecognizer::match_sequence(uint32_t expression, size_t begin,
                                     const std::vector<uint32_t>& parts) {
  std::vector<bool> here(size() + 1);
  here[begin] = true;
  for (size_t i = 0; i < parts.size(); ++i) {
    const bool rest_possible = std::all_of(parts.begin() + static_cast<int64_t>(i), parts.end(),
                                           [&](uint32_t part) { return possible_[part]; });
    std::vector<bool> next(size() + 1);
    for (size_t from = begin; from <= size(); ++from) {
      if (!here[from]) continue;
      if (may_go_on(parts[i], from) && rest_possible) add_going_on(expression, begin);
      for (size_t end = from; end <= size(); ++end) {
        if (is_end(parts[i], from, end)) next[end] = true;
      }
    }
    here = next;
  }
  for (size_t end = begin; end <= size(); ++end) {
    if (here[end]) add_end(expression, begin, end);
  }
}

}  // namespace lorax::grammar
