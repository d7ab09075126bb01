// Few rows with adapters: the work lists of every site, and y = x W^T + B v of the streaming GEMM,
// against float64. Needs a Hopper device.
#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "cuda/lora_step.h"
#include "cuda/stream_gemm.h"

namespace lorax::cuda_test {
namespace {

using cuda::LoraSiteItems;
using cuda::LoraSiteModules;

constexpr int32_t kMaxRows = cuda::LoraItemsCapacity::kMaxStepRows;

// The lists of all sites of a model, on the device.
struct Lists {
  explicit Lists(std::vector<LoraSiteModules> of)
      : sites(std::move(of)),
        device_sites(sites),
        parts_before(before(sites)),
        items(sites.size()),
        units(static_cast<size_t>(num_parts() * cuda::LoraItemsCapacity::kUnits)),
        sets(static_cast<size_t>(num_parts() * cuda::LoraItemsCapacity::kSets)),
        chunks(static_cast<size_t>(num_parts() * cuda::LoraItemsCapacity::kChunks)),
        rows(static_cast<size_t>(num_parts() * cuda::LoraItemsCapacity::kRows)) {
    lists.num_sites = static_cast<int32_t>(sites.size());
    lists.sites = device_sites.data();
    lists.parts_before = parts_before.data();
    lists.items = items.data();
    lists.units = units.data();
    lists.sets = sets.data();
    lists.chunks = chunks.data();
    lists.rows = rows.data();
  }
  static std::vector<int32_t> before(const std::vector<LoraSiteModules>& sites) {
    std::vector<int32_t> out;
    int32_t sum = 0;
    for (const LoraSiteModules& site : sites) {
      out.push_back(sum);
      sum += site.num_parts;
    }
    return out;
  }
  int64_t num_parts() const {
    int64_t out = 0;
    for (const LoraSiteModules& site : sites) out += site.num_parts;
    return out;
  }

