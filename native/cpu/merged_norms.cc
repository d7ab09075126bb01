// See merged_norms.h.
#include "cpu/merged_norms.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <system_error>
#include <thread>

#include "backend/tensor_fault.h"
#include "backend/tensor_values.h"

namespace lorax::cpu {
namespace {

// work(i) for [0, count) on some threads.
template <typename Work>
void share_out(int64_t count, const Work& work) {
  const int64_t most = std::clamp<int64_t>(std::thread::hardware_concurrency() / 2, 1, 8);
  std::atomic<int64_t> next{0};
  const auto run = [&] {
    for (int64_t i; (i = next.fetch_add(1)) < count;) work(i);
  };
  std::vector<std::thread> threads;
  try {
    while (static_cast<int64_t>(threads.size()) + 1 < std::min(most, count)) {
      threads.emplace_back(run);
    }
  } catch (const std::system_error&) {
    // The system gives no more threads: those that run do the work.
  }
  run();
  for (std::thread& thread : threads) thread.join();
}

std::vector<float> read_all(const TensorView& tensor) {
  std::vector<float> out(static_cast<size_t>(tensor.rows * tensor.cols));
  for (int64_t row = 0; row < tensor.rows; ++row) {
    if (!read_row(tensor, row, out.data() + row * tensor.cols)) {
      fail_tensor("ADAPTER_INVALID", tensor, "holds NaN or Inf");
    }
  }
  return out;
}

// Ahead of the threads, which must not throw.
void check_whole(const AdapterModule& m) {
  if (m.whole.data == nullptr) return;
  std::vector<float> row(static_cast<size_t>(m.whole.cols));
  for (int64_t i = 0; i < m.whole.rows; ++i) {
    if (!read_row(m.whole, i, row.data())) {
      fail_tensor("ADAPTER_INVALID", m.whole, "holds NaN or Inf");
    }
  }
}

// Rows of W, [d_out, d_in]; of a table, [tokens, hidden].
void read_base(const AdapterModule& m, bool bf16, int64_t row, float* out) {
  if (m.whole.data != nullptr) {
    static_cast<void>(read_row(m.whole, row, out));
  } else {
    unpack_row(static_cast<const PackedWeight&>(*m.base), m.base_row + row, bf16, out);
  }
}

// y += s * x
void add_scaled(const float* x, float s, int64_t n, float* y) {
  for (int64_t j = 0; j < n; ++j) y[j] += s * x[j];
}

constexpr int64_t kRows = 64;      // of W, a task
constexpr int64_t kTokens = 1024;  // of a table, a task

std::vector<float> row_norms(const AdapterModule& m, bool bf16) {
  const int64_t d_in = m.a.cols;
  const int64_t d_out = m.b.rows;
  const std::vector<float> a = read_all(m.a);
  const std::vector<float> b = read_all(m.b);
  std::vector<float> norms(static_cast<size_t>(d_out));
  check_whole(m);
  share_out((d_out + kRows - 1) / kRows, [&](int64_t task) {
    std::vector<float> row(static_cast<size_t>(d_in));
    for (int64_t i = task * kRows; i < std::min(d_out, (task + 1) * kRows); ++i) {
      read_base(m, bf16, i, row.data());
      for (int64_t r = 0; r < m.rank; ++r) {
        add_scaled(a.data() + r * d_in, m.scale * b[i * m.rank + r], d_in, row.data());
      }
      double sum = 0;
      for (const float x : row) sum += double{x} * x;
      norms[i] = static_cast<float>(std::sqrt(sum));
    }
  });
  return norms;
}

// Of a table's columns: its transpose is what LoRA adapts.
std::vector<float> column_norms(const AdapterModule& m, bool bf16) {
  const int64_t tokens = m.a.cols;
  const int64_t hidden = m.b.rows;
  const std::vector<float> a = read_all(m.a);
  const std::vector<float> b = read_all(m.b);
  std::vector<float> b_rows(b.size());  // [rank, hidden]
  for (int64_t i = 0; i < hidden; ++i) {
    for (int64_t r = 0; r < m.rank; ++r) b_rows[r * hidden + i] = b[i * m.rank + r];
  }
  check_whole(m);
  const int64_t tasks = (tokens + kTokens - 1) / kTokens;
  std::vector<double> sums(static_cast<size_t>(tasks * hidden));  // [tasks, hidden]
  share_out(tasks, [&](int64_t task) {
    std::vector<float> row(static_cast<size_t>(hidden));
    double* sum = sums.data() + task * hidden;
    for (int64_t token = task * kTokens; token < std::min(tokens, (task + 1) * kTokens); ++token) {
      read_base(m, bf16, token, row.data());
      for (int64_t r = 0; r < m.rank; ++r) {
        add_scaled(b_rows.data() + r * hidden, m.scale * a[r * tokens + token], hidden, row.data());
      }
      for (int64_t i = 0; i < hidden; ++i) sum[i] += double{row[i]} * row[i];
    }
  });
  std::vector<float> norms(static_cast<size_t>(hidden));
  for (int64_t i = 0; i < hidden; ++i) {
    double sum = 0;
    for (int64_t task = 0; task < tasks; ++task) sum += sums[task * hidden + i];
    norms[i] = static_cast<float>(std::sqrt(sum));
  }
  return norms;
}

}  // namespace

bool is_base(const AdapterModule& m, bool bf16) {
  const auto& base = static_cast<const PackedWeight&>(*m.base);
  std::vector<float> own(static_cast<size_t>(m.whole.cols));
  std::vector<float> there(own.size());
  for (int64_t row = 0; row < m.whole.rows; ++row) {
    if (!read_row(m.whole, row, own.data())) return false;
    unpack_row(base, m.base_row + row, bf16, there.data());
    for (size_t j = 0; j < own.size(); ++j) {
      if ((bf16 ? float_of_bf16(to_bf16(own[j])) : own[j]) != there[j]) return false;
    }
  }
  return true;
}

std::vector<float> merged_norms(const AdapterModule& m, bool bf16) {
  return m.is_table ? column_norms(m, bf16) : row_norms(m, bf16);
}

}  // namespace lorax::cpu
