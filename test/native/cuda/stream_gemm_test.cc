// The streaming GEMM against float64 on the host: shapes that do and do not fill tiles, every
// bucket of rows, splits of k, bias, float32 output, LoRA items over parts that tiles straddle;
// that an element's bits do not depend on the other rows; that a chain of dependent launches sees
// its inputs.
#include "cuda/stream_gemm.h"

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cuda/check.h"
#include "cuda/on_all_cores.h"
#include "cuda/silu_mul.h"

namespace lorax::cuda {
namespace {

// A device copy of host values; freed at the end of scope.
template <typename T>
class OnDevice {
 public:
  explicit OnDevice(const std::vector<T>& host) : size_(host.size()) {
    LORAX_CUDA(cudaMalloc(reinterpret_cast<void**>(&data_), bytes() + 256));
    LORAX_CUDA(cudaMemcpy(data_, host.data(), bytes(), cudaMemcpyHostToDevice));
  }
  ~OnDevice() { static_cast<void>(cudaFree(data_)); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

  size_t bytes() const { return size_ * sizeof(T); }
  T* get() const { return data_; }
  // Every byte 0xff: NaN as bf16 and as float32.
  void poison() const { LORAX_CUDA(cudaMemset(data_, 0xff, bytes())); }
  std::vector<T> read() const {
    std::vector<T> host(size_);
    LORAX_CUDA(cudaMemcpy(host.data(), data_, bytes(), cudaMemcpyDeviceToHost));
    return host;
  }

 private:
  size_t size_ = 0;
  T* data_ = nullptr;
};

using Bf16 = __nv_bfloat16;

float to_float(Bf16 value) { return __bfloat162float(value); }

std::vector<Bf16> random_bf16(size_t count, float scale, std::mt19937& random) {
  const std::vector<uint16_t> bits = normal_bf16_bits(random, count, scale);
  std::vector<Bf16> values(count);
  std::memcpy(static_cast<void*>(values.data()), bits.data(), count * sizeof(Bf16));
  return values;
}

struct Case {
  int64_t n = 0;
  int64_t k = 0;
  int32_t rows = 0;
  StreamGemmConfig config;
  bool float32_out = false;
  bool bias = false;
  int32_t items = -1;  // a part; -1: launched without LoRA
};

std::string describe(const Case& c) {
  const StreamGemmConfig& g = c.config;
  return "n=" + std::to_string(c.n) + " k=" + std::to_string(c.k) +
         " rows=" + std::to_string(c.rows) + " tile_rows=" + std::to_string(g.tile_rows) +
         " split=" + std::to_string(g.split) + " block_atoms=" + std::to_string(g.block_atoms) +
         " stages=" + std::to_string(g.stages) + " in_flight=" + std::to_string(g.in_flight) +
         " clusters=" + std::to_string(g.clusters) + (c.float32_out ? " float32" : "") +
         (c.bias ? " bias" : "") + " items=" + std::to_string(c.items);
}

// Items of up to three parts with random rows, and what they add, on the host.
class LoraCase {
 public:
  LoraCase(int64_t n, int32_t rows, int32_t items_per_part, std::mt19937& random) {
    // Bounds at multiples of 16 that no tile size divides.
    const int32_t third = static_cast<int32_t>(n / 3 / 16 * 16);
    const int32_t bounds[4] = {0, third, 2 * third, static_cast<int32_t>((n + 15) / 16 * 16)};
    const int32_t all_blocks = (rows + 7) / 8;
    std::vector<LoraItem> items;
    LoraSiteItems site;
    std::vector<Bf16> b_all;
    std::vector<Bf16> v_all;
    std::vector<size_t> b_at;
    delta.assign(static_cast<size_t>(rows * n), 0.0);
    for (int32_t part = 0; part < 3; ++part) {
      lora.column[part] = bounds[part];
      lora.columns[part] = bounds[part + 1] - bounds[part];
      const int32_t groups = lora.columns[part] / 16;
      site.part_begin[part] = static_cast<int32_t>(items.size());
      for (int32_t i = 0; i < items_per_part; ++i) {
        LoraItem item;
        item.first_block = static_cast<int32_t>(random() % all_blocks);
        item.num_blocks = 1 + static_cast<int32_t>(random() % (all_blocks - item.first_block));
        item.v_begin = static_cast<int32_t>(v_all.size() / 128);
        const std::vector<Bf16> b = random_bf16(groups * 256, 0.2f, random);
        std::vector<Bf16> v = random_bf16(item.num_blocks * 128, 0.2f, random);
        for (int32_t block = 0; block < item.num_blocks; ++block) {
          for (int32_t lane = 0; lane < 32; ++lane) {
            const int32_t row = (item.first_block + block) * 8 + lane / 4;
            // Rows of other adapters, a third of them, are zero.
            if (row >= rows || (row + i) % 3 == 0) {
              for (int32_t e = 0; e < 4; ++e) v[block * 128 + lane * 4 + e] = __float2bfloat16(0);
            }
          }
        }
        add(part, groups, n, rows, item, b, v);
        b_at.push_back(b_all.size());
        b_all.insert(b_all.end(), b.begin(), b.end());
        v_all.insert(v_all.end(), v.begin(), v.end());
        items.push_back(item);
      }
      site.part_begin[part + 1] = static_cast<int32_t>(items.size());
    }
    b_.emplace_back(new OnDevice<Bf16>(b_all));
    v_.emplace_back(new OnDevice<Bf16>(v_all));
    for (size_t i = 0; i < items.size(); ++i) {
      items[i].b = reinterpret_cast<const uint8_t*>(b_[0]->get() + b_at[i]);
    }
    items_.emplace_back(new OnDevice<LoraItem>(items));
    site_.emplace_back(new OnDevice<LoraSiteItems>(std::vector<LoraSiteItems>{site}));
    lora.items = items_[0]->get();
    lora.site = site_[0]->get();
    lora.v = v_[0]->get();
    lora.num_parts = 3;
  }

