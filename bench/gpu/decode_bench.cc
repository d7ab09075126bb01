// Steps of a decoder of Llama-3.1-8B's shape (random weights) on the CUDA backend, without Node.
//
//   decode_bench FOLDER [--only NAME,NAME...] [--rows 32,128] [--rounds 3] [--steps 128]
//                [--quick | --trace] [--csv FILE] [--device cuda]
//
// Scenarios (rows x adapters) take turns in one run, so that base and adapters see the same card;
// the figure is the median time between two collected steps while all rows decode. Prints
// milliseconds, the floor (bytes read / the copy speed measured here) and their ratio, then what
// the scenarios say of each other. Names, which --only takes, also as a prefix with a `*`:
//
//   base, 1xr16 ... 256xr16        so many distinct adapters of rank 16, all seven projections
//   8xmixed                        ranks 8, 16, 32, 64, two each; with 8xr8, 8xr32, 8xr64 to tell
//                                  what uniform ranks take at its bytes
//   8xr16-half-base                half the rows on the base
//   pool-empty, pool-full          base rows, with no adapter resident and with as many of rank 16
//                                  as fit, up to 1,000
//   det-base, det-8xr16            `deterministic`, on a second decoder
//   prefill-base, prefill-8xr16    64 prompts of 1024 tokens; 1, 8 and 64 adapters
//
// --trace runs few steps of few scenarios, for bench/gpu/trace.py, which loads this as a library.
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/bench_options.h"
#include "common/decode_runner.h"
#include "common/device_ceilings.h"
#include "common/dummy_model.h"
#include "cuda/cuda_backend.h"

namespace lorax::bench {
namespace {

// Of a pool where benchmarks are only tried out.
constexpr int64_t kMemoryOffGpu = int64_t{1} << 30;

struct Options {
  std::string folder, device, csv_path;
  std::vector<std::string> only;
  std::vector<int32_t> rows;
  int32_t rounds = 3;
  int32_t steps = 128;
  bool quick = false, trace = false;
  CudaOptions cuda;

  bool wants(const std::string& name) const {
    if (only.empty()) return true;
    return std::any_of(only.begin(), only.end(), [&](const std::string& one) {
      return one == name ||
             (one.back() == '*' && name.rfind(one.substr(0, one.size() - 1), 0) == 0);
    });
  }
};

Options parse(int argc, char** argv) {
  Arguments arguments(argc, argv);
  Options out;
  out.folder = arguments.positional("/tmp");
  out.trace = arguments.flag("--trace");
  out.quick = arguments.flag("--quick") || out.trace;
  out.device = arguments.value("--device", "cuda");
  out.csv_path = arguments.value("--csv", "");
  out.only = split(arguments.value("--only", ""), ',');
  const char* all_rows = out.trace ? "1,32,128" : out.quick ? "1,32,64,128" : "1,8,32,64,128,256";
  for (const std::string& rows : split(arguments.value("--rows", all_rows), ',')) {
    out.rows.push_back(std::stoi(rows));
  }
  out.rounds = static_cast<int32_t>(arguments.number("--rounds", out.trace   ? 1
                                                                 : out.quick ? 2
                                                                             : 3));
  out.steps = static_cast<int32_t>(arguments.number("--steps", out.trace   ? 12
                                                               : out.quick ? 40
                                                                           : 128));
  arguments.finish();
  // One block table for all scenarios.
  if (out.rows.empty() || *std::max_element(out.rows.begin(), out.rows.end()) > 256 ||
      out.steps > 192) {
    throw std::runtime_error("--rows are at most 256, --steps at most 192");
  }
  out.cuda.cache_directory = out.folder;
  return out;
}

// Adapters by name, placed when a scenario first asks for them; those of one rank are shared.
class Adapters {
 public:
  explicit Adapters(DecodeRunner& runner) : runner_(runner) {}

  std::vector<const Resident*> of_rank(int32_t rank, int32_t count) {
    std::vector<const Resident*>& all = by_rank_[rank];
    while (static_cast<int32_t>(all.size()) < count) all.push_back(runner_.add_adapter(rank));
    return {all.begin(), all.begin() + count};
  }
  std::vector<const Resident*> mixed() {
    std::vector<const Resident*> out;
    for (int32_t i = 0; i < 8; ++i) {
      out.push_back(of_rank(8 << (i % 4), 2)[static_cast<size_t>(i / 4)]);
    }
    return out;
  }

