// rope_and_store_kv against a float64 reference: where every element goes, and that nothing else is
// touched.
#include "cuda/rope_kv.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <utility>

#include "paged_step.h"
#include "rope_reference.h"

namespace lorax::cuda {
namespace {

constexpr int kLayer = 2;
constexpr int kNumLayers = 3;

struct Shape {
  int num_heads;
  int num_kv_heads;
  int head_dim;
  bool norm;
  float magnitude = 1.0f;
};

std::vector<double> rotated(const uint16_t* head, int position, const std::vector<float>& inv_freq,
                            float magnitude, const std::vector<float>* gain, double eps) {
  std::vector<double> x(2 * inv_freq.size());
  for (size_t i = 0; i < x.size(); ++i) x[i] = to_float(head[i]);
  return cuda::rotated(std::move(x), position, inv_freq, magnitude, gain, eps);
}

// Pages in random order for the blocks that the rows are in; earlier blocks have page 0, which is
// nobody's, so that long contexts need no memory.
std::vector<std::vector<int32_t>> block_tables_of_rows(const std::vector<Chunk>& chunks,
                                                       std::mt19937& random, int* num_pages) {
  std::vector<int> owned;
  for (const Chunk& chunk : chunks) {
    const int blocks =
        (chunk.first_position + chunk.num_rows + 15) / 16 - chunk.first_position / 16;
    owned.push_back(blocks * 16);
  }
  std::vector<std::vector<int32_t>> tables = random_block_tables(owned, random, num_pages);
  *num_pages += 1;
  for (size_t s = 0; s < chunks.size(); ++s) {
    for (int32_t& page : tables[s]) ++page;
    tables[s].insert(tables[s].begin(), static_cast<size_t>(chunks[s].first_position / 16), 0);
  }
  return tables;
}

class RopeKvOfShape : public testing::TestWithParam<Shape> {};

TEST_P(RopeKvOfShape, RotatesQAndStoresKAndV) {
  const Shape& shape = GetParam();
  constexpr float kEps = 1e-5f;
  std::mt19937 random(static_cast<uint32_t>(shape.head_dim));
  const std::vector<Chunk> chunks = {{0, 1},       {131071, 1}, {7, 40}, {15, 1},
                                     {131000, 60}, {100, 300},  {16, 1}};
  int num_pages = 0;
  const auto tables = block_tables_of_rows(chunks, random, &num_pages);
  const UploadedStep step(chunks, tables, 410);

  const int dim = shape.head_dim;
  const int cols = (shape.num_heads + 2 * shape.num_kv_heads) * dim;
  const int64_t page_elements = int64_t{kNumLayers} * 2 * shape.num_kv_heads * 16 * dim;
  const std::vector<uint16_t> in =
      random_bf16(static_cast<size_t>(step.rows) * static_cast<size_t>(cols), random);
  DeviceArray<uint16_t> qkv(in);
  DeviceArray<uint16_t> pool(static_cast<size_t>(num_pages * page_elements));
  pool.fill_bytes(0xff);
  std::vector<float> inv_freq(static_cast<size_t>(dim / 2));
  for (size_t i = 0; i < inv_freq.size(); ++i) {
    inv_freq[i] = std::pow(500000.0f, -2.0f * static_cast<float>(i) / static_cast<float>(dim));
  }
  std::uniform_real_distribution<float> gains(0.5f, 1.5f);
  std::vector<float> q_gain(static_cast<size_t>(dim));
  std::vector<float> k_gain(static_cast<size_t>(dim));
  for (float& gain : q_gain) gain = gains(random);
  for (float& gain : k_gain) gain = gains(random);
  const DeviceArray<float> d_inv_freq(inv_freq);
  const DeviceArray<float> d_q_gain(q_gain);
  const DeviceArray<float> d_k_gain(k_gain);

  RopeKv args;
  args.qkv = reinterpret_cast<__nv_bfloat16*>(qkv.data());
  args.rows = step.rows;
  args.num_heads = shape.num_heads;
  args.pages = {reinterpret_cast<uint8_t*>(pool.data()), page_elements * 2, kLayer,
                shape.num_kv_heads, dim};
  args.inv_freq = d_inv_freq.data();
  args.magnitude = shape.magnitude;
  args.q_gain = shape.norm ? d_q_gain.data() : nullptr;
  args.k_gain = shape.norm ? d_k_gain.data() : nullptr;
  args.eps = kEps;
  rope_and_store_kv(args, step.arrays, nullptr);
  LORAX_CUDA(cudaDeviceSynchronize());
  const std::vector<uint16_t> out = qkv.read();
  std::vector<uint16_t> stored = pool.read();

  double difference = 0.0;
  double norm = 0.0;
  const auto compare = [&](const uint16_t* got, const std::vector<double>& expected) {
    for (size_t i = 0; i < expected.size(); ++i) {
      const double d = to_float(got[i]) - expected[i];
      difference += d * d;
      norm += expected[i] * expected[i];
    }
  };
  for (int row = 0; row < step.counts.num_rows; ++row) {
    const auto begin = static_cast<size_t>(row) * static_cast<size_t>(cols);
    const int position = step.positions[static_cast<size_t>(row)];
    const auto span = static_cast<size_t>(step.row_span[static_cast<size_t>(row)]);
    for (int h = 0; h < shape.num_heads; ++h) {
      const size_t at = begin + static_cast<size_t>(h * dim);
      compare(&out[at], rotated(&in[at], position, inv_freq, shape.magnitude,
                                shape.norm ? &q_gain : nullptr, double{kEps}));
    }
    const int64_t page = int64_t{tables[span][static_cast<size_t>(position / 16)]} * page_elements;
    for (int h = 0; h < shape.num_kv_heads; ++h) {
      // [layer][k|v][kv_head][16 tokens][head_dim]
      const int64_t k_head = int64_t{kLayer} * 2 * shape.num_kv_heads + h;
      const int64_t v_head = k_head + shape.num_kv_heads;
      uint16_t* k = &stored[static_cast<size_t>(page + (k_head * 16 + position % 16) * dim)];
      uint16_t* v = &stored[static_cast<size_t>(page + (v_head * 16 + position % 16) * dim)];
      const size_t k_in = begin + static_cast<size_t>((shape.num_heads + h) * dim);
      const size_t v_in = k_in + static_cast<size_t>(shape.num_kv_heads * dim);
      compare(k, rotated(&in[k_in], position, inv_freq, shape.magnitude,
                         shape.norm ? &k_gain : nullptr, double{kEps}));
      for (int i = 0; i < dim; ++i) ASSERT_EQ(v[i], in[v_in + static_cast<size_t>(i)]);
      std::fill_n(k, dim, kPoison);  // taken out, so that what is left must be untouched
      std::fill_n(v, dim, kPoison);
    }
  }
  EXPECT_LE(std::sqrt(difference / norm), 3e-3);
  for (const uint16_t value : stored) ASSERT_EQ(value, kPoison);
  for (size_t i = static_cast<size_t>(step.counts.num_rows) * static_cast<size_t>(cols);
       i < out.size(); ++i) {
    ASSERT_EQ(out[i], in[i]);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, RopeKvOfShape,
                         testing::Values(Shape{4, 2, 16, false}, Shape{4, 2, 24, true},
                                         Shape{2, 1, 32, true}, Shape{9, 3, 64, false},
                                         Shape{4, 4, 80, true}, Shape{4, 2, 96, false, 1.3f},
                                         Shape{32, 8, 128, false}, Shape{16, 8, 128, true},
                                         Shape{8, 4, 256, true, 0.8f}, Shape{28, 4, 128, false}),
                         [](const auto& info) {
                           return "Heads" + std::to_string(info.param.num_heads) + "Dim" +
                                  std::to_string(info.param.head_dim) +
                                  (info.param.norm ? "Norm" : "");
                         });

TEST(RopeKv, TakesManyRows) {
  std::mt19937 random(3);
  const std::vector<Chunk> chunks = {{0, 5000}, {300, 3192}};
  int num_pages = 0;
  const auto tables = random_block_tables(std::vector<int>{5000, 3492}, random, &num_pages);
  const UploadedStep step(chunks, tables);
  const int dim = 64;
  const int cols = 4 * dim;
  const std::vector<uint16_t> in =
      random_bf16(static_cast<size_t>(step.rows) * static_cast<size_t>(cols), random);
  DeviceArray<uint16_t> qkv(in);
  DeviceArray<uint16_t> pool(static_cast<size_t>(num_pages) * 2 * 16 * static_cast<size_t>(dim));
  const DeviceArray<float> inv_freq(std::vector<float>(static_cast<size_t>(dim / 2), 0.01f));
  RopeKv args;
  args.qkv = reinterpret_cast<__nv_bfloat16*>(qkv.data());
  args.rows = step.rows;
  args.num_heads = 2;
  args.pages = {reinterpret_cast<uint8_t*>(pool.data()), 2 * 2 * 16 * dim, 0, 1, dim};
  args.inv_freq = inv_freq.data();
  rope_and_store_kv(args, step.arrays, nullptr);
  const std::vector<uint16_t> out = qkv.read();
  const std::vector<float> frequencies(static_cast<size_t>(dim / 2), 0.01f);
  double difference = 0.0;
  double norm = 0.0;
  for (int row = 0; row < step.rows; row += 37) {
    const auto at = static_cast<size_t>(row) * static_cast<size_t>(cols);
    const std::vector<double> expected =
        rotated(&in[at], step.positions[static_cast<size_t>(row)], frequencies, 1.0f, nullptr, 0);
    for (size_t i = 0; i < expected.size(); ++i) {
      const double d = to_float(out[at + i]) - expected[i];
      difference += d * d;
      norm += expected[i] * expected[i];
    }
  }
  EXPECT_LE(std::sqrt(difference / norm), 3e-3);
}

}  // namespace
}  // namespace lorax::cuda