  StreamGemmLora lora;
  std::vector<double> delta;  // [rows, n]

 private:
  // delta[row, out] += B[out, ranks] v[ranks, row]; element e of lane (g, q) is rank
  // 2 q + e % 2 + 8 (e / 2), the same for B and v.
  void add(int32_t part, int32_t groups, int64_t n, int32_t rows, const LoraItem& item,
           const std::vector<Bf16>& b, const std::vector<Bf16>& v) {
    for (int32_t group = 0; group < groups; ++group) {
      for (int32_t out = 0; out < 16; ++out) {
        const int64_t column = lora.column[part] + group * 16 + out;
        if (column >= n) continue;
        for (int32_t block = 0; block < item.num_blocks; ++block) {
          for (int32_t g = 0; g < 8; ++g) {
            const int32_t row = (item.first_block + block) * 8 + g;
            if (row >= rows) continue;
            double sum = 0;
            for (int32_t rank = 0; rank < 16; ++rank) {
              const int32_t q = rank % 8 / 2;
              const int32_t pair = rank / 8;
              // Registers of B: (g, low), (g + 8, low), (g, high), (g + 8, high).
              const size_t in_b =
                  group * 256 + (out % 8 * 4 + q) * 8 + (pair * 2 + out / 8) * 2 + rank % 2;
              const size_t in_v = block * 128 + (g * 4 + q) * 4 + pair * 2 + rank % 2;
              sum += static_cast<double>(to_float(b[in_b])) * to_float(v[in_v]);
            }
            delta[row * n + column] += sum;
          }
        }
      }
    }
  }

  std::vector<std::unique_ptr<OnDevice<Bf16>>> b_;
  std::vector<std::unique_ptr<OnDevice<Bf16>>> v_;
  std::vector<std::unique_ptr<OnDevice<LoraItem>>> items_;
  std::vector<std::unique_ptr<OnDevice<LoraSiteItems>>> site_;
};

class StreamGemmTest : public ::testing::Test {
 protected:
  void SetUp() override {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
      GTEST_SKIP() << "no CUDA device";
    }
    if (!stream_gemm_available(0)) GTEST_SKIP() << "not a Hopper device";
  }

