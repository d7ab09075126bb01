// How many rows a step has beside a flood, by what steps take.
#include "engine/step_length.h"

#include <gtest/gtest.h>

namespace lorax {
namespace {

// Tokens a second, where a step takes as long as `k` rows beside its own.
double speed(double rows, double k) { return rows / (rows + k); }

TEST(StepLength, KeepsNearlyAllOfTheThroughput) {
  for (const int64_t k : {10, 50, 200, 1000}) {
    for (const int32_t full : {256, 700, 1500, 2048}) {
      const int32_t rows = StepLength::beside_flood(full, 2048, 1, {k * 25000, 25000});
      EXPECT_GE(speed(rows, k), 0.95 * speed(full, k)) << k << ", " << full;
      if (rows > 256) {
        EXPECT_LE(speed(rows, k), 0.965 * speed(full, k)) << "it is no longer than that";
      }
    }
  }
}

TEST(StepLength, IsAnEighthAtLeast) {
  EXPECT_EQ(StepLength::beside_flood(512, 512, 1, {0, 1000}), 64) << "nothing but rows takes time";
  EXPECT_EQ(StepLength::beside_flood(1, 1, 1, {1000, 1000}), 1);
}

TEST(StepLength, IsWhatItWasWhereNothingIsKnown) {
  EXPECT_EQ(StepLength::beside_flood(512, 512, 1, {}), 0);
  EXPECT_EQ(StepLength::beside_flood(0, 512, 1, {1000, 1000}), 0);
}

TEST(StepLength, AFullStepHasPromptsBesideADecodeForEachPlace) {
  StepLength length;
  EXPECT_EQ(length.full(100, 2048), 2048) << "before the first has ended";
  for (int32_t i = 0; i < 100; ++i) length.observe(90, 30);
  EXPECT_EQ(length.full(100, 2048), 300);
  EXPECT_EQ(length.full(1000, 2048), 2048);
  EXPECT_EQ(length.full(256, 256), 256);
}

TEST(StepLength, IsAWholeNumberOfTilesUnlessThatIsFew) {
  const StepCosts costs{4800000, 24000};  // 200 rows
  EXPECT_EQ(StepLength::beside_flood(1280, 2048, 1, costs), 979);
  EXPECT_EQ(StepLength::beside_flood(1280, 2048, 256, costs), 768) << "full ones are of no tiles";
  EXPECT_EQ(StepLength::beside_flood(2048, 2048, 256, costs), 1536) << "but for those of all rows";
  EXPECT_EQ(StepLength::beside_flood(270, 2048, 256, costs), 256);
  EXPECT_EQ(StepLength::beside_flood(900, 2048, 256, {25600000, 24000}), 768);
  EXPECT_EQ(StepLength::beside_flood(540, 2048, 256, {25600000, 24000}), 454) << "not 512";
}

}  // namespace
}  // namespace lorax
