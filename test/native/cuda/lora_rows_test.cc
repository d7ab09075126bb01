// Any number of rows: y += B (weight * scale * A x) by shrink and expand, of long and of short
// segments, and folded into silu_mul and add_rms_norm, against float64. Needs a device.
#include "cuda/lora_rows.h"

#include <gtest/gtest.h>

#include <limits>

#include "cuda/lora_row_lists.h"

namespace lorax::cuda_test {
namespace {

using cuda::LoraRowTile;

// What shrinks the segments of a list.
void shrink(const Lists& lists, const LoraRowSite& site, const LoraStep& step,
            const Device<uint16_t>& x, int32_t k) {
  const auto kernel = lists.lists.tile_rows == LoraRowTile::kShortRows ? cuda::lora_shrink_short
                                                                       : cuda::lora_shrink_rows;
  kernel(lists.lists, site, step.arrays(), bf16(x), step.num_rows(), k, nullptr);
}

// y += delta: what was added, against the reference; rows of no segment keep their bits. Segments
// of fewer than `long_from` rows are short.
void check_expand(LoraStep& step, const LoraRowSite& site, int32_t long_from) {
  const int32_t k = step.shapes()[site.modules[0]].d_in;
  const int32_t n = width_of(site);
  const int32_t rows = step.num_rows();
  const std::vector<uint16_t> x = step.random_bf16(int64_t{rows} * k, 1.0f);
  const std::vector<uint16_t> y = step.random_bf16(int64_t{rows} * n, 1.0f);
  const Device<uint16_t> device_x(x);
  const Device<uint16_t> device_y(y);
  const Lists all_long(step, LoraRowTile::kRows, long_from);
  Lists all_short(step, LoraRowTile::kShortRows, 1, long_from);
  // As the backend has them.
  all_short.lists.v_begin = all_long.lists.v_begin;
  all_short.lists.slices = all_long.lists.slices;
  all_short.lists.v = all_long.lists.v;
  shrink(all_long, site, step, device_x, k);
  shrink(all_short, site, step, device_x, k);
  cuda::lora_expand(all_short.lists, site, mutable_bf16(device_y), rows, n, nullptr);
  cuda::lora_expand(all_long.lists, site, mutable_bf16(device_y), rows, n, nullptr);
  LORAX_CUDA(cudaDeviceSynchronize());
  const std::vector<uint16_t> got = device_y.read();

  std::vector<double> ref = to_doubles(y);
  step.add_reference(site, x, n, ref);
  EXPECT_LE(relative_error(to_doubles(got), ref), 4e-3);
  // The sum's rounding aside, the delta itself: y's own share would hide a wrong one.
  std::vector<double> added = to_doubles(got);
  for (size_t i = 0; i < added.size(); ++i) {
    added[i] -= to_float(y[i]);
    ref[i] -= to_float(y[i]);
  }
  bool any = false;
  for (const double value : ref) any = any || value != 0;
  if (any) {
    EXPECT_LE(relative_error(added, ref), 1e-2);
  }
  std::vector<bool> adapted(static_cast<size_t>(rows));
  for (const TestSegment& s : step.segments()) {
    for (const int32_t row : s.rows) adapted[row] = adapted[row] || s.adapter >= 0;
  }
  for (int32_t row = 0; row < rows; ++row) {
    if (adapted[row]) continue;
    for (int32_t c = 0; c < n; ++c) ASSERT_EQ(got[int64_t{row} * n + c], y[int64_t{row} * n + c]);
  }
}

void check_silu(LoraStep& step, const LoraRowSite& site) {
  const int32_t k = step.shapes()[site.modules[0]].d_in;
  const int32_t n = width_of(site);
  const int32_t inner = n / 2;
  const int32_t rows = step.num_rows();
  const std::vector<uint16_t> x = step.random_bf16(int64_t{rows} * k, 1.0f);
  const std::vector<uint16_t> y = step.random_bf16(int64_t{rows} * n, 1.0f);
  const Device<uint16_t> device_x(x);
  const Device<uint16_t> device_y(y);
  const Device<uint16_t> out(static_cast<size_t>(int64_t{rows} * inner));
  const Lists lists(step);
  shrink(lists, site, step, device_x, k);
  cuda::lora_silu_mul(lists.lists, bf16(device_y), mutable_bf16(out), rows, inner, nullptr);
  LORAX_CUDA(cudaDeviceSynchronize());
  std::vector<double> sum = to_doubles(y);
  step.add_reference(site, x, n, sum);
  std::vector<double> ref;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t c = 0; c < inner; ++c) {
      const double gate = sum[row * n + c];
      ref.push_back(gate / (1 + std::exp(-gate)) * sum[row * n + inner + c]);
    }
  }
  EXPECT_LE(relative_error(to_doubles(out.read()), ref), 5e-3);
}