  std::vector<LoraSiteModules> sites;
  Device<LoraSiteModules> device_sites;
  Device<int32_t> parts_before;
  Device<LoraSiteItems> items;
  Device<cuda::LoraUnit> units;
  Device<cuda::LoraSet> sets;
  Device<cuda::LoraChunk> chunks;
  Device<cuda::LoraRow> rows;
  cuda::LoraItemLists lists;
};

std::vector<LoraSiteModules> sites_of(int32_t layers) {
  std::vector<LoraSiteModules> out;
  for (int32_t layer = 0; layer < layers; ++layer) {
    out.push_back({layer, 3, {0, 1, 2}});
    out.push_back({layer, 1, {3}});
    out.push_back({layer, 2, {4, 5}});
    out.push_back({layer, 1, {6}});
  }
  return out;
}

// y, in `split` parts of k or, with 0, silu(gate) * up in bf16, against the sum of W's products, in
// float32, and the adapters', in float64.
void compare_y(const LoraStep& step, const cuda::LoraRowSite& site, const std::vector<uint16_t>& x,
               const std::vector<uint16_t>& w, int32_t n, int32_t k, int32_t split,
               const std::vector<float>& got, size_t number) {
  const int32_t rows = step.num_rows();
  std::vector<double> ref(static_cast<size_t>(rows) * n, 0.0);
  std::vector<float> w_float(w.size());
  for (size_t i = 0; i < w.size(); ++i) w_float[i] = to_float(w[i]);
  std::vector<float> row(static_cast<size_t>(k));
  for (int32_t r = 0; r < rows; ++r) {
    for (int32_t j = 0; j < k; ++j) row[j] = to_float(x[int64_t{r} * k + j]);
    for (int32_t c = 0; c < n; ++c) {
      float sum[4] = {};
      const float* column = w_float.data() + int64_t{c} * k;
      for (int32_t j = 0; j < k; ++j) sum[j % 4] += row[j] * column[j];
      ref[int64_t{r} * n + c] = sum[0] + sum[1] + sum[2] + sum[3];
    }
  }
  step.add_reference(site, x, n, ref);
  if (split == 0) {
    const int32_t inner = n / 2;
    std::vector<uint16_t> bits(static_cast<size_t>(rows) * inner);
    std::memcpy(bits.data(), got.data(), bits.size() * 2);
    std::vector<double> out, gated;
    for (int32_t r = 0; r < rows; ++r) {
      for (int32_t c = 0; c < inner; ++c) {
        const double gate = ref[int64_t{r} * n + c];
        gated.push_back(gate / (1 + std::exp(-gate)) * ref[int64_t{r} * n + inner + c]);
        out.push_back(to_float(bits[int64_t{r} * inner + c]));
      }
    }
    EXPECT_LE(relative_error(out, gated), 8e-3) << "site " << number << " gated";
    return;
  }
  std::vector<double> out(ref.size(), 0.0);
  for (int32_t part = 0; part < split; ++part) {
    for (size_t i = 0; i < out.size(); ++i) {
      out[i] += got[static_cast<size_t>(part) * out.size() + i];
    }
  }
  EXPECT_LE(relative_error(out, ref), 5e-3) << "site " << number << " split " << split;
}

cuda::StreamGemmLora lora_of(const Lists& lists, size_t site, const std::vector<int32_t>& columns,
                             uint4* pieces, const cuda::StepCounts* counts) {
  const std::vector<int32_t> before = Lists::before(lists.sites);
  cuda::StreamGemmLora lora;
  lora.lists = lists.lists.of_site(static_cast<int32_t>(site), before[site]);
  lora.pieces = pieces;
  lora.counts = counts;
  lora.site_index = static_cast<int32_t>(site);
  lora.num_parts = lists.sites[site].num_parts;
  int32_t column = 0;
  for (int32_t part = 0; part < lora.num_parts; ++part) {
    lora.column[part] = column;
    lora.columns[part] = columns[part];
    column += columns[part];
  }
  return lora;
}

// The lists of one site, on the host.
struct SiteLists {
  explicit SiteLists(const Lists& lists, size_t site) {
    const cuda::LoraSiteLists of =
        lists.lists.of_site(static_cast<int32_t>(site), Lists::before(lists.sites)[site]);
    const int64_t parts = lists.sites[site].num_parts;
    items = read(of.items, 1)[0];
    units = read(of.units, parts * cuda::LoraItemsCapacity::kUnits);
    sets = read(of.sets, parts * cuda::LoraItemsCapacity::kSets);
    chunks = read(of.chunks, parts * cuda::LoraItemsCapacity::kChunks);
    rows = read(of.rows, parts * cuda::LoraItemsCapacity::kRows);
  }
  template <typename T>
  static std::vector<T> read(const T* from, int64_t count) {
    std::vector<T> out(static_cast<size_t>(count));
    LORAX_CUDA(cudaMemcpy(out.data(), from, out.size() * sizeof(T), cudaMemcpyDeviceToHost));
    return out;
  }
  LoraSiteItems items;
  std::vector<cuda::LoraUnit> units;
  std::vector<cuda::LoraSet> sets;
  std::vector<cuda::LoraChunk> chunks;
  std::vector<cuda::LoraRow> rows;
};

// One (row of x, factor) of one rank group of a part, as the lists have it.
using Term = std::pair<int32_t, float>;

// A part's sets, chunks, rows and units say the same, in the order that is asked of them; returns
// the terms they stand for, sorted.
std::vector<Term> terms_of(const SiteLists& lists, int32_t part) {
  std::vector<Term> terms;
  int32_t last_first_row = 0;
  for (int32_t s = lists.items.set_begin[part]; s < lists.items.set_begin[part + 1]; ++s) {
    const cuda::LoraSet& set = lists.sets[s];
    EXPECT_GE(set.num_chunks, 1);
    EXPECT_LE(set.num_chunks, cuda::LoraSet::kMaxChunks);
    std::vector<int> rows_of_chunk(static_cast<size_t>(set.num_chunks));
    for (int32_t r = 0; r < set.num_rows; ++r) {
      const cuda::LoraRow& row = lists.rows[set.first_row + r];
      const int32_t chunk = row.at / cuda::LoraChunk::kRows;
      EXPECT_LT(chunk, set.num_chunks);
      const int32_t x_row =
          lists.chunks[set.first_chunk + chunk].first_row + row.at % cuda::LoraChunk::kRows;
      EXPECT_LT(row.unit_row / cuda::LoraUnit::kMaxRows, lists.items.num_units);
      const cuda::LoraUnit& unit = lists.units[row.unit_row / cuda::LoraUnit::kMaxRows];
      EXPECT_EQ(unit.rows[row.unit_row % cuda::LoraUnit::kMaxRows], x_row);
      ++rows_of_chunk[chunk];
      terms.emplace_back(x_row, row.factor);
    }
    for (int32_t c = 0; c < set.num_chunks; ++c) {
      const int32_t first_row = lists.chunks[set.first_chunk + c].first_row;
      EXPECT_EQ(first_row % cuda::LoraChunk::kRows, 0);
      EXPECT_GE(first_row, last_first_row);
      EXPECT_GE(rows_of_chunk[c], 1);
      last_first_row = first_row;
    }
  }
  std::sort(terms.begin(), terms.end());
  return terms;
}

void compare_lists(const LoraStep& step, const LoraSiteModules& modules, const SiteLists& lists) {
  int32_t units = 0;
  for (int32_t part = 0; part < modules.num_parts; ++part) {
    std::vector<Term> terms;
    for (const TestSegment& s : step.segments()) {
      const TestModule* m =
          s.adapter < 0 || s.rows.empty()
              ? nullptr
              : step.adapters()[s.adapter].find(modules.layer, modules.modules[part]);
      for (int32_t group = 0; m != nullptr && group < (m->rank + 15) / 16; ++group) {
        units += (static_cast<int32_t>(s.rows.size()) + 7) / 8;
        for (size_t i = 0; i < s.rows.size(); ++i) {
          terms.emplace_back(s.rows[i], s.weights[i] * m->scale);
        }
      }
    }
    std::sort(terms.begin(), terms.end());
    EXPECT_EQ(terms_of(lists, part), terms) << "layer " << modules.layer << " part " << part;
  }
  EXPECT_EQ(lists.items.num_units, units);
  for (int32_t part = modules.num_parts; part < LoraSiteItems::kMaxParts; ++part) {
    EXPECT_EQ(lists.items.set_begin[part + 1], lists.items.set_begin[modules.num_parts]);
  }
}

// Runs every site of the step and compares lists and y; then again, `runs` times in all.
void check(LoraStep& step, int32_t layers, int32_t runs = 1, bool early = false) {
  Lists lists(sites_of(layers));
  ASSERT_TRUE(cuda::LoraItemsCapacity::fits(step.load()));
  cuda::make_lora_items(lists.lists, step.arrays(), nullptr);
  LORAX_CUDA(cudaDeviceSynchronize());
  const Device<uint4> pieces(static_cast<size_t>(cuda::LoraItemsCapacity::pieces_bytes() / 16));
  std::vector<cuda::StepCounts> counts(1);

  for (size_t site = 0; site < lists.sites.size(); ++site) {
    const LoraSiteModules& modules = lists.sites[site];
    const int32_t k = step.shapes()[modules.modules[0]].d_in;
    std::vector<int32_t> columns;
    cuda::LoraRowSite row_site;
    row_site.layer = modules.layer;
    row_site.num_parts = modules.num_parts;
    int32_t n = 0;
    for (int32_t part = 0; part < modules.num_parts; ++part) {
      columns.push_back(step.shapes()[modules.modules[part]].d_out);
      row_site.modules[part] = modules.modules[part];
      row_site.column[part] = n;
      row_site.columns[part] = columns.back();
      n += columns.back();
    }
    const int32_t rows = step.num_rows();
    const std::vector<uint16_t> x = step.random_bf16(int64_t{rows} * k, 1.0f);
    const std::vector<uint16_t> w =
        step.random_bf16(int64_t{n} * k, 0.2f / std::sqrt(static_cast<float>(k)));
    const Device<uint16_t> device_x(x);
    const Device<uint16_t> device_w(w);
    const cuda::StreamGemm gemm(device_w.data(), n, k);
    // Parts of k and shared x in every combination, over the sites.
    const bool gated = modules.num_parts == 2;
    int32_t split = gated ? 1 : 1 << (site + rows) % 3;
    while ((k + 63) / 64 < split) split /= 2;
    cuda::StreamGemmConfig config = cuda::stream_gemm_config(split, rows, true, gated);
    if (site % 2 == 1) config.lora_sets = 1;
    const int64_t stride = int64_t{rows} * n;
    const Device<float> y(static_cast<size_t>(split * stride));
    counts[0].mark = 1;
    Device<cuda::StepCounts> device_counts(counts);
    cuda::StreamGemmLora lora = lora_of(lists, site, columns, pieces.data(), device_counts.data());
    lora.early = early;
    cuda::StreamGemmArguments arguments;
    arguments.x = device_x.data();
    arguments.max_rows = arguments.rows = rows;
    arguments.y = y.data();
    arguments.float32_out = !gated;
    arguments.gated = gated;
    arguments.part_stride = stride;
    arguments.lora = &lora;
    gemm.launch(arguments, config, nullptr);
    LORAX_CUDA(cudaDeviceSynchronize());
    const std::vector<float> y_got = y.read();
    for (int32_t run = 2; run <= runs; ++run) {
      counts[0].mark = run;
      device_counts.assign(counts);
      gemm.launch(arguments, config, nullptr);
      LORAX_CUDA(cudaDeviceSynchronize());
      ASSERT_EQ(0, std::memcmp(y_got.data(), y.read().data(), y_got.size() * 4))
          << "run " << run << " differs";
    }
    compare_y(step, row_site, x, w, n, k, gated ? 0 : split, y_got, site);

    compare_lists(step, modules, SiteLists(lists, site));
  }
}

class StreamGemmLoraTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!cuda::stream_gemm_available(0)) GTEST_SKIP() << "not a Hopper device";
  }
};

