// A step with adapters on the device: random adapters packed as the backend packs them, segments,
// and float64 references. For the tests of the LoRA kernels.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "cuda/adapter_image.h"
#include "cuda/check.h"
#include "cuda/device_array.h"
#include "cuda/lora_items.h"
#include "cuda/lora_rows.h"
#include "cuda/on_all_cores.h"
#include "cuda/step_arrays.h"

namespace lorax::cuda_test {

template <typename T>
using Device = cuda::DeviceArray<T>;

inline float to_float(uint16_t bits) {
  const uint32_t word = uint32_t{bits} << 16;
  float out;
  std::memcpy(&out, &word, 4);
  return out;
}
inline uint16_t to_bits(float x) {
  uint32_t word;
  std::memcpy(&word, &x, 4);
  return static_cast<uint16_t>((word + 0x7fff + (word >> 16 & 1)) >> 16);
}

struct ModuleShape {
  int32_t d_in = 0;
  int32_t d_out = 0;
};

// Values of one module of an adapter, rounded to bf16.
struct TestModule {
  int32_t layer = 0;
  int32_t module = 0;
  int32_t rank = 0;
  float scale = 0.0f;
  std::vector<uint16_t> a;  // [rank, d_in]
  std::vector<uint16_t> b;  // [d_out, rank]
};

struct TestAdapter {
  std::vector<TestModule> modules;
  cuda::ImageLayout layout;
  std::unique_ptr<Device<uint8_t>> pool;
  const cuda::AdapterTable* table = nullptr;  // on the device

  const TestModule* find(int32_t layer, int32_t module) const {
    for (const TestModule& m : modules) {
      if (m.layer == layer && m.module == module) return &m;
    }
    return nullptr;
  }
};

struct TestSegment {
  int32_t adapter = -1;  // -1: none
  std::vector<int32_t> rows;
  std::vector<float> weights;
};

// What a kernel may be off its reference by, as ||out - ref|| / ||ref||; NaN and empty fail.
inline double relative_error(const std::vector<double>& out, const std::vector<double>& ref) {
  double difference = 0;
  double norm = 0;
  for (size_t i = 0; i < ref.size(); ++i) {
    difference += (out[i] - ref[i]) * (out[i] - ref[i]);
    norm += ref[i] * ref[i];
  }
  return std::sqrt(difference / norm);
}

// q k v o gate up down
inline std::vector<ModuleShape> module_shapes(int32_t hidden, int32_t kv, int32_t inner) {
  return {{hidden, hidden}, {hidden, kv},    {hidden, kv},   {hidden, hidden},
          {hidden, inner},  {hidden, inner}, {inner, hidden}};
}

class LoraStep {
 public:
  LoraStep(std::vector<ModuleShape> shapes, uint32_t seed)
      : random_(seed), shapes_(std::move(shapes)) {}

  std::vector<uint16_t> random_bf16(int64_t count, float scale) {
    return cuda::normal_bf16_bits(random_, static_cast<size_t>(count), scale);
  }
  std::mt19937& random() { return random_; }
  const std::vector<ModuleShape>& shapes() const { return shapes_; }

  // ranks[layer][module]; 0: not adapted.
  void add_adapter(const std::vector<std::vector<int32_t>>& ranks) {
    TestAdapter adapter;
    for (size_t layer = 0; layer < ranks.size(); ++layer) {
      for (size_t module = 0; module < ranks[layer].size(); ++module) {
        const int32_t rank = ranks[layer][module];
        if (rank == 0) continue;
        const ModuleShape shape = shapes_[module];
        TestModule m{static_cast<int32_t>(layer),
                     static_cast<int32_t>(module),
                     rank,
                     0.5f + static_cast<float>(random_() % 8) / 4,
                     {},
                     {}};
        m.a = random_bf16(int64_t{rank} * shape.d_in,
                          1.0f / std::sqrt(static_cast<float>(shape.d_in)));
        m.b = random_bf16(int64_t{rank} * shape.d_out, 1.0f / std::sqrt(static_cast<float>(rank)));
        adapter.modules.push_back(std::move(m));
      }
    }
    int64_t widest = 32;
    for (const ModuleShape& shape : shapes_) {
      widest = std::max<int64_t>({widest, shape.d_in, shape.d_out});
    }
    place(adapter, (widest + 31) / 32 * 32 * 32 + 4096);
    adapters_.push_back(std::move(adapter));
  }

