// LoRA inside linear: ranks, cuts across pages, several segments a row, placement, neighbours.
#include "backend_cases.h"

namespace lorax::cpu_test {
namespace {

struct TestModule {
  int module, rank, column, d_out;
  float scale;
  std::vector<float> a, b;
};

struct TestAdapter {
  std::vector<TestModule> modules;
  std::unique_ptr<AdapterImage> image;
  std::unique_ptr<ResidentAdapter> resident;
};

class LoraLinearTest : public CpuBackendTest {
 protected:
  // Small pages: 1 layer, 1 kv head of 32 = 4 KiB in bf16.
  static constexpr KvLayout kLayout{1, 1, 32};
  static constexpr int kElsewhere = 5;  // a module that no site of these tests has

  static TestAdapter adapter(Random& random, int d_in, std::vector<std::array<int, 4>> modules) {
    TestAdapter result;
    for (const auto& [module, rank, column, d_out] : modules) {
      TestModule m{module, rank, column, d_out, 0.25f * static_cast<float>(1 + module), {}, {}};
      m.a = random.values(int64_t{rank} * d_in, 0.3f);
      m.b = random.values(int64_t{rank} * d_out, 0.3f);
      result.modules.push_back(std::move(m));
    }
    return result;
  }

  static void pack(Backend& backend, TestAdapter& adapter, int d_in, int layer = 0) {
    std::vector<AdapterModule> modules;
    for (const TestModule& m : adapter.modules) {
      modules.push_back({layer, m.module, m.rank, m.scale, view(m.a, m.rank, d_in, "lora_A"),
                         view(m.b, m.d_out, m.rank, "lora_B")});
    }
    adapter.image = backend.pack_adapter(modules);
  }

  // Pages first, first - step, ... so that neighbours in the image are not neighbours in memory.
  static void place(Backend& backend, TestAdapter& adapter, int first, int step) {
    std::vector<int32_t> pages;
    for (int p = 0; p < adapter.image->num_pages; ++p) pages.push_back(first - p * step);
    ASSERT_GE(pages.back(), 0);
    adapter.resident = backend.place_adapter(*adapter.image, pages);
  }

  void add_reference(const TestAdapter& adapter, const std::vector<float>& x, int k, int n,
                     const std::vector<int>& rows, const std::vector<float>& weights,
                     std::vector<double>& y) const {
    for (const TestModule& m : adapter.modules) {
      if (m.module == kElsewhere) continue;
      for (size_t i = 0; i < rows.size(); ++i) {
        for (int r = 0; r < m.rank; ++r) {
          double v = 0;
          for (int j = 0; j < k; ++j) v += double{x[rows[i] * k + j]} * stored(m.a[r * k + j]);
          for (int c = 0; c < m.d_out; ++c) {
            y[rows[i] * n + m.column + c] +=
                double{weights[i]} * m.scale * v * stored(m.b[c * m.rank + r]);
          }
        }
      }
    }
  }

