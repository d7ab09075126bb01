// Recursive descent, one function per line of the header's grammar.
#include "grammar/gbnf_parser.h"

#include <algorithm>
#include <string>
#include <unordered_map>
#include <utility>

#include "grammar/utf8.h"

namespace lorax::grammar {
namespace {

using Kind = Expression::Kind;

bool is_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '_';
}

// Where the parser is in the text.
class Cursor {
 public:
  explicit Cursor(std::string_view text) : text_(text) {}

  bool at_end() const { return at_ == text_.size(); }
  char peek(size_t ahead = 0) const {
    return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0';
  }
  bool starts_with(std::string_view word) const { return text_.substr(at_).starts_with(word); }
  Place place() const { return place_; }

  // One code point.
  uint32_t next() {
    if (at_end()) fail("the grammar ends in the middle of something");
    uint32_t code = 0;
    if (!read_utf8(text_, &at_, &code)) fail("this is not UTF-8");
    if (code == '\n') {
      ++place_.line;
      place_.column = 1;
    } else {
      ++place_.column;
    }
    return code;
  }
  bool skip(std::string_view word) {
    if (!starts_with(word)) return false;
    for (size_t i = 0; i < word.size(); ++i) next();
    return true;
  }
  void skip_space() {
    while (!at_end()) {
      const char c = peek();
      if (c == '#') {
        while (!at_end() && peek() != '\n') next();
      } else if (c == ' ' || c == '\t' || c == '\r' || c == '\n') {
        next();
      } else {
        return;
      }
    }
  }
  std::string name() {
    std::string out;
    while (is_name(peek())) out.push_back(static_cast<char>(next()));
    return out;
  }

  // Whether a name and ::= come next.
  bool begins_rule() const {
    Cursor ahead = *this;
    if (ahead.name().empty()) return false;
    ahead.skip_space();
    return ahead.starts_with("::=");
  }

  [[noreturn]] void fail(const std::string& message, std::string rule = "") const {
    throw Fault(message, place_, std::move(rule));
  }

 private:
  std::string_view text_;
  size_t at_ = 0;
  Place place_{1, 1};
};

class Parser {
 public:
  Parser(std::string_view text, const ParserLimits& limits) : cursor_(text), limits_(limits) {}

  Syntax parse() {
    cursor_.skip_space();
    while (!cursor_.at_end()) rule();
    for (size_t i = 0; i < syntax_.rules.size(); ++i) {
      if (defined_[i]) continue;
      const Rule& unknown = syntax_.rules[i];
      throw Fault("rule \"" + unknown.name + "\" is not defined", unknown.place, unknown.name);
    }
    const auto root = index_of_.find("root");
    if (root == index_of_.end()) throw Fault("there is no rule \"root\"", {}, "root");
    syntax_.root = root->second;
    return std::move(syntax_);
  }

 private:
  void rule() {
    const Place place = cursor_.place();
    if (!cursor_.begins_rule()) cursor_.fail("a rule must begin here: name ::= ...");
    const std::string name = cursor_.name();
    cursor_.skip_space();
    cursor_.skip("::=");
    const uint32_t index = rule_index(name, place);
    Rule& defined = syntax_.rules[index];
    if (defined_[index]) {
      throw Fault(
          "rule \"" + name + "\" is defined already, in line " + std::to_string(defined.place.line),
          place, name);
    }
    defined_[index] = true;
    defined.place = place;
    const uint32_t expression = alternatives(0);
    if (!cursor_.at_end() && !cursor_.begins_rule()) {
      cursor_.fail(cursor_.peek() == ')' ? "this ) closes nothing" : "this begins no item", name);
    }
    syntax_.rules[index].expression = expression;
  }

  uint32_t rule_index(const std::string& name, Place place) {
    const auto next = static_cast<uint32_t>(syntax_.rules.size());
    const auto [entry, is_new] = index_of_.try_emplace(name, next);
    if (is_new) {
      syntax_.rules.push_back({name, 0, place});
      defined_.push_back(false);
    }
    return entry->second;
  }

  // Up to what cannot continue it: the end, a ), a new rule.
  uint32_t alternatives(int32_t depth) {
    if (depth > limits_.max_depth) {
      cursor_.fail("groups nest more than " + std::to_string(limits_.max_depth) + " deep");
    }
    std::vector<uint32_t> options = {sequence(depth)};
    while (cursor_.skip("|")) options.push_back(sequence(depth));
    return options.size() == 1 ? options[0] : list(Kind::kChoice, options);
  }

