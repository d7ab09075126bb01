// rope_and_store_kv with the expand of q, k and v in passing, against float64: the sums, where they
// go, and that nothing else is touched. Needs a device.
#include "cuda/lora_rope.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "cuda/lora_row_lists.h"
#include "cuda/rope_reference.h"

namespace lorax::cuda_test {
namespace {

constexpr int32_t kHidden = 192;
constexpr int32_t kLayer = 1;
constexpr int32_t kNumLayers = 2;
constexpr float kEps = 1e-5f;
constexpr uint16_t kPoison = 0xffff;

struct Shape {
  int32_t num_heads;
  int32_t num_kv_heads;
  int32_t head_dim;
  bool norm;
  float magnitude = 1.0f;
};

// The sequences of a step: from `first_position` on, pages in any order.
struct Paged {
  Paged(const std::vector<std::pair<int32_t, int32_t>>& chunks, std::mt19937& random) {
    std::vector<int32_t> order;
    for (const auto& [first_position, rows] : chunks) {
      const int32_t first_block = first_position / 16;
      const int32_t blocks = (first_position + rows + 15) / 16;
      cuda::DeviceSpan span;
      span.first_row = static_cast<int32_t>(positions.size());
      span.num_rows = rows;
      span.first_position = first_position;
      span.block_table_begin = static_cast<int32_t>(tables.size());
      span.num_stored = first_position;
      for (int32_t i = 0; i < rows; ++i) {
        positions.push_back(first_position + i);
        row_span.push_back(static_cast<int32_t>(spans.size()));
      }
      spans.push_back(span);
      for (int32_t b = 0; b < blocks; ++b) {
        tables.push_back(b < first_block ? 0 : ++num_pages);  // page 0 is nobody's
      }
    }
    ++num_pages;
    for (int32_t page = 1; page < num_pages; ++page) order.push_back(page);
    std::shuffle(order.begin(), order.end(), random);
    for (int32_t& page : tables) {
      if (page > 0) page = order[page - 1];
    }
  }
  std::vector<cuda::DeviceSpan> spans;
  std::vector<int32_t> positions, row_span, tables;
  int32_t num_pages = 0;
};

std::vector<double> rotated(const double* head, int32_t position,
                            const std::vector<float>& inv_freq, float magnitude,
                            const std::vector<float>* gain) {
  return cuda::rotated({head, head + 2 * inv_freq.size()}, position, inv_freq, magnitude, gain,
                       kEps);
}

void check_rope(LoraStep& step, const Shape& shape, const Paged& paged, int32_t padding) {
  const int32_t dim = shape.head_dim;
  const auto rows = static_cast<int32_t>(paged.positions.size());
  const LoraRowSite site = site_of(step, 0, {0, 1, 2});
  const int32_t cols = width_of(site);
  const std::vector<uint16_t> x = step.random_bf16(int64_t{rows + padding} * kHidden, 1.0f);
  const std::vector<uint16_t> qkv = step.random_bf16(int64_t{rows + padding} * cols, 1.0f);
  std::vector<float> inv_freq(static_cast<size_t>(dim / 2)), q_gain(dim), k_gain(dim);
  for (size_t i = 0; i < inv_freq.size(); ++i) {
    inv_freq[i] = std::pow(500000.0f, -2.0f * static_cast<float>(i) / static_cast<float>(dim));
  }
  std::uniform_real_distribution<float> gains(0.5f, 1.5f);
  for (float& gain : q_gain) gain = gains(step.random());
  for (float& gain : k_gain) gain = gains(step.random());
  const int64_t page_elements = int64_t{kNumLayers} * 2 * shape.num_kv_heads * 16 * dim;

  const Device<uint16_t> device_x(x), device_qkv(qkv);
  const Device<uint16_t> pool(static_cast<size_t>(paged.num_pages * page_elements));
  const Device<float> device_inv_freq(inv_freq), device_q_gain(q_gain), device_k_gain(k_gain);
  const Device<cuda::StepCounts> counts(
      std::vector<cuda::StepCounts>{{rows, static_cast<int32_t>(paged.spans.size()), 0,
                                     static_cast<int32_t>(step.segments().size())}});
  const Device<int32_t> positions(paged.positions), row_span(paged.row_span), tables(paged.tables);
  const Device<cuda::DeviceSpan> spans(paged.spans);
  cuda::StepArrays arrays = step.arrays();
  arrays.counts = counts.data();
  arrays.positions = positions.data();
  arrays.row_span = row_span.data();
  arrays.spans = spans.data();
  arrays.block_tables = tables.data();
  cuda::RopeKv args;
  args.qkv = mutable_bf16(device_qkv);
  args.rows = rows + padding;
  args.num_heads = shape.num_heads;
  args.pages = {reinterpret_cast<uint8_t*>(pool.data()), page_elements * 2, kLayer,
                shape.num_kv_heads, dim};
  args.inv_freq = device_inv_freq.data();
  args.magnitude = shape.magnitude;
  args.q_gain = shape.norm ? device_q_gain.data() : nullptr;
  args.k_gain = shape.norm ? device_k_gain.data() : nullptr;
  args.eps = kEps;
  const Lists lists(step);  // of rows + padding rows
  cuda::lora_shrink_rows(lists.lists, site, arrays, bf16(device_x), args.rows, kHidden, nullptr);
  cuda::lora_rope_and_store_kv(lists.lists, args, arrays, nullptr);
  LORAX_CUDA(cudaDeviceSynchronize());
  const std::vector<uint16_t> out = device_qkv.read();
  std::vector<uint16_t> stored = pool.read();

  std::vector<double> sum = to_doubles(qkv);
  step.add_reference(site, x, cols, sum);
  std::vector<bool> adapted(static_cast<size_t>(rows));
  for (const TestSegment& s : step.segments()) {
    for (const int32_t row : s.rows) adapted[row] = adapted[row] || s.adapter >= 0;
  }
  std::vector<double> got[3], expected[3];  // q, k, v
  const auto compare = [&](int part, const uint16_t* head, const std::vector<double>& ref) {
    for (int32_t i = 0; i < dim; ++i) got[part].push_back(to_float(head[i]));
    expected[part].insert(expected[part].end(), ref.begin(), ref.end());
  };
  for (int32_t row = 0; row < rows; ++row) {
    const int64_t begin = int64_t{row} * cols;
    const int32_t position = paged.positions[row];
    for (int32_t h = 0; h < shape.num_heads; ++h) {
      compare(0, &out[begin + h * dim],
              rotated(&sum[begin + h * dim], position, inv_freq, shape.magnitude,
                      shape.norm ? &q_gain : nullptr));
    }
    const cuda::DeviceSpan& span = paged.spans[paged.row_span[row]];
    const int64_t page = paged.tables[span.block_table_begin + position / 16] * page_elements;
    for (int32_t h = 0; h < shape.num_kv_heads; ++h) {
      // [layer][k|v][kv_head][16 tokens][head_dim]
      const int64_t k_head = int64_t{kLayer} * 2 * shape.num_kv_heads + h;
      const int64_t v_head = k_head + shape.num_kv_heads;
      uint16_t* k = &stored[page + (k_head * 16 + position % 16) * dim];
      uint16_t* v = &stored[page + (v_head * 16 + position % 16) * dim];
      const int64_t k_in = begin + (shape.num_heads + h) * dim;
      const int64_t v_in = k_in + shape.num_kv_heads * dim;
      compare(
          1, k,
          rotated(&sum[k_in], position, inv_freq, shape.magnitude, shape.norm ? &k_gain : nullptr));
      compare(2, v, {sum.begin() + v_in, sum.begin() + v_in + dim});
      if (!adapted[row]) {
        for (int32_t i = 0; i < dim; ++i) ASSERT_EQ(v[i], qkv[v_in + i]);
      }
      std::fill_n(k, dim, kPoison);  // taken out, so that what is left must be untouched
      std::fill_n(v, dim, kPoison);
    }
  }
  for (int part = 0; part < 3; ++part) {
    EXPECT_LE(relative_error(got[part], expected[part]), 5e-3) << "part " << part;
  }
  for (const uint16_t value : stored) ASSERT_EQ(value, kPoison);
  for (size_t i = static_cast<size_t>(int64_t{rows} * cols); i < out.size(); ++i) {
    ASSERT_EQ(out[i], qkv[i]);
  }
}

class LoraRopeOfShape : public ::testing::TestWithParam<Shape> {
 protected:
  void SetUp() override {
    const int32_t head_dim = GetParam().head_dim;
    const bool takes = cuda::lora_rope_takes(head_dim);
    if (head_dim > 64 && !takes) GTEST_SKIP() << "not on this device";
    ASSERT_TRUE(takes);
  }
  LoraStep make_step(uint32_t seed) const {
    const Shape& shape = GetParam();
    return LoraStep({{kHidden, shape.num_heads * shape.head_dim},
                     {kHidden, shape.num_kv_heads * shape.head_dim},
                     {kHidden, shape.num_kv_heads * shape.head_dim}},
                    seed);
  }
};

// Prompts and decodes; some rows on the base, some parts not adapted.
TEST_P(LoraRopeOfShape, AddsQKAndV) {
  LoraStep step = make_step(1);
  step.add_adapter({{16, 16, 16}});
  step.add_adapter({{8, 0, 40}});
  step.add_adapter({{0, 16, 0}});
  const Paged paged({{0, 1}, {131071, 1}, {7, 40}, {15, 1}, {131000, 60}, {100, 150}, {16, 1}},
                    step.random());
  const auto rows = static_cast<int32_t>(paged.positions.size());
  std::vector<int32_t> adapters;
  for (int32_t row = 0; row < rows; ++row)
    adapters.push_back(row < 45 ? row % 4 - 1 : row / 50 - 2);
  for (int32_t& adapter : adapters) adapter = std::min(adapter, 2);
  for (const int32_t padding : {0, 21}) {
    step.set_segments(segments_of(adapters), rows + padding);
    check_rope(step, GetParam(), paged, padding);
  }
}

TEST_P(LoraRopeOfShape, RowsInSeveralSegments) {
  LoraStep step = make_step(2);
  for (int32_t i = 0; i < 5; ++i) step.add_adapter({{4 + 9 * i, 16, 1 + i}});
  const Paged paged({{3, 90}}, step.random());
  step.set_segments(overlapping_segments(90), 90);
  check_rope(step, GetParam(), paged, 0);
  step.set_segments({}, 90);
  check_rope(step, GetParam(), paged, 0);
}

// More than are looked up for all heads at once.
TEST_P(LoraRopeOfShape, RowsInManySegments) {
  LoraStep step = make_step(3);
  std::vector<TestSegment> segments(21);
  for (int32_t s = 0; s < 21; ++s) {
    step.add_adapter({{1 + s, s % 4 * 8, 16}});
    segments[s].adapter = s;
    for (int32_t row = s % 2; row < 20; row += 1 + s % 3) {
      segments[s].rows.push_back(row);
      segments[s].weights.push_back(0.3f);
    }
  }
  const Paged paged({{0, 20}}, step.random());
  step.set_segments(segments, 20);
  check_rope(step, GetParam(), paged, 0);
}

INSTANTIATE_TEST_SUITE_P(Shapes, LoraRopeOfShape,
                         ::testing::Values(Shape{4, 2, 16, false}, Shape{2, 1, 32, true},
                                           Shape{9, 3, 64, false}, Shape{4, 4, 80, true},
                                           Shape{4, 2, 96, false, 1.3f}, Shape{32, 8, 128, false},
                                           Shape{16, 8, 128, true}, Shape{8, 4, 256, true, 0.8f}),
                         [](const auto& info) {
                           return "Heads" + std::to_string(info.param.num_heads) + "Dim" +
                                  std::to_string(info.param.head_dim) +
                                  (info.param.norm ? "Norm" : "");
                         });

TEST(LoraRope, LeavesOddHalvesToOthers) {
  EXPECT_FALSE(cuda::lora_rope_takes(24));
  EXPECT_FALSE(cuda::lora_rope_takes(272));
}

}  // namespace
}  // namespace lorax::cuda_test
