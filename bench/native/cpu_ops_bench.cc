// Time of every operation of a SmolLM2-135M-shaped step on the CPU backend, beside what this
// machine measures as its ceilings: reading memory, and multiply-add in registers.
//
//   c++ -std=c++20 -O3 -march=native -Inative bench/native/cpu_ops_bench.cc
//       build/libbackend_cpu.a build/libcore.a -lpthread -o cpu_ops_bench
//   ./cpu_ops_bench [isa: auto|portable|avx2|avx512|amx] [rounds] [threads] [decode]
//
// Medians over rounds. Weights are random and distinct per layer, so a step reads them from memory.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "cpu/cpu_backend.h"
#include "lora/adapter.h"

namespace lorax {
namespace {

constexpr int kHidden = 576, kLayers = 30, kHeads = 9, kKvHeads = 3, kDim = 64, kInter = 1536;
constexpr int kVocab = 49152, kQkv = (kHeads + 2 * kKvHeads) * kDim;
constexpr AttentionConfig kAttention{kHeads, kKvHeads, kDim, 0.125f, 0};

// With one thread the processor's time is counted, not the wall's: on a machine that others use too
// it is what the work costs.
bool count_cpu_time = false;

double now_s() {
  if (count_cpu_time) {
    timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v.empty() ? 0.0 : v[v.size() / 2];
}

// A register, and how many sums fit beside two operands.
#ifdef __AVX512F__
using Lanes = float __attribute__((vector_size(64)));
constexpr int kChains = 16;
#else
using Lanes = float __attribute__((vector_size(32)));
constexpr int kChains = 12;
#endif

double read_gbps(int threads) {
  const size_t bytes = size_t{256} << 20;
  char* data = static_cast<char*>(std::aligned_alloc(2 << 20, bytes));
  std::memset(data, 1, bytes);
  std::vector<double> rates;
  std::atomic<float> sink{0};
  for (int round = 0; round < 3; ++round) {
    std::atomic<size_t> next{0};
    const auto work = [&] {
      constexpr size_t kChunk = 128 << 10;
      Lanes sums[4] = {};
      for (size_t at; (at = next.fetch_add(kChunk)) < bytes;) {
        for (size_t i = at; i < at + kChunk; i += 256) {
          for (int s = 0; s < 4; ++s) {
            __builtin_prefetch(data + i + s * 64 + 4096);
            sums[s] += *reinterpret_cast<const Lanes*>(data + i + s * 64);
          }
        }
      }
      sink = sink + sums[0][0] + sums[1][0] + sums[2][0] + sums[3][0];
    };
    const double begin = now_s();
    std::vector<std::thread> helpers;
    for (int t = 1; t < threads; ++t) helpers.emplace_back(work);
    work();
    for (auto& h : helpers) h.join();
    rates.push_back(static_cast<double>(bytes) / (now_s() - begin) / 1e9);
  }
  std::free(data);
  return median(rates);
}

double fma_gflops(int threads) {
  std::vector<double> rates;
  std::atomic<float> sink{0};
  constexpr int kLoops = 1000000;
  for (int round = 0; round < 3; ++round) {
    const auto work = [&] {
      Lanes acc[kChains] = {};
      // Opaque to the compiler, each for itself: equal chains would be folded into one.
      for (auto& a : acc) __asm__ volatile("" : "+v"(a));
      Lanes x = {};
      Lanes y = {};
      x += 1.0f;
      y += 1e-9f;
      __asm__ volatile("" : "+v"(x), "+v"(y));
      for (int i = 0; i < kLoops; ++i) {
#pragma GCC unroll 16
        for (auto& a : acc) a = x * y + a;
        __asm__ volatile("" : "+v"(x), "+v"(y));  // nor may x * y leave the loop
      }
      for (const auto& a : acc) sink = sink + a[0];
    };
    const double begin = now_s();
    std::vector<std::thread> helpers;
    for (int t = 1; t < threads; ++t) helpers.emplace_back(work);
    work();
    for (auto& h : helpers) h.join();
    rates.push_back(threads * 2.0 * kChains * (sizeof(Lanes) / 4) * kLoops / (now_s() - begin) /
                    1e9);
  }
  return median(rates);
}

struct Layer {
  std::unique_ptr<Weight> qkv, o, gate_up, down;
};

class Bench {
 public:
  Bench(Isa isa, int threads) : backend_(make_cpu_backend({Precision::kBFloat16, threads, isa})) {
    std::mt19937 engine(1);
    std::normal_distribution<float> normal(0.0f, 0.03f);
    values_.resize(size_t{1} << 22);
    for (float& v : values_) v = normal(engine);
    for (int i = 0; i < kLayers; ++i) {
      layers_.push_back({weight(kQkv, kHidden), weight(kHidden, kHeads * kDim),
                         weight(2 * kInter, kHidden), weight(kHidden, kInter)});
    }
    head_ = weight(kVocab, kHidden);
    const std::vector<float> ones(kHidden, 1.0f);
    gain_ = backend_->pack_vector({ones.data(), DType::kF32, 1, kHidden, "gain"});
    RopeConfig rope;
    for (int i = 0; i < kDim / 2; ++i) {
      rope.inv_freq.push_back(std::pow(1e5f, -2.0f * static_cast<float>(i) / kDim));
    }
    backend_->reserve({kLayers, kKvHeads, kDim}, rope, 512, 64);
    backend_->allocate_pages(int64_t{1500} << 20, 8192);
    for (int a = 0; a < 8; ++a) add_adapter();
  }

  std::string description() const { return backend_->info().description; }
  double adapter_bytes() const { return static_cast<double>(adapter_bytes_); }

  // Sequences of `tokens` new tokens after `context`; sequence i is on adapter i % adapters.
  StepPlan plan(int sequences, int tokens, int context, int adapters) const {
    StepPlan p;
    const int blocks = (context + tokens + 31) / 32;
    for (int s = 0; s < sequences; ++s) {
      p.spans.push_back(
          {p.num_rows(), tokens, context, static_cast<int32_t>(p.block_tables.size()), blocks});
      for (int b = 0; b < blocks; ++b) p.block_tables.push_back(pages_used_ + s * blocks + b);
      for (int t = 0; t < tokens; ++t) {
        p.token_ids.push_back((s * 7919 + t * 104729) % kVocab);
        p.positions.push_back(context + t);
      }
      p.logits_rows.push_back(p.num_rows() - 1);
      p.samples.emplace_back();
    }
    for (int a = 0; a < adapters; ++a) {
      LoraSegment segment;
      segment.adapter = adapters_[static_cast<size_t>(a)].get();
      segment.rows_begin = static_cast<int32_t>(p.segment_rows.size());
      for (int s = a; s < sequences; s += adapters) {
        for (int t = 0; t < tokens; ++t) p.segment_rows.push_back(s * tokens + t);
      }
      segment.rows_end = static_cast<int32_t>(p.segment_rows.size());
      p.segments.push_back(segment);
    }
    p.segment_weights.assign(p.segment_rows.size(), 1.0f);
    return p;
  }

  // One step as the decoder runs it; returns seconds, adds each operation's to `ops`.
  double step(const StepPlan& p, std::map<std::string, double>* ops) {
    static const std::vector<SitePart> kQkvParts = {
        {kQProj, 0, kHeads * kDim},
        {kKProj, kHeads * kDim, kKvHeads * kDim},
        {kVProj, (kHeads + kKvHeads) * kDim, kKvHeads * kDim}};
    static const std::vector<SitePart> kOParts = {{kOProj, 0, kHidden}};
    static const std::vector<SitePart> kGateUpParts = {{kGateProj, 0, kInter},
                                                       {kUpProj, kInter, kInter}};
    static const std::vector<SitePart> kDownParts = {{kDownProj, 0, kHidden}};
    const double begin = now_s();
    double last = begin;
    const auto timed = [&](const char* name, auto&& result) {
      const double t = now_s();
      if (ops != nullptr) (*ops)[name] += t - last;
      last = t;
      return result;
    };
    Backend& b = *backend_;
    b.begin_step(p);
    Activation residual = timed("embed", b.embed(*head_, nullptr));
    Activation x = timed("norm", b.rms_norm(residual, *gain_, 1e-5f));
    for (int i = 0; i < kLayers; ++i) {
      const LoraSite qkv_site{i, kQkvParts}, o_site{i, kOParts}, gate_up_site{i, kGateUpParts},
          down_site{i, kDownParts};
      const Layer& layer = layers_[static_cast<size_t>(i)];
      Activation qkv = timed("qkv", b.linear(x, *layer.qkv, &qkv_site));
      b.rope_and_store_kv(qkv, i, kAttention, nullptr, nullptr, 1e-5f);
      timed("rope", 0);
      x = timed("attention", b.attention(qkv, i, kAttention));
      x = timed("o", b.linear(x, *layer.o, &o_site));
      x = timed("norm", b.add_rms_norm(residual, x, *gain_, 1e-5f, false));
      x = timed("gate_up", b.linear(x, *layer.gate_up, &gate_up_site));
      x = timed("silu", b.silu_mul(x));
      x = timed("down", b.linear(x, *layer.down, &down_site));
      x = timed("norm", b.add_rms_norm(residual, x, *gain_, 1e-5f, i + 1 == kLayers));
    }
    x = timed("head", b.linear(x, *head_, nullptr));
    std::vector<SampleResult> results(p.samples.size());
    b.sample(x);
    b.collect(results);
    timed("sample", 0);
    return now_s() - begin;
  }

 private:
  const float* values(int64_t count) {
    if (next_value_ + count > static_cast<int64_t>(values_.size())) next_value_ = 0;
    const float* p = values_.data() + next_value_;
    next_value_ = (next_value_ + count / 3 + 12345) % 100000;
    return p;
  }
  std::unique_ptr<Weight> weight(int n, int k) {
    std::vector<TensorView> parts;
    for (int at = 0; at < n; at += 4096) {
      const int rows = std::min(4096, n - at);
      parts.push_back({values(int64_t{rows} * k), DType::kF32, rows, k, "w"});
    }
    return backend_->pack_weight(parts, {});
  }
  void add_adapter() {
    const int in[] = {kHidden, kHidden, kHidden, kHeads * kDim, kHidden, kHidden, kInter};
    const int out[] = {kHeads * kDim, kKvHeads * kDim, kKvHeads * kDim, kHidden,
                       kInter,        kInter,          kHidden};
    std::vector<AdapterModule> modules;
    for (int l = 0; l < kLayers; ++l) {
      for (int m = 0; m < 7; ++m) {
        modules.push_back({l,
                           m,
                           16,
                           2.0f,
                           {values(16 * in[m]), DType::kF32, 16, in[m], "a"},
                           {values(16 * out[m]), DType::kF32, out[m], 16, "b"}});
      }
    }
    auto image = backend_->pack_adapter(modules);
    std::vector<int32_t> pages;
    for (int i = 0; i < image->num_pages; ++i) pages.push_back(pages_used_++);
    adapter_bytes_ = image->bytes;
    adapters_.push_back(backend_->place_adapter(*image, pages));
  }

  std::unique_ptr<Backend> backend_;
  std::vector<float> values_;
  int64_t next_value_ = 0;
  std::vector<Layer> layers_;
  std::unique_ptr<Weight> head_;
  std::unique_ptr<Vector> gain_;
  std::vector<std::unique_ptr<ResidentAdapter>> adapters_;
  int32_t pages_used_ = 0;
  int64_t adapter_bytes_ = 0;
};

int run(int argc, char** argv) {
  Isa isa = Isa::kAuto;
  for (Isa i : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
    if (argc > 1 && std::string(argv[1]) == isa_name(i)) isa = i;
  }
  const bool decode_only = argc > 4 && std::string(argv[4]) == "decode";
  const int rounds = argc > 2 ? std::max(1, std::atoi(argv[2])) : 9;
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  const int threads = argc > 3 ? std::max(1, std::atoi(argv[3])) : cores;
  count_cpu_time = threads == 1;
  Bench bench(isa, threads);
  std::vector<double> read_rates;
  std::vector<double> fma_rates;

  struct Case {
    const char* name;
    int sequences, tokens, context, adapters;
  };
  const Case cases[] = {{"decode 1", 1, 1, 256, 0},
                        {"decode 4", 4, 1, 256, 0},
                        {"decode 16", 16, 1, 256, 0},
                        {"decode 16, 1 adapter", 16, 1, 256, 1},
                        {"decode 16, 8 adapters", 16, 1, 256, 8},
                        {"prefill 512", 1, 512, 0, 0},
                        {"prefill 512, 1 adapter", 1, 512, 0, 1}};
  const std::map<std::string, int64_t> weights = {{"qkv", int64_t{kQkv} * kHidden},
                                                  {"o", int64_t{kHidden} * kHidden},
                                                  {"gate_up", int64_t{2} * kInter * kHidden},
                                                  {"down", int64_t{kInter} * kHidden},
                                                  {"head", int64_t{kVocab} * kHidden}};
  std::vector<std::vector<double>> totals(std::size(cases));
  std::vector<std::map<std::string, std::vector<double>>> ops(std::size(cases));
  for (int round = -1; round < rounds; ++round) {  // interleaved; the first round warms up
    read_rates.push_back(read_gbps(threads));
    fma_rates.push_back(fma_gflops(threads));
    for (size_t c = 0; c < std::size(cases); ++c) {
      const Case& k = cases[c];
      if (decode_only && k.tokens > 1) continue;
      const StepPlan p = bench.plan(k.sequences, k.tokens, k.context, k.adapters);
      std::map<std::string, double> one;
      const double seconds = bench.step(p, &one);
      if (round < 0) continue;
      totals[c].push_back(seconds);
      for (const auto& [name, s] : one) ops[c][name].push_back(s);
    }
  }
  std::printf(
      "%s%s\nceilings, median of the rounds: read %.1f GB/s (best %.1f), multiply-add in "
      "registers %.0f GFLOP/s (best %.0f)\n",
      bench.description().c_str(), count_cpu_time ? ", processor time" : "", median(read_rates),
      *std::max_element(read_rates.begin(), read_rates.end()), median(fma_rates),
      *std::max_element(fma_rates.begin(), fma_rates.end()));
  for (size_t c = 0; c < std::size(cases); ++c) {
    const Case& k = cases[c];
    if (totals[c].empty()) continue;
    const int rows = k.sequences * k.tokens;
    const double total = median(totals[c]);
    std::printf("\n%-24s %8.2f ms  %8.1f tokens/s  (best %.2f ms)\n", k.name, total * 1e3,
                rows / total, *std::min_element(totals[c].begin(), totals[c].end()) * 1e3);
    for (const auto& [name, samples] : ops[c]) {
      const double s = median(samples);
      std::printf("  %-10s %8.3f ms", name.c_str(), s * 1e3);
      const auto w = weights.find(name);
      if (w != weights.end()) {
        const double count = static_cast<double>(w->second) * (name == "head" ? 1 : kLayers);
        const int op_rows = name == "head" ? k.sequences : rows;
        std::printf("  %6.1f GB/s  %6.0f GFLOP/s", count * 2 / s / 1e9,
                    count * 2 * op_rows / s / 1e9);
      }
      std::printf("\n");
    }
  }
  std::printf("\nan adapter of rank 16 on all seven projections: %.2f MB\n",
              bench.adapter_bytes() / 1e6);
  return 0;
}

}  // namespace
}  // namespace lorax

int main(int argc, char** argv) { return lorax::run(argc, argv); }
