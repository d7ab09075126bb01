// Attention on emulated AMX tiles: against double, and bit for bit whatever shares a row's step.
// Each is written on those before it.
// clang-format off
#include "cpu/vec_portable.h"
#include "cpu/exp_impl.h"
#include "cpu/amx_gemm.h"
#include "cpu/amx_attention.h"
// clang-format on

#include <algorithm>

#include "backend_cases.h"
#include "cpu/amx_check.h"
#include "cpu/kv_layout.h"
#include "cpu/packed_weight.h"
#include "emulated_kernels.h"
#include "emulated_tiles.h"

namespace lorax::cpu {
namespace {

using cpu_test::bf16_round;
using cpu_test::EmulatedTiles;
using cpu_test::Random;

struct Shape {
  int heads, kv_heads, dim;
  int window = 0;
};

// One sequence: its q, k and v, and pages that fill as its tokens come.
class Sequence {
 public:
  Sequence(Random& random, const Shape& shape, int tokens)
      : shape_(shape),
        tokens_(tokens),
        q_(random.values(int64_t{tokens} * shape.heads * shape.dim)),
        k_(random.values(int64_t{tokens} * shape.kv_heads * shape.dim)),
        v_(random.values(int64_t{tokens} * shape.kv_heads * shape.dim)),
        layout_{{1, shape.kv_heads, shape.dim}} {
    for (float& x : k_) x = bf16_round(x);
    for (float& x : v_) x = bf16_round(x);
  }

  float scale() const { return 1.0f / std::sqrt(static_cast<float>(shape_.dim)); }

  void poison_k(int t) { k_[kv_at(t, 0, 0)] = std::numeric_limits<float>::quiet_NaN(); }

  // [tokens, heads, dim], in double from the numbers that the tiles see.
  std::vector<double> reference() const {
    std::vector<double> out(q_.size());
    for (int t = 0; t < tokens_; ++t) {
      for (int h = 0; h < shape_.heads; ++h) {
        const int kv = h / (shape_.heads / shape_.kv_heads);
        const int begin = shape_.window > 0 ? std::max(0, t - shape_.window + 1) : 0;
        std::vector<double> p;
        double total = 0;
        for (int u = begin; u <= t; ++u) {
          double score = 0;
          for (int d = 0; d < shape_.dim; ++d) {
            score +=
                double{bf16_round(q_[at(t, h, d)] * (scale() * 1.44269504f))} * k_[kv_at(u, kv, d)];
          }
          p.push_back(std::exp2(score));
          total += p.back();
        }
        for (int u = begin; u <= t; ++u) {
          for (int d = 0; d < shape_.dim; ++d) {
            out[at(t, h, d)] += p[u - begin] / total * v_[kv_at(u, kv, d)];
          }
        }
      }
    }
    return out;
  }

  // In chunks of chunk(position) tokens, each stored and then attended, as the backend does it.
  // `rows` is the most that attend together: heads are split to it.
  template <typename Chunk>
  std::vector<float> run(int rows, Chunk&& chunk) {
    const int blocks = (tokens_ + kBlockTokens - 1) / kBlockTokens;
    // K starts as NaN: what is not stored is masked. V starts as zero: rope_and_store_kv's promise.
    pages_.assign(static_cast<size_t>(blocks * layout_.page_bytes() / 2), 0);
    for (int b = 0; b < blocks; ++b) {
      for (int h = 0; h < shape_.kv_heads; ++h) {
        uint16_t* k = pages_.data() + (b * layout_.page_bytes() + layout_.k_offset(0, h)) / 2;
        std::fill(k, k + layout_.k_bytes() / 2, uint16_t{0x7fc0});
      }
    }
    table_.clear();
    for (int b = 0; b < blocks; ++b) table_.push_back(blocks - 1 - b);
    std::vector<float> out(q_.size(), std::numeric_limits<float>::quiet_NaN());
    for (int position = 0; position < tokens_;) {
      const int end = std::min(tokens_, position + chunk(position));
      for (int t = position; t < end; ++t) store(t);
      while (position < end) {
        const int count = std::min(end - position, kBlockTokens - position % kBlockTokens);
        attend(position, count, rows, out);
        position += count;
      }
    }
    return out;
  }

 private:
  size_t at(int t, int h, int d) const {
    return static_cast<size_t>((t * shape_.heads + h) * shape_.dim + d);
  }
  size_t kv_at(int t, int h, int d) const {
    return static_cast<size_t>((t * shape_.kv_heads + h) * shape_.dim + d);
  }

  void store(int t) {
    const int slot = t % kBlockTokens;
    for (int h = 0; h < shape_.kv_heads; ++h) {
      uint16_t* page = pages_.data() + table_[t / kBlockTokens] * layout_.page_bytes() / 2;
      uint16_t* k = page + layout_.k_offset(0, h) / 2 + slot / 16 * shape_.dim * 16;
      uint16_t* v = page + layout_.v_offset(0, h) / 2;
      for (int d = 0; d < shape_.dim; ++d) {
        k[(d / 2 * 16 + slot % 16) * 2 + d % 2] = to_bf16(k_[kv_at(t, h, d)]);
        v[d / 16 * kBlockTokens * 16 + (slot / 2 * 16 + d % 16) * 2 + slot % 2] =
            to_bf16(v_[kv_at(t, h, d)]);
      }
    }
  }