  void check(const Case& c) {
    SCOPED_TRACE(describe(c));
    const size_t n = static_cast<size_t>(c.n);
    const size_t k = static_cast<size_t>(c.k);
    const int32_t max_rows = c.rows + 5;
    const float w_scale = 1.0f / std::sqrt(static_cast<float>(k));
    const std::vector<Bf16> w = random_bf16(n * k, w_scale, random_);
    std::vector<Bf16> x = random_bf16(max_rows * k, 1.0f, random_);
    // What lies beyond the rows must not matter.
    for (size_t i = c.rows * k; i < x.size(); ++i) x[i] = __float2bfloat16(NAN);
    std::vector<float> bias(n);
    for (float& value : bias) value = std::normal_distribution<float>()(random_);

    const OnDevice<Bf16> w_device(w);
    const OnDevice<Bf16> x_device(x);
    const OnDevice<float> bias_device(bias);
    const size_t element = c.float32_out ? 4 : 2;
    // One more row, which must stay poisoned.
    const OnDevice<uint8_t> y_device(std::vector<uint8_t>((c.rows + 1) * n * element));
    y_device.poison();
    std::unique_ptr<LoraCase> lora;
    if (c.items >= 0) lora = std::make_unique<LoraCase>(c.n, c.rows, c.items, random_);

    const StreamGemm gemm(w_device.get(), c.n, c.k);
    StreamGemmArguments arguments;
    arguments.x = x_device.get();
    arguments.max_rows = max_rows;
    arguments.rows = c.rows;
    arguments.y = y_device.get();
    arguments.float32_out = c.float32_out;
    arguments.bias = c.bias ? bias_device.get() : nullptr;
    arguments.lora = lora ? &lora->lora : nullptr;
    arguments.next = &gemm;
    arguments.next_config = &c.config;
    gemm.launch(arguments, c.config, nullptr);
    LORAX_CUDA(cudaDeviceSynchronize());
    const std::vector<uint8_t> bytes = y_device.read();

    std::vector<float> w_float(n * k);
    std::vector<float> x_float(c.rows * k);
    std::transform(w.begin(), w.end(), w_float.begin(), to_float);
    std::transform(x.begin(), x.begin() + static_cast<int64_t>(x_float.size()), x_float.begin(),
                   to_float);
    struct Column {
      double error = 0, norm = 0, worst = 0;
      bool nan = false;
    };
    std::vector<Column> columns(n);
    on_all_cores(c.n, [&](int64_t out) {
      Column& column = columns[out];
      const float* w_row = w_float.data() + out * k;
      for (int32_t row = 0; row < c.rows; ++row) {
        double sum = c.bias ? bias[out] : 0.0;
        const float* x_row = x_float.data() + row * k;
        for (size_t i = 0; i < k; ++i) sum += static_cast<double>(x_row[i]) * w_row[i];
        if (lora) sum += lora->delta[row * n + out];
        const float got = read_element(bytes, row * n + out, c.float32_out);
        column.nan = column.nan || std::isnan(got);
        column.error += (got - sum) * (got - sum);
        column.norm += sum * sum;
        column.worst = std::max(column.worst, std::abs(got - sum));
      }
    });
    Column all;
    for (size_t out = 0; out < n; ++out) {
      ASSERT_FALSE(columns[out].nan) << "out " << out;
      all.error += columns[out].error;
      all.norm += columns[out].norm;
      all.worst = std::max(all.worst, columns[out].worst);
    }
    EXPECT_LE(std::sqrt(all.error / all.norm), c.float32_out ? 2e-5 : 2.5e-3);
    EXPECT_LE(all.worst, c.float32_out ? 1e-3 : 0.1);
    for (size_t i = c.rows * n * element; i < bytes.size(); ++i) {
      ASSERT_EQ(bytes[i], 0xff) << "written beyond the rows";
    }
  }

