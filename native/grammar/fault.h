// How this directory refuses a grammar: one exception that says where in the text the fault is.
//
// engine/ turns it into a GRAMMAR_INVALID of backend/error.h; nothing here knows of that.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

namespace lorax::grammar {

// A place in a grammar's text; both count from 1, columns in code points. 0: of the whole.
struct Place {
  int32_t line = 0;
  int32_t column = 0;
};

class Fault : public std::runtime_error {
 public:
  Fault(const std::string& message, Place place, std::string rule = "")
      : std::runtime_error(message), place_(place), rule_(std::move(rule)) {}

  Place place() const { return place_; }
  const std::string& rule() const { return rule_; }  // the one at fault; may be empty

 private:
  Place place_;
  std::string rule_;
};

}  // namespace lorax::grammar
