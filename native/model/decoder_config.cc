// Range checks of a DecoderConfig, so that no size computed from it overflows or divides by zero.
#include "model/decoder_config.h"

#include <cmath>

#include "backend/error.h"

namespace lorax {
namespace {

// Far above any model of today, far below where rows * cols of two of them overflows.
constexpr int32_t kMaxSize = 1 << 24;
constexpr int32_t kMaxLayers = 1 << 12;

[[noreturn]] void fail(const char* field, double value, const std::string& wanted) {
  throw Error("MODEL_INVALID",
              std::string("config field ") + field + " must be " + wanted + ", it is " +
                  std::to_string(value),
              {{"field", std::string(field)}, {"value", value}});
}

void check_range(const char* field, int32_t value, int32_t low, int32_t high) {
  if (value < low || value > high) {
    fail(field, value, "between " + std::to_string(low) + " and " + std::to_string(high));
  }
}

void check_positive(const char* field, double value) {
  if (!std::isfinite(value) || value <= 0) fail(field, value, "a positive number");
}

void check_rope(const DecoderConfig& config) {
  using Type = RopeScaling::Type;
  const RopeScaling& rope = config.rope;
  check_positive("ropeTheta", config.rope_theta);
  if (rope.type == Type::kDefault) return;
  check_positive("rope.factor", rope.factor);
  if (rope.type == Type::kLinear) return;
  check_range("rope.originalContext", rope.original_context, 1, 1 << 30);
  if (rope.type == Type::kDynamic && config.head_dim < 4) {
    fail("headDim", config.head_dim, "at least 4 with dynamic rope");
  }
  if (rope.type == Type::kLlama3) {
    check_positive("rope.lowFreqFactor", rope.low_freq_factor);
    check_positive("rope.highFreqFactor", rope.high_freq_factor);
    if (rope.high_freq_factor <= rope.low_freq_factor) {
      fail("rope.highFreqFactor", rope.high_freq_factor, "above rope.lowFreqFactor");
    }
  }
  if (rope.type == Type::kYarn) {
    check_positive("rope.betaFast", rope.beta_fast);
    check_positive("rope.betaSlow", rope.beta_slow);
    check_positive("rope.attentionFactor", rope.attention_factor);
    if (config.rope_theta == 1.0) fail("ropeTheta", config.rope_theta, "other than 1 with yarn");
  }
}

}  // namespace

void check_decoder_config(const DecoderConfig& config) {
  check_range("vocabSize", config.vocab_size, 1, kMaxSize);
  check_range("hiddenSize", config.hidden_size, 1, kMaxSize);
  check_range("intermediateSize", config.intermediate_size, 1, kMaxSize);
  check_range("numLayers", config.num_layers, 1, kMaxLayers);
  check_range("numHeads", config.num_heads, 1, 1 << 12);
  check_range("numKvHeads", config.num_kv_heads, 1, config.num_heads);
  if (config.num_heads % config.num_kv_heads != 0) {
    fail("numKvHeads", config.num_kv_heads, "a divisor of numHeads");
  }
  check_range("headDim", config.head_dim, 2, 1 << 12);
  if (config.head_dim % 2 != 0) fail("headDim", config.head_dim, "even");
  check_range("contextTokens", config.context_tokens, 1, 1 << 30);
  check_range("slidingWindow", config.sliding_window, 0, 1 << 30);
  if (!std::isfinite(config.rms_norm_eps) || config.rms_norm_eps < 0) {
    fail("rmsNormEps", config.rms_norm_eps, "a number not below 0");
  }
  check_rope(config);
}

}  // namespace lorax