  void attend(int first, int count, int rows, std::vector<float>& out) {
    const int group = shape_.heads / shape_.kv_heads;
    const int heads_at_once = std::max(1, rows / count);
    std::vector<float> scratch(static_cast<size_t>(amx_attention_scratch_floats(shape_.dim)) + 1,
                               std::numeric_limits<float>::quiet_NaN());
    scratch.back() = -7.0f;
    for (int head = 0; head < shape_.heads;) {
      const int left_in_group = group - head % group;
      AttentionArgs a{};
      a.q = q_.data() + at(first, head, 0);
      a.q_stride = a.out_stride = shape_.heads * shape_.dim;
      a.num_positions = count;
      a.first_position = first;
      a.num_heads = std::min(heads_at_once, left_in_group);
      a.head_dim = shape_.dim;
      a.scale = scale();
      a.window = shape_.window;
      a.arena = reinterpret_cast<const uint8_t*>(pages_.data());
      a.page_bytes = layout_.page_bytes();
      a.k_offset = layout_.k_offset(0, head / group);
      a.v_offset = layout_.v_offset(0, head / group);
      a.block_table = table_.data();
      a.block_tokens = kBlockTokens;
      a.out = out.data() + at(first, head, 0);
      a.scratch = scratch.data();
      amx_attention_on<EmulatedTiles>(a);
      EXPECT_FALSE(EmulatedTiles::configured);
      EXPECT_EQ(scratch.back(), -7.0f);
      head += a.num_heads;
    }
  }

  Shape shape_;
  int tokens_;
  std::vector<float> q_, k_, v_;
  KvPageLayout layout_;
  std::vector<uint16_t> pages_;
  std::vector<int32_t> table_;
};

TEST(AmxAttention, MatchesDoubleAndKeepsEachRowsBits) {
  Random random(50);
  Random sizes(51);
  for (const Shape& shape : {Shape{9, 3, 64},
                             {2, 2, 80},
                             {3, 1, 96},
                             {8, 2, 128},
                             {4, 2, 64, 33},
                             {2, 1, 128, 200},
                             {6, 3, 24, 5},
                             {16, 1, 16},
                             {1, 1, 256, 64}}) {
    for (const int tokens : {1, 33, 300}) {
      Sequence sequence(random, shape, tokens);
      const auto expected = sequence.run(96, [](int) { return 1000; });
      // p is rounded to bf16: 2^-9 at most of each weight.
      EXPECT_LE(cpu_test::relative_error(expected, sequence.reference()), 2e-3)
          << shape.heads << "/" << shape.kv_heads << " x " << shape.dim << ", " << tokens;
      for (int variant = 0; variant < 4; ++variant) {
        const auto got = sequence.run(variant < 2 ? 96 : 1, [&](int) {
          return variant % 2 == 0 ? 1 : sizes.integer(1, 70);  // token by token; ragged chunks
        });
        ASSERT_TRUE(
            cpu_test::same_bits(got.data(), expected.data(), static_cast<int64_t>(expected.size())))
            << shape.heads << "/" << shape.kv_heads << " x " << shape.dim << ", window "
            << shape.window << ", " << tokens << " tokens, variant " << variant;
      }
    }
  }
}

TEST(AmxAttention, PassesNaNOn) {
  Random random(52);
  const Shape shape{1, 1, 32};
  Sequence sequence(random, shape, 40);
  sequence.poison_k(3);
  const auto out = sequence.run(96, [](int) { return 40; });
  for (int t = 0; t < 40; ++t) EXPECT_EQ(std::isnan(out[t * 32]), t >= 3) << t;
}

TEST(AmxCheck, AcceptsAttentionThatIsRightAndRefusesOthers) {
  const auto exact = [](void (*attention)(const AttentionArgs& args)) {
    AmxKernels kernels = cpu_test::emulated_amx_kernels();
    kernels.attention = attention;
    return computes_exactly(kernels);
  };
  EXPECT_TRUE(exact(amx_attention_on<EmulatedTiles>));
  EXPECT_FALSE(exact([](const AttentionArgs&) {}));   // writes nothing
  EXPECT_FALSE(exact([](const AttentionArgs& args) {  // one window too wide by a token
    AttentionArgs other = args;
    if (other.window > 0) ++other.window;
    amx_attention_on<EmulatedTiles>(other);
  }));
  EXPECT_FALSE(exact([](const AttentionArgs& args) {  // one bit of the last number
    amx_attention_on<EmulatedTiles>(args);
    float& x =
        args.out[(args.num_positions - 1) * args.out_stride + args.num_heads * args.head_dim - 1];
    x = std::nextafter(x, 1e30f);
  }));
}

}  // namespace
}  // namespace lorax::cpu