TEST_F(StreamGemmLoraTest, PopularityPatterns) {
  LoraStep step(module_shapes(256, 64, 512), 1);
  for (int i = 0; i < 64; ++i) step.add_adapter(std::vector(1, std::vector<int32_t>(7, 16)));
  for (const Pattern pattern : {Pattern::kDistinct, Pattern::kZipf, Pattern::kUniform,
                                Pattern::kSkewed, Pattern::kIdentical}) {
    for (const int32_t rows : {1, 7, 32, 64, 128}) {
      step.set_segments(segments_of(draw_adapters(pattern, rows, 64, step.random())), rows);
      check(step, 1);
    }
  }
}

TEST_F(StreamGemmLoraTest, MixedRanksAndMissingModules) {
  LoraStep step(module_shapes(320, 96, 832), 2);
  add_mixed_adapters(step, 24);
  std::vector<int32_t> adapters = draw_adapters(Pattern::kUniform, 96, 24, step.random());
  for (size_t row = 0; row < adapters.size(); row += 3) adapters[row] = -1;  // base
  step.set_segments(segments_of(adapters), 96);
  check(step, 3, 2);
}

TEST_F(StreamGemmLoraTest, RowsInSeveralSegments) {
  LoraStep step(module_shapes(256, 64, 512), 3);
  for (int i = 0; i < 5; ++i) step.add_adapter(std::vector(1, std::vector<int32_t>(7, 4 + 9 * i)));
  step.set_segments(overlapping_segments(120), 120);
  check(step, 1);
}