void check_norm(LoraStep& step, const LoraRowSite& site) {
  const int32_t k = step.shapes()[site.modules[0]].d_in;
  const int32_t hidden = width_of(site);
  const int32_t rows = step.num_rows();
  const std::vector<uint16_t> x = step.random_bf16(int64_t{rows} * k, 1.0f);
  const std::vector<uint16_t> delta = step.random_bf16(int64_t{rows} * hidden, 1.0f);
  std::normal_distribution<float> normal;
  std::vector<float> residual(static_cast<size_t>(int64_t{rows} * hidden)), gain(hidden);
  for (float& value : residual) value = normal(step.random());
  for (float& value : gain) value = normal(step.random());
  const Device<uint16_t> device_x(x), device_delta(delta);
  const Device<float> device_residual(residual), device_gain(gain);
  const Device<uint16_t> y(residual.size());
  const Lists lists(step);
  shrink(lists, site, step, device_x, k);
  cuda::lora_add_rms_norm(lists.lists,
                          {device_residual.data(), bf16(device_delta), device_gain.data(),
                           mutable_bf16(y), 1e-5f, rows, hidden},
                          nullptr);
  LORAX_CUDA(cudaDeviceSynchronize());
  std::vector<double> sum = to_doubles(delta);
  step.add_reference(site, x, hidden, sum);
  std::vector<double> ref;
  for (int64_t row = 0; row < rows; ++row) {
    double squares = 0;
    for (int64_t c = 0; c < hidden; ++c) {
      double& value = sum[row * hidden + c];
      value += residual[row * hidden + c];
      squares += value * value;
    }
    for (int64_t c = 0; c < hidden; ++c) {
      ref.push_back(sum[row * hidden + c] / std::sqrt(squares / hidden + 1e-5) * gain[c]);
    }
  }
  const std::vector<float> new_residual = device_residual.read();
  EXPECT_LE(relative_error({new_residual.begin(), new_residual.end()}, sum), 3e-3);
  EXPECT_LE(relative_error(to_doubles(y.read()), ref), 4e-3);
}

constexpr int32_t kAllLong = 1, kAllShort = std::numeric_limits<int32_t>::max();

void check_all(LoraStep& step, int32_t layer = 0) {
  for (const int32_t long_from : {kAllLong, 5, kAllShort}) {
    check_expand(step, site_of(step, layer, {0, 1, 2}), long_from);
    check_expand(step, site_of(step, layer, {6}), long_from);
  }
  check_silu(step, site_of(step, layer, {4, 5}));
  check_norm(step, site_of(step, layer, {3}));
  check_norm(step, site_of(step, layer, {6}));
}

using LoraRowsTest = ::testing::Test;

TEST_F(LoraRowsTest, PopularityPatterns) {
  LoraStep step(module_shapes(256, 64, 512), 1);
  for (int i = 0; i < 64; ++i) step.add_adapter(std::vector(1, std::vector<int32_t>(7, 16)));
  for (const Pattern pattern : {Pattern::kDistinct, Pattern::kZipf, Pattern::kUniform,
                                Pattern::kSkewed, Pattern::kIdentical}) {
    for (const int32_t rows : {1, 33, 200, 256}) {
      step.set_segments(segments_of(draw_adapters(pattern, rows, 64, step.random())), rows);
      check_all(step);
    }
  }
}

// Prompts of several adapters behind decodes, some rows on the base.
TEST_F(LoraRowsTest, PrefillBesideDecodes) {
  LoraStep step(module_shapes(512, 128, 1024), 2);
  for (int i = 0; i < 6; ++i) step.add_adapter(std::vector(1, std::vector<int32_t>(7, 8 << i % 4)));
  std::vector<int32_t> adapters;
  for (int32_t i = 0; i < 37; ++i) adapters.push_back(i % 7 - 1);
  for (int32_t i = 0; i < 700; ++i) adapters.push_back(2);
  for (int32_t i = 0; i < 150; ++i) adapters.push_back(-1);
  for (int32_t i = 0; i < 250; ++i) adapters.push_back(5);
  step.set_segments(segments_of(adapters), static_cast<int32_t>(adapters.size()));
  check_all(step);
}

TEST_F(LoraRowsTest, MixedRanksAndMissingModules) {
  LoraStep step(module_shapes(320, 96, 832), 3);
  add_mixed_adapters(step, 24);
  std::vector<int32_t> adapters = draw_adapters(Pattern::kUniform, 300, 24, step.random());
  for (size_t row = 0; row < adapters.size(); row += 3) adapters[row] = -1;
  step.set_segments(segments_of(adapters), 300);
  for (int32_t layer = 0; layer < 3; ++layer) check_all(step, layer);
}

TEST_F(LoraRowsTest, RowsInSeveralSegments) {
  LoraStep step(module_shapes(256, 64, 512), 4);
  for (int i = 0; i < 5; ++i) step.add_adapter(std::vector(1, std::vector<int32_t>(7, 4 + 9 * i)));
  step.set_segments(overlapping_segments(400), 400);
  check_all(step);
}

