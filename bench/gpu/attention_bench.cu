// Times rope_and_store_kv, attention_decode and attention_prefill beside what the memory or the
// matrix units allow. Correctness is test/native/cuda's; here every output is only checked for NaN.
//
// Usage: attention_bench [--quick | --profile | --decode [--short]]. Prints CSV: kernel, shape, us,
// then GB/s of KV or TFLOP/s (causal: half of the square). Layers are distinct memory, so nothing
// timed is in the L2 cache. --decode times attention_decode over rows and contexts (--short: those
// of 128 to 256 tokens), alone and as a decode step runs it: behind rope_kv, behind a kernel that
// has filled every multiprocessor.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "cuda/attention_decode.h"
#include "cuda/attention_prefill.h"
#include "cuda/check.h"
#include "cuda/launch.h"
#include "cuda/rope_kv.h"

namespace lorax::cuda {
namespace {

__global__ void fill_random(__nv_bfloat16* data, int64_t size, uint32_t seed) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < size;
       i += int64_t{gridDim.x} * blockDim.x) {
    uint32_t h = static_cast<uint32_t>(i) * 2654435761u + seed + static_cast<uint32_t>(i >> 32);
    h ^= h >> 15, h *= 2246822519u, h ^= h >> 13, h *= 3266489917u, h ^= h >> 16;
    data[i] = __float2bfloat16((static_cast<float>(h & 0xffff) / 65536.0f - 0.5f) * 3.4f);
  }
}

__global__ void count_nan(const __nv_bfloat16* data, int64_t size, int* count) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < size;
       i += int64_t{gridDim.x} * blockDim.x) {
    if (__hisnan(data[i])) atomicAdd(count, 1);
  }
}

