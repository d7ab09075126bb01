// main() of lorax_cuda_tests. Where no device can be used, only suites whose names begin with
// "Host" run: these need none. The others are counted and reported as skipped, with the reason, and
// the exit status is that of what ran.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "backend/error.h"
#include "cuda/probe.h"

namespace {

// Selected tests of suites that need a device.
int count_device_tests() {
  const testing::UnitTest& all = *testing::UnitTest::GetInstance();
  int count = 0;
  for (int i = 0; i < all.total_test_suite_count(); ++i) {
    const testing::TestSuite& suite = *all.GetTestSuite(i);
    if (std::string(suite.name()).rfind("Host", 0) != 0) count += suite.total_test_count();
  }
  return count;
}

// Where the time goes: suites that took a tenth of a second, the longest first.
void print_times(const testing::UnitTest& all) {
  std::vector<const testing::TestSuite*> suites;
  for (int i = 0; i < all.total_test_suite_count(); ++i) {
    const testing::TestSuite* suite = all.GetTestSuite(i);
    if (suite->should_run() && suite->elapsed_time() >= 100) suites.push_back(suite);
  }
  std::sort(suites.begin(), suites.end(),
            [](const auto* a, const auto* b) { return a->elapsed_time() > b->elapsed_time(); });
  for (const testing::TestSuite* suite : suites) {
    std::printf("%7.1f s  %s (%d tests)\n", static_cast<double>(suite->elapsed_time()) / 1e3,
                suite->name(), suite->test_to_run_count());
  }
}

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  int num_skipped = 0;
  std::string reason;
  try {
    std::printf("lorax_cuda_tests: %s\n", lorax::cuda::probe_device(0).c_str());
  } catch (const lorax::Error& error) {
    // A device that is there and broken must not look like none.
    if (error.code() != "DEVICE_UNAVAILABLE") {
      std::printf("lorax_cuda_tests: %s\n", error.what());
      return 1;
    }
    reason = error.what();
    num_skipped = count_device_tests();
    GTEST_FLAG_SET(filter, "Host*");
  }
  std::fflush(stdout);
  // In the JSON report, for scripts/test.mjs.
  testing::Test::RecordProperty("device_tests_skipped", num_skipped);
  const int status = RUN_ALL_TESTS();
  const testing::UnitTest& all = *testing::UnitTest::GetInstance();
  print_times(all);
  if (num_skipped > 0) {
    std::printf("lorax_cuda_tests: %d tests that need a device were skipped: %s\n", num_skipped,
                reason.c_str());
  }
  std::printf("lorax_cuda_tests: %d passed, %d failed, %d skipped\n", all.successful_test_count(),
              all.failed_test_count(), all.skipped_test_count() + num_skipped);
  return status;
}
