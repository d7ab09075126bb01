// Sums of final hidden states on every backend: they are what the head reads, close to the
// reference, and the same in any chunks and beside any neighbours.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>

#include "../reference/reference_backend.h"
#include "backend_cases.h"
#include "step_runner.h"
#include "tiny_model.h"

namespace lorax {
namespace {

// W x, in double.
std::vector<float> product(const Matrix& w, const std::vector<float>& x) {
  std::vector<float> out;
  for (int64_t row = 0; row < w.rows; ++row) {
    double sum = 0;
    for (int64_t i = 0; i < w.cols; ++i) sum += double{w.values[row * w.cols + i]} * x[i];
    out.push_back(static_cast<float>(sum));
  }
  return out;
}

class PoolingTest : public testing::TestWithParam<BackendCase> {
 protected:
  double tolerance() const { return GetParam().precision == Precision::kFloat32 ? 2e-5 : 3e-2; }

  // Bit for bit, where the backend promises that.
  void expect_same(const std::vector<float>& got, const std::vector<float>& want,
                   const std::string& what) const {
    if (GetParam().exact) {
      EXPECT_EQ(got, want) << what;
    } else {
      EXPECT_LE(relative_error(got, want), 2e-2) << what;
    }
  }
};

// The head is linear: of a sum of states it gives the sum of their logits.
TEST_P(PoolingTest, SumsAreOfWhatTheHeadReads) {
  DecoderConfig config = tiny_config();
  config.tied_embeddings = false;
  const TinyModel model(config);
  StepRunner runner(GetParam().make(), model.write());
  const auto* adapter = runner.add_adapter(
      model.write_adapter(model.random_adapter(7, 4, kAllModules), "adapter.bin"));
  const auto tokens = random_tokens(3, 45, config.vocab_size);
  const Matrix& head = model.tensors().at("lm_head.weight");
  const int64_t vocab = config.vocab_size;
  for (const ResidentAdapter* a : {static_cast<const ResidentAdapter*>(nullptr), adapter}) {
    const std::vector<float> logits = runner.run_alone(tokens, a, 45);
    for (const int32_t first : {0, 1, 44}) {
      std::vector<float> sum(vocab, 0.0f);
      for (int32_t row = first; row < 45; ++row) {
        for (int64_t i = 0; i < vocab; ++i) sum[i] += logits[row * vocab + i];
      }
      const std::vector<float> pooled = runner.pool_alone(tokens, a, 45, first);
      ASSERT_EQ(pooled.size(), static_cast<size_t>(config.hidden_size));
      EXPECT_LE(relative_error(product(head, pooled), sum), tolerance()) << "from " << first;
    }
  }
}

TEST_P(PoolingTest, SumsAreCloseToTheReference) {
  const TinyModel model(tiny_config());
  const ModelSpec spec = model.write();
  const AdapterSpec adapter =
      model.write_adapter(model.random_adapter(5, 3, kAllModules), "adapter.bin");
  StepRunner reference(std::make_unique<ReferenceBackend>(), spec);
  StepRunner runner(GetParam().make(), spec);
  const auto tokens = random_tokens(4, 60, model.config().vocab_size);
  const ResidentAdapter* theirs[] = {nullptr, reference.add_adapter(adapter)};
  const ResidentAdapter* ours[] = {nullptr, runner.add_adapter(adapter)};
  std::vector<float> base;
  for (const int32_t i : {0, 1}) {
    for (const int32_t first : {0, 59}) {
      const auto expected = reference.pool_alone(tokens, theirs[i], 60, first);
      EXPECT_LE(relative_error(runner.pool_alone(tokens, ours[i], 60, first), expected),
                tolerance());
      if (i == 0 && first == 0) base = expected;
      if (i == 1 && first == 0) {
        EXPECT_GT(relative_error(expected, base), 0.05) << "the adapter is in it";
      }
    }
  }
}

TEST_P(PoolingTest, ChunksChangeNothing) {
  DecoderConfig config = tiny_config();
  config.sliding_window = 19;
  const TinyModel model(config);
  StepRunner runner(GetParam().make(), model.write());
  const auto* adapter = runner.add_adapter(
      model.write_adapter(model.random_adapter(5, 3, kAllModules), "adapter.bin"));
  const auto tokens = random_tokens(4, 60, config.vocab_size);
  for (const ResidentAdapter* a : {static_cast<const ResidentAdapter*>(nullptr), adapter}) {
    for (const int32_t first : {0, 20, 59}) {
      const auto whole = runner.pool_alone(tokens, a, 60, first);
      for (const int32_t chunk : {1, 2, 7, 16, 33}) {
        expect_same(runner.pool_alone(tokens, a, chunk, first), whole,
                    "chunk " + std::to_string(chunk));
      }
    }
  }
}

// Sums of several sequences in one step, beside chunks and decodes that want logits; a slot goes
// from one sequence to the next.
TEST_P(PoolingTest, NeighboursChangeNothing) {
  constexpr int32_t kCount = 9;
  DecoderConfig config = tiny_config();
  config.hidden_size = 192;  // several blocks of columns
  config.intermediate_size = 256;
  const TinyModel model(config);
  StepRunner runner(GetParam().make(), model.write());
  const auto* first =
      runner.add_adapter(model.write_adapter(model.random_adapter(7, 2, kAllModules), "first.bin"));
  const auto* second = runner.add_adapter(
      model.write_adapter(model.random_adapter(8, 17, {kQProj, kVProj, kDownProj}), "second.bin"));
  const ResidentAdapter* adapters[] = {nullptr, first, second};
  const int32_t lengths[kCount] = {13, 9, 17, 14, 1, 24, 5, 12, 2};

  std::vector<std::vector<int32_t>> tokens;
  std::vector<std::vector<float>> alone, together(kCount);
  std::vector<TestSequence> sequences(kCount);
  std::vector<int32_t> slots(kCount, -1);
  for (int32_t i = 0; i < kCount; ++i) {
    tokens.push_back(random_tokens(10 + i, lengths[i], config.vocab_size));
    sequences[i].adapter = adapters[i % 3];
    alone.push_back(i % 3 == 2 ? runner.run_alone(tokens[i], adapters[i % 3], 128)
                               : runner.pool_alone(tokens[i], adapters[i % 3], 128));
  }
  std::mt19937 rng(9);
  std::vector<int32_t> free_slots = {4, 3, 1};  // fewer than there are sequences
  size_t num_done = 0, most_sums = 0;
  while (num_done < kCount) {
    std::vector<TestChunk> chunks;
    std::vector<int32_t> who;
    for (int32_t i = 0; i < kCount; ++i) {
      const int32_t left = lengths[i] - sequences[i].position;
      if (left == 0 || rng() % 4 == 0) continue;
      TestChunk chunk;
      chunk.sequence = &sequences[i];
      chunk.wants_logits = i % 3 == 2;
      if (!chunk.wants_logits) {
        if (slots[i] < 0) {
          if (free_slots.empty()) continue;
          slots[i] = free_slots.back();
          free_slots.pop_back();
        }
        chunk.sum = slots[i];
      }
      const int32_t count = std::min<int32_t>(left, 1 + static_cast<int32_t>(rng() % 9));
      const auto begin = tokens[i].begin() + sequences[i].position;
      chunk.tokens = {begin, begin + count};
      chunk.sum_ends = count == left;
      chunks.push_back(chunk);
      who.push_back(i);
    }
    if (chunks.empty()) continue;
    const auto logits = runner.step(chunks);
    const auto sums = runner.pooled();
    size_t next_sum = 0;
    for (size_t c = 0; c < chunks.size(); ++c) {
      std::vector<float>& got = together[who[c]];
      if (chunks[c].wants_logits) {
        got.insert(got.end(), logits[c].begin(), logits[c].end());
      } else if (chunks[c].sum_ends) {
        const auto begin = sums.begin() + static_cast<int64_t>(next_sum++) * config.hidden_size;
        got.assign(begin, begin + config.hidden_size);
        free_slots.push_back(slots[who[c]]);
      }
      num_done += chunks[c].sum_ends;
    }
    EXPECT_EQ(sums.size(), next_sum * config.hidden_size);
    most_sums = std::max(most_sums, next_sum);
  }
  for (int32_t i = 0; i < kCount; ++i) {
    expect_same(together[i], alone[i], "sequence " + std::to_string(i));
  }
  EXPECT_GE(most_sums, 2u);
}

INSTANTIATE_TEST_SUITE_P(Backends, PoolingTest, testing::ValuesIn(all_backends()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace lorax