  static void add_segment(StepPlan& plan, const TestAdapter& adapter, const std::vector<int>& rows,
                          const std::vector<float>& weights) {
    LoraSegment segment;
    segment.adapter = adapter.resident.get();
    segment.rows_begin = static_cast<int32_t>(plan.segment_rows.size());
    plan.segment_rows.insert(plan.segment_rows.end(), rows.begin(), rows.end());
    plan.segment_weights.insert(plan.segment_weights.end(), weights.begin(), weights.end());
    segment.rows_end = static_cast<int32_t>(plan.segment_rows.size());
    plan.segments.push_back(segment);
  }
};

TEST_P(LoraLinearTest, MatchesDoubleOnMixedRanksAndSegments) {
  Random random(10);
  for (const int k : {45, 576}) {
    auto backend = make();
    backend->reserve(kLayout, {}, 512, 64);
    backend->allocate_pages(64 << 20, 32);
    const int n = 128 + 40 + 39;  // three parts; the last begins off a panel
    const std::vector<SitePart> parts = {{0, 0, 128}, {1, 128, 40}, {2, 168, 39}};
    const LoraSite site{0, parts};
    const auto w = random.values(int64_t{n} * k);
    const TensorView tensor = view(w, n, k);
    auto weight = backend->pack_weight({&tensor, 1}, {});
    std::vector<TestAdapter> adapters;
    adapters.push_back(adapter(random, k, {{0, 1, 0, 128}, {1, 7, 128, 40}, {2, 16, 168, 39}}));
    adapters.push_back(adapter(random, k, {{1, 300, 128, 40}}));
    adapters.push_back(adapter(random, k, {{0, 64, 0, 128}, {2, 3, 168, 39}}));
    adapters.push_back(adapter(random, k, {{kElsewhere, 8, 0, 16}}));  // nothing at this site
    int next = 2000;
    for (TestAdapter& a : adapters) {
      pack(*backend, a, k);
      place(*backend, a, next, 2);
      next -= 2 * a.image->num_pages + 3;
    }
    for (const int rows : {1, 2, 5, 16, 40, 150}) {
      auto x = random.values(int64_t{rows} * k);
      StepPlan plan = rows_plan(rows);
      std::vector<std::vector<int>> members(adapters.size());
      std::vector<std::vector<float>> weights(adapters.size());
      for (int r = 0; r < rows; ++r) {
        for (size_t a = 0; a < adapters.size(); ++a) {
          if (random.integer(0, 2) != 0) continue;
          members[a].push_back(r);
          weights[a].push_back(r % 4 == 0 ? 1.0f : 0.3f * static_cast<float>(r % 5));
        }
      }
      std::vector<double> want(static_cast<size_t>(rows) * n);
      for (int r = 0; r < rows; ++r) {
        for (int c = 0; c < n; ++c) {
          for (int j = 0; j < k; ++j) {
            want[r * n + c] += double{x[r * k + j]} * stored(w[c * k + j]);
          }
        }
      }
      for (size_t a = 0; a < adapters.size(); ++a) {
        add_segment(plan, adapters[a], members[a], weights[a]);
        add_reference(adapters[a], x, k, n, members[a], weights[a], want);
      }
      backend->begin_step(plan);
      const Activation in{x.data(), rows, k};
      poison(backend->linear(in, *weight, &site));
      EXPECT_LE(relative_error(copy(backend->linear(in, *weight, &site)), want),
                amx() ? 6e-3 : 3e-6)
          << rows << " rows, k " << k;
    }
  }
}

TEST_P(LoraLinearTest, CutsHugeRanksAcrossPages) {
  // Pages of 4 KiB (bf16): a row of A of 5000 does not fit one, nor does a panel of B of rank 257.
  auto backend = make();
  backend->reserve(kLayout, {}, 512, 64);
  backend->allocate_pages(64 << 20, 32);
  Random random(11);
  const int k = 5000;
  const int n = 52;
  const std::vector<SitePart> parts = {{3, 0, n}};
  const LoraSite site{2, parts};
  const auto w = random.values(int64_t{n} * k);
  const TensorView tensor = view(w, n, k);
  auto weight = backend->pack_weight({&tensor, 1}, {});
  TestAdapter a = adapter(random, k, {{3, 257, 0, n}});
  pack(*backend, a, k, 2);
  EXPECT_GE(a.image->bytes, (257 * (k + n)) * (bf16() ? 2 : 4));
  place(*backend, a, 4000, 1);
  auto x = random.values(3 * k);
  StepPlan plan = rows_plan(3);
  add_segment(plan, a, {0, 2}, {1.0f, 0.5f});
  std::vector<double> want(3 * n);
  for (int r = 0; r < 3; ++r) {
    for (int c = 0; c < n; ++c) {
      for (int j = 0; j < k; ++j) {
        want[r * n + c] += double{x[r * k + j]} * stored(w[c * k + j]);
      }
    }
  }
  add_reference(a, x, k, n, {0, 2}, {1.0f, 0.5f}, want);
  backend->begin_step(plan);
  EXPECT_LE(relative_error(copy(backend->linear({x.data(), 3, k}, *weight, &site)), want),
            amx() ? 6e-3 : 5e-6);
}

TEST_P(LoraLinearTest, TakesNoMoreRoomThanItsRanks) {
  auto backend = make();
  backend->reserve(kLayout, {}, 512, 64);
  backend->allocate_pages(64 << 20, 32);
  Random random(12);
  TestAdapter a = adapter(random, 64, {{0, 4, 0, 64}});
  pack(*backend, a, 64);
  EXPECT_EQ(a.image->bytes, 4 * (64 + 64) * (bf16() ? 2 : 4));
  EXPECT_EQ(a.image->num_pages, 1);
}

TEST_P(LoraLinearTest, ARowIsTheSameInAnySegmentPlaceAndThreads) {
  Random random(13);
  const int k = 576;
  const int n = 200;
  const std::vector<SitePart> parts = {{0, 0, 120}, {1, 120, 80}};
  const LoraSite site{0, parts};
  const auto w = random.values(int64_t{n} * k);
  const TensorView tensor = view(w, n, k);
  TestAdapter a = adapter(random, k, {{0, 33, 0, 120}, {1, 4, 120, 80}});
  TestAdapter b = adapter(random, k, {{0, 16, 0, 120}});
  const int total = 130;
  auto x = random.values(int64_t{total} * k);
  std::vector<float> alone(static_cast<size_t>(total) * n);
  for (const int threads : {1, 2, 3}) {
    auto backend = make(threads);
    backend->reserve(kLayout, {}, 512, 64);
    backend->allocate_pages(64 << 20, 32);
    auto weight = backend->pack_weight({&tensor, 1}, {});
    pack(*backend, a, k);
    pack(*backend, b, k);
    for (const int rows : {1, 2, 5, 16, 17, 65, 130}) {
      // Elsewhere each time, as after an eviction.
      place(*backend, a, 900 + 7 * rows, 1 + rows % 3);
      place(*backend, b, 500 + 3 * rows, 1);
      for (int first = 0; first + rows <= total; first += rows == 1 ? 1 : 31) {
        StepPlan plan = rows_plan(rows);
        std::vector<int> even, odd;
        for (int r = 0; r < rows; ++r) ((first + r) % 3 != 0 ? even : odd).push_back(r);
        std::vector<int> both;  // a row in two segments
        for (int r = 0; r < rows; ++r) {
          if ((first + r) % 4 == 0) both.push_back(r);
        }
        add_segment(plan, a, even, std::vector<float>(even.size(), 1.0f));
        add_segment(plan, b, both, std::vector<float>(both.size(), 0.7f));
        std::vector<float> part(x.begin() + int64_t{first} * k,
                                x.begin() + int64_t{first + rows} * k);
        backend->begin_step(plan);
        const auto y = copy(backend->linear({part.data(), rows, k}, *weight, &site));
        float* expected = alone.data() + int64_t{first} * n;
        if (rows == 1 && threads == 1) {
          std::memcpy(expected, y.data(), y.size() * 4);
        } else {
          ASSERT_TRUE(same_bits(y.data(), expected, static_cast<int64_t>(y.size())))
              << rows << " rows from " << first << ", " << threads << " threads";
        }
      }
    }
  }
}

// Of more ranks than many rows are multiplied by at a time, in one slice.
TEST_P(LoraLinearTest, ARowIsTheSameAtLargeRanks) {
  Random random(17);
  const int k = 64, n = 48, rows = 70, rank = 600;
  const std::vector<SitePart> parts = {{0, 0, n}};
  const LoraSite site{0, parts};
  const auto w = random.values(int64_t{n} * k);
  const TensorView tensor = view(w, n, k);
  const auto x = random.values(int64_t{rows} * k);
  TestAdapter a = adapter(random, k, {{0, rank, 0, n}});
  auto backend = make();
  backend->reserve({16, 1, 32}, {}, 512, 64);
  backend->allocate_pages(64 << 20, 32);
  auto weight = backend->pack_weight({&tensor, 1}, {});
  pack(*backend, a, k);
  place(*backend, a, 100, 1);
  const auto linear = [&](int first, int count) {
    StepPlan plan = rows_plan(count);
    std::vector<int> all(static_cast<size_t>(count));
    for (int r = 0; r < count; ++r) all[static_cast<size_t>(r)] = r;
    add_segment(plan, a, all, std::vector<float>(all.size(), 0.7f));
    std::vector<float> part(x.begin() + int64_t{first} * k, x.begin() + int64_t{first + count} * k);
    backend->begin_step(plan);
    return copy(backend->linear({part.data(), count, k}, *weight, &site));
  };
  const auto together = linear(0, rows);
  for (int r = 0; r < rows; ++r) {
    ASSERT_TRUE(same_bits(linear(r, 1).data(), together.data() + int64_t{r} * n, n)) << "row " << r;
  }
}

TEST_P(LoraLinearTest, BaseRowsAreUntouchedByNeighboursWithAdapters) {
  Random random(14);
  const int k = 64;
  const int n = 48;
  const std::vector<SitePart> parts = {{0, 0, n}};
  const LoraSite site{0, parts};
  auto backend = make();
  backend->reserve(kLayout, {}, 512, 64);
  backend->allocate_pages(64 << 20, 32);
  const auto w = random.values(n * k);
  const TensorView tensor = view(w, n, k);
  auto weight = backend->pack_weight({&tensor, 1}, {});
  TestAdapter a = adapter(random, k, {{0, 8, 0, n}});
  pack(*backend, a, k);
  place(*backend, a, 100, 1);
  auto x = random.values(6 * k);
  StepPlan base = rows_plan(6);
  backend->begin_step(base);
  const auto without = copy(backend->linear({x.data(), 6, k}, *weight, &site));
  StepPlan mixed = rows_plan(6);
  add_segment(mixed, a, {1, 4}, {1.0f, 1.0f});
  backend->begin_step(mixed);
  const auto with = copy(backend->linear({x.data(), 6, k}, *weight, &site));
  for (int r = 0; r < 6; ++r) {
    const bool same = same_bits(with.data() + r * n, without.data() + r * n, n);
    EXPECT_EQ(same, r != 1 && r != 4) << "row " << r;
  }
}

TEST_P(LoraLinearTest, NamesATensorThatIsNotFiniteOrOfAnotherShape) {
  auto backend = make();
  backend->reserve(kLayout, {}, 512, 64);
  backend->allocate_pages(1 << 20, 32);
  std::vector<float> a(4 * 32, 1.0f);
  std::vector<float> b(16 * 4, 1.0f);
  b[63] = std::numeric_limits<float>::quiet_NaN();
  const AdapterModule damaged{
      0, 0, 4, 1.0f, view(a, 4, 32, "x.lora_A"), view(b, 16, 4, "x.lora_B")};
  try {
    backend->pack_adapter({&damaged, 1});
    FAIL() << "packed";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), "ADAPTER_INVALID");
    EXPECT_NE(std::string(e.what()).find("x.lora_B"), std::string::npos);
  }
  b[63] = 1.0f;
  const AdapterModule wrong{0, 0, 8, 1.0f, view(a, 4, 32, "x.lora_A"), view(b, 16, 4, "x.lora_B")};
  EXPECT_THROW(backend->pack_adapter({&wrong, 1}), Error);
}

LORAX_INSTANTIATE_BACKENDS(LoraLinearTest);

}  // namespace
}  // namespace lorax::cpu_test
