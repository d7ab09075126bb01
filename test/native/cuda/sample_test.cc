// Sampling on the device against the CPU's sample_row on the same logits: the same tokens, but for
// ties within 1e-5. Both ways of splitting a row are tested.
#include "cuda/sample.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/sample.h"
#include "cuda/on_all_cores.h"
#include "cuda/sample_cases.h"

namespace lorax::cuda {
namespace {

class CudaSample : public testing::TestWithParam<SampleSplit> {};

void run_random(int32_t vocab, int32_t rows, int32_t batches, uint32_t seed, SampleSplit split) {
  Generator generator(seed);
  DeviceSampler sampler(rows + 3, vocab, split);
  std::vector<float> logits(static_cast<size_t>(rows) * vocab);
  Tally tally;
  for (int32_t batch = 0; batch < batches; ++batch) {
    std::vector<Request> requests(static_cast<size_t>(rows));
    std::vector<uint32_t> seeds;
    for (int32_t i = 0; i < rows; ++i) seeds.push_back(generator.seed());
    on_all_cores(rows, [&](int64_t i) {
      Generator of_row(seeds[i]);
      of_row.logits(logits.data() + i * vocab, vocab);
      requests[i] = of_row.request(vocab);
    });
    compare(logits, vocab, requests, sampler(logits, requests), &tally);
    if (testing::Test::HasFatalFailure()) return;
  }
  EXPECT_LE(tally.ties, tally.rows / 500);
  if (vocab > 1) {
    EXPECT_GT(tally.not_greedy, tally.rows / 10) << "the cases have to draw";
  }
  testing::Test::RecordProperty("ties", static_cast<int>(tally.ties));
}

TEST_P(CudaSample, AgreesWithTheCpuOnTinyVocabularies) {
  run_random(1, 128, 2, 1, GetParam());
  run_random(2, 128, 4, 2, GetParam());
  run_random(17, 256, 8, 3, GetParam());
}

TEST_P(CudaSample, AgreesWithTheCpuOnSmallVocabularies) {
  run_random(1001, 256, 10, 4, GetParam());
  run_random(4096, 256, 4, 5, GetParam());
}

TEST_P(CudaSample, AgreesWithTheCpuOnLargeVocabularies) {
  run_random(49152, 128, 3, 6, GetParam());
  run_random(50257, 64, 2, 7, GetParam());
  run_random(128256, 96, 3, 8, GetParam());
}

TEST_P(CudaSample, OneSampleOfEachSettingOnOneRowOfLogits) {
  const int32_t vocab = 1001;
  Generator generator(9);
  std::vector<float> one(vocab);
  generator.logits(one.data(), vocab);
  std::vector<Request> requests;
  for (const float temperature : {0.0f, 1e-38f, 0.5f, 1.0f, 1e30f}) {
    for (const int32_t top_k : {0, 1, 2, 3, 50, 999, 1000, 1001, 5000}) {
      for (const float top_p : {1.0f, 0.99f, 0.5f, 1e-30f}) {
        Request request;
        request.row.temperature = temperature;
        request.row.top_k = top_k;
        request.row.top_p = top_p;
        request.row.seed = requests.size();
        request.row.num_logprobs = 3;
        requests.push_back(request);
      }
    }
  }
  std::vector<float> logits;
  for (size_t i = 0; i < requests.size(); ++i) logits.insert(logits.end(), one.begin(), one.end());
  DeviceSampler sampler(static_cast<int32_t>(requests.size()), vocab, GetParam());
  Tally tally;
  compare(logits, vocab, requests, sampler(logits, requests), &tally);
}

// Each row alone, and a thousand tokens kept out of a million ties, give what the batch gave.
TEST_P(CudaSample, ARowDoesNotDependOnTheOthers) {
  const int32_t vocab = 5003, rows = 40;
  Generator generator(10);
  std::vector<float> logits(static_cast<size_t>(rows) * vocab);
  std::vector<Request> requests;
  for (int32_t i = 0; i < rows; ++i) {
    generator.logits(logits.data() + static_cast<size_t>(i) * vocab, vocab);
    requests.push_back(generator.request(vocab));
  }
  DeviceSampler all(rows, vocab, GetParam()), one(1, vocab, GetParam());
  const std::vector<SampleResult> together = all(logits, requests);
  for (int32_t i = 0; i < rows; ++i) {
    const std::vector<float> row(logits.begin() + static_cast<int64_t>(i) * vocab,
                                 logits.begin() + static_cast<int64_t>(i + 1) * vocab);
    const SampleResult alone = one(row, {requests[i]})[0];
    EXPECT_EQ(alone.token, together[i].token);
    EXPECT_EQ(alone.logprob, together[i].logprob);
    EXPECT_EQ(alone.top_logprobs, together[i].top_logprobs);
  }
}

TEST_P(CudaSample, TiesAreCutByTokenId) {
  for (const int32_t vocab : {100, 20011, 128256}) {
    std::vector<Request> requests;
    std::vector<float> logits;
    for (int32_t i = 0; i < 24; ++i) {
      std::vector<float> row(vocab, i % 2 == 0 ? 0.0f : -1.0f);
      if (i % 2 != 0) row[vocab / 3] = row[vocab / 2] = 0.5f;
      if (i % 3 == 0) row[5] = -0.0f;
      logits.insert(logits.end(), row.begin(), row.end());
      Request request;
      request.row.temperature = i % 5 == 0 ? 0.0f : 1.0f;
      request.row.seed = static_cast<uint64_t>(i);
      const float top_p[] = {1.0f, 0.25f, 0.0001f, 0.75f};
      request.row.top_k = i % 4 == 0 ? 1 + 37 * i : 0;
      request.row.top_p = top_p[i % 4];
      request.row.num_logprobs = 20;
      requests.push_back(request);
    }
    DeviceSampler sampler(24, vocab, GetParam());
    Tally tally;
    compare(logits, vocab, requests, sampler(logits, requests), &tally);
  }
}

TEST_P(CudaSample, UnusableLogitsGiveNoToken) {
  const int32_t vocab = 3333;
  std::vector<Request> requests;
  std::vector<float> logits;
  const auto add = [&](const std::vector<float>& row, Request request) {
    logits.insert(logits.end(), row.begin(), row.end());
    request.row.num_logprobs = 2;
    requests.push_back(request);
  };
  Request greedy, drawn;
  drawn.row.temperature = 1.0f;
  drawn.row.top_p = 0.5f;
  for (const int32_t at : {0, 15, 417, 3332}) {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                            -std::numeric_limits<float>::quiet_NaN(), kInf}) {
      std::vector<float> row(vocab, 1.0f);
      row[at] = bad;
      add(row, greedy);
      add(row, drawn);
    }
  }
  add(std::vector<float>(vocab, -kInf), drawn);
  Request banned = drawn;
  for (int32_t t = 0; t < vocab; ++t) {
    banned.bias_ids.push_back(t);
    banned.bias_values.push_back(-kInf);
  }
  add(std::vector<float>(vocab, 2.0f), banned);
  Request raised = greedy;
  raised.bias_ids = {7};
  raised.bias_values = {kInf};
  add(std::vector<float>(vocab, 2.0f), raised);
  DeviceSampler sampler(static_cast<int32_t>(requests.size()), vocab, GetParam());
  for (const SampleResult& result : sampler(logits, requests)) EXPECT_EQ(result.token, -1);
  // A neighbour's fault is its own.
  requests.push_back(greedy);
  logits.insert(logits.end(), vocab, 1.0f);
  DeviceSampler more(static_cast<int32_t>(requests.size()), vocab, GetParam());
  EXPECT_EQ(more(logits, requests).back().token, 0);
}

