// Drives a Decoder step by step as the engine would: pages, block tables, segments, plans.
//
// A test says which tokens of which sequences go into a step and gets the logits of every row, or
// their final hidden states added up.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "model/decoder.h"

namespace lorax {

struct TestSequence {
  const ResidentAdapter* adapter = nullptr;  // null = base
  std::vector<int32_t> blocks;
  int32_t position = 0;  // tokens computed so far
};

struct TestChunk {
  TestSequence* sequence = nullptr;
  std::vector<int32_t> tokens;
  bool wants_logits = true;  // of every row; else of none
  int32_t sum = -1;          // 0 or more: its rows from `first_pooled` on are added to that sum
  int32_t first_pooled = 0;  // position
  bool sum_ends = false;
};

class StepRunner {
 public:
  StepRunner(std::unique_ptr<Backend> backend, const ModelSpec& spec, int32_t max_rows = 128,
             int64_t memory_bytes = int64_t{24} << 20);

  Decoder& decoder() { return *decoder_; }
  const ResidentAdapter* add_adapter(const AdapterSpec& spec);
  // In the pages of another, of as many, which goes.
  const ResidentAdapter* replace_adapter(const ResidentAdapter* adapter, const AdapterSpec& spec);

  // Logits of each chunk's rows, one vector of [rows * vocab] per chunk (empty when not wanted).
  std::vector<std::vector<float>> step(const std::vector<TestChunk>& chunks);

  // All logits of one sequence run alone in chunks of `chunk` tokens: [tokens, vocab].
  std::vector<float> run_alone(const std::vector<int32_t>& tokens, const ResidentAdapter* adapter,
                               int32_t chunk);

  // The sum of one sequence's states from position `first_pooled` on, run alone: [hidden].
  std::vector<float> pool_alone(const std::vector<int32_t>& tokens, const ResidentAdapter* adapter,
                                int32_t chunk, int32_t first_pooled = 0);

  // The sums that ended in the newest step.
  std::vector<float> pooled() const {
    const auto sums = decoder_->pooled();
    return {sums.begin(), sums.end()};
  }

  StepPlan plan(const std::vector<TestChunk>& chunks);

 private:
  int32_t take_page();

  std::unique_ptr<Decoder> decoder_;
  struct Placed {
    std::vector<int32_t> pages;
    std::unique_ptr<ResidentAdapter> adapter;
  };
  std::vector<Placed> adapters_;  // before their decoder goes
  int32_t next_page_ = 0;
};

}  // namespace lorax
