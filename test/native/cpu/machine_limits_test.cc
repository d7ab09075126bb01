// What a process may take of the machine.
#include "cpu/machine_limits.h"

#include <gtest/gtest.h>

#if defined(__linux__)
#include <sched.h>
#endif

namespace lorax::cpu {
namespace {

TEST(MachineLimits, HasMemoryAndCores) {
  EXPECT_GT(available_memory_bytes(), 0);
  EXPECT_GE(usable_cores(), 1);
}

#if defined(__linux__)
TEST(MachineLimits, CountsOnlyTheCoresItMayRunOn) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &before)) continue;
    CPU_SET(cpu, &one);
    break;
  }
  ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
  EXPECT_EQ(usable_cores(), 1);
  ASSERT_EQ(sched_setaffinity(0, sizeof(before), &before), 0);
}
#endif

}  // namespace
}  // namespace lorax::cpu
