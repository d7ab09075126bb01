// Sampling on the device against the CPU's sample_row on the same logits: the same tokens, but for
// ties within 1e-5. Both ways of splitting a row are tested.
#include "cuda/sample.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "cpu/philox.h"
#include "cpu/sample.h"
#include "cuda/device_array.h"
#include "cuda/on_all_cores.h"

namespace lorax::cuda {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

// A row with the arrays its SampleRow points to.
struct Request {
  SampleRow row;
  std::vector<TokenCount> history;
  std::vector<int32_t> bias_ids;
  std::vector<float> bias_values;
  std::vector<uint32_t> mask;
  int32_t input = 0;  // the token the row was fed

  SampleRow pointed() const {
    SampleRow out = row;
    out.history = history.empty() ? nullptr : history.data();
    out.history_size = static_cast<int32_t>(history.size());
    out.bias_ids = bias_ids.empty() ? nullptr : bias_ids.data();
    out.bias_values = bias_values.empty() ? nullptr : bias_values.data();
    out.bias_size = static_cast<int32_t>(bias_ids.size());
    out.mask = mask.empty() ? nullptr : mask.data();
    return out;
  }
  // As the CPU gets it: a history that lacks nothing.
  Request with_known_input() const {
    Request out = *this;
    if (row.unknown_token < 0) return out;
    out.row.unknown_token = -1;
    const auto found = std::find_if(out.history.begin(), out.history.end(),
                                    [&](const TokenCount& seen) { return seen.token == input; });
    if (found != out.history.end()) {
      ++found->output_count;
    } else {
      out.history.push_back({input, 1});
    }
    return out;
  }
};

class DeviceSampler {
 public:
  DeviceSampler(int32_t max_rows, int32_t vocab, SampleSplit split)
      : max_rows_(max_rows),
        vocab_(vocab),
        split_(split),
        logits_(static_cast<size_t>(max_rows) * vocab),
        workspace_(static_cast<size_t>(sample_workspace_bytes(max_rows, vocab, split)) / 4),
        tokens_(max_rows),
        logprobs_(max_rows),
        top_tokens_(static_cast<size_t>(max_rows) * kMaxLogprobs),
        top_logprobs_(static_cast<size_t>(max_rows) * kMaxLogprobs) {}

  // Rows beyond the requests are padding.
  std::vector<SampleResult> operator()(const std::vector<float>& logits,
                                       const std::vector<Request>& requests) {
    std::vector<SampleRow> rows;
    std::vector<int32_t> input(2 * max_rows_, -7), logits_rows(max_rows_, 0);
    std::vector<uint32_t> masks;
    for (size_t i = 0; i < requests.size(); ++i) {
      rows.push_back(requests[i].pointed());
      masks.insert(masks.end(), requests[i].mask.begin(), requests[i].mask.end());
      logits_rows[i] = static_cast<int32_t>(2 * i + 1);
      input[2 * i + 1] = requests[i].input;
    }
    std::vector<uint8_t> staging(sample_upload_bytes(rows, max_rows_));
    EXPECT_EQ(lay_out_samples(rows, max_rows_, staging.data(), staging.size()),
              static_cast<int64_t>(staging.size()));
    const DeviceArray<uint8_t> upload(staging);
    const DeviceArray<int32_t> device_input(input), device_rows(logits_rows);
    EXPECT_EQ(masks.size(), static_cast<size_t>(num_masks(rows) * mask_words(vocab_)));
    masks.push_back(0);  // an array needs one element at least
    const DeviceArray<uint32_t> device_masks(masks);
    logits_.assign(logits);
    tokens_.assign(std::vector<int32_t>(max_rows_, -99));
    logprobs_.poison();
    top_tokens_.poison();
    top_logprobs_.poison();
    sample({.logits = logits_.data(),
            .arrays = sample_arrays(upload.data(), max_rows_),
            .outputs = {tokens_.data(), logprobs_.data(), top_tokens_.data(), top_logprobs_.data()},
            .input_tokens = device_input.data(),
            .logits_rows = device_rows.data(),
            .masks = device_masks.data(),
            .workspace = workspace_.data(),
            .rows = max_rows_,
            .vocab = vocab_,
            .split = split_},
           nullptr);
    LORAX_CUDA(cudaDeviceSynchronize());
    const auto tokens = tokens_.read();
    const auto logprobs = logprobs_.read();
    const auto top_tokens = top_tokens_.read();
    const auto top_logprobs = top_logprobs_.read();
    for (int32_t i = static_cast<int32_t>(requests.size()); i < max_rows_; ++i) {
      EXPECT_EQ(tokens[i], -99) << "padding was sampled";
    }
    std::vector<SampleResult> results(requests.size());
    for (size_t i = 0; i < requests.size(); ++i) {
      SampleResult& result = results[i];
      result.token = tokens[i];
      if (requests[i].row.num_logprobs < 0) continue;
      result.logprob = logprobs[i];
      if (result.token < 0) continue;
      const int32_t top = std::min(requests[i].row.num_logprobs, vocab_);
      for (int32_t j = 0; j < top; ++j) {
        result.top_tokens.push_back(top_tokens[i * kMaxLogprobs + j]);
        result.top_logprobs.push_back(top_logprobs[i * kMaxLogprobs + j]);
      }
    }
    return results;
  }