 private:
  DecodeRunner& runner_;
  std::map<int32_t, std::vector<const Resident*>> by_rank_;
};

// Every scenario is run beside the base at as many rows.
std::vector<Scenario> decode_scenarios(const Options& options, Adapters& adapters) {
  std::vector<Scenario> out;
  for (const int32_t rows : options.rows) {
    std::vector<Scenario> of_rows;
    const auto add = [&](const std::string& name, const auto& make_adapters, int32_t base_rows) {
      if (options.wants(name)) of_rows.push_back({name, rows, make_adapters(), base_rows});
    };
    for (const int32_t distinct : {1, 8, 32, 64, 128, 256}) {
      if (distinct > rows || (options.quick && distinct > 32)) continue;
      add(std::to_string(distinct) + "xr16", [&] { return adapters.of_rank(16, distinct); }, 0);
    }
    if (rows >= 8) {
      for (const int32_t rank : {8, 32, 64}) {
        if (options.quick && options.only.empty()) break;
        add("8xr" + std::to_string(rank), [&] { return adapters.of_rank(rank, 8); }, 0);
      }
      add("8xmixed", [&] { return adapters.mixed(); }, 0);
    }
    if (rows >= 16) {
      add("8xr16-half-base", [&] { return adapters.of_rank(16, 8); }, rows / 2);
    }
    if (of_rows.empty() && !options.wants("base")) continue;
    out.push_back({"base", rows});
    out.insert(out.end(), of_rows.begin(), of_rows.end());
  }
  return out;
}

std::vector<Scenario> prefill_scenarios(const Options& options, Adapters& adapters) {
  constexpr int32_t kPrompts = 64;
  std::vector<Scenario> out;
  for (const int32_t distinct : {1, 8, 64}) {
    if (options.quick && distinct > 32) continue;
    const std::string name = "prefill-" + std::to_string(distinct) + "xr16";
    if (options.wants(name)) out.push_back({name, kPrompts, adapters.of_rank(16, distinct)});
  }
  if (!out.empty() || options.wants("prefill-base")) {
    out.insert(out.begin(), Scenario{"prefill-base", kPrompts});
  }
  return out;
}

// Base rows with an empty and with a full pool, in turns.
std::vector<Scenario> run_pool(const Options& options, DecodeRunner& runner) {
  constexpr int32_t kMost = 1000;
  std::vector<Scenario> out;
  if (options.quick && options.only.empty()) return out;
  if (!options.wants("pool-empty") && !options.wants("pool-full")) return out;
  for (const int32_t rows : options.rows) {
    out.push_back({"pool-empty", rows});
    out.push_back({"pool-full", rows});
  }
  int32_t resident = 0;
  for (int32_t round = 0; round < options.rounds; ++round) {
    for (size_t i = 0; i < out.size(); i += 2) runner.run(out[i], options.steps);
    resident = runner.fill_pool(16, kMost);
    for (size_t i = 1; i < out.size(); i += 2) runner.run(out[i], options.steps);
    runner.empty_pool();
  }
  std::printf("pool-full: %d adapters of rank 16 resident\n", resident);
  return out;
}

// A second decoder beside the first, which takes what memory is left: both in one run.
struct Deterministic {
  std::unique_ptr<DecodeRunner> runner;
  std::vector<Scenario> scenarios;
};

Deterministic make_deterministic(const Options& options) {
  Deterministic out;
  if (options.quick && options.only.empty()) return out;
  if (!options.wants("det-base") && !options.wants("det-8xr16")) return out;
  constexpr int32_t kMostRows = 128;  // of a deterministic step
  constexpr int64_t kKvTokens = 16;   // of a page
  const ModelSpec spec = bench_model(options.folder);
  CudaOptions cuda = options.cuda;
  cuda.deterministic = true;
  const DecoderConfig& c = spec.config;
  const int64_t kv_bytes =
      DecodeRunner::kKvPages * kKvTokens * 4 * c.num_layers * c.num_kv_heads * c.head_dim;
  // Eight adapters take less than another fifth.
  const int64_t memory_bytes = options.device == "cuda" ? kv_bytes + kv_bytes / 5 : kMemoryOffGpu;
  out.runner = std::make_unique<DecodeRunner>(bench_backend(options.device, cuda), spec,
                                              options.folder, memory_bytes);
  std::vector<const Resident*> rank16;
  for (int32_t i = 0; i < 8; ++i) rank16.push_back(out.runner->add_adapter(16));
  int32_t most = 0;
  for (const int32_t rows : options.rows) {
    if (rows > kMostRows) continue;
    most = std::max(most, rows);
    out.scenarios.push_back({"det-base", rows});
    if (rows >= 8 && options.wants("det-8xr16")) {
      out.scenarios.push_back({"det-8xr16", rows, rank16});
    }
  }
  out.runner->write_prompts(most, options.steps);
  return out;
}

// Medians by scenario and rows, and what the scenarios say of each other.
class Results {
 public:
  void add(const std::vector<Scenario>& scenarios) {
    for (const Scenario& s : scenarios) by_name_[{s.name, s.rows}] = &s;
  }
  // 0 where it was not run.
  double ms(const std::string& name, int32_t rows) const {
    const auto at = by_name_.find({name, rows});
    return at == by_name_.end() ? 0.0 : median(at->second->samples);
  }

