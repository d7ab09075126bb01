// See machine_limits.h. Reads /proc and /sys; what cannot be read limits nothing.
#include "cpu/machine_limits.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>
#include <thread>

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif
#if defined(__linux__)
#include <sched.h>
#endif

namespace lorax::cpu {
namespace {

constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

// The number at the start of a file, or `otherwise` ("max", no such file).
int64_t read_number(const char* path, int64_t otherwise) {
  int64_t value = 0;
  return std::ifstream(path) >> value ? value : otherwise;
}

// The value of a "key value" line.
int64_t read_key(const char* path, const std::string& wanted, int64_t otherwise) {
  std::ifstream file(path);
  std::string key;
  std::string rest;
  int64_t value = 0;
  while (file >> key >> value) {
    if (key == wanted) return value;
    std::getline(file, rest);
  }
  return otherwise;
}

struct MemoryGroup {
  const char* limit;
  const char* used;
  const char* stat;
  const char* cache_key;  // of reclaimable file cache, in stat
};

constexpr MemoryGroup kMemoryGroups[] = {
    {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat",
     "inactive_file"},
    {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes",
     "/sys/fs/cgroup/memory/memory.stat", "total_inactive_file"},
};

}  // namespace

int64_t available_memory_bytes() {
  int64_t available = kUnlimited;
  const int64_t kib = read_key("/proc/meminfo", "MemAvailable:", -1);
  if (kib >= 0) available = kib * 1024;
  for (const MemoryGroup& group : kMemoryGroups) {
    const int64_t limit = read_number(group.limit, kUnlimited);
    const int64_t used = read_number(group.used, -1);
    if (limit == kUnlimited || used < 0) continue;
    const int64_t cache = read_key(group.stat, group.cache_key, 0);
    available = std::min(available, std::max<int64_t>(limit - used + cache, 0));
  }
#if (defined(__unix__) || defined(__APPLE__)) && defined(_SC_PHYS_PAGES)
  if (available == kUnlimited) {
    available = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE) / 2;
  }
#endif
  return available == kUnlimited ? int64_t{4} << 30 : available;
}

int usable_cores() {
  int64_t cores = std::max(1u, std::thread::hardware_concurrency());
#if defined(__linux__)
  // hardware_concurrency() also counts the cores that taskset or a container's cpuset took away.
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0) {
    cores = std::min<int64_t>(cores, CPU_COUNT(&allowed));
  }
#endif
  int64_t quota = -1;
  int64_t period = 0;
  if (!(std::ifstream("/sys/fs/cgroup/cpu.max") >> quota >> period)) {
    quota = read_number("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", -1);
    period = read_number("/sys/fs/cgroup/cpu/cpu.cfs_period_us", 0);
  }
  if (quota > 0 && period > 0) cores = std::min(cores, (quota + period - 1) / period);
  return static_cast<int>(cores);
}

}  // namespace lorax::cpu