template <typename T>
T* device_copy(const std::vector<T>& values) {
  T* data = nullptr;
  LORAX_CUDA(cudaMalloc(&data, std::max<size_t>(1, values.size()) * sizeof(T)));
  LORAX_CUDA(cudaMemcpy(data, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  return data;
}

struct Shape {
  const char* name;
  int num_heads;
  int num_kv_heads;
  int head_dim;
};
constexpr Shape kLlama8B = {"llama-8b", 32, 8, 128};

struct Chunk {
  int first_position;
  int num_rows;
};

// A step of `chunks`, its pages of `layers` layers, and buffers for both kernels.
class Step {
 public:
  Step(const Shape& shape, const std::vector<Chunk>& chunks, int layers)
      : shape_(shape), layers_(layers) {
    std::mt19937 random(1);
    std::vector<DeviceSpan> spans;
    std::vector<int32_t> positions;
    std::vector<int32_t> row_span;
    int pages = 0;
    for (const Chunk& chunk : chunks) {
      DeviceSpan span;
      span.first_row = rows_;
      span.num_rows = chunk.num_rows;
      span.first_position = chunk.first_position;
      span.block_table_begin = pages;
      span.num_stored = chunk.first_position;
      for (int i = 0; i < chunk.num_rows; ++i) {
        positions.push_back(chunk.first_position + i);
        row_span.push_back(static_cast<int32_t>(spans.size()));
        const double keys = chunk.first_position + i + 1;
        flops_ += 4.0 * keys * shape.head_dim * shape.num_heads;
      }
      spans.push_back(span);
      pages += (chunk.first_position + chunk.num_rows + 15) / 16;
      rows_ += chunk.num_rows;
      tokens_ += chunk.first_position + chunk.num_rows;
    }
    std::vector<int32_t> tables(static_cast<size_t>(pages));
    std::iota(tables.begin(), tables.end(), 0);
    std::shuffle(tables.begin(), tables.end(), random);
    page_bytes_ = int64_t{layers} * 2 * shape.num_kv_heads * 16 * shape.head_dim * 2;
    LORAX_CUDA(cudaMalloc(&pool_, static_cast<size_t>(pages * page_bytes_)));
    fill_random<<<1024, 256>>>(reinterpret_cast<__nv_bfloat16*>(pool_), pages * page_bytes_ / 2, 1);
    const int64_t qkv =
        int64_t{rows_} * (shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim;
    LORAX_CUDA(cudaMalloc(&qkv_, static_cast<size_t>(qkv) * 2));
    fill_random<<<1024, 256>>>(qkv_, qkv, 2);
    out_elements_ = int64_t{rows_} * shape.num_heads * shape.head_dim;
    LORAX_CUDA(cudaMalloc(&out_, static_cast<size_t>(out_elements_) * 2));
    LORAX_CUDA(cudaMemset(out_, 0xff, static_cast<size_t>(out_elements_) * 2));
    num_spans_ = static_cast<int>(spans.size());
    const auto workspace = static_cast<size_t>(attention_decode_workspace_bytes(
        num_spans_, shape.num_heads, shape.num_kv_heads, shape.head_dim));
    LORAX_CUDA(cudaMalloc(&workspace_, workspace));
    LORAX_CUDA(cudaMemset(workspace_, 0, workspace));
    arrays_.counts = device_copy(std::vector<StepCounts>{{rows_, num_spans_, 0, 0}});
    arrays_.positions = device_copy(positions);
    arrays_.row_span = device_copy(row_span);
    arrays_.spans = device_copy(spans);
    arrays_.block_tables = device_copy(tables);
    std::vector<float> inv_freq(static_cast<size_t>(shape.head_dim / 2));
    for (size_t i = 0; i < inv_freq.size(); ++i) {
      inv_freq[i] =
          std::pow(500000.0f, -2.0f * static_cast<float>(i) / static_cast<float>(shape.head_dim));
    }
    inv_freq_ = device_copy(inv_freq);
    LORAX_CUDA(cudaDeviceSynchronize());
  }
  Step(const Step&) = delete;
  Step& operator=(const Step&) = delete;
  ~Step() {
    for (const void* p :
         {static_cast<const void*>(pool_), static_cast<const void*>(qkv_),
          static_cast<const void*>(out_), static_cast<const void*>(workspace_),
          static_cast<const void*>(arrays_.counts), static_cast<const void*>(arrays_.positions),
          static_cast<const void*>(arrays_.row_span), static_cast<const void*>(arrays_.spans),
          static_cast<const void*>(arrays_.block_tables), static_cast<const void*>(inv_freq_)}) {
      cudaFree(const_cast<void*>(p));
    }
  }

  void decode(int layer, cudaStream_t stream) const {
    attention_decode(attention(layer), arrays_, workspace_, stream);
  }
  void prefill(int layer, cudaStream_t stream) const {
    attention_prefill(attention(layer), arrays_, stream);
  }
  void rope(int layer, cudaStream_t stream) const {
    RopeKv args;
    args.qkv = qkv_;
    args.rows = rows_;
    args.num_heads = shape_.num_heads;
    args.pages = pages(layer);
    args.inv_freq = inv_freq_;
    rope_and_store_kv(args, arrays_, stream);
  }

  int layers() const { return layers_; }
  double flops() const { return flops_; }
  double kv_bytes() const { return 4.0 * tokens_ * shape_.num_kv_heads * shape_.head_dim; }
  double rope_bytes() const {
    return 4.0 * rows_ * (shape_.num_heads + 2 * shape_.num_kv_heads) * shape_.head_dim;
  }

  void check_output() const {
    int* count = device_copy(std::vector<int>{0});
    count_nan<<<1024, 256>>>(out_, out_elements_, count);
    int nan = 0;
    LORAX_CUDA(cudaMemcpy(&nan, count, sizeof nan, cudaMemcpyDeviceToHost));
    if (nan != 0) std::printf("# WRONG: %d outputs are NaN or were not written\n", nan);
    cudaFree(count);
  }

 private:
  KvPages pages(int layer) const {
    return {pool_, page_bytes_, layer, shape_.num_kv_heads, shape_.head_dim};
  }
  Attention attention(int layer) const {
    Attention args;
    args.qkv = qkv_;
    args.out = out_;
    args.rows = rows_;
    args.max_spans = num_spans_;
    args.num_heads = shape_.num_heads;
    args.pages = pages(layer);
    args.scale = 1.0f / std::sqrt(static_cast<float>(shape_.head_dim));
    return args;
  }

  Shape shape_;
  int layers_;
  int rows_ = 0;
  int num_spans_ = 0;
  double tokens_ = 0;
  double flops_ = 0;
  int64_t page_bytes_ = 0;
  int64_t out_elements_ = 0;
  uint8_t* pool_ = nullptr;
  __nv_bfloat16* qkv_ = nullptr;
  __nv_bfloat16* out_ = nullptr;
  void* workspace_ = nullptr;
  float* inv_freq_ = nullptr;
  StepArrays arrays_;
};

// Median time of one layer, all layers in one graph, in microseconds.
double time_layers(const Step& step, int repeats,
                   const std::function<void(int, cudaStream_t)>& issue) {
  cudaStream_t stream = nullptr;
  LORAX_CUDA(cudaStreamCreate(&stream));
  LORAX_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int layer = 0; layer < step.layers(); ++layer) issue(layer, stream);
  cudaGraph_t graph = nullptr;
  LORAX_CUDA(cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t replay = nullptr;
  LORAX_CUDA(cudaGraphInstantiate(&replay, graph, 0));
  std::vector<float> times;
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  LORAX_CUDA(cudaEventCreate(&begin));
  LORAX_CUDA(cudaEventCreate(&end));
  for (int i = 0; i < repeats + 3; ++i) {
    LORAX_CUDA(cudaEventRecord(begin, stream));
    LORAX_CUDA(cudaGraphLaunch(replay, stream));
    LORAX_CUDA(cudaEventRecord(end, stream));
    LORAX_CUDA(cudaEventSynchronize(end));
    float ms = 0.0f;
    LORAX_CUDA(cudaEventElapsedTime(&ms, begin, end));
    if (i >= 3) times.push_back(ms * 1000.0f / static_cast<float>(step.layers()));
  }
  std::nth_element(times.begin(), times.begin() + static_cast<int64_t>(times.size() / 2),
                   times.end());
  LORAX_CUDA(cudaEventDestroy(begin));
  LORAX_CUDA(cudaEventDestroy(end));
  LORAX_CUDA(cudaGraphExecDestroy(replay));
  LORAX_CUDA(cudaGraphDestroy(graph));
  LORAX_CUDA(cudaStreamDestroy(stream));
  return times[times.size() / 2];
}

std::vector<Chunk> decodes(int batch, int shortest, int longest) {
  std::vector<Chunk> chunks;
  for (int i = 0; i < batch; ++i) {
    // Spread evenly, in no order.
    const int span = longest - shortest;
    chunks.push_back({shortest + (batch == 1 ? span / 2 : i * 37 % batch * span / (batch - 1)), 1});
  }
  return chunks;
}

void time_decode(const Shape& shape, int batch, int shortest, int longest, int layers) {
  const Step step(shape, decodes(batch, shortest, longest), layers);
  const double alone =
      time_layers(step, 30, [&](int layer, cudaStream_t s) { step.decode(layer, s); });
  const double chain = time_layers(step, 30, [&](int layer, cudaStream_t s) {
    step.rope(layer, s);
    step.decode(layer, s);
  });
  step.check_output();
  std::printf(
      "decode,%s,batch %d,context %d-%d,%.2f us,%.2f us over 3 TB/s,%.0f GB/s,"
      "with rope_kv %.2f us\n",
      shape.name, batch, shortest, longest, alone, alone - step.kv_bytes() / 3e6,
      step.kv_bytes() / alone / 1e3, chain);
  std::fflush(stdout);
}

void time_prefill(const Shape& shape, int sequences, int rows, int first_position, int layers) {
  const Step step(shape, std::vector<Chunk>(static_cast<size_t>(sequences), {first_position, rows}),
                  layers);
  const double us =
      time_layers(step, 15, [&](int layer, cudaStream_t s) { step.prefill(layer, s); });
  step.check_output();
  std::printf("prefill,%s,%d x %d,from %d,%.1f us,%.0f TFLOP/s\n", shape.name, sequences, rows,
              first_position, us, step.flops() / us / 1e6);
  std::fflush(stdout);
}

void time_rope(const Shape& shape, int sequences, int rows, int layers) {
  const Step step(shape, std::vector<Chunk>(static_cast<size_t>(sequences), {200, rows}), layers);
  const double us = time_layers(step, 30, [&](int layer, cudaStream_t s) { step.rope(layer, s); });
  std::printf("rope_kv,%s,%d x %d,,%.2f us,%.0f GB/s\n", shape.name, sequences, rows, us,
              step.rope_bytes() / us / 1e3);
  std::fflush(stdout);
}

// ---- --decode ----

// A kernel that fills every multiprocessor's shared memory, as a linear does, for a while.
__global__ void hold(int cycles) {
  let_next_start();
  wait_for_previous();
  const int64_t begin = clock64();
  while (clock64() - begin < cycles) {
  }
}

void launch_hold(cudaStream_t stream) {
  constexpr int kSharedBytes = 216 * 1024;
  static const int multiprocessors = [] {
    int count = 0;
    LORAX_CUDA(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, 0));
    LORAX_CUDA(
        cudaFuncSetAttribute(hold, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes));
    return count;
  }();
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(multiprocessors)),
                          .block = dim3(192),
                          .shared_bytes = kSharedBytes};
  launch_overlapping("hold", hold, shape, stream, 8000);
}

