// References and random inputs of the CUDA tests, computed on all cores of the host: the same
// values for a seed whatever the number of cores.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

namespace lorax::cuda {

// body(i) for every i in [0, count), in any order; it must not throw, nor end a test.
template <typename Body>
void on_all_cores(int64_t count, const Body& body) {
  std::atomic<int64_t> next{0};
  const auto work = [&] {
    for (int64_t i; (i = next.fetch_add(1)) < count;) body(i);
  };
  const int64_t cores = std::max(1u, std::thread::hardware_concurrency());
  std::vector<std::thread> threads;
  for (int64_t t = 1; t < std::min(cores, count); ++t) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
}

// Normal values, rounded to bf16, as bits.
inline std::vector<uint16_t> normal_bf16_bits(std::mt19937& random, size_t count, float deviation) {
  constexpr size_t kPart = 1 << 16;
  const auto seed = static_cast<uint32_t>(random());
  std::vector<uint16_t> out(count);
  on_all_cores(static_cast<int64_t>((count + kPart - 1) / kPart), [&](int64_t part) {
    const size_t begin = static_cast<size_t>(part) * kPart;
    std::mt19937 engine(seed + static_cast<uint32_t>(part) * 0x9e3779b9u);
    std::normal_distribution<float> normal(0.0f, deviation);
    for (size_t i = begin; i < std::min(count, begin + kPart); ++i) {
      const float value = normal(engine);
      uint32_t bits = 0;
      std::memcpy(&bits, &value, sizeof bits);
      out[i] = static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    }
  });
  return out;
}

}  // namespace lorax::cuda
