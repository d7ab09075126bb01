// gemm and shrink on Vec, for bf16 (Element = uint16_t) and float32 storage.
//
// Included after one vec_*.h, inside one instruction set's file (kernels.h says why, and the
// order).
#pragma once

#include "cpu/kernels.h"

namespace lorax::cpu {
namespace {

constexpr int kVecs = kPanel / Vec::kWidth;  // registers per panel
constexpr int kPrefetchBytes = 2048;         // weights come from memory: ask early
constexpr int32_t kBlockK = 256;             // columns of x per pass when rows are many
constexpr int32_t kFewRows = 32;             // below: one pass over the weights, no blocks of k

// One register tile: R rows by P panels over `k` columns of x.
//   acc[r][p] = fma(w[p][j], x[r][j], acc[r][p]), j = 0 .. k - 1
template <int R, int P>
void tile(const float* x, int64_t x_stride, const uint16_t* w, int64_t panel, int32_t k,
          Vec (&acc)[R][P][kVecs]) {
  int32_t j = 0;
  for (; j + 1 < k; j += 2) {
    Vec even[P][kVecs];
    Vec odd[P][kVecs];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const uint16_t* wp = w + p * panel + int64_t{j} * kPanel;
      Vec::prefetch(reinterpret_cast<const char*>(wp) + kPrefetchBytes);
#pragma GCC unroll 4
      for (int i = 0; i < kVecs; ++i) {
        Vec::load_pairs(wp + i * 2 * Vec::kWidth, even[p][i], odd[p][i]);
      }
    }
    // Both columns of a row together: one address register serves two broadcasts.
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) {
      const Vec x0 = Vec::set(x[r * x_stride + j]);
      const Vec x1 = Vec::set(x[r * x_stride + j + 1]);
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) {
#pragma GCC unroll 4
        for (int i = 0; i < kVecs; ++i) acc[r][p][i] = Vec::fma(even[p][i], x0, acc[r][p][i]);
      }
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) {
#pragma GCC unroll 4
        for (int i = 0; i < kVecs; ++i) acc[r][p][i] = Vec::fma(odd[p][i], x1, acc[r][p][i]);
      }
    }
  }
  if (j < k) {
    for (int p = 0; p < P; ++p) {
      for (int i = 0; i < kVecs; ++i) {
        Vec even;
        Vec odd;
        Vec::load_pairs(w + p * panel + int64_t{j} * kPanel + i * 2 * Vec::kWidth, even, odd);
        for (int r = 0; r < R; ++r) {
          acc[r][p][i] = Vec::fma(even, Vec::set(x[r * x_stride + j]), acc[r][p][i]);
        }
      }
    }
  }
}

template <int R, int P>
void tile(const float* x, int64_t x_stride, const float* w, int64_t panel, int32_t k,
          Vec (&acc)[R][P][kVecs]) {
  for (int32_t j = 0; j < k; ++j) {
    Vec column[P][kVecs];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const float* wp = w + p * panel + int64_t{j} * kPanel;
      Vec::prefetch(reinterpret_cast<const char*>(wp) + kPrefetchBytes);
#pragma GCC unroll 4
      for (int i = 0; i < kVecs; ++i) column[p][i] = Vec::load(wp + i * Vec::kWidth);
    }
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) {
      const Vec xj = Vec::set(x[r * x_stride + j]);
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) {
#pragma GCC unroll 4
        for (int i = 0; i < kVecs; ++i) acc[r][p][i] = Vec::fma(column[p][i], xj, acc[r][p][i]);
      }
    }
  }
}

// y[y_rows[row + r]][column + c] += row_scale * scale * sums[r][c], where c is to be written.
__attribute__((noinline)) void add_rows(const GemmArgs& g, int32_t row, int32_t rows,
                                        int32_t column, int32_t width, const float* sums) {
  const int32_t begin = g.skip > column ? g.skip - column : 0;
  const int32_t end = width < g.columns - column ? width : g.columns - column;
  for (int32_t r = 0; r < rows; ++r) {
    float* y = g.y + g.y_rows[row + r] * g.y_stride + column;
    const float* sum = sums + r * width;
    const Vec factor = Vec::set(g.row_scale[row + r] * g.scale);
    int32_t c = begin;
    for (; c + Vec::kWidth <= end; c += Vec::kWidth) {
      Vec::fma(Vec::load(sum + c), factor, Vec::load(y + c)).store(y + c);
    }
    if (c >= end) continue;
    float edge[2][Vec::kWidth] = {};
    for (int32_t i = c; i < end; ++i) {
      edge[0][i - c] = sum[i];
      edge[1][i - c] = y[i];
    }
    Vec::fma(Vec::load(edge[0]), factor, Vec::load(edge[1])).store(edge[1]);
    for (int32_t i = c; i < end; ++i) y[i] = edge[1][i - c];
  }
}