  void set_segments(std::vector<TestSegment> segments, int32_t num_rows) {
    segments_ = std::move(segments);
    num_rows_ = num_rows;
    load_ = {};
    std::vector<cuda::DeviceSegment> device;
    std::vector<int32_t> rows;
    std::vector<float> weights;
    for (const TestSegment& s : segments_) {
      const auto begin = static_cast<int32_t>(rows.size());
      rows.insert(rows.end(), s.rows.begin(), s.rows.end());
      weights.insert(weights.end(), s.weights.begin(), s.weights.end());
      device.push_back({s.adapter < 0 ? nullptr : adapters_[s.adapter].table, begin,
                        static_cast<int32_t>(rows.size())});
      if (s.adapter >= 0) load_.add(adapters_[s.adapter].layout.max_groups, s.rows);
    }
    counts_ = std::make_unique<Device<cuda::StepCounts>>(std::vector<cuda::StepCounts>{
        {num_rows, num_rows, num_rows, static_cast<int32_t>(segments_.size())}});
    device_segments_ = std::make_unique<Device<cuda::DeviceSegment>>(device);
    rows_ = std::make_unique<Device<int32_t>>(rows);
    weights_ = std::make_unique<Device<float>>(weights);
    segment_rows_ = static_cast<int32_t>(rows.size());
  }

  cuda::StepArrays arrays() const {
    cuda::StepArrays out;
    out.counts = counts_->data();
    out.segments = device_segments_->data();
    out.segment_rows = rows_->data();
    out.segment_weights = weights_->data();
    return out;
  }
  const std::vector<TestSegment>& segments() const { return segments_; }
  const std::vector<TestAdapter>& adapters() const { return adapters_; }
  const cuda::LoraLoad& load() const { return load_; }
  int32_t num_rows() const { return num_rows_; }
  int32_t segment_rows() const { return segment_rows_; }

  // v [rows of s][rank] of one segment at one module; empty where it is not adapted.
  std::vector<double> reference_v(const TestSegment& s, int32_t layer, int32_t module,
                                  const std::vector<uint16_t>& x) const {
    const TestModule* m = s.adapter < 0 ? nullptr : adapters_[s.adapter].find(layer, module);
    if (m == nullptr) return {};
    const int64_t k = shapes_[module].d_in;
    std::vector<double> out;
    std::vector<float> row(static_cast<size_t>(k));
    for (size_t i = 0; i < s.rows.size(); ++i) {
      for (int64_t j = 0; j < k; ++j) row[j] = to_float(x[s.rows[i] * k + j]);
      for (int32_t r = 0; r < m->rank; ++r) {
        double sum[4] = {};
        const uint16_t* a = m->a.data() + r * k;
        for (int64_t j = 0; j < k; ++j) sum[j % 4] += double{row[j]} * to_float(a[j]);
        out.push_back(double{s.weights[i]} * m->scale * (sum[0] + sum[1] + sum[2] + sum[3]));
      }
    }
    return out;
  }

  // y [rows, n] += every segment's term at the site.
  void add_reference(const cuda::LoraRowSite& site, const std::vector<uint16_t>& x, int32_t n,
                     std::vector<double>& y) const {
    for (const TestSegment& s : segments_) {
      for (int32_t p = 0; p < site.num_parts; ++p) {
        const std::vector<double> v = reference_v(s, site.layer, site.modules[p], x);
        if (v.empty()) continue;
        const TestModule* m = adapters_[s.adapter].find(site.layer, site.modules[p]);
        for (size_t i = 0; i < s.rows.size(); ++i) {
          for (int32_t c = 0; c < site.columns[p]; ++c) {
            double sum = 0;
            for (int32_t r = 0; r < m->rank; ++r) {
              sum += v[i * m->rank + r] * to_float(m->b[int64_t{c} * m->rank + r]);
            }
            y[int64_t{s.rows[i]} * n + site.column[p] + c] += sum;
          }
        }
      }
    }
  }

