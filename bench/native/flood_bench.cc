// What a flood of one tenant costs the others' first tokens, and why, on a virtual clock.
//
//   c++ -std=c++20 -O2 -Inative bench/native/flood_bench.cc build/tests/libcore.a -lpthread -o
//   flood_bench
//   ./flood_bench [SCENARIO] [requests=500] [seeds=2] [first_seed=1] [load=0.3]
//
// For each load of the others, of what the machine could serve: their p99 without and with the
// flood, what the slowest of them spent that time on, in milliseconds, and the tokens computed
// against those with one line for all.
#include <cstdio>
#include <cstdlib>

#include "flood_scenarios.h"

namespace lorax::flood {
namespace {

// Of those from the 98th percentile on.
Cause mean_of_slowest(const Outcome& outcome) {
  const double from = first_token(outcome, 0.98);
  Cause sum;
  int32_t count = 0;
  for (const Cause& cause : outcome.first_tokens) {
    if (cause.total() < from) continue;
    ++count;
    sum.in_flight += cause.in_flight, sum.turn += cause.turn, sum.fixed += cause.fixed;
    sum.own += cause.own, sum.light += cause.light, sum.flood += cause.flood;
  }
  for (double* part : {&sum.in_flight, &sum.turn, &sum.fixed, &sum.own, &sum.light, &sum.flood}) {
    *part /= std::max(1, count);
  }
  return sum;
}

void print(const char* kind, const Outcome& outcome) {
  const Cause cause = mean_of_slowest(outcome);
  std::printf(
      "    %-7s p50 %8.1f  p99 %8.1f | in flight %7.1f  turn %7.1f  fixed %6.1f  own %7.1f"
      "  light %7.1f  flood %7.1f | %7.2f rows/ms, %6.0f a step, %d lost\n",
      kind, first_token(outcome, 0.5), first_token(outcome, 0.99), cause.in_flight, cause.turn,
      cause.fixed, cause.own, cause.light, cause.flood, outcome.rows_per_ms, outcome.rows_per_step,
      outcome.num_lost);
}

}  // namespace

int bench_main(int argc, char** argv) {
  std::string only;
  int32_t requests = 500, seeds = 2, first_seed = 1;
  std::vector<double> loads = {0.1, 0.3, 0.6};
  for (int i = 1; i < argc; ++i) {
    const std::string text = argv[i];
    const size_t at = text.find('=');
    if (at == std::string::npos) only = text;
    const double value = at == std::string::npos ? 0 : std::stod(text.substr(at + 1));
    if (text.starts_with("requests=")) requests = static_cast<int32_t>(value);
    if (text.starts_with("seeds=")) seeds = static_cast<int32_t>(value);
    if (text.starts_with("first_seed=")) first_seed = static_cast<int32_t>(value);
    if (text.starts_with("load=")) loads = {value};
  }
  for (const Scenario& scenario : kScenarios) {
    if (!only.empty() && scenario.name != only) continue;
    const double capacity = capacity_of(scenario);
    std::printf("%s: %.1f requests/s\n", scenario.name.c_str(), 1000 * capacity);
    for (const double load : loads) {
      for (int32_t seed = first_seed; seed < first_seed + seeds; ++seed) {
        const Comparison each = compare(scenario, capacity, load, requests, seed);
        std::printf("  load %.2f seed %d: p99 %.2fx, tokens %.3fx\n", load, seed, each.p99_ratio(),
                    each.throughput_ratio());
        print("alone", each.alone);
        print("flooded", each.flooded);
        print("1 name", each.one_name);
        std::fflush(stdout);
      }
    }
  }
  return 0;
}

}  // namespace lorax::flood

int main(int argc, char** argv) {
  try {
    return lorax::flood::bench_main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "flood_bench: %s\n", error.what());
    return 1;
  }
}