  static float read_element(const std::vector<uint8_t>& bytes, size_t index, bool float32) {
    float value = 0;
    if (float32) {
      std::memcpy(&value, bytes.data() + index * 4, 4);
      return value;
    }
    Bf16 half;
    std::memcpy(&half, bytes.data() + index * 2, 2);
    return to_float(half);
  }

  std::mt19937 random_{std::random_device{}()};
};

StreamGemmConfig config_of(int32_t tile_rows, int32_t split, int32_t block_atoms, int32_t stages,
                           int32_t in_flight) {
  StreamGemmConfig config;
  config.tile_rows = tile_rows;
  config.split = split;
  config.block_atoms = block_atoms;
  config.stages = stages;
  config.in_flight = in_flight;
  config.prefetch_next = in_flight;
  return config;
}

TEST_F(StreamGemmTest, EveryBucketOfRows) {
  for (const int32_t rows : {1, 7, 8, 9, 16, 24, 32, 48, 64, 96, 128, 200, 256}) {
    for (const int32_t tile_rows : {64, 128}) {
      if (rows > 128 && tile_rows == 128) continue;
      check({384, 512, rows, config_of(tile_rows, 1, 1, 3, 2)});
    }
  }
}

TEST_F(StreamGemmTest, ShapesThatDoNotFillTiles) {
  for (const auto& [n, k] : std::vector<std::pair<int64_t, int64_t>>{
           {576, 576}, {960, 1544}, {1538, 200}, {16, 64}, {50, 72}, {200, 8}}) {
    for (const int32_t rows : {3, 33}) {
      check({n, k, rows, config_of(128, 1, 1, 4, 0)});
      check({n, k, rows, config_of(64, 1, 2, 4, 3)});
      if (k > 256) check({n, k, rows, config_of(128, 4, 1, 4, 0)});
    }
  }
}

TEST_F(StreamGemmTest, SplitsOfK) {
  for (const int32_t rows : {2, 20, 64, 128}) {
    for (const int32_t split : {2, 4, 8}) {
      Case c{512, 2048, rows, config_of(128, split, 1, 3, 4)};
      check(c);
      c.config.clusters = 2;  // several tiles a cluster, so buffers are used again
      check(c);
      if (split < 8) {
        c.config = config_of(64, split, 3, 2, 1);
        c.config.clusters = 1;
        check(c);
      }
    }
  }
}

TEST_F(StreamGemmTest, BiasAndFloat32Output) {
  for (const int32_t rows : {1, 40, 128}) {
    check({333, 512, rows, config_of(128, 1, 1, 4, 0), true, true});
    check({334, 512, rows, config_of(64, 2, 1, 4, 0), false, true});
    check({4096, 256, rows, config_of(128, 2, 1, 4, 0), true, false});
  }
}

TEST_F(StreamGemmTest, LoraItems) {
  for (const int32_t items : {0, 1, 5, 40}) {
    for (const int32_t rows : {1, 8, 30, 64, 128, 256}) {
      Case c{656, 256, rows, config_of(rows > 128 ? 64 : 128, 1, 1, 3, 0)};
      c.items = items;
      check(c);
      c.config = config_of(64, 2, 1, 4, 2);
      c.config.clusters = 2;
      c.config.lora_slots = 3;
      c.bias = true;
      check(c);
      if (rows > 128) continue;
      c.config = config_of(128, 4, 1, 3, 2);
      c.config.lora_slots = 2;
      c.float32_out = true;
      check(c);
    }
  }
}

// The configuration chosen for every bucket, at shapes of real models.
TEST_F(StreamGemmTest, ChosenConfigurations) {
  for (const auto& [n, k] : std::vector<std::pair<int64_t, int64_t>>{
           {6144, 1024}, {1024, 14336}, {4096, 512}, {576, 1536}, {2048, 576}, {49152, 64}}) {
    for (const int32_t rows : {1, 16, 32, 64, 128}) {
      Case c{n, k, rows, stream_gemm_config(n, k, rows, 132)};
      if (rows > 16 && n > 10000) continue;  // the reference takes long
      check(c);
      c.items = 2;
      check(c);
    }
  }
}

// Row 0 alone and among others, in other buckets and tile sizes: the same bits.
TEST_F(StreamGemmTest, BitsDoNotDependOnTheOtherRows) {
  constexpr int64_t kN = 768;
  constexpr int64_t kK = 4096;
  const OnDevice<Bf16> w(random_bf16(kN * kK, 0.02f, random_));
  const OnDevice<Bf16> x(random_bf16(256 * kK, 1.0f, random_));
  const StreamGemm gemm(w.get(), kN, kK);
  for (const int32_t split : {1, 4}) {
    std::vector<float> alone;
    for (const int32_t rows : {1, 8, 16, 32, 64, 128, 256}) {
      for (const int32_t tile_rows : {64, 128}) {
        if (rows == 256 && tile_rows == 128) continue;
        const OnDevice<float> y(std::vector<float>(rows * kN));
        StreamGemmArguments arguments;
        arguments.x = x.get();
        arguments.max_rows = 256;
        arguments.rows = rows;
        arguments.y = y.get();
        arguments.float32_out = true;
        gemm.launch(arguments, config_of(tile_rows, split, 1, 3, 0), nullptr);
        LORAX_CUDA(cudaDeviceSynchronize());
        std::vector<float> row = y.read();
        row.resize(kN);
        if (alone.empty()) alone = row;
        EXPECT_EQ(0, std::memcmp(alone.data(), row.data(), kN * sizeof(float)))
            << "rows " << rows << " split " << split << " tile_rows " << tile_rows;
      }
    }
  }
}

// y of each launch is x of the next, as a graph and eagerly: every replay gives the same bits.
TEST_F(StreamGemmTest, ChainsOfDependentLaunches) {
  constexpr int64_t kN = 1024;
  constexpr int32_t kRows = 16;
  const OnDevice<Bf16> w(random_bf16(kN * kN, 1.0f / 32, random_));
  const std::vector<Bf16> x = random_bf16(kRows * kN, 1.0f, random_);
  const OnDevice<Bf16> a(x);
  const OnDevice<Bf16> b(x);
  const StreamGemm gemm(w.get(), kN, kN);
  const StreamGemmConfig config = config_of(128, 4, 1, 3, 4);
  cudaStream_t stream = nullptr;
  LORAX_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  auto chain = [&] {
    for (int i = 0; i < 20; ++i) {
      StreamGemmArguments arguments;
      arguments.x = (i % 2 ? b : a).get();
      arguments.y = (i % 2 ? a : b).get();
      arguments.max_rows = kRows;
      arguments.rows = kRows;
      arguments.next = &gemm;
      arguments.next_config = &config;
      gemm.launch(arguments, config, stream);
      // Eagerly the reference: nothing overlaps.
      cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
      LORAX_CUDA(cudaStreamIsCapturing(stream, &capturing));
      if (capturing == cudaStreamCaptureStatusNone) LORAX_CUDA(cudaStreamSynchronize(stream));
    }
  };
  chain();
  const std::vector<Bf16> expected = a.read();
  double norm = 0;
  for (const Bf16 value : expected) norm += std::abs(to_float(value));
  ASSERT_GT(norm, 1.0);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  LORAX_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  chain();
  LORAX_CUDA(cudaStreamEndCapture(stream, &graph));
  LORAX_CUDA(cudaGraphInstantiate(&executable, graph, 0));
  for (int replay = 0; replay < 20; ++replay) {
    LORAX_CUDA(cudaMemcpy(a.get(), x.data(), a.bytes(), cudaMemcpyHostToDevice));
    LORAX_CUDA(cudaGraphLaunch(executable, stream));
    LORAX_CUDA(cudaStreamSynchronize(stream));
    const std::vector<Bf16> got = a.read();
    ASSERT_EQ(0, std::memcmp(got.data(), expected.data(), a.bytes())) << "replay " << replay;
  }
  LORAX_CUDA(cudaGraphExecDestroy(executable));
  LORAX_CUDA(cudaGraphDestroy(graph));
  LORAX_CUDA(cudaStreamDestroy(stream));
}

// x from a kernel that counts its blocks, another in between: the bits of a launch that waits
// for both, in every replay, x poisoned and the counter zeroed before each.
TEST_F(StreamGemmTest, ReadsXOnceItsCounterSaysSo) {
  constexpr int64_t kN = 1536;
  constexpr int64_t kK = 2048;
  const OnDevice<Bf16> w(random_bf16(kN * kK, 0.02f, random_));
  const StreamGemm gemm(w.get(), kN, kK);
  cudaStream_t stream = nullptr;
  LORAX_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  for (const int32_t rows : {1, 24, 128}) {
    const OnDevice<Bf16> gate_up(random_bf16(rows * 2 * kK, 1.0f, random_));
    const OnDevice<Bf16> x(std::vector<Bf16>(rows * kK));
    const OnDevice<Bf16> between(std::vector<Bf16>(rows * kK));
    const OnDevice<Bf16> y(std::vector<Bf16>(rows * kN));
    const OnDevice<uint32_t> ready(std::vector<uint32_t>{0});
    const LoraCase lora(kN, rows, 3, random_);
    for (const bool adapted : {false, true}) {
      SCOPED_TRACE("rows " + std::to_string(rows) + (adapted ? " adapted" : ""));
      const auto enqueue = [&](bool counts) {
        LORAX_CUDA(cudaMemsetAsync(ready.get(), 0, 4, stream));
        LORAX_CUDA(cudaMemsetAsync(x.get(), 0xff, x.bytes(), stream));
        LORAX_CUDA(cudaMemsetAsync(y.get(), 0xff, y.bytes(), stream));
        silu_mul(gate_up.get(), x.get(), rows, kK, stream, counts ? ready.get() : nullptr);
        silu_mul(gate_up.get(), between.get(), rows, kK, stream);
        StreamGemmArguments arguments;
        arguments.x = x.get();
        arguments.max_rows = arguments.rows = rows;
        arguments.y = y.get();
        arguments.lora = adapted ? &lora.lora : nullptr;
        arguments.x_ready = counts ? ready.get() : nullptr;
        arguments.x_ready_count = silu_mul_blocks(rows, kK);
        gemm.launch(arguments, stream_gemm_config(kN, kK, rows, 132), stream);
      };
      enqueue(false);
      LORAX_CUDA(cudaStreamSynchronize(stream));
      EXPECT_EQ(0u, ready.read()[0]);
      const std::vector<Bf16> expected = y.read();
      double norm = 0;
      for (const Bf16 value : expected) norm += std::abs(to_float(value));
      ASSERT_GT(norm, 1.0);  // and no NaN
      cudaGraph_t graph = nullptr;
      cudaGraphExec_t executable = nullptr;
      LORAX_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
      enqueue(true);
      LORAX_CUDA(cudaStreamEndCapture(stream, &graph));
      LORAX_CUDA(cudaGraphInstantiate(&executable, graph, 0));
      for (int replay = 0; replay < 20; ++replay) {
        LORAX_CUDA(cudaGraphLaunch(executable, stream));
        LORAX_CUDA(cudaStreamSynchronize(stream));
        ASSERT_EQ(silu_mul_blocks(rows, kK), ready.read()[0]);
        const std::vector<Bf16> got = y.read();
        ASSERT_EQ(0, std::memcmp(got.data(), expected.data(), y.bytes())) << "replay " << replay;
      }
      LORAX_CUDA(cudaGraphExecDestroy(executable));
      LORAX_CUDA(cudaGraphDestroy(graph));
    }
  }
  LORAX_CUDA(cudaStreamDestroy(stream));
}

}  // namespace
}  // namespace lorax::cuda
