// The bar of a flood on a virtual clock, with the engine's own options: one tenant sends fifty
// times what the others do, and their p99 time to first token is at most 1.5 times what it is
// without; tokens computed at least 0.95 of those with one line for all.
// bench/native/flood_bench.cc prints more of the same. Deterministic: nothing is timed.
#include <gtest/gtest.h>

#include <ostream>

#include "../../../bench/native/flood_scenarios.h"

#ifdef __SANITIZE_ADDRESS__
#define LORAX_SKIP_UNDER_A_SANITIZER() \
  GTEST_SKIP() << "an hour of serving takes minutes there, and runs without one"
#else
#define LORAX_SKIP_UNDER_A_SANITIZER() static_cast<void>(0)
#endif

namespace lorax::flood {
namespace {

struct FloodCase {
  const Scenario& scenario;
  double load;  // of the others, of what the machine can serve
  uint64_t seed;
};

std::ostream& operator<<(std::ostream& out, const FloodCase& c) {
  return out << c.scenario.name << " at " << c.load << ", seed " << c.seed;
}

class FloodTest : public testing::TestWithParam<FloodCase> {};

// Seeds that no parameter was chosen by.
INSTANTIATE_TEST_SUITE_P(
    Loads, FloodTest,
    testing::Values(FloodCase{kCpuChat, 0.1, 98}, FloodCase{kCpuChat, 0.6, 100},
                    FloodCase{kGpuChat, 0.3, 101}, FloodCase{kGpuTiles, 0.3, 103},
                    FloodCase{kGpuTrace, 0.6, 105}, FloodCase{kProportional, 0.3, 109},
                    FloodCase{kCpuLayers, 0.1, 111}, FloodCase{kCpuLayers, 0.6, 112},
                    FloodCase{kCpuShortLayers, 0.3, 113}));

TEST_P(FloodTest, TheOthersFirstTokensComeNearlyAsSoonAndTokensAreAsMany) {
  LORAX_SKIP_UNDER_A_SANITIZER();
  const auto& [scenario, load, seed] = GetParam();
  const Comparison each = compare(scenario, capacity_of(scenario), load, 1000, seed);
  RecordProperty("p99_ratio", std::to_string(each.p99_ratio()));
  RecordProperty("throughput_ratio", std::to_string(each.throughput_ratio()));
  EXPECT_LE(each.p99_ratio(), 1.5);
  EXPECT_GE(each.throughput_ratio(), 0.95);
  EXPECT_EQ(each.flooded.num_lost, 0);
  EXPECT_EQ(each.flooded.first_tokens.size(), each.alone.first_tokens.size());
  // Else there was no flood.
  EXPECT_GT(first_token(each.one_name, 0.5), 10 * first_token(each.flooded, 0.5));
}

// What becomes of `count` requests at `load` of what the machine can serve: as of several tenants,
// and as of one.
struct Crowd {
  Crowd(double load, int32_t count) {
    const double per_ms = load * capacity_of(kGpuChat);
    const std::vector<Arrival> arrivals = arrivals_of(kGpuChat, per_ms, count / per_ms, false, 1);
    tenants = Play(kGpuChat, arrivals, count / per_ms, Names::kTenants).run();
    one = Play(kGpuChat, arrivals, count / per_ms, Names::kOne).run();
  }
  Outcome tenants, one;
};

// Alone, nobody's steps are cut short or wait: the figure that the bar is relative to is the same
// as if there were one tenant.
TEST(Flood, WithoutOneNothingIsHeldBack) {
  LORAX_SKIP_UNDER_A_SANITIZER();
  const Crowd light(0.3, 300);
  EXPECT_NEAR(first_token(light.tenants, 0.99), first_token(light.one, 0.99), 1e-9);
  EXPECT_EQ(light.tenants.rows_per_ms, light.one.rows_per_ms);
}

// The bar is for those of whom each asks for no more than a share; there is no light tenant here to
// wait for, and steps are as long as ever.
TEST(Flood, ACrowdOfEqualTenantsIsNone) {
  LORAX_SKIP_UNDER_A_SANITIZER();
  const Crowd crowd(3, 1000);
  EXPECT_GE(crowd.tenants.rows_per_ms, 0.99 * crowd.one.rows_per_ms);
}

}  // namespace
}  // namespace lorax::flood
