// rope_and_store_kv and attention over pages: against double, and bit for bit across chunkings.
#include <algorithm>
#include <numeric>

#include "backend_cases.h"

namespace lorax::cpu_test {
namespace {

struct Shape {
  int heads, kv_heads, dim;
  int window = 0;
  bool gains = false;
};

class AttentionTest : public CpuBackendTest {
 protected:
  static constexpr int kLayers = 2;
  static constexpr int kLayer = 1;

  struct Sequence {
    std::vector<float> qkv;  // [tokens, cols], before rope
    int tokens = 0;
    std::vector<int32_t> pages;
  };

  static AttentionConfig config(const Shape& s) {
    return {s.heads, s.kv_heads, s.dim, 1.0f / std::sqrt(static_cast<float>(s.dim)), s.window};
  }
  static RopeConfig rope(int dim) {
    RopeConfig r;
    for (int i = 0; i < dim / 2; ++i) {
      r.inv_freq.push_back(
          std::pow(10000.0f, -2.0f * static_cast<float>(i) / static_cast<float>(dim)));
    }
    return r;
  }
  static int cols(const Shape& s) { return (s.heads + 2 * s.kv_heads) * s.dim; }

  // q, k after norm and rope, v; k and v as stored.
  std::vector<double> prepared(const Shape& s, const Sequence& seq, const RopeConfig& r,
                               const std::vector<float>& q_gain,
                               const std::vector<float>& k_gain) const {
    std::vector<double> out(seq.qkv.begin(), seq.qkv.end());
    const int half = s.dim / 2;
    for (int t = 0; t < seq.tokens; ++t) {
      for (int h = 0; h < s.heads + 2 * s.kv_heads; ++h) {
        double* x = out.data() + int64_t{t} * cols(s) + h * s.dim;
        if (h < s.heads + s.kv_heads) {
          if (s.gains) {
            double squares = 0;
            for (int d = 0; d < s.dim; ++d) squares += x[d] * x[d];
            const double f = 1.0 / std::sqrt(squares / s.dim + 1e-5);
            for (int d = 0; d < s.dim; ++d) x[d] *= f * (h < s.heads ? q_gain : k_gain)[d];
          }
          for (int d = 0; d < half; ++d) {
            const double angle = static_cast<float>(t) * r.inv_freq[d];
            const double a = x[d], b = x[d + half];
            x[d] = a * std::cos(angle) - b * std::sin(angle);
            x[d + half] = b * std::cos(angle) + a * std::sin(angle);
          }
        }
        if (h >= s.heads) {
          for (int d = 0; d < s.dim; ++d) x[d] = stored(static_cast<float>(x[d]));
        }
      }
    }
    return out;
  }

  std::vector<double> reference(const Shape& s, const std::vector<double>& p, int tokens) const {
    std::vector<double> out(static_cast<size_t>(tokens) * s.heads * s.dim);
    for (int t = 0; t < tokens; ++t) {
      const int first = s.window > 0 ? std::max(0, t - s.window + 1) : 0;
      for (int h = 0; h < s.heads; ++h) {
        const int kv = h / (s.heads / s.kv_heads);
        const double* q = p.data() + int64_t{t} * cols(s) + h * s.dim;
        std::vector<double> weight;
        double total = 0;
        for (int u = first; u <= t; ++u) {
          const double* k = p.data() + int64_t{u} * cols(s) + (s.heads + kv) * s.dim;
          double dot = 0;
          for (int d = 0; d < s.dim; ++d) dot += q[d] * k[d];
          weight.push_back(std::exp(dot / std::sqrt(static_cast<double>(s.dim))));
          total += weight.back();
        }
        for (int u = first; u <= t; ++u) {
          const double* v = p.data() + int64_t{u} * cols(s) + (s.heads + s.kv_heads + kv) * s.dim;
          for (int d = 0; d < s.dim; ++d) {
            out[(int64_t{t} * s.heads + h) * s.dim + d] += weight[u - first] / total * v[d];
          }
        }
      }
    }
    return out;
  }

