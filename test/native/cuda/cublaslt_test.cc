// The matmul against float64 sums, the choice of algorithms, and the file that keeps it.
#include "cuda/cublaslt.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "cuda/cublaslt_choices.h"
#include "cuda/cublaslt_library.h"
#include "cuda/device_array.h"

namespace lorax::cuda {
namespace {

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "lorax-cublaslt-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path = name;
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path); }
  std::filesystem::path path;
};

// y[row, n] of every `stride`-th element; all of them when stride is 1.
template <typename Out>
void check_matmul(CublasLt& cublaslt, const GemmShape& shape, int32_t rows, std::mt19937& random,
                  size_t stride) {
  SCOPED_TRACE(testing::Message() << "rows " << rows << " n " << shape.n << " k " << shape.k
                                  << " float " << shape.float_output << " bias " << shape.has_bias);
  const auto x = random_bf16(random, static_cast<size_t>(rows) * shape.k, 1.0f);
  const auto w = random_bf16(random, static_cast<size_t>(shape.n) * shape.k, 1.0f);
  std::vector<Out> bias(shape.n);
  for (size_t i = 0; i < bias.size(); ++i) {
    const float value = to_float(to_bf16(static_cast<float>(i % 31) - 15.0f));
    if constexpr (std::is_same_v<Out, float>) {
      bias[i] = value;
    } else {
      bias[i] = to_bf16(value);
    }
  }
  const DeviceArray<__nv_bfloat16> device_x(x), device_w(w);
  const DeviceArray<Out> device_bias(bias), y(static_cast<size_t>(rows) * shape.n);
  cublaslt.matmul(shape, rows,
                  {.x = device_x.data(),
                   .weight = device_w.data(),
                   .bias = shape.has_bias ? device_bias.data() : nullptr,
                   .y = y.data()},
                  nullptr);
  LORAX_CUDA(cudaDeviceSynchronize());
  const std::vector<Out> all = y.read();
  std::vector<Out> out;
  std::vector<double> expected;
  for (size_t at = 0; at < all.size(); at += stride) {
    const size_t row = at / shape.n, column = at % shape.n;
    double sum = shape.has_bias ? to_float(bias[column]) : 0.0;
    for (int32_t i = 0; i < shape.k; ++i) {
      sum +=
          static_cast<double>(to_float(x[row * shape.k + i])) * to_float(w[column * shape.k + i]);
    }
    out.push_back(all[at]);
    expected.push_back(sum);
  }
  EXPECT_LT(relative_error(out, expected), shape.float_output ? 1e-5 : 3e-3);
  for (const Out value : all) ASSERT_FALSE(std::isnan(to_float(value))) << "not written";
}

TEST(CublasLt, MultipliesAnyNumberOfRows) {
  CublasLt cublaslt(0, "");
  EXPECT_GE(cublaslt.version(), 120000);
  std::mt19937 random(1);
  for (const int32_t rows : {1, 2, 7, 16, 17, 100, 333}) {
    for (const bool has_bias : {false, true}) {
      check_matmul<__nv_bfloat16>(cublaslt, {.n = 96, .k = 64, .has_bias = has_bias}, rows, random,
                                  1);
      check_matmul<float>(cublaslt,
                          {.n = 200, .k = 576, .float_output = true, .has_bias = has_bias}, rows,
                          random, 1);
    }
    check_matmul<__nv_bfloat16>(cublaslt, {.n = 1536, .k = 576}, rows, random, 53);
    // A vocabulary that is no multiple of anything.
    check_matmul<float>(cublaslt, {.n = 1001, .k = 576, .float_output = true}, rows, random, 53);
  }
  check_matmul<__nv_bfloat16>(cublaslt, {.n = 4096, .k = 14336}, 1000, random, 40009);
  check_matmul<__nv_bfloat16>(cublaslt, {.n = 64, .k = 64}, 9000, random, 101);
}

TEST(CublasLt, ChoosesByMeasuringAndRemembers) {
  const TemporaryDirectory directory;
  const std::string cache = (directory.path / "not" / "there" / "yet").string();
  const GemmShape bf16{.n = 1536, .k = 576}, logits{.n = 49152, .k = 576, .float_output = true};
  const GemmUse uses[] = {{bf16, 300}, {logits, 64}};
  {
    CublasLt cublaslt(0, cache);
    const TuningReport report = cublaslt.tune(uses, nullptr);
    EXPECT_EQ(report.measured, 6 + 3);  // buckets up to 384, and up to 64
    EXPECT_EQ(report.remembered, 0);
    EXPECT_EQ(cublaslt.tune(uses, nullptr).measured, 0) << "once is enough";
    std::mt19937 random(2);
    for (const int32_t rows : {1, 16, 90, 511}) {
      check_matmul<__nv_bfloat16>(cublaslt, bf16, rows, random, 53);
    }
    check_matmul<float>(cublaslt, logits, 40, random, 997);
  }
  {
    CublasLt cublaslt(0, cache);
    const GemmUse more[] = {{bf16, 1000}, {logits, 64}};
    const TuningReport report = cublaslt.tune(more, nullptr);
    EXPECT_EQ(report.remembered, 9);
    EXPECT_EQ(report.measured, 3);  // of 512, 768 and 1024
    std::mt19937 random(3);
    check_matmul<__nv_bfloat16>(cublaslt, bf16, 700, random, 53);
  }
  // One changed byte, and the file is no file.
  std::filesystem::path path;
  for (const auto& entry : std::filesystem::directory_iterator(cache)) path = entry.path();
  ASSERT_FALSE(path.empty());
  {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(200);
    file.put('~');
  }
  {
    CublasLt cublaslt(0, cache);
    const TuningReport report = cublaslt.tune(uses, nullptr);
    EXPECT_EQ(report.remembered, 0);
    EXPECT_EQ(report.measured, 9);
  }
  // A directory that cannot be made costs time only.
  CublasLt nowhere(0, "/proc/lorax");
  const GemmUse one[] = {{bf16, 16}};
  EXPECT_EQ(nowhere.tune(one, nullptr).measured, 1);
}