 private:
  void place(TestAdapter& adapter, int64_t page_bytes) {
    std::vector<AdapterModule> modules;
    for (const TestModule& m : adapter.modules) {
      const ModuleShape shape = shapes_[m.module];
      modules.push_back({m.layer,
                         m.module,
                         m.rank,
                         m.scale,
                         {m.a.data(), DType::kBF16, m.rank, shape.d_in, "a", "test"},
                         {m.b.data(), DType::kBF16, shape.d_out, m.rank, "b", "test"}});
    }
    adapter.layout = cuda::image_layout(modules, page_bytes);
    const int32_t num_pages = adapter.layout.num_pages;
    std::vector<uint8_t> image(static_cast<size_t>(page_bytes * num_pages), 0xff);
    cuda::fill_image(modules, adapter.layout, image.data(), 1);
    adapter.pool = std::make_unique<Device<uint8_t>>(image.size());
    // Pages lie in another order than in the image.
    std::vector<int32_t> pages(static_cast<size_t>(num_pages));
    std::iota(pages.begin(), pages.end(), 0);
    std::shuffle(pages.begin(), pages.end(), random_);
    std::vector<uint8_t> tables(static_cast<size_t>(adapter.layout.table_bytes));
    cuda::write_tables(adapter.layout, adapter.pool->data(), pages, tables.data());
    std::copy(tables.begin(), tables.end(), image.begin());
    std::vector<uint8_t> pool(image.size());
    for (int32_t p = 0; p < num_pages; ++p) {
      std::copy_n(image.begin() + p * page_bytes, page_bytes, pool.begin() + pages[p] * page_bytes);
    }
    adapter.pool->assign(pool);
    adapter.table =
        reinterpret_cast<const cuda::AdapterTable*>(adapter.pool->data() + pages[0] * page_bytes);
  }

  std::mt19937 random_;
  std::vector<ModuleShape> shapes_;
  std::vector<TestAdapter> adapters_;
  std::vector<TestSegment> segments_;
  int32_t num_rows_ = 0;
  int32_t segment_rows_ = 0;
  cuda::LoraLoad load_;
  std::unique_ptr<Device<cuda::StepCounts>> counts_;
  std::unique_ptr<Device<cuda::DeviceSegment>> device_segments_;
  std::unique_ptr<Device<int32_t>> rows_;
  std::unique_ptr<Device<float>> weights_;
};

// Adapters of one to three layers, all kinds of ranks, modules left out.
inline void add_mixed_adapters(LoraStep& step, int32_t count) {
  const int32_t ranks[] = {0, 1, 8, 12, 16, 17, 24, 32, 64};
  for (int32_t i = 0; i < count; ++i) {
    std::vector<std::vector<int32_t>> of(i % 3 + 1, std::vector<int32_t>(7));
    for (auto& layer : of) {
      for (int32_t& rank : layer) rank = ranks[step.random()() % 9];
    }
    of.back()[i % 7] = 8;
    step.add_adapter(of);
  }
}

// Which of `num_adapters` each of `rows` rows has, in Punica's popularity patterns; -1: base.
enum class Pattern { kDistinct, kZipf, kUniform, kSkewed, kIdentical };

inline std::vector<int32_t> draw_adapters(Pattern pattern, int32_t rows, int32_t num_adapters,
                                          std::mt19937& random) {
  std::vector<int32_t> out(static_cast<size_t>(rows));
  std::vector<double> weights(static_cast<size_t>(num_adapters), 1.0);
  for (int32_t i = 0; i < num_adapters; ++i) {
    if (pattern == Pattern::kZipf) weights[i] = std::pow(1.5, -i);
    if (pattern == Pattern::kSkewed) weights[i] = 1.0 / (1 + i);
  }
  std::discrete_distribution<int32_t> draw(weights.begin(), weights.end());
  for (int32_t i = 0; i < rows; ++i) {
    out[i] = pattern == Pattern::kDistinct    ? i % num_adapters
             : pattern == Pattern::kIdentical ? 0
                                              : draw(random);
  }
  return out;
}

// One segment per adapter met, rows ascending, in order of first rows.
inline std::vector<TestSegment> segments_of(const std::vector<int32_t>& adapter_of_row) {
  std::vector<TestSegment> out;
  for (size_t row = 0; row < adapter_of_row.size(); ++row) {
    const int32_t adapter = adapter_of_row[row];
    if (adapter < 0) continue;
    auto at = std::find_if(out.begin(), out.end(),
                           [&](const TestSegment& s) { return s.adapter == adapter; });
    if (at == out.end()) at = out.insert(out.end(), TestSegment{adapter, {}, {}});
    at->rows.push_back(static_cast<int32_t>(row));
    at->weights.push_back(1.0f);
  }
  return out;
}

// Five adapters whose rows overlap, with weights; one segment without an adapter, one without rows.
inline std::vector<TestSegment> overlapping_segments(int32_t num_rows) {
  std::vector<TestSegment> out(5);
  for (int32_t s = 0; s < 5; ++s) {
    out[s].adapter = s;
    for (int32_t row = s; row < num_rows; row += s * s + 1) {
      out[s].rows.push_back(row);
      out[s].weights.push_back(0.25f * static_cast<float>(row % 7) - 0.5f);
    }
  }
  out.push_back({-1, {0, 1, 2}, {1.0f, 1.0f, 1.0f}});
  out.push_back({2, {}, {}});
  return out;
}

}  // namespace lorax::cuda_test