void time_decodes(bool only_short) {
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  LORAX_CUDA(cudaMemGetInfo(&free_bytes, &total_bytes));
  std::printf("rows,context,us alone,us in a step,MB,TB/s alone,in a step\n");
  constexpr int kLayers = 32;
  constexpr int kContexts[][2] = {
      {128, 256}, {300, 600}, {1024, 1024}, {8191, 8191}, {32767, 32767}};
  for (const auto& context : kContexts) {
    for (const int rows : {1, 8, 32, 64, 128}) {
      const double pool = 131072.0 * rows * (context[1] + 16);
      if (pool > 0.8 * static_cast<double>(free_bytes) || pool > 40e9) continue;
      const Step step(kLlama8B, decodes(rows, context[0], context[1]), kLayers);
      const double bytes = step.kv_bytes();
      const int repeats = bytes > 200e6 ? 7 : 21;
      const double alone =
          time_layers(step, repeats, [&](int layer, cudaStream_t s) { step.decode(layer, s); });
      step.check_output();
      const double without = time_layers(step, repeats, [&](int layer, cudaStream_t s) {
        launch_hold(s);
        step.rope(layer, s);
      });
      const double with = time_layers(step, repeats, [&](int layer, cudaStream_t s) {
        launch_hold(s);
        step.rope(layer, s);
        step.decode(layer, s);
      });
      const double in_step = with - without;
      std::printf("%d,%d-%d,%.2f,%.2f,%.1f,%.2f,%.2f\n", rows, context[0], context[1], alone,
                  in_step, bytes / 1e6, bytes / 1e6 / alone, bytes / 1e6 / in_step);
      std::fflush(stdout);
    }
    if (only_short) break;
  }
}