 private:
  const int32_t max_rows_, vocab_;
  const SampleSplit split_;
  DeviceArray<float> logits_;
  DeviceArray<float> workspace_;
  DeviceArray<int32_t> tokens_;
  DeviceArray<float> logprobs_;
  DeviceArray<int32_t> top_tokens_;
  DeviceArray<float> top_logprobs_;
};

std::vector<SampleResult> on_cpu(const std::vector<float>& logits, int32_t vocab,
                                 const std::vector<Request>& requests) {
  std::vector<SampleResult> results(requests.size());
  on_all_cores(static_cast<int64_t>(requests.size()), [&](int64_t i) {
    const Request known = requests[i].with_known_input();
    cpu::sample_row(logits.data() + i * vocab, vocab, known.pointed(), &results[i]);
  });
  return results;
}

// The noisy value by which token `t` of a row competes, before any cut, in double.
double noisy_value(const float* logits, int32_t vocab, const Request& request, int32_t t) {
  const Request known = request.with_known_input();
  const SampleRow row = known.pointed();
  std::vector<double> l(logits, logits + vocab);
  for (int32_t i = 0; i < row.bias_size; ++i) l[row.bias_ids[i]] += row.bias_values[i];
  for (int32_t i = 0; i < row.history_size; ++i) {
    double& x = l[row.history[i].token];
    const int32_t count = row.history[i].output_count;
    x = x > 0 ? x / row.repetition_penalty : x * row.repetition_penalty;
    x -= row.frequency_penalty * count + row.presence_penalty * (count > 0 ? 1.0 : 0.0);
  }
  const auto p = static_cast<uint64_t>(row.position);
  const cpu::PhiloxBlock words = cpu::philox4x32_10(
      {static_cast<uint32_t>(t / 4), static_cast<uint32_t>(p), static_cast<uint32_t>(p >> 32), 0},
      {static_cast<uint32_t>(row.seed), static_cast<uint32_t>(row.seed >> 32)});
  return l[t] / row.temperature - std::log(-std::log((words[t % 4] + 0.5) * 0x1p-32));
}

struct Tally {
  int64_t rows = 0;
  int64_t ties = 0;        // other tokens, within 1e-5
  int64_t not_greedy = 0;  // tokens that are not the maximum of the logits
};

// Everything of `results` against the CPU.
void compare(const std::vector<float>& logits, int32_t vocab, const std::vector<Request>& requests,
             const std::vector<SampleResult>& results, Tally* tally) {
  const std::vector<SampleResult> expected = on_cpu(logits, vocab, requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    const SampleRow& row = requests[i].row;
    const float* l = logits.data() + i * vocab;
    SCOPED_TRACE(testing::Message()
                 << "row " << i << " vocab " << vocab << " temperature " << row.temperature
                 << " top-k " << row.top_k << " top-p " << row.top_p << " min-p " << row.min_p
                 << " penalties " << row.repetition_penalty << " " << row.frequency_penalty << " "
                 << row.presence_penalty << " history " << requests[i].history.size() << " bias "
                 << requests[i].bias_ids.size() << " unknown " << row.unknown_token
                 << (requests[i].mask.empty() ? "" : " masked"));
    ++tally->rows;
    const int32_t token = results[i].token;
    if (token != expected[i].token) {
      ASSERT_GE(token, 0);
      ASSERT_GE(expected[i].token, 0);
      ASSERT_GT(row.temperature, 0.0f) << token << " for " << expected[i].token;
      const double distance = noisy_value(l, vocab, requests[i], token) -
                              noisy_value(l, vocab, requests[i], expected[i].token);
      ASSERT_LT(std::abs(distance), 1e-5) << token << " for " << expected[i].token;
      ++tally->ties;
    }
    if (token < 0) continue;
    if (std::any_of(l, l + vocab, [&](float x) { return x > l[token]; })) ++tally->not_greedy;
    if (row.num_logprobs < 0) continue;
    if (token == expected[i].token) {
      EXPECT_NEAR(results[i].logprob, expected[i].logprob, 1e-5f);
    }
    ASSERT_EQ(results[i].top_tokens, expected[i].top_tokens);
    for (size_t j = 0; j < expected[i].top_tokens.size(); ++j) {
      const float other = expected[i].top_logprobs[j];
      if (other == -kInf) {
        EXPECT_EQ(results[i].top_logprobs[j], other);
      } else {
        EXPECT_NEAR(results[i].top_logprobs[j], other, 1e-5f + 1e-6f * std::abs(other));
      }
    }
  }
}

class Generator {
 public:
  explicit Generator(uint32_t seed) : random_(seed) {}