TEST_F(StreamGemmLoraTest, NoSegments) {
  LoraStep step(module_shapes(64, 64, 64), 4);
  step.set_segments({}, 16);
  check(step, 2);
}

TEST_F(StreamGemmLoraTest, AsManyAdaptersAsRows) {
  LoraStep step(module_shapes(256, 64, 256), 5);
  for (int i = 0; i < kMaxRows; ++i) {
    step.add_adapter(std::vector(1, std::vector<int32_t>(7, i % 2 == 0 ? 16 : 64)));
  }
  step.set_segments(
      segments_of(draw_adapters(Pattern::kDistinct, kMaxRows, kMaxRows, step.random())), kMaxRows);
  check(step, 1, 100);
}

// What the lists have room for: one adapter's ranks for all rows, and no more.
TEST_F(StreamGemmLoraTest, LargeRanksOfAllRows) {
  LoraStep step(module_shapes(256, 64, 256), 10);
  step.add_adapter(std::vector(1, std::vector<int32_t>(7, 1024)));
  step.set_segments(segments_of(std::vector<int32_t>(kMaxRows, 0)), kMaxRows);
  check(step, 1);
  cuda::LoraLoad more = step.load();
  more.add(1, std::vector<int32_t>{5});
  EXPECT_FALSE(cuda::LoraItemsCapacity::fits(more));
}

