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

// Of a module that holds something.
inline int64_t module_d_out(const AdapterModule& m) {
  if (m.rank > 0) return m.b.rows;
  return m.is_table ? m.whole.cols : m.whole.rows;
}
inline int64_t module_d_in(const AdapterModule& m) {
  if (m.rank > 0) return m.a.cols;
  return m.is_table ? m.whole.rows : m.whole.cols;
}

inline void check_adapter_module(const AdapterModule& m) {
  const auto fail = [](const TensorView& tensor, const std::string& what) {
    fail_tensor("ADAPTER_INVALID", tensor, what);
  };
  const auto shape = [](const TensorView& tensor) {
    return "[" + std::to_string(tensor.rows) + ", " + std::to_string(tensor.cols) + "]";
  };
  if (m.layer < 0 || m.module < 0) fail(m.a, "has no layer or module");
  const bool has_whole = m.whole.data != nullptr;
  if (has_whole && (m.whole.rows <= 0 || m.whole.cols <= 0)) fail(m.whole, "is empty");
  if (m.rank == 0 && has_whole && m.b_bias.data == nullptr && m.magnitude.data == nullptr) return;
  if (m.rank <= 0 || m.a.rows != m.rank || m.a.cols <= 0 || m.a.data == nullptr) {
    fail(m.a, "is [" + std::to_string(m.a.rows) + ", " + std::to_string(m.a.cols) +
                  "], not [rank " + std::to_string(m.rank) + ", d_in]");
  }
  if (m.b.cols != m.rank || m.b.rows <= 0 || m.b.data == nullptr) {
    fail(m.b, "is [" + std::to_string(m.b.rows) + ", " + std::to_string(m.b.cols) +
                  "], not [d_out, rank " + std::to_string(m.rank) + "]");
  }
  const auto check_vector = [&](const TensorView& vector) {
    if (vector.data == nullptr || (vector.rows == 1 && vector.cols == m.b.rows)) return;
    fail(vector, "is " + shape(vector) + ", not [1, d_out " + std::to_string(m.b.rows) + "]");
  };
  check_vector(m.b_bias);
  check_vector(m.magnitude);
  if (m.magnitude.data != nullptr && m.base == nullptr) fail(m.magnitude, "has no base weight");
  const int64_t rows = m.is_table ? m.a.cols : m.b.rows;
  const int64_t cols = m.is_table ? m.b.rows : m.a.cols;
  if (has_whole && (m.whole.rows != rows || m.whole.cols != cols)) {
    fail(m.whole, "is " + shape(m.whole) + ", not [" + std::to_string(rows) + ", " +
                      std::to_string(cols) + "]");
  }
}

}  // namespace lorax
