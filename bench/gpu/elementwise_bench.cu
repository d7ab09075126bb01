// Times the small kernels of a step and cuBLASLt, Llama-3.1-8B's sizes: microseconds per launch
// inside a CUDA graph, as a decode step runs them, against the bytes each must move.
//
// Buffers rotate, so that inputs come from device memory and not from the cache. Prints CSV:
// kernel,variant,rows,us,GB/s (or TFLOP/s for gemm). Arguments: which parts to run (norm, sample,
// gemm); none = all.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "common/graph_timer.h"
#include "cuda/check.h"
#include "cuda/cublaslt.h"
#include "cuda/embed.h"
#include "cuda/norm.h"
#include "cuda/sample.h"
#include "cuda/silu_mul.h"

namespace lorax::cuda {
namespace {

using bench::micros;

constexpr int32_t kHidden = 4096, kInner = 14336, kVocab = 128256;
constexpr int64_t kRotation = int64_t{200} << 20;  // bytes in turn, four times the cache

// Device memory full of random bf16 in [-1, 1] (as float32 garbage, so see random_floats).
uint8_t* device_bytes(int64_t bytes) {
  void* data = nullptr;
  LORAX_CUDA(cudaMalloc(&data, static_cast<size_t>(bytes)));
  std::vector<uint16_t> random(1 << 20);
  std::minstd_rand generator(3);
  for (uint16_t& x : random) {
    const auto bits = static_cast<uint32_t>(generator());
    x = static_cast<uint16_t>((bits & 0x8000) | (119 + (bits >> 7) % 8) << 7 | (bits & 0x7F));
  }
  for (int64_t at = 0; at < bytes; at += 2 << 20) {
    LORAX_CUDA(cudaMemcpy(static_cast<uint8_t*>(data) + at, random.data(),
                          static_cast<size_t>(std::min<int64_t>(bytes - at, 2 << 20)),
                          cudaMemcpyHostToDevice));
  }
  return static_cast<uint8_t*>(data);
}

void print(const char* kernel, const char* variant, int32_t rows, double us, double bytes) {
  std::printf("%s,%s,%d,%.2f,%.0f\n", kernel, variant, rows, us, bytes / us / 1e3);
}

void time_norms(cudaStream_t stream) {
  const int64_t space = 3 * kRotation;
  uint8_t* memory = device_bytes(space);
  uint8_t* out = device_bytes(kRotation * 2);
  auto* gain = reinterpret_cast<float*>(device_bytes(kInner * 4));
  std::vector<int32_t> ids(8192);
  std::mt19937 random(1);
  auto* table = reinterpret_cast<__nv_bfloat16*>(device_bytes(int64_t{kVocab} * kHidden * 2));
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % kVocab);
  auto* token_ids = reinterpret_cast<int32_t*>(device_bytes(8192 * 4));
  auto* input = reinterpret_cast<int32_t*>(device_bytes(8192 * 4));
  LORAX_CUDA(cudaMemcpy(token_ids, ids.data(), ids.size() * 4, cudaMemcpyHostToDevice));
  for (const int32_t rows : {1, 8, 32, 128, 1024, 8192}) {
    const int count = rows <= 128 ? 50 : 10;
    const auto part = [&](int i, int64_t bytes, int64_t most) {
      return (i * bytes) % std::max<int64_t>(most - bytes, 1) / 256 * 256;
    };
    const int64_t row32 = int64_t{rows} * kHidden * 4, row16 = row32 / 2;
    print("embed", "", rows,
          micros(count, stream,
                 [&](int i) {
                   embed({.table = table,
                          .token_ids = token_ids,
                          .previous_tokens = input,
                          .residual = reinterpret_cast<float*>(out + part(i, row32, kRotation)),
                          .input_tokens = input,
                          .rows = rows,
                          .hidden = kHidden,
                          .vocab = kVocab},
                         stream);
                 }),
          static_cast<double>(row32 + row16));
    for (const bool adds : {false, true}) {
      print("rms_norm", adds ? "add" : "", rows,
            micros(count, stream,
                   [&](int i) {
                     NormArguments a;
                     a.residual = reinterpret_cast<float*>(memory + part(i, row32, kRotation));
                     if (adds) {
                       a.delta = reinterpret_cast<__nv_bfloat16*>(memory + kRotation +
                                                                  part(i, row16, kRotation));
                     }
                     a.gain = gain;
                     a.y = reinterpret_cast<__nv_bfloat16*>(out + part(i, row16, kRotation));
                     a.eps = 1e-5f;
                     a.rows = rows;
                     a.hidden = kHidden;
                     rms_norm(a, stream);
                   }),
            static_cast<double>(adds ? 2 * row32 + 2 * row16 : row32 + row16));
    }
    const int64_t x_bytes = int64_t{rows} * kInner * 4, y_bytes = x_bytes / 2;
    print("silu_mul", "", rows,
          micros(count, stream,
                 [&](int i) {
                   silu_mul(reinterpret_cast<__nv_bfloat16*>(memory + part(i, x_bytes, space)),
                            reinterpret_cast<__nv_bfloat16*>(out + part(i, y_bytes, kRotation * 2)),
                            rows, kInner, stream);
                 }),
          static_cast<double>(x_bytes + y_bytes));
  }
  for (void* data :
       {static_cast<void*>(memory), static_cast<void*>(out), static_cast<void*>(gain),
        static_cast<void*>(table), static_cast<void*>(token_ids), static_cast<void*>(input)}) {
    LORAX_CUDA(cudaFree(data));
  }
}

struct SampleVariant {
  const char* name;
  SampleRow row;
  bool history;
};

void time_sampling(cudaStream_t stream, bool peaked) {
  // Logits of 512 rows, repeated; peaked: a few hundred tokens stand out, as a model's do.
  constexpr int32_t kRows = 512;
  std::vector<float> host(int64_t{16} * kVocab);
  std::mt19937 random(2);
  std::normal_distribution<float> normal(0.0f, 2.0f);
  for (float& x : host) x = normal(random);
  if (peaked) {
    for (int32_t row = 0; row < 16; ++row) {
      for (int i = 0; i < 300; ++i) {
        host[int64_t{row} * kVocab + random() % kVocab] +=
            14.0f * static_cast<float>(random() % 1000) / 1000.0f;
      }
    }
  }
  float* logits = nullptr;
  LORAX_CUDA(cudaMalloc(&logits, size_t{kRows} * kVocab * 4));
  for (int32_t row = 0; row < kRows; row += 16) {
    LORAX_CUDA(cudaMemcpy(logits + int64_t{row} * kVocab, host.data(), host.size() * 4,
                          cudaMemcpyHostToDevice));
  }
  std::vector<TokenCount> history(500);
  for (size_t i = 0; i < history.size(); ++i) {
    history[i] = {static_cast<int32_t>(i * 251), 1};
  }
  const SampleVariant variants[] = {
      {"greedy", {}, false},
      {"temperature 1", {.temperature = 1.0f}, false},
      {"temperature 0.7", {.temperature = 0.7f}, false},
      {"top-k 50", {.temperature = 1.0f, .top_k = 50}, false},
      {"top-p 0.9", {.temperature = 1.0f, .top_p = 0.9f}, false},
      {"top-p 0.9 top-k 50", {.temperature = 1.0f, .top_k = 50, .top_p = 0.9f}, false},
      {"top-p 0.9 temperature 2", {.temperature = 2.0f, .top_p = 0.9f}, false},
      {"min-p 0.05", {.temperature = 1.0f, .min_p = 0.05f}, false},
      {"greedy 500 penalties", {.frequency_penalty = 0.5f}, true},
      {"temperature 1 logprobs 5", {.temperature = 1.0f, .num_logprobs = 5}, false},
  };
  constexpr int32_t kMaxRows = 256;
  uint8_t* upload = device_bytes(4 << 20);
  uint8_t* outputs = device_bytes(kMaxRows * (8 + 8 * kMaxLogprobs) + 1024);
  const SampleOutputs out{reinterpret_cast<int32_t*>(outputs),
                          reinterpret_cast<float*>(outputs + kMaxRows * 4),
                          reinterpret_cast<int32_t*>(outputs + kMaxRows * 8),
                          reinterpret_cast<float*>(outputs + kMaxRows * (8 + 4 * kMaxLogprobs))};
  for (const SampleVariant& variant : variants) {
    for (const int32_t rows : {1, 8, 32, 64, 128, 256}) {
      std::vector<SampleRow> samples(rows, variant.row);
      for (int32_t i = 0; i < rows; ++i) {
        samples[i].seed = static_cast<uint64_t>(i);
        if (variant.history) {
          samples[i].history = history.data();
          samples[i].history_size = static_cast<int32_t>(history.size());
        }
      }
      std::vector<uint8_t> staging(sample_upload_bytes(samples, kMaxRows));
      lay_out_samples(samples, kMaxRows, staging.data(), static_cast<int64_t>(staging.size()));
      LORAX_CUDA(cudaMemcpy(upload, staging.data(), staging.size(), cudaMemcpyHostToDevice));
      SampleArguments a;
      a.arrays = sample_arrays(upload, kMaxRows);
      a.outputs = out;
      a.input_tokens = a.logits_rows = reinterpret_cast<int32_t*>(upload);
      a.rows = rows;
      a.vocab = kVocab;
      const int turns = kRows / rows;
      const double us = micros(rows <= 8 ? 64 : 16, stream, [&](int i) {
        a.logits = logits + int64_t{i % turns} * rows * kVocab;
        sample(a, stream);
      });
      print(peaked ? "sample peaked" : "sample flat", variant.name, rows, us,
            static_cast<double>(rows) * kVocab * 4);
    }
  }
  LORAX_CUDA(cudaFree(logits));
  LORAX_CUDA(cudaFree(upload));
  LORAX_CUDA(cudaFree(outputs));
}

void time_gemm(cudaStream_t stream) {
  const GemmUse uses[] = {{{.n = 6144, .k = kHidden}, 8192},
                          {{.n = kHidden, .k = kHidden}, 8192},
                          {{.n = 2 * kInner, .k = kHidden}, 8192},
                          {{.n = kHidden, .k = kInner}, 8192},
                          {{.n = kVocab, .k = kHidden, .float_output = true}, 256}};
  const std::string cache = "/tmp/lorax-gemm-bench-cache";
  CublasLt cublaslt(0, cache);
  const TuningReport report = cublaslt.tune(uses, stream);
  std::printf("# cublasLt %lld: tuned %d, remembered %d in %.2f s\n",
              static_cast<long long>(cublaslt.version()), report.measured, report.remembered,
              report.seconds);
  CublasLt again(0, cache);
  const TuningReport second = again.tune(uses, stream);
  std::printf("# again: tuned %d, remembered %d in %.3f s\n", second.measured, second.remembered,
              second.seconds);
  CublasLt untuned(0, "");
  uint8_t* weights = device_bytes(int64_t{kVocab} * kHidden * 2);
  uint8_t* x = device_bytes(int64_t{8192} * kInner * 2);
  uint8_t* y = device_bytes(int64_t{8192} * 2 * kInner * 2);
  for (const GemmUse& use : uses) {
    const GemmShape& shape = use.shape;
    const int64_t weight_bytes = int64_t{shape.n} * shape.k * 2;
    const int64_t turns = std::max<int64_t>(int64_t{kVocab} * kHidden * 2 / weight_bytes, 1);
    for (const int32_t rows : {16, 64, 128, 256, 512, 1024, 2048, 4096, 8192}) {
      if (rows > use.max_rows) continue;
      const auto time = [&](CublasLt& with) {
        return micros(rows <= 512 ? 10 : 3, stream, [&](int i) {
          with.matmul(
              shape, rows,
              {.x = reinterpret_cast<__nv_bfloat16*>(x),
               .weight = reinterpret_cast<__nv_bfloat16*>(weights + i % turns * weight_bytes),
               .y = y},
              stream);
        });
      };
      const double tuned = time(cublaslt), first = time(untuned);
      std::printf("gemm,n %d k %d,%d,%.1f,%.0f TFLOP/s %.2f TB/s of W; first guess %.1f us\n",
                  shape.n, shape.k, rows, tuned, 2.0 * rows * shape.n * shape.k / tuned / 1e6,
                  static_cast<double>(weight_bytes) / tuned / 1e6, first);
    }
  }
  LORAX_CUDA(cudaFree(weights));
  LORAX_CUDA(cudaFree(x));
  LORAX_CUDA(cudaFree(y));
}

}  // namespace
}  // namespace lorax::cuda

int main(int argc, char** argv) {
  using namespace lorax::cuda;
  const auto wanted = [&](const char* part) {
    return argc < 2 ||
           std::any_of(argv + 1, argv + argc, [&](char* a) { return !std::strcmp(a, part); });
  };
  cudaStream_t stream;
  LORAX_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  cudaDeviceProp properties;
  LORAX_CUDA(cudaGetDeviceProperties(&properties, 0));
  std::printf("# %s\nkernel,variant,rows,us,GB/s\n", properties.name);
  if (wanted("norm")) time_norms(stream);
  if (wanted("sample")) {
    time_sampling(stream, true);
    time_sampling(stream, false);
  }
  if (wanted("gemm")) time_gemm(stream);
  return 0;
}
