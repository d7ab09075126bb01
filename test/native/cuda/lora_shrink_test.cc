// Few rows: the work lists of every site, and v = weight * scale * A x in fragments, against
// float64. Needs a device.
#include "cuda/lora_shrink.h"

#include <gtest/gtest.h>

#include "cuda/lora_step.h"

namespace lorax::cuda_test {
namespace {

using cuda::LoraItem;
using cuda::LoraSiteItems;
using cuda::LoraSiteModules;

constexpr int32_t kMaxRows = 256;

// The lists of all sites of a model, on the device.
struct Lists {
  explicit Lists(std::vector<LoraSiteModules> of, cuda::LoraItemsCapacity capacity)
      : sites(std::move(of)),
        device_sites(sites),
        parts_before(before(sites)),
        ranges(sites.size()),
        num_units(sites.size()),
        items(static_cast<size_t>(num_parts() * capacity.groups)),
        units(static_cast<size_t>(num_parts() * capacity.units)) {
    lists.capacity = capacity;
    lists.num_sites = static_cast<int32_t>(sites.size());
    lists.sites = device_sites.data();
    lists.parts_before = parts_before.data();
    lists.ranges = ranges.data();
    lists.num_units = num_units.data();
    lists.items = items.data();
    lists.units = units.data();
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
  Device<LoraSiteItems> ranges;
  Device<int32_t> num_units;
  Device<LoraItem> items;
  Device<cuda::LoraUnit> units;
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

// Runs every site of the step and compares lists and v.
void check(LoraStep& step, int32_t layers, bool twice = false) {
  Lists lists(sites_of(layers), {});
  ASSERT_TRUE(lists.lists.capacity.fits(step.load()));
  cuda::make_lora_items(lists.lists, step.arrays(), nullptr);
  LORAX_CUDA(cudaDeviceSynchronize());
  const std::vector<LoraSiteItems> ranges = lists.ranges.read();
  const std::vector<LoraItem> items = lists.items.read();
  const std::vector<int32_t> before = Lists::before(lists.sites);
  const cuda::LoraItemsCapacity capacity = lists.lists.capacity;

  for (size_t site = 0; site < lists.sites.size(); ++site) {
    const LoraSiteModules& modules = lists.sites[site];
    const int32_t k = step.shapes()[modules.modules[0]].d_in;
    const std::vector<uint16_t> x = step.random_bf16(int64_t{step.num_rows()} * k, 1.0f);
    const Device<uint16_t> device_x(x);
    const Device<uint16_t> v(static_cast<size_t>(capacity.v_bytes() / 2));
    cuda::LoraShrinkArguments args;
    args.x = reinterpret_cast<const __nv_bfloat16*>(device_x.data());
    args.k = k;
    args.units = lists.lists.units + int64_t{before[site]} * capacity.units;
    args.num_units = lists.lists.num_units + site;
    args.v = reinterpret_cast<__nv_bfloat16*>(v.data());
    args.lists_ready = site >= 4;
    cuda::lora_shrink(args, step.arrays(), nullptr);
    LORAX_CUDA(cudaDeviceSynchronize());
    const std::vector<uint16_t> got = v.read();
    if (twice) {
      cuda::lora_shrink(args, step.arrays(), nullptr);
      LORAX_CUDA(cudaDeviceSynchronize());
      EXPECT_EQ(got, v.read()) << "two runs differ";
    }

    int32_t item = 0;
    int32_t fragment = 0;
    std::vector<double> out, ref;
    for (int32_t part = 0; part < modules.num_parts; ++part) {
      EXPECT_EQ(ranges[site].part_begin[part], item);
      int32_t rows_begin = 0;
      for (const TestSegment& s : step.segments()) {
        const auto rows_end = rows_begin + static_cast<int32_t>(s.rows.size());
        const std::vector<double> want =
            step.reference_v(s, modules.layer, modules.modules[part], x);
        if (!want.empty()) {
          const TestModule* m =
              step.adapters()[s.adapter].find(modules.layer, modules.modules[part]);
          for (int32_t group = 0; group < (m->rank + 15) / 16; ++group, ++item) {
            const LoraItem& it =
                items[static_cast<size_t>(int64_t{before[site]} * capacity.groups + item)];
            ASSERT_EQ(it.rows_begin, rows_begin);
            ASSERT_EQ(it.rows_end, rows_end);
            ASSERT_EQ(it.scale, m->scale);
            ASSERT_EQ(it.first_block, s.rows.front() / 8);
            ASSERT_EQ(it.num_blocks, s.rows.back() / 8 - s.rows.front() / 8 + 1);
            ASSERT_EQ(it.v_begin, fragment);
            for (int32_t row = it.first_block * 8; row < (it.first_block + it.num_blocks) * 8;
                 ++row) {
              const auto at = std::find(s.rows.begin(), s.rows.end(), row);
              const uint16_t* from =
                  got.data() + (int64_t{fragment} * 8 + row - it.first_block * 8) * 16;
              for (int32_t r = 0; r < 16; ++r) {
                const int32_t rank = group * 16 + r;
                if (at == s.rows.end() || rank >= m->rank) {
                  ASSERT_EQ(to_float(from[r]), 0.0f) << "row " << row << " rank " << rank;
                } else {
                  out.push_back(to_float(from[r]));
                  ref.push_back(want[(at - s.rows.begin()) * m->rank + rank]);
                }
              }
            }
            fragment += it.num_blocks;
          }
        }
        rows_begin = rows_end;
      }
    }
    for (int32_t part = modules.num_parts; part <= LoraSiteItems::kMaxParts; ++part) {
      EXPECT_EQ(ranges[site].part_begin[part], item);
    }
    for (size_t i = static_cast<size_t>(fragment) * 128; i < got.size(); ++i) {
      ASSERT_EQ(got[i], 0xffff) << "written beyond its end";
    }
    if (!ref.empty()) {
      EXPECT_LE(relative_error(out, ref), 4e-3) << "site " << site;
    }
  }
}

// q k v o gate up down
std::vector<ModuleShape> shapes(int32_t hidden, int32_t kv, int32_t inner) {
  return {{hidden, hidden}, {hidden, kv},    {hidden, kv},   {hidden, hidden},
          {hidden, inner},  {hidden, inner}, {inner, hidden}};
}

using LoraShrinkTest = ::testing::Test;

TEST_F(LoraShrinkTest, PopularityPatterns) {
  LoraStep step(shapes(256, 64, 512), 1);
  for (int i = 0; i < 64; ++i) step.add_adapter(std::vector(1, std::vector<int32_t>(7, 16)));
  for (const Pattern pattern : {Pattern::kDistinct, Pattern::kZipf, Pattern::kUniform,
                                Pattern::kSkewed, Pattern::kIdentical}) {
    for (const int32_t rows : {1, 7, 32, 64, 128}) {
      step.set_segments(segments_of(draw_adapters(pattern, rows, 64, step.random())), rows);
      check(step, 1);
    }
  }
}

TEST_F(LoraShrinkTest, MixedRanksAndMissingModules) {
  LoraStep step(shapes(320, 96, 832), 2);
  const int32_t ranks[] = {0, 1, 8, 16, 17, 32, 64};
  for (int i = 0; i < 24; ++i) {
    std::vector<std::vector<int32_t>> of(i % 3 + 1, std::vector<int32_t>(7));
    for (auto& layer : of) {
      for (int32_t& rank : layer) rank = ranks[step.random()() % 7];
    }
    of.back()[i % 7] = 8;
    step.add_adapter(of);
  }
  std::vector<int32_t> adapters = draw_adapters(Pattern::kUniform, 96, 24, step.random());
  for (size_t row = 0; row < adapters.size(); row += 3) adapters[row] = -1;  // base
  step.set_segments(segments_of(adapters), 96);
  check(step, 3, true);
}

TEST_F(LoraShrinkTest, RowsInSeveralSegments) {
  LoraStep step(shapes(256, 64, 512), 3);
  for (int i = 0; i < 5; ++i) step.add_adapter(std::vector(1, std::vector<int32_t>(7, 4 + 9 * i)));
  step.set_segments(overlapping_segments(200), 200);
  check(step, 1);
}

TEST_F(LoraShrinkTest, NoSegments) {
  LoraStep step(shapes(64, 64, 64), 4);
  step.set_segments({}, 16);
  check(step, 2);
}

TEST_F(LoraShrinkTest, AsManyAdaptersAsRows) {
  LoraStep step(shapes(256, 64, 256), 5);
  for (int i = 0; i < kMaxRows; ++i) {
    step.add_adapter(std::vector(1, std::vector<int32_t>(7, i % 2 == 0 ? 16 : 64)));
  }
  step.set_segments(
      segments_of(draw_adapters(Pattern::kDistinct, kMaxRows, kMaxRows, step.random())), kMaxRows);
  check(step, 1);
}

TEST_F(LoraShrinkTest, OddWidths) {
  LoraStep step(shapes(100, 36, 77), 6);
  step.add_adapter(std::vector(1, std::vector<int32_t>(7, 5)));
  step.add_adapter(std::vector(1, std::vector<int32_t>(7, 40)));
  step.set_segments(segments_of(draw_adapters(Pattern::kUniform, 40, 2, step.random())), 40);
  check(step, 1);
}

TEST_F(LoraShrinkTest, LlamaShapes) {
  LoraStep step(shapes(4096, 1024, 14336), 7);
  for (int i = 0; i < 3; ++i) step.add_adapter(std::vector(1, std::vector<int32_t>(7, 16)));
  step.set_segments(segments_of(draw_adapters(Pattern::kUniform, 32, 3, step.random())), 32);
  check(step, 1, true);
}

// The same row gives the same bits whatever is beside it.
TEST_F(LoraShrinkTest, NeighboursChangeNothing) {
  LoraStep step(shapes(576, 192, 1536), 8);
  for (int i = 0; i < 40; ++i) step.add_adapter(std::vector(1, std::vector<int32_t>(7, 16)));
  const std::vector<uint16_t> x = step.random_bf16(128 * 576, 1.0f);
  const Device<uint16_t> device_x(x);
  const auto v_of_row_5 = [&](const std::vector<TestSegment>& segments) {
    step.set_segments(segments, 128);
    Lists lists(sites_of(1), {});
    cuda::make_lora_items(lists.lists, step.arrays(), nullptr);
    const Device<uint16_t> v(static_cast<size_t>(lists.lists.capacity.v_bytes() / 2));
    cuda::LoraShrinkArguments args;
    args.x = reinterpret_cast<const __nv_bfloat16*>(device_x.data());
    args.k = 576;
    args.units = lists.lists.units;
    args.num_units = lists.lists.num_units;
    args.v = reinterpret_cast<__nv_bfloat16*>(v.data());
    cuda::lora_shrink(args, step.arrays(), nullptr);
    LORAX_CUDA(cudaDeviceSynchronize());
    const std::vector<uint16_t> all = v.read();
    return std::vector<uint16_t>(all.begin() + 5 * 16, all.begin() + 6 * 16);
  };
  const std::vector<uint16_t> alone = v_of_row_5({{3, {5}, {1.0f}}});
  for (const uint16_t value : alone) ASSERT_NE(value, 0xffff);
  // More and more units, on fewer and fewer blocks each.
  for (const int32_t count : {13, 40, 100}) {
    std::vector<TestSegment> many(static_cast<size_t>(count));
    for (int32_t i = 0; i < count; ++i) {
      many[i] = {(i + 3) % 40, {i == 0 ? 5 : 20 + i}, {1.0f}};
    }
    EXPECT_EQ(alone, v_of_row_5(many)) << count;
  }
  TestSegment all_rows{3, {}, {}};
  for (int32_t row = 0; row < 128; ++row) {
    all_rows.rows.push_back(row);
    all_rows.weights.push_back(1.0f);
  }
  EXPECT_EQ(alone, v_of_row_5({all_rows}));
}

}  // namespace
}  // namespace lorax::cuda_test
