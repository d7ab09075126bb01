// Steps of a decoder of Llama-3.1-8B's shape (random weights) on the CUDA backend, without Node.
//
//   decode_bench FOLDER [--quick | --trace] [--csv FILE]
//
// --trace runs few steps of few scenarios, for bench/gpu/trace.py, which loads this as a library.
// Scenarios (rows x adapters) take turns in one run, a few steps each, so that base and adapters
// see the same card; the figure is the median time between two collected steps while all rows
// decode. Prints milliseconds, the floor (bytes read / the copy speed measured here) and their
// ratio.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/device_ceilings.h"
#include "common/dummy_model.h"
#include "cuda/cuda_backend.h"
#include "model/decoder.h"

namespace lorax::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int32_t kPrompt = 128;
constexpr int32_t kMaxRows = 8192;

double milliseconds(Clock::duration duration) {
  return std::chrono::duration<double, std::milli>(duration).count();
}

struct Resident {
  std::unique_ptr<AdapterImage> image;
  std::unique_ptr<ResidentAdapter> adapter;
  int32_t index = 0;  // in the order of adding
};

struct Scenario {
  std::string name;
  int32_t rows = 0;
  std::vector<const Resident*> adapters;  // row i is on adapter i % size(); empty: base
  int32_t base_rows = 0;                  // the first so many rows are on the base
  std::vector<double> step_ms = {};
};