TEST_F(LoraRowsTest, NoSegments) {
  LoraStep step(module_shapes(256, 64, 512), 5);
  step.set_segments({}, 40);
  check_all(step);
}

TEST_F(LoraRowsTest, OddWidths) {
  LoraStep step(module_shapes(100, 36, 77), 6);
  step.add_adapter(std::vector(1, std::vector<int32_t>(7, 5)));
  step.add_adapter(std::vector(1, std::vector<int32_t>(7, 40)));
  step.set_segments(segments_of(draw_adapters(Pattern::kUniform, 150, 2, step.random())), 150);
  check_all(step);
}

TEST_F(LoraRowsTest, WideRows) {
  LoraStep step(module_shapes(5120, 256, 512), 7);
  step.add_adapter(std::vector(1, std::vector<int32_t>(7, 16)));
  step.set_segments(segments_of(draw_adapters(Pattern::kIdentical, 40, 1, step.random())), 40);
  check_norm(step, site_of(step, 0, {6}));
}

// More rows than blocks: a block of the norm goes on to further rows, one of silu to further tiles.
TEST_F(LoraRowsTest, ManyRows) {
  LoraStep step(module_shapes(1096, 64, 96), 10);
  for (int i = 0; i < 5; ++i) step.add_adapter(std::vector(1, std::vector<int32_t>(7, 16)));
  step.add_adapter(std::vector(1, std::vector<int32_t>(7, 24)));
  std::vector<int32_t> adapters;
  for (int32_t row = 0; row < 5003; ++row) adapters.push_back(row / 411 % 7 - 1);
  for (int32_t row = 2000; row < 2100; ++row) adapters[row] = row % 5;
  step.set_segments(segments_of(adapters), static_cast<int32_t>(adapters.size()));
  check_norm(step, site_of(step, 0, {6}));
  check_silu(step, site_of(step, 0, {4, 5}));
  check_expand(step, site_of(step, 0, {0, 1, 2}), 101);
}

// Rows in more segments than the norm looks up ahead.
TEST_F(LoraRowsTest, RowsInManySegments) {
  LoraStep step(module_shapes(512, 64, 96), 11);
  for (int i = 0; i < 40; ++i)
    step.add_adapter(std::vector(1, std::vector<int32_t>(7, 1 + i % 20)));
  std::vector<TestSegment> segments(40);
  for (int32_t s = 0; s < 40; ++s) {
    segments[s].adapter = s;
    for (int32_t row = s % 3; row < 50; row += 1 + s % 2) {
      segments[s].rows.push_back(row);
      segments[s].weights.push_back(0.1f * static_cast<float>(s % 9 - 4));
    }
  }
  step.set_segments(segments, 60);
  check_all(step);
}

TEST_F(LoraRowsTest, LlamaShapes) {
  LoraStep step(module_shapes(4096, 1024, 14336), 8);
  for (int i = 0; i < 2; ++i) step.add_adapter(std::vector(1, std::vector<int32_t>(7, 16)));
  std::vector<int32_t> adapters(150, 0);
  std::fill(adapters.begin() + 100, adapters.end(), 1);
  step.set_segments(segments_of(adapters), 150);
  check_all(step);
}

// The order in which pairs were placed must not show.
TEST_F(LoraRowsTest, TwoRunsGiveTheSameBits) {
  LoraStep step(module_shapes(512, 128, 512), 9);
  for (int i = 0; i < 16; ++i) step.add_adapter(std::vector(1, std::vector<int32_t>(7, 16)));
  std::vector<TestSegment> segments(16);
  for (int32_t s = 0; s < 16; ++s) {
    segments[s].adapter = s;
    for (int32_t row = s % 3; row < 1000; row += 1 + s % 4) {
      segments[s].rows.push_back(row);
      segments[s].weights.push_back(0.3f);
    }
  }
  step.set_segments(segments, 1000);
  const LoraRowSite site = site_of(step, 0, {0, 1, 2});
  const int32_t n = width_of(site);
  const Device<uint16_t> x(step.random_bf16(1000 * 512, 1.0f));
  const std::vector<uint16_t> y = step.random_bf16(int64_t{1000} * n, 1.0f);
  std::vector<uint16_t> first;
  for (const int32_t tile_rows : {LoraRowTile::kRows, LoraRowTile::kShortRows}) {
    for (int run = 0; run < 5; ++run) {
      const Device<uint16_t> device_y(y);
      const Lists lists(step, tile_rows);
      shrink(lists, site, step, x, 512);
      cuda::lora_expand(lists.lists, site, mutable_bf16(device_y), 1000, n, nullptr);
      LORAX_CUDA(cudaDeviceSynchronize());
      if (run == 0) first = device_y.read();
      EXPECT_EQ(first, device_y.read());
    }
  }
}

}  // namespace
}  // namespace lorax::cuda_test