// One plain launch of each, for a profiler.
void launch_once() {
  const Step few(kLlama8B, decodes(32, 128, 256), 32);
  const Step longer(kLlama8B, decodes(16, 32768, 32768), 4);
  const Step many(kLlama8B, std::vector<Chunk>(8, {0, 1024}), 4);
  for (int layer = 0; layer < 2; ++layer) few.decode(layer, nullptr);
  for (int layer = 0; layer < 2; ++layer) longer.decode(layer, nullptr);
  for (int layer = 0; layer < 2; ++layer) many.prefill(layer, nullptr);
  for (int layer = 0; layer < 2; ++layer) many.rope(layer, nullptr);
  LORAX_CUDA(cudaDeviceSynchronize());
}

void run(bool quick) {
  cudaDeviceProp properties{};
  LORAX_CUDA(cudaGetDeviceProperties(&properties, 0));
  std::printf("# %s\n", properties.name);
  for (const int batch : {1, 8, 32, 64, 128}) time_decode(kLlama8B, batch, 128, 256, 32);
  for (const int batch : {1, 16}) time_decode(kLlama8B, batch, 32768, 32768, 4);
  for (const int rows : {1, 32, 128}) time_rope(kLlama8B, rows, 1, 32);
  time_rope(kLlama8B, 8, 1024, 4);
  time_prefill(kLlama8B, 8, 1024, 0, 4);
  if (quick) return;
  for (const int context : {500, 1000, 2000, 4000}) time_decode(kLlama8B, 1, context, context, 32);
  for (const int context : {1000, 4000}) time_decode(kLlama8B, 32, context / 2, context, 16);
  time_decode(kLlama8B, 256, 128, 256, 32);
  const Shape qwen_half = {"qwen2.5-0.5b", 14, 2, 64};
  const Shape gemma = {"gemma2-9b", 16, 8, 256};
  const Shape wide_group = {"qwen2.5-7b", 28, 4, 128};
  const Shape smol = {"smollm2-135m", 9, 3, 64};
  const Shape phi = {"96 dims", 32, 32, 96};
  for (const Shape& shape : {qwen_half, gemma, wide_group, smol, phi}) {
    time_decode(shape, 32, 128, 256, 16);
    time_decode(shape, 1, 8000, 8000, 16);
    time_prefill(shape, 8, 1024, 0, 2);
  }
  time_prefill(kLlama8B, 1, 8192, 0, 2);
  time_prefill(kLlama8B, 1, 512, 30000, 2);
  time_prefill(kLlama8B, 64, 128, 0, 2);
}

}  // namespace
}  // namespace lorax::cuda

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode == "--profile") {
    lorax::cuda::launch_once();
  } else if (mode == "--decode") {
    lorax::cuda::time_decodes(argc > 2 && std::string(argv[2]) == "--short");
  } else {
    lorax::cuda::run(mode == "--quick");
  }
  return 0;
}