TEST_F(StreamGemmLoraTest, OddWidths) {
  LoraStep step(module_shapes(112, 48, 72), 6);
  step.add_adapter(std::vector(1, std::vector<int32_t>(7, 5)));
  step.add_adapter(std::vector(1, std::vector<int32_t>(7, 40)));
  step.set_segments(segments_of(draw_adapters(Pattern::kUniform, 40, 2, step.random())), 40);
  check(step, 1);
}

TEST_F(StreamGemmLoraTest, LlamaShapes) {
  LoraStep step(module_shapes(4096, 1024, 14336), 7);
  for (int i = 0; i < 3; ++i) step.add_adapter(std::vector(1, std::vector<int32_t>(7, 16)));
  step.set_segments(segments_of(draw_adapters(Pattern::kUniform, 32, 3, step.random())), 32);
  check(step, 1, 2);
}

// Parts of k of at least 32 blocks, where the adapters' share is added before the last of them.
TEST_F(StreamGemmLoraTest, OnTheWayThroughK) {
  LoraStep step(module_shapes(2304, 128, 2112), 9);
  add_mixed_adapters(step, 12);
  for (const int32_t rows : {3, 30, 64, 70}) {
    step.set_segments(segments_of(draw_adapters(Pattern::kUniform, rows, 12, step.random())), rows);
    check(step, 1, 3, true);
  }
}

// The same row gives the same bits whatever is beside it.
TEST_F(StreamGemmLoraTest, NeighboursChangeNothing) {
  LoraStep step(module_shapes(576, 192, 1536), 8);
  for (int i = 0; i < 40; ++i) step.add_adapter(std::vector(1, std::vector<int32_t>(7, 16)));
  constexpr int32_t kN = 960;
  const Device<uint16_t> x(step.random_bf16(128 * 576, 1.0f));
  const Device<uint16_t> w(step.random_bf16(kN * 576, 0.05f));
  const cuda::StreamGemm gemm(w.data(), kN, 576);
  const auto row_5 = [&](const std::vector<TestSegment>& segments, int32_t rows) {
    step.set_segments(segments, rows);
    Lists lists(sites_of(1));
    cuda::make_lora_items(lists.lists, step.arrays(), nullptr);
    const Device<uint4> pieces(static_cast<size_t>(cuda::LoraItemsCapacity::pieces_bytes() / 16));
    std::vector<cuda::StepCounts> counts(1);
    counts[0].mark = cuda::StepCounts::kMaxMark;
    const Device<cuda::StepCounts> device_counts(counts);
    const Device<float> y(static_cast<size_t>(128 * kN));
    const cuda::StreamGemmLora lora =
        lora_of(lists, 0, {576, 192, 192}, pieces.data(), device_counts.data());
    cuda::StreamGemmArguments arguments;
    arguments.x = x.data();
    arguments.max_rows = 128;
    arguments.rows = rows;
    arguments.y = y.data();
    arguments.float32_out = true;
    arguments.lora = &lora;
    gemm.launch(arguments, cuda::stream_gemm_config(1, rows, true, false), nullptr);
    LORAX_CUDA(cudaDeviceSynchronize());
    const std::vector<float> all = y.read();
    return std::vector<float>(all.begin() + 5 * kN, all.begin() + 6 * kN);
  };
  const std::vector<float> alone = row_5({{3, {5}, {1.0f}}}, 6);
  for (const float value : alone) ASSERT_FALSE(std::isnan(value));
  // More and more units, on fewer and fewer blocks each.
  for (const int32_t count : {13, 40, 100}) {
    std::vector<TestSegment> many(static_cast<size_t>(count));
    for (int32_t i = 0; i < count; ++i) {
      many[i] = {(i + 3) % 40, {i == 0 ? 5 : 20 + i}, {1.0f}};
    }
    EXPECT_EQ(alone, row_5(many, 128)) << count;
  }
  TestSegment all_rows{3, {}, {}};
  for (int32_t row = 0; row < 64; ++row) {
    all_rows.rows.push_back(row);
    all_rows.weights.push_back(1.0f);
  }
  EXPECT_EQ(alone, row_5({all_rows}, 64));
}

}  // namespace
}  // namespace lorax::cuda_test
