// How long a step may be while one tenant floods the engine and others are served beside it: they
// wait for the step that runs, whatever the order is in which requests have their turns.
//
// A step of r rows takes k + r, in rows' time. Steps of s rows instead of r compute
//   s / (k + s) : r / (k + r)
// of the tokens. So a step has as few rows as leave kKept of them, by what steps were measured to
// take here: a machine that computes row by row may cut them short, one that reads its weights for
// every step less. Where rows are computed in tiles, steps of any number of rows compute half a
// tile for nothing, on average, and short ones are made a whole number of tiles. Pure functions,
// and a count of what requests have of rows. Engine thread.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "backend/recent_rate.h"
#include "model/model.h"

namespace lorax {

class StepLength {
 public:
  // A request that generates is over: so many rows were computed for it, so many tokens sampled.
  void observe(int32_t num_rows, int32_t num_sampled) {
    rows_each_.add(num_sampled, int64_t{num_rows} * kUnit);
  }

  // Rows of a step when as many sequences run as there are places, one beginning where one ends:
  // each has a row of its own, and their prompts theirs. All, while no request was seen to its end.
  int32_t full(int32_t num_places, int32_t max_batch_tokens) const {
    if (rows_each_.ns_each() == 0) return max_batch_tokens;
    const int64_t rows = num_places * std::max(kUnit, rows_each_.ns_each()) / kUnit;
    return static_cast<int32_t>(std::min<int64_t>(rows, max_batch_tokens));
  }

  // Instead of steps of `full` rows; never less than an eighth of max_batch_tokens. 0: nothing was
  // measured, so as many as there are. `row_tile`: Backend::row_tile().
  static int32_t beside_flood(int32_t full, int32_t max_batch_tokens, int32_t row_tile,
                              const StepCosts& costs) {
    if (costs.row_ns <= 0 || full <= 0) return 0;
    const double k = static_cast<double>(costs.step_ns) / static_cast<double>(costs.row_ns);
    const double unused = full < max_batch_tokens ? row_tile / 2 : 0;
    double rows = kKept * full * k / std::max(1e-9, k + unused + (1 - kKept) * full);
    // Of one or two tiles, the rest of one would be a good part.
    if (rows > 2 * row_tile) rows = std::ceil(rows / row_tile) * row_tile;
    const int32_t least = std::max(1, max_batch_tokens / 8);
    return std::clamp(static_cast<int32_t>(rows), least, max_batch_tokens);
  }

 private:
  // 0.95 is what shall be kept; the device waits for plans that are late.
  static constexpr double kKept = 0.96;
  static constexpr int64_t kUnit = 1 << 10;

  // Rows for each token sampled, times kUnit. Over many more tokens than those who run together
  // have: of a crowd that came at once the short ones end first.
  RecentRate rows_each_{1 << 16};
};

}  // namespace lorax
