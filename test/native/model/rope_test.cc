// Inverse frequencies against numbers printed by transformers 5.17's modeling_rope_utils.
#include "model/rope.h"

#include <gtest/gtest.h>

#include <vector>

namespace lorax {
namespace {

struct RopeCase {
  const char* name;
  int32_t head_dim;
  int32_t context;
  double theta;
  RopeScaling scaling;
  std::vector<float> inv_freq;
  float magnitude;
};

RopeScaling scaling(RopeScaling::Type type, double factor, int32_t original_context) {
  RopeScaling out;
  out.type = type;
  out.factor = factor;
  out.original_context = original_context;
  return out;
}

RopeScaling yarn(double factor, int32_t original_context, double attention_factor, bool truncate) {
  RopeScaling out = scaling(RopeScaling::Type::kYarn, factor, original_context);
  out.attention_factor = attention_factor;
  out.truncate = truncate;
  return out;
}

std::vector<RopeCase> cases() {
  using Type = RopeScaling::Type;
  return {
      {"default",
       16,
       4096,
       1e4,
       {},
       {1.0f, 0.316227764f, 0.100000001f, 0.0316227786f, 0.00999999978f, 0.00316227786f,
        0.00100000005f, 0.000316227786f},
       1.0f},
      {"default_theta",
       16,
       4096,
       5e5,
       {},
       {1.0f, 0.193922758f, 0.0376060307f, 0.00729266508f, 0.00141421345f, 0.000274248188f,
        5.31829573e-05f, 1.03133852e-05f},
       1.0f},
      {"linear",
       16,
       4096,
       1e4,
       scaling(Type::kLinear, 4, 0),
       {0.25f, 0.079056941f, 0.0250000004f, 0.00790569466f, 0.00249999994f, 0.000790569466f,
        0.000250000012f, 7.90569466e-05f},
       1.0f},
      // transformers with seq_len = 8192
      {"dynamic",
       16,
       8192,
       1e4,
       scaling(Type::kDynamic, 2, 2048),
       {1.0f, 0.239481375f, 0.057351321f, 0.0137345716f, 0.00328917382f, 0.00078769587f,
        0.000188638471f, 4.51753949e-05f},
       1.0f},
      {"dynamic_unstretched",
       16,
       2048,
       1e4,
       scaling(Type::kDynamic, 2, 2048),
       {1.0f, 0.316227764f, 0.100000001f, 0.0316227786f, 0.00999999978f, 0.00316227786f,
        0.00100000005f, 0.000316227786f},
       1.0f},
      {"llama3",
       32,
       131072,
       5e5,
       scaling(Type::kLlama3, 8, 8192),
       {1.0f, 0.440366626f, 0.193922758f, 0.0853971019f, 0.0376060307f, 0.0165604409f,
        0.00729266508f, 0.00321144611f, 0.000524846022f, 7.78465546e-05f, 3.42810235e-05f,
        1.50962178e-05f, 6.64786967e-06f, 2.92749974e-06f, 1.28917316e-06f, 5.6770881e-07f},
       1.0f},
      {"yarn",
       32,
       131072,
       1e6,
       yarn(4, 32768, 1.138629436111989, true),
       {1.0f, 0.421696514f, 0.177827939f, 0.0749894157f, 0.0316227786f, 0.0133352149f,
        0.00477990136f, 0.00165996165f, 0.000549999997f, 0.000168678584f, 4.44569851e-05f,
        1.87473561e-05f, 7.90569356e-06f, 3.33380353e-06f, 1.40585337e-06f, 5.92843435e-07f},
       1.138629436f},
      {"yarn_not_truncated",
       32,
       65536,
       1e4,
       yarn(16, 4096, 1.0453850485445595, false),
       {1.0f, 0.562341332f, 0.316227764f, 0.177827939f, 0.100000001f, 0.0562341288f, 0.0278613176f,
        0.012898514f, 0.0056962138f, 0.00232756464f, 0.000816470478f, 0.000182229633f,
        6.2500003e-05f, 3.51463314e-05f, 1.97642366e-05f, 1.11142463e-05f},
       1.0453850485f},
  };
}

TEST(Rope, EqualsTransformers) {
  for (const RopeCase& c : cases()) {
    SCOPED_TRACE(c.name);
    DecoderConfig config;
    config.head_dim = c.head_dim;
    config.context_tokens = c.context;
    config.rope_theta = c.theta;
    config.rope = c.scaling;
    const RopeConfig rope = make_rope(config);
    ASSERT_EQ(rope.inv_freq.size(), c.inv_freq.size());
    for (size_t i = 0; i < c.inv_freq.size(); ++i) {
      // Torch's power may differ in the last bit; blends of two powers in a few.
      EXPECT_NEAR(rope.inv_freq[i], c.inv_freq[i], 6e-7f * c.inv_freq[i]) << "pair " << i;
    }
    EXPECT_FLOAT_EQ(rope.magnitude, c.magnitude);
  }
}

}  // namespace
}  // namespace lorax