TEST(CublasLt, CanBeCaptured) {
  CublasLt cublaslt(0, "");
  const GemmShape shape{.n = 512, .k = 256};
  std::mt19937 random(4);
  const DeviceArray<__nv_bfloat16> x(random_bf16(random, 32 * 256, 1.0f)),
      w(random_bf16(random, 512 * 256, 1.0f)), direct(32 * 512), replayed(32 * 512);
  const GemmOperands operands{.x = x.data(), .weight = w.data(), .y = direct.data()};
  cublaslt.matmul(shape, 32, operands, nullptr);
  LORAX_CUDA(cudaDeviceSynchronize());

  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  LORAX_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  LORAX_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  GemmOperands captured = operands;
  captured.y = replayed.data();
  cublaslt.matmul(shape, 32, captured, stream);
  LORAX_CUDA(cudaStreamEndCapture(stream, &graph));
  LORAX_CUDA(cudaGraphInstantiate(&exec, graph, 0));
  LORAX_CUDA(cudaGraphLaunch(exec, stream));
  LORAX_CUDA(cudaStreamSynchronize(stream));
  const auto expected = direct.read(), out = replayed.read();
  for (size_t i = 0; i < out.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint16_t>(out[i]), std::bit_cast<uint16_t>(expected[i]));
  }
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
}

TEST(HostCublasLtLibrary, SaysWhatToInstall) {
  const char* const names[] = {"libcublasLt-that-is-nowhere.so"};
  try {
    CublasLtLibrary::load(names);
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), "DEVICE_UNAVAILABLE");
    EXPECT_EQ(std::get<std::string>(error.data().at("reason")), "no-cublaslt");
    EXPECT_NE(std::string(error.what()).find("nvidia-cublas"), std::string::npos);
  }
}

TEST(HostCublasLtChoices, OnlyAWholeFileOfTheSameOwnerCounts) {
  const TemporaryDirectory directory;
  const ChoicesOwner owner{"NVIDIA X/1 80GB sm_90 132", 130101};
  GemmChoices choices;
  for (int32_t rows : {16, 32}) {
    cublasLtMatmulAlgo_t algo;
    for (uint64_t& word : algo.data) word = 0xFEDCBA9876543210u * static_cast<uint64_t>(rows);
    choices[{{.n = 4096, .k = 14336, .has_bias = rows == 32}, rows}] = algo;
  }
  const std::string kept = directory.path.string();
  EXPECT_TRUE(read_choices(kept, owner).empty());
  write_choices(kept, owner, choices);
  const GemmChoices read = read_choices(kept, owner);
  ASSERT_EQ(read.size(), choices.size());
  for (const auto& [key, algo] : choices) {
    ASSERT_TRUE(read.contains(key));
    EXPECT_EQ(std::memcmp(&read.at(key), &algo, sizeof(algo)), 0);
  }
  EXPECT_TRUE(read_choices("", owner).empty());
  EXPECT_TRUE(read_choices(kept, {owner.device, 130102}).empty());

  const std::string path = choices_path(kept, owner);
  std::stringstream whole;
  whole << std::ifstream(path).rdbuf();
  const std::string text = whole.str();
  // The same file under another owner's name.
  const ChoicesOwner other{"NVIDIA Y", 130101};
  std::ofstream(choices_path(kept, other)) << text;
  EXPECT_TRUE(read_choices(kept, other).empty());
  for (size_t size = 0; size < text.size(); size += 7) {
    std::ofstream(path, std::ios::trunc) << text.substr(0, size);
    EXPECT_TRUE(read_choices(kept, owner).empty()) << "cut off after " << size;
  }
  std::ofstream(path, std::ios::trunc) << std::string(1 << 20, '\xFF');
  EXPECT_TRUE(read_choices(kept, owner).empty());
}

TEST(HostRowBucket, RoundsUp) {
  EXPECT_EQ(row_bucket(1), 16);
  EXPECT_EQ(row_bucket(16), 16);
  EXPECT_EQ(row_bucket(17), 32);
  EXPECT_EQ(row_bucket(8192), 8192);
  EXPECT_EQ(row_bucket(100000), 8192);
}

}  // namespace
}  // namespace lorax::cuda
