// The streaming GEMM against float64 on the host: shapes that do and do not fill tiles, every
// bucket of rows, parts of k, gate and up, bias, float32 output; that an element's bits do
// not depend on the other rows; that a chain of dependent launches sees its inputs. Its adapters:
// stream_gemm_lora_test.cc.
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
  bool gated = false;
};

std::string describe(const Case& c) {
  const StreamGemmConfig& g = c.config;
  return "n=" + std::to_string(c.n) + " k=" + std::to_string(c.k) +
         " rows=" + std::to_string(c.rows) + " split=" + std::to_string(g.split) +
         " block_atoms=" + std::to_string(g.block_atoms) + " stages=" + std::to_string(g.w_stages) +
         "," + std::to_string(g.x_stages) + " in_flight=" + std::to_string(g.in_flight) +
         " blocks=" + std::to_string(g.blocks) + (c.gated ? " gated" : "") +
         (c.float32_out ? " float32" : "") + (c.bias ? " bias" : "");
}

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
    const bool float32_out = c.float32_out;
    const size_t element = float32_out ? 4 : 2;
    // One more row a part, which must stay poisoned.
    const size_t n_out = c.gated ? n / 2 : n;
    const size_t part_stride = (c.rows + 1) * n_out;
    const OnDevice<uint8_t> y_device(std::vector<uint8_t>(c.config.split * part_stride * element));
    y_device.poison();

    const StreamGemm gemm(w_device.get(), c.n, c.k);
    StreamGemmArguments arguments;
    arguments.x = x_device.get();
    arguments.max_rows = max_rows;
    arguments.rows = c.rows;
    arguments.y = y_device.get();
    arguments.float32_out = float32_out;
    arguments.part_stride = static_cast<int64_t>(part_stride);
    arguments.bias = c.bias ? bias_device.get() : nullptr;
    arguments.gated = c.gated;
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
    std::vector<Column> columns(n_out);
    on_all_cores(static_cast<int64_t>(n_out), [&](int64_t out) {
      Column& column = columns[out];
      for (int32_t row = 0; row < c.rows; ++row) {
        const float* x_row = x_float.data() + row * k;
        const auto product = [&](int64_t w_index) {
          double sum = c.bias ? bias[w_index] : 0.0;
          const float* w_row = w_float.data() + w_index * k;
          for (size_t i = 0; i < k; ++i) sum += static_cast<double>(x_row[i]) * w_row[i];
          return sum;
        };
        double sum = product(out);
        if (c.gated) {
          sum = sum / (1 + std::exp(-sum)) * product(out + static_cast<int64_t>(n_out));
        }
        float got = 0.0f;
        for (int32_t part = 0; part < c.config.split; ++part) {
          got += read_element(bytes, part * part_stride + row * n_out + out, float32_out);
        }
        column.nan = column.nan || std::isnan(got);
        column.error += (got - sum) * (got - sum);
        column.norm += sum * sum;
        column.worst = std::max(column.worst, std::abs(got - sum));
      }
    });
    Column all;
    for (size_t out = 0; out < n_out; ++out) {
      ASSERT_FALSE(columns[out].nan) << "out " << out;
      all.error += columns[out].error;
      all.norm += columns[out].norm;
      all.worst = std::max(all.worst, columns[out].worst);
    }
    EXPECT_LE(std::sqrt(all.error / all.norm), float32_out ? 2e-5 : c.gated ? 7e-3 : 3.5e-3);
    EXPECT_LE(all.worst, float32_out ? 1e-3 : 0.2);
    for (int32_t part = 0; part < c.config.split; ++part) {
      for (size_t i = c.rows * n_out * element; i < part_stride * element; ++i) {
        ASSERT_EQ(bytes[part * part_stride * element + i], 0xff) << "written beyond the rows";
      }
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

StreamGemmConfig config_of(int32_t split, int32_t block_atoms, int32_t w_stages, int32_t x_stages,
                           int32_t in_flight) {
  StreamGemmConfig config;
  config.split = split;
  config.block_atoms = block_atoms;
  config.w_stages = w_stages;
  config.x_stages = x_stages;
  config.in_flight = in_flight;
  return config;
}

TEST_F(StreamGemmTest, EveryBucketOfRows) {
  for (const int32_t rows : {1, 7, 8, 9, 16, 24, 32, 48, 64, 96, 128}) {
    check({384, 512, rows, config_of(1, 1, 3, 2, 2)});
  }
}

TEST_F(StreamGemmTest, ShapesThatDoNotFillTiles) {
  for (const auto& [n, k] : std::vector<std::pair<int64_t, int64_t>>{
           {576, 576}, {960, 1544}, {1538, 200}, {16, 64}, {50, 72}, {200, 8}}) {
    for (const int32_t rows : {3, 33}) {
      check({n, k, rows, config_of(1, 1, 4, 4, 4)});
      check({n, k, rows, config_of(1, 2, 3, 4, 3)});
      if (k > 256) check({n, k, rows, config_of(4, 1, 4, 2, 1)});
    }
  }
}

TEST_F(StreamGemmTest, PartsOfK) {
  for (const int32_t rows : {2, 20, 64, 128}) {
    for (const int32_t split : {2, 4, 8}) {
      Case c{512, 2048, rows, config_of(split, 1, 3, 3, 4)};
      check(c);
      c.config.blocks = 2;  // several tiles a block, of several parts
      check(c);
      c.config = config_of(split, 3, 2, 2, 1);
      c.config.blocks = 3;
      check(c);
    }
  }
}

TEST_F(StreamGemmTest, GateAndUp) {
  for (const int32_t rows : {1, 20, 64, 128}) {
    for (const int32_t inner : {64, 72, 320, 1024}) {
      Case c{2 * inner, 512, rows, config_of(1, 1, 3, 3, 3)};
      c.gated = true;
      check(c);
      c.bias = true;
      c.config.blocks = 2;
      check(c);
    }
  }
}

TEST_F(StreamGemmTest, BiasAndFloat32Output) {
  for (const int32_t rows : {1, 40, 128}) {
    check({333, 512, rows, config_of(1, 1, 4, 3, 4), true, true});
    check({334, 512, rows, config_of(2, 1, 4, 3, 4), true, true});
    check({4096, 256, rows, config_of(1, 1, 4, 3, 4), false, true});
  }
}

// The configuration chosen for every bucket, at shapes of real models.
TEST_F(StreamGemmTest, ChosenConfigurations) {
  for (const auto& [n, k] : std::vector<std::pair<int64_t, int64_t>>{
           {6144, 1024}, {1024, 14336}, {4096, 512}, {576, 1536}, {2048, 576}, {49152, 64}}) {
    for (const int32_t rows : {1, 16, 32, 64, 128}) {
      if (rows > 16 && n > 10000) continue;  // the reference takes long
      check({n, k, rows, stream_gemm_config(1, rows, false, false)});
      const int32_t split = stream_gemm_split(n, k, 132);
      if (split > 1) check({n, k, rows, stream_gemm_config(split, rows, true, false)});
    }
  }
}

// Row 0 alone and among others, in other buckets: the same bits.
TEST_F(StreamGemmTest, BitsDoNotDependOnTheOtherRows) {
  constexpr int64_t kN = 768;
  constexpr int64_t kK = 4096;
  const OnDevice<Bf16> w(random_bf16(kN * kK, 0.02f, random_));
  const OnDevice<Bf16> x(random_bf16(128 * kK, 1.0f, random_));
  const StreamGemm gemm(w.get(), kN, kK);
  for (const int32_t split : {1, 4}) {
    std::vector<float> alone;
    for (const int32_t rows : {1, 8, 16, 32, 64, 128}) {
      for (const int32_t stages : {3, 5}) {
        const OnDevice<float> y(std::vector<float>(split * 128 * kN));
        StreamGemmArguments arguments;
        arguments.x = x.get();
        arguments.max_rows = 128;
        arguments.rows = rows;
        arguments.y = y.get();
        arguments.float32_out = true;
        arguments.part_stride = 128 * kN;
        gemm.launch(arguments, config_of(split, 1, stages, 3, 3), nullptr);
        LORAX_CUDA(cudaDeviceSynchronize());
        const std::vector<float> all = y.read();
        std::vector<float> row;
        for (int32_t part = 0; part < split; ++part) {
          row.insert(row.end(), all.begin() + part * 128 * kN, all.begin() + part * 128 * kN + kN);
        }
        if (alone.empty()) alone = row;
        EXPECT_EQ(0, std::memcmp(alone.data(), row.data(), row.size() * sizeof(float)))
            << "rows " << rows << " split " << split << " stages " << stages;
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
  const StreamGemmConfig config = config_of(1, 1, 3, 3, 3);
  cudaStream_t stream = nullptr;
  LORAX_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  auto chain = [&] {
    for (int i = 0; i < 20; ++i) {
      StreamGemmArguments arguments;
      arguments.x = (i % 2 ? b : a).get();
      arguments.y = (i % 2 ? a : b).get();
      arguments.max_rows = kRows;
      arguments.rows = kRows;
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

}  // namespace
}  // namespace lorax::cuda