template <typename Element, int R, int P>
void run_tile(const GemmArgs& g, int32_t row, int32_t column, int32_t k_begin, int32_t k_end) {
  const int64_t panel = g.panel_bytes / static_cast<int64_t>(sizeof(Element));
  const Element* w =
      reinterpret_cast<const Element*>(g.w) + (column / kPanel) * panel + int64_t{k_begin} * kPanel;
  float* y = g.y + row * g.y_stride + column;
  const bool fresh = g.y_rows != nullptr || (k_begin == 0 && !g.accumulate);
  const int32_t columns = g.columns - column;
  Vec acc[R][P][kVecs];
  float edge[kPanel];
#pragma GCC unroll 32
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const float* from = y + r * g.y_stride + p * kPanel;
      if (!fresh && columns < (p + 1) * kPanel) {
        for (int i = 0; i < kPanel; ++i) edge[i] = p * kPanel + i < columns ? from[i] : 0.0f;
        from = edge;
      }
#pragma GCC unroll 4
      for (int i = 0; i < kVecs; ++i) {
        acc[r][p][i] = fresh ? Vec::zero() : Vec::load(from + i * Vec::kWidth);
      }
    }
  }
  tile<R, P>(g.x + row * g.x_stride + k_begin, g.x_stride, w, panel, k_end - k_begin, acc);
  if (g.y_rows != nullptr) {
    float sums[R * P * kPanel];
#pragma GCC unroll 32
    for (int i = 0; i < R * P * kVecs; ++i) {
      acc[i / (P * kVecs)][i / kVecs % P][i % kVecs].store(sums + i * Vec::kWidth);
    }
    return add_rows(g, row, R, column, P * kPanel, sums);
  }
#pragma GCC unroll 32
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      float* to = y + r * g.y_stride + p * kPanel;
      const bool partial = columns < (p + 1) * kPanel;
      float* target = partial ? edge : to;
#pragma GCC unroll 4
      for (int i = 0; i < kVecs; ++i) acc[r][p][i].store(target + i * Vec::kWidth);
      if (partial) {
        for (int i = 0; p * kPanel + i < columns && i < kPanel; ++i) to[i] = edge[i];
      }
    }
  }
}

using Run = void (*)(const GemmArgs&, int32_t row, int32_t column, int32_t k_begin, int32_t k_end);

// run[r] runs r rows, 1 <= r <= R.
template <typename Element, int R, int P>
struct RowTiles {
  Run run[R + 1] = {};
  constexpr RowTiles() { fill<R>(); }
  template <int N>
  constexpr void fill() {
    run[N] = run_tile<Element, N, P>;
    if constexpr (N > 1) fill<N - 1>();
  }
};

template <typename Element, int R, int P>
void run_rows(const GemmArgs& g, int32_t column, int32_t k_begin, int32_t k_end) {
  static constexpr RowTiles<Element, R, P> kTiles;
  // As equal as can be: 17 rows are 9 and 8, not 16 and 1.
  const int32_t tiles = (g.rows + R - 1) / R;
  for (int32_t t = 0, row = 0; t < tiles; ++t) {
    const int32_t count = (g.rows - row + tiles - t - 1) / (tiles - t);
    kTiles.run[count](g, row, column, k_begin, k_end);
    row += count;
  }
}

// Calls run(begin, end) over [0, k), once when k is 0 (y may have to be zeroed).
template <typename RunBlock>
void over_k(int32_t k, int32_t block, RunBlock&& run) {
  int32_t begin = 0;
  do {
    const int32_t end = k - begin <= block ? k : begin + block;
    run(begin, end);
    begin = end;
  } while (begin < k);
}

