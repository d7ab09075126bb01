// Sampling against a naive reference: full sorts, doubles, one token at a time.
#include "cpu/sample.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>

#include "cpu/philox.h"

namespace lorax::cpu {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

// Known answers published with Random123 (kat_vectors, philox4x32 10).
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox4x32_10({0, 0, 0, 0}, {0, 0}),
            (PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const uint32_t ones = 0xffffffff;
  EXPECT_EQ(philox4x32_10({ones, ones, ones, ones}, {ones, ones}),
            (PhiloxBlock{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(
      philox4x32_10({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
      (PhiloxBlock{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

double noise(uint64_t seed, int64_t position, int32_t token) {
  const auto p = static_cast<uint64_t>(position);
  const PhiloxBlock words =
      philox4x32_10({static_cast<uint32_t>(token / 4), static_cast<uint32_t>(p),
                     static_cast<uint32_t>(p >> 32), 0},
                    {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return -std::log(-std::log((words[token % 4] + 0.5) * 0x1p-32));
}

// The order of operations of backend/sampling.h, as it is written there.
struct Reference {
  std::vector<float> adjusted;   // after steps 1 and 2
  std::vector<int32_t> allowed;  // after step 6, descending
  int32_t token = -1;
};

Reference reference(const std::vector<float>& logits, const SampleRow& row) {
  Reference r;
  std::vector<float> l = logits;
  for (int32_t i = 0; i < row.bias_size; ++i) l[row.bias_ids[i]] += row.bias_values[i];
  for (int32_t i = 0; i < row.history_size; ++i) {
    float& x = l[row.history[i].token];
    const auto count = static_cast<float>(row.history[i].output_count);
    x = x > 0 ? x / row.repetition_penalty : x * row.repetition_penalty;
    x -= row.frequency_penalty * count + row.presence_penalty * (count > 0 ? 1.0f : 0.0f);
  }
  for (size_t t = 0; row.mask != nullptr && t < l.size(); ++t) {
    if ((row.mask[t / 32] >> (t % 32) & 1) == 0) l[t] = -kInf;
  }
  r.adjusted = l;
  const float max = *std::max_element(l.begin(), l.end());
  if (row.temperature == 0.0f) {
    r.token = static_cast<int32_t>(std::find(l.begin(), l.end(), max) - l.begin());
    return r;
  }
  for (float& x : l) x = (x - max) / row.temperature;
  std::vector<int32_t> order(l.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return l[a] > l[b]; });
  if (row.top_k > 0 && row.top_k < static_cast<int32_t>(order.size())) order.resize(row.top_k);
  if (row.top_p < 1.0f) {
    double total = 0.0, mass = 0.0;
    for (const int32_t t : order) total += std::exp(static_cast<double>(l[t]));
    size_t count = 0;
    while (count < order.size() && (count == 0 || mass < row.top_p * total)) {
      mass += std::exp(static_cast<double>(l[order[count++]]));
    }
    order.resize(count);
  }
  std::erase_if(order, [&](int32_t t) { return std::exp(static_cast<double>(l[t])) < row.min_p; });
  r.allowed = order;
  double best = -std::numeric_limits<double>::infinity();
  for (const int32_t t : order) {
    const double value = l[t] + noise(row.seed, row.position, t);
    if (value > best) {
      best = value;
      r.token = t;
    }
  }
  return r;
}

std::vector<float> random_logits(std::mt19937& random, int32_t vocab, float spread) {
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> logits(vocab);
  for (float& l : logits) l = normal(random);
  return logits;
}

int32_t sample(const std::vector<float>& logits, const SampleRow& row) {
  SampleResult result;
  sample_row(logits.data(), static_cast<int32_t>(logits.size()), row, &result);
  return result.token;
}

// Every combination of settings, on vocabularies that are no multiple of any block.
TEST(Sample, AgreesWithTheReference) {
  std::mt19937 random(7);
  const auto pick = [&](auto... values) {
    const double all[] = {static_cast<double>(values)...};
    return all[random() % sizeof...(values)];
  };
  int32_t not_the_maximum = 0;
  for (int32_t i = 0; i < 6000; ++i) {
    const auto vocab = static_cast<int32_t>(pick(1, 3, 17, 100, 1001, 4097));
    std::vector<float> logits =
        random_logits(random, vocab, static_cast<float>(pick(0.1, 1, 3, 8)));
    if (i % 5 == 0) {
      for (float& l : logits) l = std::round(l);  // many ties
    }
    if (i % 7 == 0 && vocab > 3) logits[1] = -kInf;
    SampleRow row;
    row.temperature = static_cast<float>(pick(0, 0.1, 0.7, 1, 1, 5));
    row.top_k = static_cast<int32_t>(pick(0, 0, 1, 5, 40, 600, 100000));
    row.top_p = static_cast<float>(pick(1, 1, 0.95, 0.5, 0.001));
    row.min_p = static_cast<float>(pick(0, 0, 0.05, 0.5, 1));
    row.seed = (static_cast<uint64_t>(random()) << 32) | random();
    row.position = (static_cast<int64_t>(random() % 4) << 31) + random() % 1000;
    std::vector<TokenCount> history;
    if (i % 3 == 0) {
      row.repetition_penalty = static_cast<float>(pick(1, 1.3, 0.8));
      row.frequency_penalty = static_cast<float>(pick(0, 0.4, -0.3));
      row.presence_penalty = static_cast<float>(pick(0, 0.7));
      for (int32_t t = 0; t < vocab; t += 2) {
        history.push_back({t, static_cast<int32_t>(random() % 3)});
      }
    }
    row.history = history.data();
    row.history_size = static_cast<int32_t>(history.size());
    const std::vector<int32_t> bias_ids = {0, vocab - 1};
    const std::vector<float> bias_values = {static_cast<float>(pick(-100, 0.5, -kInf)), 2.0f};
    if (i % 4 == 0) {
      row.bias_ids = bias_ids.data();
      row.bias_values = bias_values.data();
      row.bias_size = vocab > 1 ? 2 : 0;
    }
    std::vector<uint32_t> mask((static_cast<size_t>(vocab) + 31) / 32);
    if (i % 6 < 2) {
      for (uint32_t& word : mask) word = static_cast<uint32_t>(i % 12 < 2 ? random() : ~0u);
      const auto kept = static_cast<int32_t>(random() % vocab);
      mask[kept / 32] |= 1u << (kept % 32);
      if (logits[kept] == -kInf) logits[kept] = -9.0f;
      row.mask = mask.data();
    }
    const Reference expected = reference(logits, row);
    ASSERT_EQ(sample(logits, row), expected.token)
        << "case " << i << ": vocab " << vocab << " temperature " << row.temperature << " top-k "
        << row.top_k << " top-p " << row.top_p << " min-p " << row.min_p;
    if (!expected.allowed.empty() && expected.token != expected.allowed[0]) ++not_the_maximum;
  }
  EXPECT_GT(not_the_maximum, 500) << "the cases have to draw";
}

TEST(Sample, AgreesWithTheReferenceOnALargeVocabulary) {
  std::mt19937 random(8);
  const std::vector<float> logits = random_logits(random, 151936, 2.5f);
  for (int32_t i = 0; i < 40; ++i) {
    SampleRow row;
    row.temperature = i % 2 ? 1.0f : 0.6f;
    row.top_k = i % 4 == 1 ? 50 : i % 4 == 3 ? 2000 : 0;
    row.top_p = i % 5 < 2 ? 1.0f : i % 5 == 2 ? 0.999f : 0.9f;
    row.min_p = i % 7 == 0 ? 0.02f : 0.0f;
    row.seed = static_cast<uint64_t>(i) << 33;
    row.position = i;
    ASSERT_EQ(sample(logits, row), reference(logits, row).token) << "case " << i;
  }
}

// Pearson's chi-square of the tokens drawn over many positions against what they should be.
double chi_square(const std::vector<float>& logits, SampleRow row,
                  const std::vector<double>& probabilities, int32_t draws) {
  std::vector<int32_t> counts(logits.size(), 0);
  for (int32_t i = 0; i < draws; ++i) {
    row.position = i;
    ++counts[sample(logits, row)];
  }
  double sum = 0.0;
  for (size_t t = 0; t < logits.size(); ++t) {
    const double expected = probabilities[t] * draws;
    if (expected == 0.0) {
      EXPECT_EQ(counts[t], 0) << "token " << t << " is not allowed";
      continue;
    }
    sum += (counts[t] - expected) * (counts[t] - expected) / expected;
  }
  return sum;
}

TEST(Sample, DrawsFromTheSoftmax) {
  // p = 0.4, 0.3, 0.15, 0.1, 0.05
  const std::vector<double> p = {0.1, 0.4, 0.05, 0.3, 0.15};
  std::vector<float> logits;
  for (const double x : p) logits.push_back(static_cast<float>(std::log(x)) + 3.0f);
  // The 99.9 % point of chi-square with 4 degrees of freedom is 18.47.
  for (const uint64_t seed : {1ull, 2ull, 0xFFFFFFFF00000000ull}) {
    EXPECT_LT(chi_square(logits, {.temperature = 1.0f, .seed = seed}, p, 40000), 18.47);
  }
  // Temperature 0.5 squares the odds.
  std::vector<double> squared;
  double sum = 0.0;
  for (const double x : p) sum += x * x;
  for (const double x : p) squared.push_back(x * x / sum);
  EXPECT_LT(chi_square(logits, {.temperature = 0.5f, .seed = 3}, squared, 40000), 18.47);
  // top-p 0.6 keeps 0.4 and 0.3; 3 tokens of top-k; min-p 0.3 keeps what is above 0.12.
  EXPECT_LT(chi_square(logits, {.temperature = 1.0f, .top_p = 0.6f, .seed = 4},
                       {0, 4 / 7.0, 0, 3 / 7.0, 0}, 40000),
            10.83);
  const std::vector<double> three = {0, 0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85};
  EXPECT_LT(chi_square(logits, {.temperature = 1.0f, .top_k = 3, .seed = 5}, three, 40000), 13.82);
  EXPECT_LT(chi_square(logits, {.temperature = 1.0f, .min_p = 0.3f, .seed = 6}, three, 40000),
            13.82);
}

TEST(Sample, DrawsDifferBySeedPositionAndToken) {
  const std::vector<float> logits(1000, 0.0f);
  SampleRow row{.temperature = 1.0f, .seed = 1};
  std::map<int32_t, int32_t> seen;
  for (int32_t i = 0; i < 200; ++i) {
    row.seed = static_cast<uint64_t>(i) << 32;  // the high half counts
    ++seen[sample(logits, row)];
    row.seed = static_cast<uint64_t>(i);
    row.position = 1;
    ++seen[sample(logits, row)];
    row.position = 1ll << 40;
    ++seen[sample(logits, row)];
  }
  EXPECT_GT(seen.size(), 350u) << "600 draws of 1000 tokens meet about 451";
  row.position = 5;
  EXPECT_EQ(sample(logits, row), sample(logits, row));
}

TEST(Sample, TiesGoToTheLowestId) {
  std::vector<float> logits(1000, 1.0f);
  EXPECT_EQ(sample(logits, {}), 0);
  logits[0] = 0.0f;
  EXPECT_EQ(sample(logits, {}), 1);
  logits[700] = 2.0f;
  logits[900] = 2.0f;
  EXPECT_EQ(sample(logits, {}), 700);
  // Tokens 700, 900, 1, 2 are the first four.
  for (int64_t position = 0; position < 200; ++position) {
    const int32_t token = sample(logits, {.temperature = 9.0f, .top_k = 4, .position = position});
    EXPECT_TRUE(token == 700 || token == 900 || token == 1 || token == 2) << token;
  }
  // With all equal, top-p 0.01 of 1000 keeps the first ten or, as the sum rounds, one more.
  const std::vector<float> equal(1000, -3.0f);
  for (int64_t position = 0; position < 200; ++position) {
    EXPECT_LE(sample(equal, {.temperature = 1.0f, .top_p = 0.01f, .position = position}), 10);
  }
}

TEST(Sample, ReportsLogprobsOfTheRawLogits) {
  std::mt19937 random(3);
  const std::vector<float> logits = random_logits(random, 5000, 3.0f);
  double sum = 0.0;
  for (const float l : logits) sum += std::exp(static_cast<double>(l));
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  const int32_t bias_id = 3;
  const float bias = 100.0f;
  SampleRow row{.temperature = 0.3f, .bias_ids = &bias_id, .bias_values = &bias, .bias_size = 1};
  for (const int32_t num : {0, 1, 20}) {
    row.num_logprobs = num;
    SampleResult result;
    sample_row(logits.data(), 5000, row, &result);
    EXPECT_EQ(result.token, 3) << "the bias decides";
    EXPECT_NEAR(result.logprob, logits[3] - std::log(sum), 2e-6 * 20) << "and is not reported";
    ASSERT_EQ(result.top_tokens.size(), static_cast<size_t>(num));
    for (int32_t i = 0; i < num; ++i) {
      EXPECT_EQ(result.top_tokens[i], order[i]);
      EXPECT_NEAR(result.top_logprobs[i], logits[order[i]] - std::log(sum), 2e-6 * 20);
    }
  }
  row.num_logprobs = -1;
  SampleResult reused;
  reused.top_tokens = {1, 2};
  sample_row(logits.data(), 5000, row, &reused);
  EXPECT_TRUE(reused.top_tokens.empty());
}

// A mask takes tokens away after penalties and biases; what is reported stays raw.
TEST(Sample, OnlyTokensOfTheMaskAreChosen) {
  std::mt19937 random(11);
  for (const int32_t vocab : {5, 31, 32, 33, 1000, 4099}) {
    const std::vector<float> logits = random_logits(random, vocab, 3.0f);
    std::vector<uint32_t> mask((static_cast<size_t>(vocab) + 31) / 32);
    for (const int32_t only : {0, vocab / 2, vocab - 1}) {
      std::fill(mask.begin(), mask.end(), 0u);
      mask[only / 32] |= 1u << (only % 32);
      const int32_t rival = (only + 1) % vocab;
      const float bias = 50.0f;
      for (const float temperature : {0.0f, 1.5f}) {
        const SampleRow row{.temperature = temperature,
                            .top_k = 3,
                            .top_p = 0.5f,
                            .bias_ids = &rival,
                            .bias_values = &bias,
                            .bias_size = 1,
                            .mask = mask.data(),
                            .num_logprobs = 2};
        SampleResult result, free;
        sample_row(logits.data(), vocab, row, &result);
        EXPECT_EQ(result.token, only);
        sample_row(logits.data(), vocab, {.num_logprobs = 2}, &free);
        EXPECT_EQ(result.top_tokens, free.top_tokens);
        EXPECT_EQ(result.top_logprobs, free.top_logprobs);
      }
    }
    std::fill(mask.begin(), mask.end(), 0u);
    EXPECT_EQ(sample(logits, {.mask = mask.data()}), -1) << "nothing is allowed";
    std::fill(mask.begin(), mask.end(), ~0u);
    for (int64_t position = 0; position < 50; ++position) {
      SampleRow row{.temperature = 1.0f, .top_p = 0.9f, .position = position};
      const int32_t unmasked = sample(logits, row);
      row.mask = mask.data();
      EXPECT_EQ(sample(logits, row), unmasked) << "everything is";
    }
  }
  std::vector<float> broken(64, 1.0f);
  broken[40] = std::numeric_limits<float>::quiet_NaN();
  const uint32_t others[2] = {~0u, 0};
  EXPECT_EQ(sample(broken, {.mask = others}), -1) << "a fault is one wherever it is";
}

TEST(Sample, AlternativesOfTiesAscend) {
  const std::vector<float> logits(100, 0.5f);
  SampleResult result;
  sample_row(logits.data(), 100, {.num_logprobs = 5}, &result);
  EXPECT_EQ(result.top_tokens, (std::vector<int32_t>{0, 1, 2, 3, 4}));
  EXPECT_NEAR(result.logprob, -std::log(100.0f), 1e-6);
}

// Nothing but a token that may be drawn, whatever the numbers.
TEST(Sample, ExtremesStaySound) {
  std::vector<float> logits(333, -kInf);
  logits[200] = -5.0f;
  for (const float temperature : {0.0f, 1e-38f, 1.0f, 1e30f}) {
    for (const float top_p : {1.0f, 1e-30f}) {
      for (const int32_t top_k : {0, 5}) {
        for (const float min_p : {0.0f, 1.0f}) {
          const SampleRow row{.temperature = temperature,
                              .top_k = top_k,
                              .top_p = top_p,
                              .min_p = min_p,
                              .num_logprobs = 3};
          SampleResult result;
          sample_row(logits.data(), 333, row, &result);
          EXPECT_EQ(result.token, 200);
          EXPECT_EQ(result.logprob, 0.0f);
          EXPECT_EQ(result.top_tokens[0], 200);
          EXPECT_EQ(result.top_logprobs[1], -kInf);
        }
      }
    }
  }
  std::mt19937 random(4);
  const std::vector<float> usual = random_logits(random, 500, 4.0f);
  const auto best =
      static_cast<int32_t>(std::max_element(usual.begin(), usual.end()) - usual.begin());
  EXPECT_EQ(sample(usual, {.temperature = 1e-30f}), best) << "a tiny temperature is greedy";
  EXPECT_EQ(sample(usual, {.temperature = 1.0f, .top_p = 1e-20f}), best);
  EXPECT_EQ(sample(usual, {.temperature = 50.0f, .top_k = 1}), best);
  EXPECT_EQ(sample(usual, {.temperature = 50.0f, .min_p = 1.0f}), best);
  const std::vector<float> huge = {3e38f, -3e38f, 3.1e38f};
  EXPECT_EQ(sample(huge, {.temperature = 0.1f}), 2);
  const TokenCount seen = {2, 1};
  EXPECT_GE(
      sample(
          huge,
          {.temperature = 1.0f, .repetition_penalty = 1e-30f, .history = &seen, .history_size = 1}),
      0);
}

TEST(Sample, UnusableLogitsGiveNoToken) {
  for (const int32_t at : {0, 15, 31, 32, 332}) {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), kInf}) {
      std::vector<float> logits(333, 1.0f);
      logits[at] = bad;
      EXPECT_EQ(sample(logits, {}), -1);
      EXPECT_EQ(sample(logits, {.temperature = 1.0f, .top_p = 0.5f}), -1);
    }
  }
  EXPECT_EQ(sample(std::vector<float>(100, -kInf), {}), -1);
  const std::vector<int32_t> ids = {0, 1};
  const std::vector<float> bans = {-kInf, -kInf};
  EXPECT_EQ(
      sample({1.0f, 2.0f}, {.bias_ids = ids.data(), .bias_values = bans.data(), .bias_size = 2}),
      -1);
}

// Bias comes before the repetition penalty, which comes before frequency and presence.
TEST(Sample, TheOrderOfOperations) {
  // Bias lifts token 0 from -1 to 1, so the penalty divides (0.5) instead of multiplying (-2 + 2).
  const int32_t id = 0;
  const float bias = 2.0f;
  const TokenCount seen[] = {{0, 0}};
  SampleRow row{.repetition_penalty = 2.0f,
                .history = seen,
                .history_size = 1,
                .bias_ids = &id,
                .bias_values = &bias,
                .bias_size = 1};
  EXPECT_EQ(sample({-1.0f, 0.4f}, row), 0);
  EXPECT_EQ(sample({-1.0f, 0.6f}, row), 1);
  // 3 / 2 - 1 * 0.25 - 0.5 = 0.75, and not (3 - 0.75) / 2 = 1.125.
  const TokenCount once[] = {{0, 1}};
  row = {.repetition_penalty = 2.0f,
         .frequency_penalty = 0.25f,
         .presence_penalty = 0.5f,
         .history = once,
         .history_size = 1};
  EXPECT_EQ(sample({3.0f, 0.74f}, row), 0);
  EXPECT_EQ(sample({3.0f, 0.76f}, row), 1);
  // Tokens that stand only in the prompt meet neither frequency nor presence.
  const TokenCount prompt_only[] = {{0, 0}};
  row = {.frequency_penalty = 5.0f,
         .presence_penalty = 5.0f,
         .history = prompt_only,
         .history_size = 1};
  EXPECT_EQ(sample({3.0f, 2.9f}, row), 0);
}

// Top-p looks at what top-k left, renormalised: of 0.4, 0.3 and 0.15 the first is 0.47.
TEST(Sample, TopPComesAfterTopK) {
  const std::vector<float> logits = {std::log(0.4f), std::log(0.3f), std::log(0.15f),
                                     std::log(0.15f)};
  for (int64_t position = 0; position < 300; ++position) {
    EXPECT_EQ(
        sample(logits, {.temperature = 1.0f, .top_k = 3, .top_p = 0.45f, .position = position}), 0);
    EXPECT_LE(sample(logits, {.temperature = 1.0f, .top_p = 0.45f, .position = position}), 1);
  }
}

}  // namespace
}  // namespace lorax::cpu
