// The one exception type of the native code; binding/ turns it into a LoraxError of the same code.
//
// `code` is a LoraxErrorCode (src/errors.ts); `data` names the thing at fault. Thrown across native
// layers, never across the N-API border or out of a thread.
#pragma once

#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>

namespace lorax {

using ErrorValue = std::variant<double, std::string, bool>;
using ErrorData = std::map<std::string, ErrorValue>;

class Error : public std::runtime_error {
 public:
  Error(std::string code, const std::string& message, ErrorData data = {})
      : std::runtime_error(message), code_(std::move(code)), data_(std::move(data)) {}

  const std::string& code() const { return code_; }
  const ErrorData& data() const { return data_; }

 private:
  std::string code_;
  ErrorData data_;
};

}  // namespace lorax