TEST_P(CudaSample, ExtremesStaySound) {
  const int32_t vocab = 333;
  std::vector<Request> requests;
  std::vector<float> logits;
  std::vector<float> row(vocab, -kInf);
  row[200] = -5.0f;
  for (const float temperature : {0.0f, 1e-38f, 1.0f, 1e30f}) {
    for (const float top_p : {1.0f, 1e-30f}) {
      for (const float min_p : {0.0f, 1.0f}) {
        Request request;
        request.row.temperature = temperature;
        request.row.top_p = top_p;
        request.row.min_p = min_p;
        request.row.top_k = temperature == 1.0f ? 5 : 0;
        request.row.num_logprobs = 3;
        requests.push_back(request);
        logits.insert(logits.end(), row.begin(), row.end());
      }
    }
  }
  Request huge;
  huge.row.temperature = 0.1f;
  huge.row.repetition_penalty = 1e-30f;
  huge.history = {{2, 1}};
  requests.push_back(huge);
  std::fill(row.begin(), row.end(), -3e38f);
  row[2] = 3.1e38f;
  row[300] = 3e38f;
  logits.insert(logits.end(), row.begin(), row.end());
  DeviceSampler sampler(static_cast<int32_t>(requests.size()), vocab, GetParam());
  Tally tally;
  compare(logits, vocab, requests, sampler(logits, requests), &tally);
}

