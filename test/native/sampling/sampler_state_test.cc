// What a sequence remembers for sampling, and which settings are refused.
#include "sampling/sampler_state.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>

#include "backend/error.h"

namespace lorax {
namespace {

std::map<int32_t, int32_t> history_of(const SampleRow& row) {
  std::map<int32_t, int32_t> counts;
  for (int32_t i = 0; i < row.history_size; ++i) {
    const bool is_new = counts.emplace(row.history[i].token, row.history[i].output_count).second;
    EXPECT_TRUE(is_new) << "token " << row.history[i].token << " is listed twice";
  }
  return counts;
}

using Counts = std::map<int32_t, int32_t>;

TEST(SamplerState, RemembersNothingWithoutAPenalty) {
  const std::vector<int32_t> prompt = {1, 2};
  SamplerState state({.temperature = 0.5f, .seed = 9}, prompt, 100);
  state.append(3);
  const SampleRow row = state.row();
  EXPECT_EQ(row.history, nullptr);
  EXPECT_EQ(row.history_size, 0);
  EXPECT_EQ(row.bias_ids, nullptr);
  EXPECT_EQ(row.position, 1);
  EXPECT_EQ(row.seed, 9u);
  EXPECT_EQ(row.temperature, 0.5f);
}

TEST(SamplerState, RepetitionCountsPromptAndOutputs) {
  const std::vector<int32_t> prompt = {1, 2, 1};
  SamplerState state({.repetition_penalty = 1.2f}, prompt, 100);
  EXPECT_EQ(history_of(state.row()), (Counts{{1, 0}, {2, 0}}));
  for (const int32_t token : {2, 7, 7}) state.append(token);
  EXPECT_EQ(history_of(state.row()), (Counts{{1, 0}, {2, 1}, {7, 2}}));
  EXPECT_EQ(state.row().position, 3);
}

TEST(SamplerState, FrequencyAndPresenceCountOutputsOnly) {
  const std::vector<int32_t> prompt = {1, 2, 1};
  for (SamplingParams params :
       {SamplingParams{.frequency_penalty = 0.5f}, SamplingParams{.presence_penalty = -0.5f}}) {
    SamplerState state(params, prompt, 100);
    EXPECT_EQ(state.row().history_size, 0);
    state.append(1);
    EXPECT_EQ(history_of(state.row()), (Counts{{1, 1}}));
  }
}

TEST(SamplerState, AnUnknownTokenCountsAsAnOutput) {
  const std::vector<int32_t> prompt = {1};
  SamplerState plain({}, prompt, 100);
  EXPECT_EQ(plain.row(5).position, 1);
  EXPECT_EQ(plain.row(5).unknown_token, -1) << "without a penalty nobody asks which it is";
  SamplerState state({.presence_penalty = 0.5f}, prompt, 100);
  state.append(7);
  EXPECT_EQ(state.row(5).position, 2);
  EXPECT_EQ(state.row(5).unknown_token, 5);
  EXPECT_EQ(history_of(state.row(5)), (Counts{{7, 1}})) << "the history lacks it";
  EXPECT_EQ(state.row().position, 1);
  EXPECT_EQ(state.row().unknown_token, -1);
}

TEST(SamplerState, StopTokensAndBiasAndLogprobs) {
  SamplerState state({.bias_ids = {4, 2},
                      .bias_values = {1.0f, -1.0f},
                      .num_logprobs = 20,
                      .stop_token_ids = {9, 3, 5}},
                     {}, 8);
  EXPECT_TRUE(state.is_stop_token(3));
  EXPECT_TRUE(state.is_stop_token(9));
  EXPECT_FALSE(state.is_stop_token(4));
  EXPECT_EQ(state.row().bias_size, 2);
  EXPECT_EQ(state.row().bias_ids[1], 2);
  EXPECT_EQ(state.row().bias_values[1], -1.0f);
  EXPECT_EQ(state.num_logprobs(), 8) << "no more alternatives than tokens";
}

TEST(SamplingParams, RefusalsNameTheField) {
  const std::vector<std::pair<std::string, std::function<void(SamplingParams&)>>> cases = {
      {"maxOutputTokens", [](auto& p) { p.max_output_tokens = -1; }},
      {"temperature", [](auto& p) { p.temperature = -0.1f; }},
      {"temperature", [](auto& p) { p.temperature = NAN; }},
      {"temperature", [](auto& p) { p.temperature = INFINITY; }},
      {"topK", [](auto& p) { p.top_k = -1; }},
      {"topP", [](auto& p) { p.top_p = 0.0f; }},
      {"topP", [](auto& p) { p.top_p = 1.1f; }},
      {"topP", [](auto& p) { p.top_p = NAN; }},
      {"minP", [](auto& p) { p.min_p = -0.1f; }},
      {"minP", [](auto& p) { p.min_p = NAN; }},
      {"repetitionPenalty", [](auto& p) { p.repetition_penalty = 0.0f; }},
      {"frequencyPenalty", [](auto& p) { p.frequency_penalty = NAN; }},
      {"presencePenalty", [](auto& p) { p.presence_penalty = INFINITY; }},
      {"logprobs", [](auto& p) { p.num_logprobs = 21; }},
      {"logitBias", [](auto& p) { p.bias_ids = {1}; }},
      {"logitBias", [](auto& p) { p.bias_ids = {100}, p.bias_values = {1.0f}; }},
      {"logitBias", [](auto& p) { p.bias_ids = {1}, p.bias_values = {NAN}; }},
      {"logitBias", [](auto& p) { p.bias_ids = {1}, p.bias_values = {INFINITY}; }},
  };
  for (const auto& [field, spoil] : cases) {
    SamplingParams params;
    check_sampling_params(params, 100);
    spoil(params);
    try {
      check_sampling_params(params, 100);
      ADD_FAILURE() << field << " was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), "INVALID_OPTIONS");
      EXPECT_EQ(std::get<std::string>(error.data().at("field")), field);
      EXPECT_NE(std::string(error.what()).find(field), std::string::npos);
    }
  }
  SamplingParams ban;
  ban.bias_ids = {1};
  ban.bias_values = {-INFINITY};
  check_sampling_params(ban, 100);
}

}  // namespace
}  // namespace lorax
