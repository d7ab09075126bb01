// A decoder over the backend, without the engine: steps in which all rows decode, and prefills,
// timed; adapters in pages, as many as fit.
//
// Rows are sequences: row i has `prompt_tokens` tokens behind it and decodes one a step. One step
// is always in flight, as in the engine; a figure is the time between two collected steps.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/dummy_model.h"
#include "model/decoder.h"

namespace lorax::bench {

using Clock = std::chrono::steady_clock;

inline double milliseconds(Clock::duration duration) {
  return std::chrono::duration<double, std::milli>(duration).count();
}

// An adapter in pages of its own; all of one rank are copies of one image.
struct Resident {
  int32_t index = 0;  // in the order of placing
  int64_t bytes = 0;  // of its image, in which ranks are padded
  int32_t rank = 0;
  std::unique_ptr<ResidentAdapter> adapter;
};

struct Scenario {
  std::string name;  // without commas and spaces
  int32_t rows = 0;
  std::vector<const Resident*> adapters = {};  // row i is on adapter i % size(); empty: base
  int32_t base_rows = 0;                       // the first so many rows are on the base
  std::vector<double> samples = {};            // milliseconds a step; of a prefill, tokens/s
};

class DecodeRunner {
 public:
  static constexpr int32_t kMaxRows = 8192;
  static constexpr int32_t kPromptTokens = 128;
  static constexpr int32_t kKvPages = 256 * 20;

  // `memory_bytes` of the page pool; 0: the backend's choice.
  DecodeRunner(std::unique_ptr<Backend> backend, const ModelSpec& spec, const std::string& folder,
               int64_t memory_bytes);

  // Throws where the pages do not do.
  const Resident* add_adapter(int32_t rank);

  // Places up to `most` adapters of `rank` into the pages that are left; how many there are now.
  int32_t fill_pool(int32_t rank, int32_t most);
  void empty_pool();  // of those

  // Keys and values of the prompts of `rows` sequences, on the base; for runs with as many `steps`.
  void write_prompts(int32_t rows, int32_t steps);
  void run(Scenario& scenario, int32_t steps);
  // Over scenario.rows prompts of `tokens` each, in steps of kMaxRows rows.
  void prefill(Scenario& scenario, int32_t tokens);

  const Decoder& decoder() const { return *decoder_; }
  double kv_bytes_per_token() const;
  double weight_bytes() const;

 private:
  int32_t block_tokens() const { return decoder_->limits().block_tokens; }
  int32_t blocks_of(int32_t tokens) const { return (tokens + block_tokens() - 1) / block_tokens(); }
  // Null when the pages do not do.
  std::unique_ptr<Resident> place(int32_t rank, int32_t* next_page);
  void submit(const StepPlan& plan);
  void collect();
  void collect_rest();
  StepPlan plan(const Scenario& scenario, int32_t begin, int32_t end, int32_t position,
                int32_t tokens, int32_t blocks, bool follows);

  const std::string folder_;
  const DecoderConfig config_;
  std::unique_ptr<Decoder> decoder_;
  int32_t max_rows_ = 0;
  std::map<int32_t, std::unique_ptr<AdapterImage>> images_;  // by rank
  std::vector<std::unique_ptr<Resident>> residents_;
  std::vector<std::unique_ptr<Resident>> fill_;
  std::vector<SampleResult> results_;
  std::vector<size_t> pending_;  // samples of each step in flight, oldest first
  StepPlan last_plan_;           // a backend that computes at once reads it until collect()
  int32_t next_page_ = 0;        // pages from here on are adapters'
  int64_t step_ = 0;
};

}  // namespace lorax::bench