  // `name` / `of`, where both were run.
  void print_ratio(const std::string& name, const std::string& of, int32_t rows,
                   const char* bar) const {
    const double above = ms(name, rows), below = ms(of, rows);
    if (above == 0.0 || below == 0.0) return;
    std::printf("SUMMARY %-24s %3d rows: %.3f ms, %.3fx of %s (%+.3f ms)%s\n", name.c_str(), rows,
                above, above / below, of.c_str(), above - below, bar);
  }

  // What uniform ranks take at the mixed run's bytes, by a line between the two next to it: at the
  // bytes of its ranks as they are, and at those of its images, where 8 is padded to 16.
  void print_mixed(int32_t rows) const {
    const auto at = by_name_.find({"8xmixed", rows});
    if (at == by_name_.end()) return;
    const auto bytes_of = [](const Scenario& s, bool padded) {
      double sum = 0;
      for (const Resident* r : s.adapters) sum += padded ? static_cast<double>(r->bytes) : r->rank;
      return sum;
    };
    for (const bool padded : {false, true}) {
      const double wanted = bytes_of(*at->second, padded);
      const Scenario* below = nullptr;
      const Scenario* above = nullptr;
      for (const char* name : {"8xr8", "8xr16", "8xr32", "8xr64"}) {
        const auto uniform = by_name_.find({name, rows});
        if (uniform == by_name_.end()) continue;
        const double bytes = bytes_of(*uniform->second, padded);
        if (bytes <= wanted) below = uniform->second;
        if (bytes >= wanted && above == nullptr) above = uniform->second;
      }
      if (below == nullptr || above == nullptr) return;
      const double from = bytes_of(*below, padded), to = bytes_of(*above, padded);
      const double share = to > from ? (wanted - from) / (to - from) : 0.0;
      const double uniform =
          median(below->samples) + share * (median(above->samples) - median(below->samples));
      std::printf(
          "SUMMARY 8xmixed %3d rows: %.3f ms, %.3fx of uniform ranks at equal %s bytes "
          "(%.3f ms; bar 1.03)\n",
          rows, median(at->second->samples), median(at->second->samples) / uniform,
          padded ? "padded" : "exact", uniform);
    }
  }