  uint32_t sequence(int32_t depth) {
    std::vector<uint32_t> items;
    while (true) {
      cursor_.skip_space();
      const char c = cursor_.peek();
      if (cursor_.at_end() || c == '|' || c == ')') break;
      if (is_name(c) && cursor_.begins_rule()) break;
      if (c == '*' || c == '+' || c == '?' || c == '{') {
        cursor_.fail("there is nothing here to repeat; a repetition of a repetition takes ( )");
      }
      uint32_t one = item(depth);
      cursor_.skip_space();
      if (repeats(&one)) cursor_.skip_space();
      items.push_back(one);
    }
    return items.size() == 1 ? items[0] : list(Kind::kSequence, items);
  }

  uint32_t item(int32_t depth) {
    const char c = cursor_.peek();
    if (c == '"') return literal();
    if (c == '[') return character_class();
    if (c == '.') {
      cursor_.next();
      return class_of({{0, kLastCodePoint}}, false);
    }
    if (cursor_.starts_with("<[")) return token();
    if (is_name(c)) {
      const Place place = cursor_.place();
      return add({Kind::kRule, rule_index(cursor_.name(), place)});
    }
    if (c != '(') {
      cursor_.fail(
          "this begins no item: names, \"literals\", [classes], ., ( groups ) and <[token "
          "ids]> do");
    }
    const Place open = cursor_.place();
    cursor_.next();
    const uint32_t inside = alternatives(depth + 1);
    if (!cursor_.skip(")")) throw Fault("this ( is never closed", open);
    return inside;
  }

  // Wraps `one` when a repetition follows.
  bool repeats(uint32_t* one) {
    uint32_t least = 0, most = kUnbounded;
    const Place place = cursor_.place();
    if (cursor_.skip("?")) {
      most = 1;
    } else if (cursor_.skip("+")) {
      least = 1;
    } else if (cursor_.skip("{")) {
      least = most = repeat_count();
      if (cursor_.skip(",")) {
        cursor_.skip_space();
        most = cursor_.peek() == '}' ? kUnbounded : repeat_count();
      }
      if (!cursor_.skip("}")) cursor_.fail("a repetition is {m}, {m,} or {m,n}");
      if (most < least) throw Fault("this repetition's most is below its least", place);
    } else if (!cursor_.skip("*")) {
      return false;
    }
    const uint32_t child = list(Kind::kRepeat, {*one});
    syntax_.expressions[child].least = least;
    syntax_.expressions[child].most = most;
    *one = child;
    return true;
  }

  uint32_t repeat_count() {
    cursor_.skip_space();
    const uint32_t count = digits("a repetition is {m}, {m,} or {m,n}");
    if (count > limits_.max_repeats) {
      cursor_.fail("at most " + std::to_string(limits_.max_repeats) + " repetitions are possible");
    }
    cursor_.skip_space();
    return count;
  }

  uint32_t digits(const char* wanted) {
    constexpr uint64_t kMost = 0x7FFFFFFF;
    if (cursor_.peek() < '0' || cursor_.peek() > '9') cursor_.fail(wanted);
    uint64_t value = 0;
    while (cursor_.peek() >= '0' && cursor_.peek() <= '9') {
      value = std::min(kMost, value * 10 + (cursor_.next() - '0'));
    }
    return static_cast<uint32_t>(value);
  }

  uint32_t literal() {
    const Place open = cursor_.place();
    cursor_.next();
    const auto begin = static_cast<uint32_t>(syntax_.bytes.size());
    while (cursor_.peek() != '"') {
      if (cursor_.at_end()) throw Fault("this literal is never closed", open);
      append_utf8(character(), &syntax_.bytes);
    }
    cursor_.next();
    return add({Kind::kBytes, begin, static_cast<uint32_t>(syntax_.bytes.size())});
  }

  uint32_t character_class() {
    const Place open = cursor_.place();
    cursor_.next();
    const bool negated = cursor_.skip("^");
    std::vector<CodePoints> ranges;
    while (cursor_.peek() != ']') {
      if (cursor_.at_end()) throw Fault("this class is never closed", open);
      const Place place = cursor_.place();
      CodePoints range;
      range.first = range.last = character();
      // A - before the end is itself.
      if (cursor_.peek() == '-' && cursor_.peek(1) != ']') {
        cursor_.next();
        if (cursor_.at_end()) throw Fault("this class is never closed", open);
        range.last = character();
        if (range.last < range.first) throw Fault("this range runs backwards", place);
      }
      ranges.push_back(range);
    }
    cursor_.next();
    if (ranges.empty() && !negated) throw Fault("this class matches no character", open);
    return class_of(std::move(ranges), negated);
  }

