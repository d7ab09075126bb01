// y = x W^T on AMX tiles: the loop, written on a Tiles type so that it is also tested where no
// processor has AMX (the test brings tiles in plain C++).
//
// A step of 32 columns of x is one tile of weights: 16 pairs by 16 columns of y, 1 KB, stored so.
// Order: every element of y sees its steps ascending in one accumulator, for one row as for many.
#pragma once

#include "cpu/kernels.h"

namespace lorax::cpu {
namespace {

// Tile numbers: two by two accumulators, two of x, two of weights.
enum : int { kC00, kC01, kC10, kC11, kX0, kX1, kW0, kW1 };

constexpr int32_t kTileRows = 16;
constexpr int32_t kTileK = 32;
constexpr int64_t kTileBytes = 1024;

// Of a panel that is partly beyond y only the columns inside are written.
template <typename Tiles, int T>
void store_tile(float* y, int64_t y_stride, int32_t rows, int32_t columns) {
  if (columns >= kPanel) {
    Tiles::template store<T>(y, y_stride * 4);
    return;
  }
  float edge[kTileRows * kPanel];
  Tiles::template store<T>(edge, kPanel * 4);
  for (int32_t r = 0; r < rows; ++r) {
    for (int32_t i = 0; i < columns; ++i) y[r * y_stride + i] = edge[r * kPanel + i];
  }
}

// A new accumulator: zero, or y, whose columns beyond `columns` are not read.
template <typename Tiles, int T>
void start_tile(const float* y, int64_t y_stride, int32_t rows, int32_t columns, bool accumulate) {
  if (!accumulate) {
    Tiles::template zero<T>();
  } else if (columns >= kPanel) {
    Tiles::template load<T>(y, y_stride * 4);
  } else {
    float edge[kTileRows * kPanel] = {};
    for (int32_t r = 0; r < rows; ++r) {
      for (int32_t i = 0; i < columns; ++i) edge[r * kPanel + i] = y[r * y_stride + i];
    }
    Tiles::template load<T>(edge, kPanel * 4);
  }
}

// Up to 32 rows by one or two panels.
template <typename Tiles, bool kTwoRows, bool kTwoPanels>
void amx_block(const AmxGemmArgs& g, int32_t row, int32_t rows, int32_t column) {
  const uint16_t* x0 = g.x + row * g.x_stride;
  const uint16_t* x1 = x0 + kTileRows * g.x_stride;
  const uint8_t* w0 = g.w + (column / kPanel) * g.panel_bytes;
  const uint8_t* w1 = w0 + g.panel_bytes;
  const int64_t x_bytes = g.x_stride * 2;
  float* y = g.y + row * g.y_stride + column;
  float* below = y + kTileRows * g.y_stride;
  const int32_t m0 = kTwoRows ? kTileRows : rows;
  const int32_t m1 = rows - kTileRows;
  const int32_t columns = g.columns - column;
  start_tile<Tiles, kC00>(y, g.y_stride, m0, columns, g.accumulate);
  if constexpr (kTwoPanels) {
    start_tile<Tiles, kC01>(y + kPanel, g.y_stride, m0, columns - kPanel, g.accumulate);
  }
  if constexpr (kTwoRows) start_tile<Tiles, kC10>(below, g.y_stride, m1, columns, g.accumulate);
  if constexpr (kTwoRows && kTwoPanels) {
    start_tile<Tiles, kC11>(below + kPanel, g.y_stride, m1, columns - kPanel, g.accumulate);
  }
  for (int32_t j = 0; j < g.k_padded; j += kTileK) {
    const int64_t step = j / kTileK * kTileBytes;
    Tiles::template load<kW0>(w0 + step, 64);
    Tiles::prefetch(w0 + step + 2 * kTileBytes);
    Tiles::template load<kX0>(x0 + j, x_bytes);
    Tiles::template multiply<kC00, kX0, kW0>();
    if constexpr (kTwoPanels) {
      Tiles::template load<kW1>(w1 + step, 64);
      Tiles::prefetch(w1 + step + 2 * kTileBytes);
      Tiles::template multiply<kC01, kX0, kW1>();
    }
    if constexpr (kTwoRows) {
      Tiles::template load<kX1>(x1 + j, x_bytes);
      Tiles::template multiply<kC10, kX1, kW0>();
      if constexpr (kTwoPanels) Tiles::template multiply<kC11, kX1, kW1>();
    }
  }
  store_tile<Tiles, kC00>(y, g.y_stride, m0, columns);
  if constexpr (kTwoPanels) store_tile<Tiles, kC01>(y + kPanel, g.y_stride, m0, columns - kPanel);
  if constexpr (kTwoRows) store_tile<Tiles, kC10>(below, g.y_stride, m1, columns);
  if constexpr (kTwoRows && kTwoPanels) {
    store_tile<Tiles, kC11>(below + kPanel, g.y_stride, m1, columns - kPanel);
  }
}

template <typename Tiles>
void amx_gemm_on(const AmxGemmArgs& g) {
  const int32_t panels = (g.columns + kPanel - 1) / kPanel;
  for (int32_t row = 0; row < g.rows; row += 2 * kTileRows) {
    const int32_t rows = g.rows - row < 2 * kTileRows ? g.rows - row : 2 * kTileRows;
    const bool two_rows = rows > kTileRows;
    Tiles::configure(two_rows ? kTileRows : rows, two_rows ? rows - kTileRows : 1);
    int32_t p = 0;
    for (; p + 2 <= panels; p += 2) {
      if (two_rows) {
        amx_block<Tiles, true, true>(g, row, rows, p * kPanel);
      } else {
        amx_block<Tiles, false, true>(g, row, rows, p * kPanel);
      }
    }
    if (p < panels) {
      if (two_rows) {
        amx_block<Tiles, true, false>(g, row, rows, p * kPanel);
      } else {
        amx_block<Tiles, false, false>(g, row, rows, p * kPanel);
      }
    }
  }
  Tiles::release();
}

}  // namespace
}  // namespace lorax::cpu
