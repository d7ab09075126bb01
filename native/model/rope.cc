// The five scalings. i runs over pairs of dimensions, d is head_dim, b the base (rope_theta).
//
// Powers are taken in double and rounded once, so that every machine gets the same bits; torch's
// float32 powers are within an ulp of that.
#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>
#include <vector>

namespace lorax {
namespace {

// b ^ (2 i / d)                                                [d / 2]
std::vector<float> position_frequencies(double base, int32_t head_dim) {
  const float rounded_base = static_cast<float>(base);
  std::vector<float> out(head_dim / 2);
  for (int32_t i = 0; i < head_dim / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    out[i] = static_cast<float>(
        std::pow(static_cast<double>(rounded_base), static_cast<double>(exponent)));
  }
  return out;
}

// inv_freq = b ^ (-2 i / d)                                    (Su et al. 2021)
std::vector<float> default_frequencies(double base, int32_t head_dim) {
  std::vector<float> out = position_frequencies(base, head_dim);
  for (float& f : out) f = 1.0f / f;
  return out;
}

// inv_freq / factor                                            (Chen et al. 2023)
std::vector<float> linear_frequencies(const DecoderConfig& config) {
  std::vector<float> out = default_frequencies(config.rope_theta, config.head_dim);
  for (float& f : out) f /= static_cast<float>(config.rope.factor);
  return out;
}

// b' = b (factor C / C0 - (factor - 1)) ^ (d / (d - 2)). transformers recomputes b' from the
// longest sequence so far, which makes a token depend on its batch; here C is always the whole
// context.
std::vector<float> dynamic_frequencies(const DecoderConfig& config) {
  const RopeScaling& rope = config.rope;
  const double dim = config.head_dim;
  const double length = std::max(config.context_tokens, rope.original_context);
  const double stretch = rope.factor * length / rope.original_context - (rope.factor - 1.0);
  const double base = config.rope_theta * std::pow(stretch, dim / (dim - 2.0));
  return default_frequencies(base, config.head_dim);
}

// Long wavelengths are divided by factor, short ones kept, those between blended (Llama 3.1).
std::vector<float> llama3_frequencies(const DecoderConfig& config) {
  const RopeScaling& rope = config.rope;
  const float context = static_cast<float>(rope.original_context);
  const float factor = static_cast<float>(rope.factor);
  const float low = static_cast<float>(rope.low_freq_factor);
  const float range = static_cast<float>(rope.high_freq_factor - rope.low_freq_factor);
  const float low_wavelen = static_cast<float>(rope.original_context / rope.low_freq_factor);
  const float high_wavelen = static_cast<float>(rope.original_context / rope.high_freq_factor);
  std::vector<float> out = default_frequencies(config.rope_theta, config.head_dim);
  for (float& f : out) {
    const float wavelen = static_cast<float>(2.0 * std::numbers::pi) / f;
    if (wavelen < high_wavelen) continue;
    if (wavelen > low_wavelen) {
      f /= factor;
      continue;
    }
    const float smooth = (context / wavelen - low) / range;
    f = (1.0f - smooth) * f / factor + smooth * f;
  }
  return out;
}

// The pair of dimensions that turns `rotations` times within the original context (Peng et al.
// 2023).
double yarn_dimension(double rotations, const DecoderConfig& config) {
  const double context = config.rope.original_context;
  return config.head_dim * std::log(context / (rotations * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(config.rope_theta));
}

// ramp interpolated + (1 - ramp) extrapolated; ramp rises from 0 at `low` to 1 at `high`.
std::vector<float> yarn_frequencies(const DecoderConfig& config) {
  const RopeScaling& rope = config.rope;
  double low = yarn_dimension(rope.beta_fast, config);
  double high = yarn_dimension(rope.beta_slow, config);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, config.head_dim - 1.0);
  if (low == high) high += 0.001;
  const std::vector<float> frequencies = position_frequencies(config.rope_theta, config.head_dim);
  std::vector<float> out(frequencies.size());
  for (size_t i = 0; i < out.size(); ++i) {
    const float extrapolated = 1.0f / frequencies[i];
    const float interpolated = 1.0f / (static_cast<float>(rope.factor) * frequencies[i]);
    const float ramp = std::clamp(
        (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low), 0.0f,
        1.0f);
    const float keep = 1.0f - ramp;
    out[i] = interpolated * (1.0f - keep) + extrapolated * keep;
  }
  return out;
}

}  // namespace

RopeConfig make_rope(const DecoderConfig& config) {
  using Type = RopeScaling::Type;
  RopeConfig rope;
  switch (config.rope.type) {
    case Type::kDefault:
      rope.inv_freq = default_frequencies(config.rope_theta, config.head_dim);
      break;
    case Type::kLinear:
      rope.inv_freq = linear_frequencies(config);
      break;
    case Type::kDynamic:
      rope.inv_freq = dynamic_frequencies(config);
      break;
    case Type::kLlama3:
      rope.inv_freq = llama3_frequencies(config);
      break;
    case Type::kYarn:
      rope.inv_freq = yarn_frequencies(config);
      rope.magnitude = static_cast<float>(config.rope.attention_factor);
      break;
  }
  return rope;
}

}  // namespace lorax