  uint32_t class_of(std::vector<CodePoints> ranges, bool negated) {
    std::sort(ranges.begin(), ranges.end(),
              [](const CodePoints& a, const CodePoints& b) { return a.first < b.first; });
    const auto begin = static_cast<uint32_t>(syntax_.classes.size());
    const auto append = [&](uint32_t first, uint32_t last) {
      constexpr CodePoints kScalars[] = {{0, kFirstSurrogate - 1},
                                         {kLastSurrogate + 1, kLastCodePoint}};
      for (const CodePoints& scalars : kScalars) {
        const CodePoints part = {std::max(first, scalars.first), std::min(last, scalars.last)};
        if (part.first <= part.last) syntax_.classes.push_back(part);
      }
    };
    uint32_t next = 0;  // the first code point after all ranges so far
    for (size_t i = 0; i < ranges.size();) {
      CodePoints range = ranges[i];
      while (++i < ranges.size() && ranges[i].first <= range.last + 1) {
        range.last = std::max(range.last, ranges[i].last);
      }
      if (!negated) {
        append(range.first, range.last);
      } else if (range.first > next) {
        append(next, range.first - 1);
      }
      next = range.last + 1;
    }
    if (negated && next <= kLastCodePoint) append(next, kLastCodePoint);
    const auto end = static_cast<uint32_t>(syntax_.classes.size());
    if (begin == end) cursor_.fail("this class matches no character");
    return add({Kind::kClass, begin, end});
  }

  // One of a literal or a class.
  uint32_t character() {
    const Place place = cursor_.place();
    const uint32_t code = cursor_.next();
    if (code != '\\') return code;
    const uint32_t letter = cursor_.next();
    switch (letter) {
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 't':
        return '\t';
      case 'x':
        return hexadecimal(2, place);
      case 'u':
        return hexadecimal(4, place);
      case 'U':
        return hexadecimal(8, place);
      case '\\':
      case '"':
      case '[':
      case ']':
      case '-':
      case '^':
        return letter;
      default:
        throw Fault(
            "there is no such escape: \\n \\r \\t \\\\ \\\" \\[ \\] \\- \\^ \\xHH \\uHHHH "
            "\\UHHHHHHHH are",
            place);
    }
  }

  uint32_t hexadecimal(int32_t num_digits, Place place) {
    uint32_t value = 0;
    for (int32_t i = 0; i < num_digits; ++i) {
      const char c = cursor_.peek();
      const bool digit = c >= '0' && c <= '9';
      const char lower = static_cast<char>(c | 0x20);
      if (!digit && (lower < 'a' || lower > 'f')) {
        throw Fault("this escape has " + std::to_string(num_digits) + " hexadecimal digits", place);
      }
      value = value << 4 | static_cast<uint32_t>(digit ? c - '0' : lower - 'a' + 10);
      cursor_.next();
    }
    if (!is_scalar(value)) throw Fault("there is no such code point", place);
    return value;
  }

  uint32_t token() {
    cursor_.skip("<[");
    const char* wanted = "a token is <[ID]>";
    const uint32_t id = digits(wanted);
    if (!cursor_.skip("]>")) cursor_.fail(wanted);
    return add({Kind::kToken, id});
  }

  uint32_t list(Kind kind, const std::vector<uint32_t>& of) {
    const auto begin = static_cast<uint32_t>(syntax_.children.size());
    syntax_.children.insert(syntax_.children.end(), of.begin(), of.end());
    return add({kind, begin, static_cast<uint32_t>(syntax_.children.size())});
  }

  uint32_t add(const Expression& expression) {
    syntax_.expressions.push_back(expression);
    return static_cast<uint32_t>(syntax_.expressions.size() - 1);
  }

  Cursor cursor_;
  const ParserLimits limits_;
  Syntax syntax_;
  std::unordered_map<std::string, uint32_t> index_of_;
  std::vector<bool> defined_;  // [rules]
};

}  // namespace

Syntax parse_gbnf(std::string_view text, const ParserLimits& limits) {
  if (text.size() > limits.max_bytes) {
    throw Fault("the grammar has " + std::to_string(text.size()) + " bytes; at most " +
                    std::to_string(limits.max_bytes) + " are possible",
                {});
  }
  return Parser(text, limits).parse();
}

}  // namespace lorax::grammar