  uint32_t seed() { return static_cast<uint32_t>(random_()); }  // of another one

  template <typename... Values>
  float pick(Values... values) {
    const float all[] = {static_cast<float>(values)...};
    return all[random_() % sizeof...(values)];
  }

  // Normal, or with few distinct values, all equal, with masks.
  void logits(float* out, int32_t vocab) {
    const float spread = pick(0.1, 1, 2.5, 2.5, 8);
    const uint32_t form = random_() % 8;
    std::normal_distribution<float> normal(0.0f, spread);
    for (int32_t t = 0; t < vocab; ++t) {
      out[t] = form == 0 ? 1.25f : normal(random_);
      if (form == 1) out[t] = std::round(out[t]);
      if (form == 2 && random_() % 4 != 0) out[t] = -kInf;
      if (form == 3) out[t] = out[t] * 4.0f - 20.0f;
    }
    if (form == 2) out[random_() % vocab] = 1.0f;
  }

  Request request(int32_t vocab) {
    Request out;
    SampleRow& row = out.row;
    row.temperature = pick(0, 0.1, 0.7, 1, 1, 1.3, 5, 1e-38, 1e30);
    row.top_k = static_cast<int32_t>(pick(0, 0, 0, 1, 5, 50, 600, 100000));
    row.top_p = pick(1, 1, 1, 0.95, 0.9, 0.5, 0.001, 0.999999);
    row.min_p = pick(0, 0, 0, 0.05, 0.5, 1);
    row.seed = (static_cast<uint64_t>(random_()) << 32) | random_();
    row.position = (static_cast<int64_t>(random_() % 4) << 31) + random_() % 1000;
    row.num_logprobs = static_cast<int32_t>(pick(-1, -1, -1, 0, 1, 5, 20));
    row.num_logprobs = std::min(row.num_logprobs, vocab);
    if (random_() % 3 == 0) {
      row.repetition_penalty = pick(1, 1.3, 0.8);
      row.frequency_penalty = pick(0, 0.4, -0.3);
      row.presence_penalty = pick(0, 0.7);
      const int32_t size = std::min<int32_t>(vocab, static_cast<int32_t>(pick(0, 1, 30, 2000)));
      std::vector<int32_t> tokens(vocab);
      std::iota(tokens.begin(), tokens.end(), 0);
      for (int32_t i = 0; i < size; ++i) {
        std::swap(tokens[i], tokens[i + random_() % (vocab - i)]);
        out.history.push_back({tokens[i], static_cast<int32_t>(random_() % 3)});
      }
      // A history may lack a token only where the CPU's request has a penalty to apply it with.
      if (random_() % 2 == 0) {
        row.unknown_token = static_cast<int32_t>(random_() % 50);
        out.input = random_() % 2 == 0 && size > 0 ? out.history[random_() % size].token
                                                   : static_cast<int32_t>(random_() % vocab);
      }
    }
    if (random_() % 3 == 0) mask(vocab, &out.mask);
    if (random_() % 4 == 0) {
      out.bias_ids = {0};
      out.bias_values = {pick(-100, 0.5, 3, -kInf)};
      if (vocab > 1) {
        out.bias_ids.push_back(vocab - 1);
        out.bias_values.push_back(2.0f);
      }
    }
    return out;
  }

  // All tokens, few, or runs of them; one at least, mostly.
  void mask(int32_t vocab, std::vector<uint32_t>* out) {
    out->assign(static_cast<size_t>(mask_words(vocab)), 0u);
    const uint32_t form = random_() % 5;
    const auto allow = [&](int32_t t) { (*out)[t / 32] |= 1u << (t % 32); };
    for (uint32_t& word : *out) {
      if (form == 0) word = ~0u;  // past the vocabulary's end, too
      if (form == 1) word = static_cast<uint32_t>(random_());
      if (form == 2 && random_() % 8 == 0) word = ~0u;
    }
    if (form == 4 && random_() % 8 == 0) return;
    for (int32_t i = 0; i < 3; ++i) allow(static_cast<int32_t>(random_() % vocab));
    allow(vocab - 1);
  }

 private:
  std::mt19937 random_;
};

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