// A mask takes tokens away, from the maximum to the last; what is reported stays raw.
TEST_P(CudaSample, OnlyTokensOfTheMaskAreChosen) {
  for (const int32_t vocab : {31, 33, 1001, 49152, 128256}) {
    Generator generator(static_cast<uint32_t>(vocab));
    std::vector<Request> requests;
    std::vector<float> logits;
    for (int32_t i = 0; i < 60; ++i) {
      std::vector<float> row(vocab);
      generator.logits(row.data(), vocab);
      Request request = generator.request(vocab);
      if (request.mask.empty()) generator.mask(vocab, &request.mask);
      if (i % 3 == 0) {  // one token alone, which every cut has to leave
        request.mask.assign(request.mask.size(), 0u);
        const int32_t only = i % 2 == 0 ? vocab - 1 : (i * 7) % vocab;
        request.mask[only / 32] |= 1u << (only % 32);
        request.bias_ids.clear();
        request.bias_values.clear();
        row[only] = -3.0f;
      }
      if (i == 1) request.mask.assign(request.mask.size(), 0u);
      logits.insert(logits.end(), row.begin(), row.end());
      requests.push_back(request);
    }
    DeviceSampler sampler(64, vocab, GetParam());
    const std::vector<SampleResult> results = sampler(logits, requests);
    Tally tally;
    compare(logits, vocab, requests, results, &tally);
    for (size_t i = 0; i < results.size(); ++i) {
      const int32_t token = results[i].token;
      if (token < 0) continue;
      EXPECT_NE(requests[i].mask[token / 32] >> (token % 32) & 1, 0u) << "row " << i;
    }
    EXPECT_EQ(results[1].token, -1) << "nothing is allowed";
  }
}

INSTANTIATE_TEST_SUITE_P(Splits, CudaSample,
                         testing::Values(SampleSplit::kAuto, SampleSplit::kBlock),
                         [](const auto& info) {
                           return info.param == SampleSplit::kAuto ? "Auto" : "Block";
                         });

TEST(HostSampleLayout, MasksAreCountedInTheOrderOfRows) {
  const std::vector<uint32_t> words(4, 1);
  std::vector<SampleRow> rows(4);
  rows[1].mask = rows[3].mask = words.data();
  EXPECT_EQ(num_masks(rows), 2);
  std::vector<uint8_t> staging(sample_upload_bytes(rows, 4));
  lay_out_samples(rows, 4, staging.data(), staging.size());
  const auto* parameters =
      reinterpret_cast<const SampleParameters*>(staging.data() + sizeof(SampleHeader));
  EXPECT_EQ(parameters[0].mask, -1);
  EXPECT_EQ(parameters[1].mask, 0);
  EXPECT_EQ(parameters[2].mask, -1);
  EXPECT_EQ(parameters[3].mask, 1);
}

TEST(HostSampleLayout, RefusesWhatDoesNotFit) {
  const std::vector<TokenCount> history(10, {1, 1});
  SampleRow row{.frequency_penalty = 1.0f, .history = history.data(), .history_size = 10};
  const std::vector<SampleRow> rows(2, row);
  std::vector<uint8_t> staging(sample_upload_bytes(rows, 2));
  EXPECT_EQ(staging.size(),
            sizeof(SampleHeader) + 2 * sizeof(SampleParameters) + 20 * sizeof(SampleEntry));
  EXPECT_NO_THROW(lay_out_samples(rows, 2, staging.data(), staging.size()));
  EXPECT_THROW(lay_out_samples(rows, 2, staging.data(), staging.size() - 1), std::logic_error);
  EXPECT_THROW(lay_out_samples(rows, 1, staging.data(), staging.size()), std::logic_error);
}

}  // namespace
}  // namespace lorax::cuda