 private:
  std::map<std::pair<std::string, int32_t>, const Scenario*> by_name_;
};

int run(int argc, char** argv) {
  const Options options = parse(argc, argv);
  DeviceCeilings ceilings;
  if (options.device == "cuda") ceilings = measure_device_ceilings(options.folder);
  std::printf("%s: copy %.3f TB/s, bf16 8192^3 %.0f TFLOP/s\n", ceilings.name.c_str(),
              ceilings.copy_bytes_per_second / 1e12, ceilings.gemm_flops / 1e12);

  Deterministic deterministic = make_deterministic(options);
  const int64_t memory_bytes = options.device == "cuda" ? 0 : kMemoryOffGpu;
  DecodeRunner runner(bench_backend(options.device, options.cuda), bench_model(options.folder),
                      options.folder, memory_bytes);
  runner.write_prompts(*std::max_element(options.rows.begin(), options.rows.end()), options.steps);
  const std::vector<Scenario> pools = run_pool(options, runner);
  Adapters adapters(runner);
  std::vector<Scenario> scenarios = decode_scenarios(options, adapters);
  std::vector<Scenario> prefills = prefill_scenarios(options, adapters);
  for (int32_t round = 0; round < options.rounds; ++round) {
    for (Scenario& scenario : scenarios) runner.run(scenario, options.steps);
    for (Scenario& scenario : deterministic.scenarios) {
      deterministic.runner->run(scenario, options.steps);
    }
  }
  for (int32_t round = 0; round < options.rounds; ++round) {
    for (Scenario& scenario : prefills) runner.prefill(scenario, 1024);
  }

  std::ofstream csv;
  if (!options.csv_path.empty()) {
    csv.open(options.csv_path);
    csv << "device,copy_tb_s,gemm_tflop_s,scenario,rows,median,unit,floor_ms,of_base\n";
  }
  const auto record = [&](const Scenario& s, double value, const char* unit, double floor,
                          double ratio) {
    if (!csv.is_open()) return;
    csv << ceilings.name << ',' << ceilings.copy_bytes_per_second / 1e12 << ','
        << ceilings.gemm_flops / 1e12 << ',' << s.name << ',' << s.rows << ',' << value << ','
        << unit << ',' << floor << ',' << ratio << '\n';
  };
  const std::vector<const std::vector<Scenario>*> decodes = {&scenarios, &pools,
                                                             &deterministic.scenarios};
  Results results;
  for (const std::vector<Scenario>* all : decodes) results.add(*all);

  std::printf("%-22s %5s %9s %9s %7s %8s\n", "scenario", "rows", "ms/step", "floor ms", "x floor",
              "x base");
  for (const std::vector<Scenario>* all : decodes) {
    for (const Scenario& s : *all) {
      const double ms = median(s.samples);
      double bytes = runner.weight_bytes() + s.rows * runner.kv_bytes_per_token() *
                                                 (DecodeRunner::kPromptTokens + options.steps / 2);
      for (const Resident* resident : s.adapters) bytes += static_cast<double>(resident->bytes);
      const double speed = ceilings.copy_bytes_per_second;
      const double floor = speed > 0 ? bytes / speed * 1e3 : 0.0;
      double base = results.ms("base", s.rows);
      if (base == 0.0) base = results.ms("pool-empty", s.rows);
      if (base == 0.0) base = ms;
      std::printf("%-22s %5d %9.3f %9.3f %7.3f %8.3f\n", s.name.c_str(), s.rows, ms, floor,
                  floor > 0 ? ms / floor : 0.0, ms / base);
      record(s, ms, "ms", floor, ms / base);
    }
  }
  for (const Scenario& s : prefills) {
    const double speed = median(s.samples), base = median(prefills[0].samples);
    std::printf("%-22s %5d %9.0f tokens/s %21.3f\n", s.name.c_str(), s.rows, speed, speed / base);
    record(s, speed, "tokens/s", 0.0, speed / base);
  }
  for (const int32_t rows : options.rows) {
    results.print_mixed(rows);
    results.print_ratio("8xr16-half-base", "8xr16", rows, " (bar 1.00)");
    results.print_ratio("128xr16", "base", rows, rows == 128 ? " (bar +4.5 ms)" : "");
    results.print_ratio("pool-full", "pool-empty", rows, " (bar 1.00)");
    results.print_ratio("det-base", "base", rows, "");
    results.print_ratio("det-8xr16", "8xr16", rows, "");
  }
  return 0;
}

}  // namespace
}  // namespace lorax::bench

extern "C" __attribute__((visibility("default"))) int lorax_decode_bench(int argc, char** argv) {
  try {
    return lorax::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "decode_bench: %s\n", error.what());
    return 1;
  }
}

int main(int argc, char** argv) { return lorax_decode_bench(argc, argv); }
