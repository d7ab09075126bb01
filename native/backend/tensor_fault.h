// How every backend refuses a tensor: the same errors, whichever packs it.
#pragma once

#include <string>

#include "backend/backend.h"
#include "backend/error.h"

namespace lorax {

// `code` is MODEL_INVALID or ADAPTER_INVALID; `what` completes "tensor NAME ...".
[[noreturn]] inline void fail_tensor(const char* code, const TensorView& tensor,
                                     const std::string& what) {
  const std::string file = tensor.file;
  throw Error(code, (file.empty() ? "" : file + ": ") + "tensor " + tensor.name + " " + what,
              {{"file", file}, {"tensor", std::string(tensor.name)}});
}

inline void check_adapter_module(const AdapterModule& m) {
  const auto fail = [](const TensorView& tensor, const std::string& what) {
    fail_tensor("ADAPTER_INVALID", tensor, what);
  };
  if (m.rank <= 0 || m.a.rows != m.rank || m.a.cols <= 0 || m.a.data == nullptr) {
    fail(m.a, "is [" + std::to_string(m.a.rows) + ", " + std::to_string(m.a.cols) +
                  "], not [rank " + std::to_string(m.rank) + ", d_in]");
  }
  if (m.b.cols != m.rank || m.b.rows <= 0 || m.b.data == nullptr) {
    fail(m.b, "is [" + std::to_string(m.b.rows) + ", " + std::to_string(m.b.cols) +
                  "], not [d_out, rank " + std::to_string(m.rank) + "]");
  }
  if (m.layer < 0 || m.module < 0) fail(m.a, "has no layer or module");
}

}  // namespace lorax