double median(std::vector<double> values) {
  if (values.empty()) return 0.0;
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

class Bench {
 public:
  Bench(const std::string& folder, CudaOptions options)
      : folder_(folder), config_(llama_8b_config()) {
    const auto begin = Clock::now();
    DecoderOptions decoder;
    decoder.max_rows = kMaxRows;
    decoder.max_logits_rows = 256;
    decoder_ = std::make_unique<Decoder>(make_cuda_backend(options), dummy_model(config_, folder),
                                         decoder);
    std::printf("load: %.2f s, %d pages of %.2f MiB; %s\n",
                milliseconds(Clock::now() - begin) / 1e3, decoder_->limits().num_pages,
                static_cast<double>(decoder_->limits().page_bytes) / (1 << 20),
                decoder_->info().description.c_str());
    next_page_ = decoder_->limits().num_pages;
  }

  const Resident* add_adapter(int32_t rank) {
    auto out = std::make_unique<Resident>();
    const auto begin = Clock::now();
    out->image = decoder_->read_adapter(dummy_adapter(config_, rank, folder_));
    const auto packed = Clock::now();
    std::vector<int32_t> pages;
    for (int32_t i = 0; i < out->image->num_pages; ++i) pages.push_back(--next_page_);
    if (next_page_ < kKvPages) throw std::runtime_error("too few pages for the bench");
    out->adapter = decoder_->place_adapter(*out->image, pages);
    pack_ms_[rank].push_back(milliseconds(packed - begin));
    adapter_bytes_[rank] = out->image->bytes;
    out->index = static_cast<int32_t>(residents_.size());
    residents_.push_back(std::move(out));
    return residents_.back().get();
  }

  // All rows' sequences get a prompt of kPrompt tokens, then `steps` decode steps; the times of the
  // steps are appended. Without `prompts` they keep those of a run with as many steps.
  void run(Scenario& scenario, int32_t steps) {
    const int32_t rows = scenario.rows;
    const int32_t blocks = (kPrompt + steps + block_tokens() - 1) / block_tokens();
    for (int32_t begin = 0; begin < rows; begin += kMaxRows / kPrompt) {
      const int32_t end = std::min(rows, begin + kMaxRows / kPrompt);
      step(plan(scenario, begin, end, 0, kPrompt, blocks, false));
      decoder_->collect(results_);
    }
    step(plan(scenario, 0, rows, kPrompt, 1, blocks, false));
    step(plan(scenario, 0, rows, kPrompt + 1, 1, blocks, true));
    results_.resize(rows);
    decoder_->collect(results_);
    Clock::time_point last = Clock::now();
    for (int32_t i = 2; i < steps; ++i) {
      step(plan(scenario, 0, rows, kPrompt + i, 1, blocks, true));
      decoder_->collect(results_);
      const Clock::time_point now = Clock::now();
      if (i > 3) scenario.step_ms.push_back(milliseconds(now - last));
      last = now;
    }
    decoder_->collect(results_);
    for (const SampleResult& result : results_) {
      if (result.token < 0) throw std::runtime_error("a row had no usable logits");
    }
  }

  // Tokens a second over `sequences` prompts of `tokens` each, in steps of kMaxRows rows.
  double prefill(Scenario& scenario, int32_t tokens) {
    const int32_t blocks = (tokens + block_tokens() - 1) / block_tokens();
    const int32_t each = kMaxRows / tokens;
    const Clock::time_point begin = Clock::now();
    for (int32_t first = 0; first < scenario.rows; first += each) {
      step(plan(scenario, first, first + each, 0, tokens, blocks, false));
      if (first > 0) decoder_->collect(results_);
    }
    decoder_->collect(results_);
    return scenario.rows * tokens / (milliseconds(Clock::now() - begin) / 1e3);
  }

  double kv_bytes_per_token() const {
    return 4.0 * config_.num_layers * config_.num_kv_heads * config_.head_dim;
  }
  double weight_bytes() const {
    const double h = config_.hidden_size, inner = config_.intermediate_size;
    return 2.0 * (config_.num_layers * (h * (config_.q_size() + 2.0 * config_.kv_size()) +
                                        h * config_.q_size() + 3 * h * inner) +
                  h * config_.vocab_size);
  }
  double adapter_bytes(int32_t rank) const { return static_cast<double>(adapter_bytes_.at(rank)); }
  const std::map<int32_t, std::vector<double>>& pack_ms() const { return pack_ms_; }
  int32_t num_free_pages() const { return next_page_; }

  static constexpr int32_t kKvPages = 256 * 20;

 private:
  int32_t block_tokens() const { return decoder_->limits().block_tokens; }

  void step(const StepPlan& plan) {
    results_.resize(plan.samples.size());
    decoder_->submit(plan);
  }

  // Rows of sequences [begin, end): `tokens` tokens from `position`.
  StepPlan plan(const Scenario& scenario, int32_t begin, int32_t end, int32_t position,
                int32_t tokens, int32_t blocks, bool follows) {
    StepPlan out;
    out.step = ++step_;
    std::map<int32_t, std::vector<int32_t>> rows_of;  // by the adapter's index
    // Sequences of one adapter are adjacent, as the planner makes them.
    std::vector<std::pair<const Resident*, int32_t>> order;
    const auto num_adapters = static_cast<int32_t>(scenario.adapters.size());
    for (int32_t i = begin; i < end; ++i) {
      const bool base = num_adapters == 0 || i < scenario.base_rows;
      order.emplace_back(base ? nullptr : scenario.adapters[i % num_adapters], i);
    }
    std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
      const auto key = [](const Resident* r) { return r ? r->index : -1; };
      return key(a.first) < key(b.first);
    });
    for (const auto& [resident, sequence] : order) {
      out.spans.push_back({out.num_rows(), tokens, position,
                           static_cast<int32_t>(out.block_tables.size()),
                           (position + tokens + block_tokens() - 1) / block_tokens()});
      for (int32_t b = 0; b < out.spans.back().num_blocks; ++b) {
        out.block_tables.push_back(sequence % (kKvPages / blocks) * blocks + b);
      }
      const auto index = static_cast<int32_t>(out.logits_rows.size());
      for (int32_t t = 0; t < tokens; ++t) {
        if (resident != nullptr) rows_of[resident->index].push_back(out.num_rows());
        out.token_ids.push_back(follows ? -1 - index
                                        : (sequence * 7919 + (position + t) * 104729) %
                                              config_.vocab_size);
        out.positions.push_back(position + t);
      }
      out.logits_rows.push_back(out.num_rows() - 1);
      out.samples.emplace_back();
    }
    for (const auto& [index, rows] : rows_of) {
      LoraSegment segment;
      segment.adapter = residents_[index]->adapter.get();
      segment.rows_begin = static_cast<int32_t>(out.segment_rows.size());
      out.segment_rows.insert(out.segment_rows.end(), rows.begin(), rows.end());
      segment.rows_end = static_cast<int32_t>(out.segment_rows.size());
      out.segments.push_back(segment);
    }
    out.segment_weights.assign(out.segment_rows.size(), 1.0f);
    return out;
  }

  const std::string folder_;
  const DecoderConfig config_;
  std::unique_ptr<Decoder> decoder_;
  std::vector<std::unique_ptr<Resident>> residents_;
  std::map<int32_t, std::vector<double>> pack_ms_;
  std::map<int32_t, int64_t> adapter_bytes_;
  std::vector<SampleResult> results_;
  int32_t next_page_ = 0;
  int64_t step_ = 0;
};

