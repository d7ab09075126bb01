// The engine without Node: streams of one length through native/engine, so that what Node and the
// AI SDK cost can be told (bench/gpu/node-cost.mjs), and what adapters cost that nobody asks for.
//
//   engine_bench FOLDER [--device cuda] [--memory-bytes N] [--adapters N] --serve
//   engine_bench FOLDER ... [--streams 64] [--registered 1000] [--rounds 2]
//
// --serve: says `ready SECONDS` (from the start of the process to the first token), then answers
// each line `run TOKENS LENGTH LENGTH ...` (one stream per prompt length) with `done SECONDS`, from
// the first submission to the last token. Streams take turns on the adapters, of rank 16.
//
// --registered: milliseconds of a step in which all streams decode on the base, without adapters,
// with so many of rank 8 on q and v (as many of them resident as fit), and without again.
// A step's time is the difference of two runs over the difference of their lengths.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/bench_options.h"
#include "common/streams.h"

namespace lorax::bench {
namespace {

const std::chrono::steady_clock::time_point process_begin = std::chrono::steady_clock::now();

int serve(Streams& streams, const std::vector<int32_t>& adapters) {
  std::printf("ready %.3f\n", seconds_since(process_begin));
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream in(line);
    std::string command;
    int32_t tokens = 0;
    in >> command >> tokens;
    std::vector<int32_t> lengths;
    for (int32_t length; in >> length;) lengths.push_back(length);
    if (command != "run" || tokens < 1 || lengths.empty()) {
      throw std::runtime_error("not `run TOKENS LENGTH ...`: " + line);
    }
    std::printf("done %.6f\n", streams.run(tokens, lengths, adapters));
    std::fflush(stdout);
  }
  return 0;
}

// One token of every adapter, which makes it resident for as long as nobody needs its pages.
void make_resident(Streams& streams, const std::vector<int32_t>& adapters) {
  constexpr size_t kAtOnce = 64;
  for (size_t begin = 0; begin < adapters.size(); begin += kAtOnce) {
    const size_t end = std::min(adapters.size(), begin + kAtOnce);
    streams.run(1, std::vector<int32_t>(end - begin, 8),
                {adapters.begin() + static_cast<std::ptrdiff_t>(begin),
                 adapters.begin() + static_cast<std::ptrdiff_t>(end)});
  }
}

int registered(Streams& streams, int32_t num_streams, int32_t count, int32_t rounds) {
  constexpr int32_t kShort = 32, kLong = 160;
  const std::vector<int32_t> lengths(static_cast<size_t>(num_streams), 128);
  std::vector<double> without, with;
  int64_t resident = 0;
  for (int32_t round = 0; round < rounds; ++round) {
    without.push_back(streams.step_ms(kShort, kLong, lengths));
    std::vector<int32_t> adapters;
    for (int32_t i = 0; i < count; ++i) adapters.push_back(streams.add_adapter(8, false));
    make_resident(streams, adapters);
    with.push_back(streams.step_ms(kShort, kLong, lengths));
    resident = 0;
    for (const AdapterStatus& status : streams.engine().adapters()) resident += status.resident;
    for (const int32_t adapter : adapters) streams.engine().remove_adapter(adapter);
    without.push_back(streams.step_ms(kShort, kLong, lengths));
    std::printf("round %d: %d streams on the base: %.3f ms, %.3f with %d adapters, %.3f without\n",
                round, num_streams, without[without.size() - 2], with.back(), count,
                without.back());
    std::fflush(stdout);
  }
  std::printf(
      "REGISTERED %d adapters, %lld resident: %d streams on the base %.3f ms, without %.3f "
      "ms, %.3fx (bar 1.00)\n",
      count, static_cast<long long>(resident), num_streams, median(with), median(without),
      median(with) / median(without));
  return 0;
}

int run(int argc, char** argv) {
  Arguments arguments(argc, argv);
  const std::string folder = arguments.positional("/tmp");
  const std::string device = arguments.value("--device", "cuda");
  const int64_t memory_bytes = arguments.number("--memory-bytes", 0);
  const auto num_adapters = static_cast<int32_t>(arguments.number("--adapters", 0));
  const auto num_streams = static_cast<int32_t>(arguments.number("--streams", 64));
  const auto num_registered = static_cast<int32_t>(arguments.number("--registered", 1000));
  const auto rounds = static_cast<int32_t>(arguments.number("--rounds", 2));
  const bool serves = arguments.flag("--serve");
  arguments.finish();

  CudaOptions cuda;
  cuda.cache_directory = folder;
  DecoderOptions options;
  options.memory_bytes = memory_bytes;
  Streams streams(folder, bench_backend(device, cuda), options);
  std::vector<int32_t> adapters;
  for (int32_t i = 0; i < num_adapters; ++i) adapters.push_back(streams.add_adapter(16, true));
  streams.run(1, {128}, {});
  if (serves) return serve(streams, adapters);
  streams.step_ms(4, 20, std::vector<int32_t>(static_cast<size_t>(num_streams), 128));
  return registered(streams, num_streams, num_registered, rounds);
}

}  // namespace
}  // namespace lorax::bench

int main(int argc, char** argv) {
  try {
    return lorax::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "engine_bench: %s\n", error.what());
    return 1;
  }
}