template <typename Element, int R, int P>
int32_t run_panels(const GemmArgs& g, int32_t panel, int32_t panels) {
  // What is added to y as a whole is summed as a whole: blocks of k would be an order of their own.
  const int32_t block = g.rows <= kFewRows || g.y_rows != nullptr ? g.k : kBlockK;
  for (; panel + P <= panels; panel += P) {
    over_k(g.k, block, [&](int32_t begin, int32_t end) {
      run_rows<Element, R, P>(g, panel * kPanel, begin, end);
    });
  }
  return panel;
}

template <typename Element>
void gemm(const GemmArgs& g) {
  if (g.rows <= 0) return;
  const int32_t panels = (g.columns + kPanel - 1) / kPanel;
  int32_t panel = 0;
  if constexpr (Vec::kRows4 > 0) {
    if (g.rows <= Vec::kRows4) panel = run_panels<Element, Vec::kRows4, 4>(g, panel, panels);
  }
  // Between the two, one panel at a time needs one pass over the weights instead of two.
  if constexpr (Vec::kRows2 > 0) {
    if (g.rows <= Vec::kRows2 || g.rows > kFewRows) {
      panel = run_panels<Element, Vec::kRows2, 2>(g, panel, panels);
    }
  }
  run_panels<Element, Vec::kRows1, 1>(g, panel, panels);
}

// R rows of x by Q rows of A: lanes summed along d, then across.
template <typename Element, int R, int Q>
void dot_tile(const ShrinkArgs& s, int32_t i0, int32_t r0) {
  const float* x[R];
  const Element* a[Q];
  Vec acc[R][Q];
  for (int i = 0; i < R; ++i) x[i] = s.x + s.rows[i0 + i] * s.x_stride;
  for (int q = 0; q < Q; ++q) a[q] = reinterpret_cast<const Element*>(s.a + (r0 + q) * s.a_bytes);
#pragma GCC unroll 16
  for (int i = 0; i < R * Q; ++i) acc[i / Q][i % Q] = Vec::zero();
  int32_t j = 0;
  for (; j + Vec::kWidth <= s.d; j += Vec::kWidth) {
    Vec xv[R];
#pragma GCC unroll 4
    for (int i = 0; i < R; ++i) xv[i] = Vec::load(x[i] + j);
#pragma GCC unroll 4
    for (int q = 0; q < Q; ++q) {
      const Vec av = Vec::load(a[q] + j);
#pragma GCC unroll 4
      for (int i = 0; i < R; ++i) acc[i][q] = Vec::fma(av, xv[i], acc[i][q]);
    }
  }
  if (j < s.d) {
    float x_edge[Vec::kWidth] = {};
    Element a_edge[Vec::kWidth] = {};
    for (int i = 0; i < R; ++i) {
      for (int32_t e = j; e < s.d; ++e) x_edge[e - j] = x[i][e];
      for (int q = 0; q < Q; ++q) {
        for (int32_t e = j; e < s.d; ++e) a_edge[e - j] = a[q][e];
        acc[i][q] = Vec::fma(Vec::load(a_edge), Vec::load(x_edge), acc[i][q]);
      }
    }
  }
  for (int i = 0; i < R; ++i) {
    for (int q = 0; q < Q; ++q) {
      float* v = s.v + (i0 + i) * s.v_stride + r0 + q;
      const float sum = acc[i][q].sum();
      *v = s.accumulate ? *v + sum : sum;
    }
  }
}

template <typename Element, int R>
void dot_rows(const ShrinkArgs& s, int32_t i) {
  int32_t r = 0;
  for (; r + 4 <= s.ranks; r += 4) dot_tile<Element, R, 4>(s, i, r);
  for (; r < s.ranks; ++r) dot_tile<Element, R, 1>(s, i, r);
}

template <typename Element>
void shrink(const ShrinkArgs& s) {
  constexpr int kRows = Vec::kDotRows;
  int32_t i = 0;
  for (; i + kRows <= s.num_rows; i += kRows) dot_rows<Element, kRows>(s, i);
  for (; i + 2 <= s.num_rows; i += 2) dot_rows<Element, 2>(s, i);
  for (; i < s.num_rows; ++i) dot_rows<Element, 1>(s, i);
}

}  // namespace
}  // namespace lorax::cpu