int run(int argc, char** argv) {
  const std::string folder = argc > 1 ? argv[1] : "/tmp";
  bool quick = false;
  bool trace = false;
  std::string csv_path;
  CudaOptions options;
  options.cache_directory = folder;
  for (int i = 2; i < argc; ++i) {
    if (std::strcmp(argv[i], "--quick") == 0) quick = true;
    if (std::strcmp(argv[i], "--trace") == 0) quick = trace = true;
    if (std::strcmp(argv[i], "--csv") == 0 && i + 1 < argc) csv_path = argv[++i];
  }
  const DeviceCeilings ceilings = measure_device_ceilings(folder);
  std::printf("%s: copy %.3f TB/s, bf16 8192^3 %.0f TFLOP/s\n", ceilings.name.c_str(),
              ceilings.copy_bytes_per_second / 1e12, ceilings.gemm_flops / 1e12);
  Bench bench(folder, options);

  std::vector<const Resident*> rank16;
  const int32_t most = quick ? 32 : 128;
  for (int32_t i = 0; i < most; ++i) rank16.push_back(bench.add_adapter(16));
  std::vector<const Resident*> mixed;
  for (int32_t i = 0; i < 8; ++i) mixed.push_back(bench.add_adapter(8 << (i % 4)));

  std::vector<Scenario> scenarios;
  for (const int32_t rows : trace   ? std::vector<int32_t>{1, 32, 128}
                            : quick ? std::vector<int32_t>{1, 32, 64, 128}
                                    : std::vector<int32_t>{1, 8, 32, 64, 128, 256}) {
    scenarios.push_back({"base", rows, {}});
    for (const int32_t distinct : {1, 8, 32, 64, 128}) {
      if (distinct > rows || distinct > most) continue;
      scenarios.push_back(
          {std::to_string(distinct) + " x r16", rows, {rank16.begin(), rank16.begin() + distinct}});
    }
    if (rows >= 8) scenarios.push_back({"8 mixed ranks", rows, mixed});
    if (rows >= 16) {
      scenarios.push_back(
          {"8 x r16, half base", rows, {rank16.begin(), rank16.begin() + 8}, rows / 2});
    }
  }
  const int32_t rounds = trace ? 1 : quick ? 2 : 3;
  for (int32_t round = 0; round < rounds; ++round) {
    for (Scenario& scenario : scenarios) bench.run(scenario, trace ? 12 : quick ? 40 : 128);
  }

  std::vector<Scenario> prefills = {{"prefill base", 64, {}}};
  for (const int32_t distinct : {1, 8, 64}) {
    if (distinct > most) continue;
    prefills.push_back({"prefill " + std::to_string(distinct) + " x r16",
                        64,
                        {rank16.begin(), rank16.begin() + distinct}});
  }
  for (int32_t round = 0; round < rounds; ++round) {
    for (Scenario& scenario : prefills) scenario.step_ms.push_back(bench.prefill(scenario, 1024));
  }

  std::ofstream csv;
  if (!csv_path.empty()) {
    csv.open(csv_path);
    csv << "device,copy_tb_s,gemm_tflop_s,scenario,rows,median,unit,floor_ms,of_base\n";
  }
  const auto record = [&](const Scenario& s, double value, const char* unit, double floor,
                          double ratio) {
    if (!csv.is_open()) return;
    csv << ceilings.name << ',' << ceilings.copy_bytes_per_second / 1e12 << ','
        << ceilings.gemm_flops / 1e12 << ',' << s.name << ',' << s.rows << ',' << value << ','
        << unit << ',' << floor << ',' << ratio << '\n';
  };
  for (const auto& [rank, times] : bench.pack_ms()) {
    std::printf("adapter rank %d: %.1f MB, read and packed in %.1f ms (median)\n", rank,
                bench.adapter_bytes(rank) / 1e6, median(times));
  }
  std::printf("%-22s %5s %9s %9s %7s %8s\n", "scenario", "rows", "ms/step", "floor ms", "x floor",
              "x base");
  std::map<int32_t, double> base;
  for (const Scenario& s : scenarios) {
    const double ms = median(s.step_ms);
    if (s.adapters.empty()) base[s.rows] = ms;
    double bytes = bench.weight_bytes() + s.rows * bench.kv_bytes_per_token() * (kPrompt + 64);
    for (const Resident* resident : s.adapters)
      bytes += static_cast<double>(resident->image->bytes);
    const double floor = bytes / ceilings.copy_bytes_per_second * 1e3;
    std::printf("%-22s %5d %9.3f %9.3f %7.3f %8.3f\n", s.name.c_str(), s.rows, ms, floor,
                ms / floor, ms / base[s.rows]);
    record(s, ms, "ms", floor, ms / base[s.rows]);
  }
  const double base_prefill = median(prefills[0].step_ms);
  for (const Scenario& s : prefills) {
    const double speed = median(s.step_ms);
    std::printf("%-22s %5d %9.0f tokens/s %21.3f\n", s.name.c_str(), s.rows, speed,
                speed / base_prefill);
    record(s, speed, "tokens/s", 0.0, speed / base_prefill);
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