  // Leaves NaN in every slot of K and V of pages [0, pages), as a sequence gone wrong would.
  static void poison_pages(Backend& backend, const Shape& s, int pages) {
    StepPlan plan;
    plan.spans.push_back({0, pages * 32, 0, 0, pages});
    for (int p = 0; p < pages; ++p) plan.block_tables.push_back(p);
    for (int t = 0; t < pages * 32; ++t) {
      plan.token_ids.push_back(0);
      plan.positions.push_back(t);
    }
    std::vector<float> qkv(static_cast<size_t>(pages) * 32 * cols(s),
                           std::numeric_limits<float>::quiet_NaN());
    Activation x{qkv.data(), pages * 32, cols(s)};
    backend.begin_step(plan);
    backend.rope_and_store_kv(x, kLayer, config(s), nullptr, nullptr, 1e-5f);
    StepPlan last;  // a row that sees it all: the poison is there
    last.spans.push_back({0, 1, pages * 32 - 1, 0, pages});
    last.block_tables = plan.block_tables;
    last.token_ids.push_back(0);
    last.positions.push_back(pages * 32 - 1);
    std::vector<float> row(static_cast<size_t>(cols(s)), 1.0f);
    backend.begin_step(last);
    const auto y = copy(backend.attention({row.data(), 1, cols(s)}, kLayer, config(s)));
    ASSERT_TRUE(std::isnan(y[0]) && std::isnan(y.back()));
  }

  // Runs all sequences, each in chunks from `chunk(sequence, position)`; returns [tokens, out]
  // each.
  template <typename Chunk>
  std::vector<std::vector<float>> run(Backend& backend, const Shape& s,
                                      std::vector<Sequence>& sequences, const Vector* q_gain,
                                      const Vector* k_gain, Chunk&& chunk) const {
    std::vector<int> done(sequences.size(), 0);
    std::vector<std::vector<float>> out(sequences.size());
    for (bool more = true; more;) {
      more = false;
      StepPlan plan;
      std::vector<float> qkv;
      std::vector<size_t> order;
      for (size_t i = 0; i < sequences.size(); ++i) {
        Sequence& seq = sequences[i];
        const int count = std::min(seq.tokens - done[i], chunk(i, done[i]));
        if (count <= 0) continue;
        more = true;
        order.push_back(i);
        const int blocks = (done[i] + count + 31) / 32;
        plan.spans.push_back({plan.num_rows(), count, done[i],
                              static_cast<int32_t>(plan.block_tables.size()), blocks});
        plan.block_tables.insert(plan.block_tables.end(), seq.pages.begin(),
                                 seq.pages.begin() + blocks);
        for (int t = done[i]; t < done[i] + count; ++t) {
          plan.token_ids.push_back(0);
          plan.positions.push_back(t);
        }
        qkv.insert(qkv.end(), seq.qkv.begin() + int64_t{done[i]} * cols(s),
                   seq.qkv.begin() + int64_t{done[i] + count} * cols(s));
      }
      if (!more) break;
      backend.begin_step(plan);
      Activation x{qkv.data(), plan.num_rows(), cols(s)};
      backend.rope_and_store_kv(x, kLayer, config(s), q_gain, k_gain, 1e-5f);
      poison(backend.attention(x, kLayer, config(s)));
      const auto y = copy(backend.attention(x, kLayer, config(s)));
      const int width = s.heads * s.dim;
      for (size_t j = 0; j < order.size(); ++j) {
        const SequenceSpan& span = plan.spans[j];
        out[order[j]].insert(out[order[j]].end(), y.begin() + int64_t{span.first_row} * width,
                             y.begin() + int64_t{span.first_row + span.num_rows} * width);
        done[order[j]] += span.num_rows;
      }
    }
    return out;
  }

