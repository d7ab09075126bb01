// Random requests and logits, sampled on the device and on the CPU, and what may tell the two
// apart: ties within 1e-5.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "cpu/philox.h"
#include "cpu/sample.h"
#include "cuda/device_array.h"
#include "cuda/on_all_cores.h"
#include "cuda/sample.h"

namespace lorax::cuda {

inline constexpr float kInf = std::numeric_limits<float>::infinity();

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

inline std::vector<SampleResult> on_cpu(const std::vector<float>& logits, int32_t vocab,
                                        const std::vector<Request>& requests) {
  std::vector<SampleResult> results(requests.size());
  on_all_cores(static_cast<int64_t>(requests.size()), [&](int64_t i) {
    const Request known = requests[i].with_known_input();
    cpu::sample_row(logits.data() + i * vocab, vocab, known.pointed(), &results[i]);
  });
  return results;
}

// The noisy value by which token `t` of a row competes, before any cut, in double.
inline double noisy_value(const float* logits, int32_t vocab, const Request& request, int32_t t) {
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
inline void compare(const std::vector<float>& logits, int32_t vocab,
                    const std::vector<Request>& requests, const std::vector<SampleResult>& results,
                    Tally* tally) {
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

}  // namespace lorax::cuda