  static std::vector<Sequence> sequences(Random& random, const Shape& s, std::vector<int> tokens) {
    std::vector<Sequence> result;
    int page = 40;
    for (const int n : tokens) {
      Sequence seq;
      seq.tokens = n;
      seq.qkv = random.values(int64_t{n} * cols(s));
      for (int b = 0; b < (n + 31) / 32; ++b) seq.pages.push_back(page--);
      result.push_back(std::move(seq));
    }
    return result;
  }
};

TEST_P(AttentionTest, MatchesDouble) {
  Random random(20);
  for (const Shape s : {Shape{4, 2, 32},
                        {9, 3, 64},
                        {2, 2, 80},
                        {3, 1, 96, 40},
                        {8, 2, 128, 0, true},
                        {1, 1, 256},
                        {4, 4, 64, 33, true},
                        {16, 1, 16},
                        {6, 3, 24, 5}}) {
    auto backend = make();
    const KvLayout layout{kLayers, s.kv_heads, s.dim};
    const int64_t page = backend->page_bytes(layout);
    backend->reserve(layout, rope(s.dim), 512, 64);
    backend->allocate_pages(64 * page, 32);
    poison_pages(*backend, s, 41);
    const auto q_gain = random.values(s.dim);
    const auto k_gain = random.values(s.dim);
    auto q_vector = backend->pack_vector(view(q_gain, 1, s.dim));
    auto k_vector = backend->pack_vector(view(k_gain, 1, s.dim));
    auto seqs = sequences(random, s, {1, 31, 32, 33, 150});
    const auto got = run(*backend, s, seqs, s.gains ? q_vector.get() : nullptr,
                         s.gains ? k_vector.get() : nullptr, [](size_t, int) { return 70; });
    for (size_t i = 0; i < seqs.size(); ++i) {
      const auto want =
          reference(s, prepared(s, seqs[i], rope(s.dim), q_gain, k_gain), seqs[i].tokens);
      // k is rounded to bf16 after float32 or double arithmetic: now and then to the other side.
      // Tiles also round q and the softmax's weights.
      EXPECT_LE(relative_error(got[i], want), amx()    ? 4e-3
                                              : bf16() ? 1e-3
                                                       : 5e-6)
          << s.heads << "/" << s.kv_heads << " x " << s.dim << ", " << seqs[i].tokens << " tokens";
    }
  }
}

TEST_P(AttentionTest, IsTheSameInAnyChunksCompanyAndThreads) {
  Random random(21);
  for (const Shape s : {Shape{9, 3, 64}, {4, 1, 80, 0, true}, {4, 2, 32, 37}, {2, 2, 128, 64}}) {
    const KvLayout layout{kLayers, s.kv_heads, s.dim};
    auto seqs = sequences(random, s, {5, 64, 100, 131});
    const auto gain = random.values(s.dim);
    std::vector<std::vector<float>> expected;
    for (const int threads : {1, 2, 3}) {
      for (int variant = 0; variant < 6; ++variant) {
        auto backend = make(threads);
        const int64_t page = backend->page_bytes(layout);
        backend->reserve(layout, rope(s.dim), 512, 64);
        backend->allocate_pages(64 * page, 32);
        if (variant % 2 == 0) poison_pages(*backend, s, 41);
        auto vector = backend->pack_vector(view(gain, 1, s.dim));
        const Vector* norm = s.gains ? vector.get() : nullptr;
        std::vector<std::vector<float>> got;
        if (variant == 0) {  // alone, token by token
          for (Sequence& seq : seqs) {
            std::vector<Sequence> one = {seq};
            got.push_back(run(*backend, s, one, norm, norm, [](size_t, int) { return 1; })[0]);
          }
        } else {
          Random sizes(static_cast<uint32_t>(100 + variant));
          got = run(*backend, s, seqs, norm, norm, [&](size_t, int) {
            return variant == 1 ? 1000 : variant == 2 ? 1 : sizes.integer(1, 60);
          });
        }
        if (expected.empty()) {
          expected = got;
          continue;
        }
        for (size_t i = 0; i < seqs.size(); ++i) {
          ASSERT_EQ(got[i].size(), expected[i].size());
          ASSERT_TRUE(
              same_bits(got[i].data(), expected[i].data(), static_cast<int64_t>(got[i].size())))
              << "sequence " << i << ", variant " << variant << ", " << threads << " threads";
        }
      }
    }
  }
}

TEST_P(AttentionTest, SizesThePool) {
  const KvLayout layout{30, 3, 64};
  auto backend = make();
  const int64_t page = backend->page_bytes(layout);
  backend->reserve(layout, {}, 512, 64);
  EXPECT_EQ(backend->allocate_pages(5 * page + 1, 2048), 5);  // less than a context is fine
  EXPECT_GE(backend->allocate_pages(0, 2048), 64);            // its own choice holds one
  try {
    backend->allocate_pages(int64_t{1} << 53, 2048);
    FAIL() << "allocated";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), "POOL_EXHAUSTED");
    EXPECT_GT(std::get<double>(e.data().at("availableBytes")), 0.0);
  }
  try {
    backend->allocate_pages(page - 1, 2048);
    FAIL() << "allocated";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), "POOL_EXHAUSTED");
    EXPECT_EQ(std::get<double>(e.data().at("pageBytes")), static_cast<double>(page));
  }
}

LORAX_INSTANTIATE_BACKENDS(AttentionTest);

}  // namespace
}  // namespace lorax::cpu_test
