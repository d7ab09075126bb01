// Times the streaming GEMM as a decode step uses it: the linears of 32 layers of Llama-3.1-8B, each
// with its own weights, small kernels between them, in one CUDA graph; and each shape alone.
//
//   stream_gemm_bench EXPERIMENTS    lines of a file, e.g. (every setting but rows is optional)
//     chain rows=8 spin=0 qkv=64,1,4,6,2,99999 o=... gate_up=... down=...
//     solo shape=gate_up rows=8 config=64,1,4,6,2,99999 items=32
//     read | copy | small rows=8
//   A configuration is tile_rows,split,block_atoms,stages,in_flight,trigger
//   [,clusters[,prefetch_next]].
//   Prints TB/s of weights (medians), and of a chain the last activations' hash: configurations of
//   equal splits must agree.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "cuda/check.h"
#include "cuda/device_ops.cuh"
#include "cuda/launch.h"
#include "cuda/stream_gemm.h"

namespace lorax::cuda {
namespace {

constexpr int kLayers = 32;
constexpr int kReplays = 9;
struct Shape {
  const char* name;
  int64_t n;
  int64_t k;
};
constexpr Shape kShapes[] = {{"qkv", 6144, 4096},
                             {"o", 4096, 4096},
                             {"gate_up", 28672, 4096},
                             {"down", 4096, 14336},
                             {"head", 128256, 4096}};
constexpr int kHead = 4;

__global__ void fill_random(__nv_bfloat16* data, int64_t count, float scale, uint32_t seed) {
  for (int64_t i = blockIdx.x * 256ll + threadIdx.x; i < count; i += gridDim.x * 256ll) {
    uint64_t h = (i + 1) * 0x9E3779B97F4A7C15ull + seed * 0xD1B54A32D192ED03ull;
    h = (h ^ (h >> 32)) * 0xD6E8FEB86659FD93ull;
    h ^= h >> 32;
    data[i] = __float2bfloat16(scale * (static_cast<int>(h & 0xffff) - 32768) / 32768.0f);
  }
}

// Stands for rope, attention, norm, silu-mul: y[row, c] = f(x[row, c]) or of two halves, then waits
// out `spin` clocks.
__global__ void small_kernel(const __nv_bfloat16* x, int x_columns, __nv_bfloat16* y, int y_columns,
                             bool gated, int spin) {
  let_next_start();
  const int row = blockIdx.y;
  const int column = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
  wait_for_previous();
  const int64_t start = clock64();
  if (column < y_columns) {
    const __nv_bfloat16* from = x + static_cast<int64_t>(row) * x_columns + column;
    uint4 value = *reinterpret_cast<const uint4*>(from);
    uint4 other = gated ? *reinterpret_cast<const uint4*>(from + y_columns) : value;
    auto* a = reinterpret_cast<__nv_bfloat16*>(&value);
    const auto* b = reinterpret_cast<const __nv_bfloat16*>(&other);
    for (int i = 0; i < 8; ++i) {
      const float u = __bfloat162float(a[i]);
      const float w = gated ? u + __bfloat162float(b[i]) : u;
      a[i] = __float2bfloat16(2.0f * w / (0.5f + fabsf(w)));
    }
    *reinterpret_cast<uint4*>(y + static_cast<int64_t>(row) * y_columns + column) = value;
  }
  while (clock64() - start < spin) {
  }
}

__global__ void __launch_bounds__(512) read_all(const uint4* data, int64_t count, uint32_t* out) {
  uint32_t sum = 0;
  const int64_t stride = gridDim.x * 512ll;
  int64_t i = blockIdx.x * 512ll + threadIdx.x;
  for (; i + 7 * stride < count; i += 8 * stride) {
    uint4 v[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) v[j] = __ldcs(data + i + j * stride);
#pragma unroll
    for (int j = 0; j < 8; ++j) sum ^= v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
  }
  if (sum == 0x12345) *out = sum;
}

using Options = std::map<std::string, std::string>;

StreamGemmConfig parse_config(const std::string& text) {
  StreamGemmConfig c;
  std::vector<int> v;
  std::stringstream in(text);
  for (std::string field; std::getline(in, field, ',');) v.push_back(std::stoi(field));
  int32_t* to[] = {&c.tile_rows, &c.split,   &c.block_atoms, &c.stages,
                   &c.in_flight, &c.trigger, &c.clusters,    &c.prefetch_next};
  for (size_t i = 0; i < v.size() && i < 8; ++i) *to[i] = v[i];
  return c;
}

class Bench {
 public:
  Bench() {
    LORAX_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    LORAX_CUDA(cudaEventCreate(&start_));
    LORAX_CUDA(cudaEventCreate(&end_));
    for (int s = 0; s < 4; ++s) weight_elements_ += kLayers * kShapes[s].n * kShapes[s].k;
    LORAX_CUDA(cudaMalloc(&weights_, weight_elements_ * 2));
    __nv_bfloat16* at = weights_;
    for (int s = 0; s < 4; ++s) {
      const int64_t count = kShapes[s].n * kShapes[s].k;
      fill_random<<<2048, 256, 0, stream_>>>(at, kLayers * count,
                                             1.7f / sqrtf(static_cast<float>(kShapes[s].k)), s);
      for (int l = 0; l < kLayers; ++l)
        plans_[s].emplace_back(at + l * count, kShapes[s].n, kShapes[s].k);
      at += kLayers * count;
    }
    // The head reads over the layers' weights: 1 GB each, different ones in turn.
    for (int l = 0; l < 12; ++l) {
      plans_[kHead].emplace_back(weights_ + l * kShapes[kHead].n * kShapes[kHead].k,
                                 kShapes[kHead].n, kShapes[kHead].k);
    }
    for (auto& buffer : buffers_) {
      LORAX_CUDA(cudaMalloc(&buffer, 256 * 28672 * 2));
      fill_random<<<256, 256, 0, stream_>>>(buffer, 256 * 28672, 1.0f, 99);
    }
    LORAX_CUDA(cudaMalloc(&trace_, 256 * 256 * 8 * 8));
    LORAX_CUDA(cudaMemset(trace_, 0, 256 * 256 * 8 * 8));
    LORAX_CUDA(cudaMalloc(&logits_, 256ll * 128256 * 4));
    LORAX_CUDA(cudaStreamSynchronize(stream_));
    int device = 0;
    LORAX_CUDA(cudaGetDevice(&device));
    LORAX_CUDA(cudaDeviceGetAttribute(&sms_, cudaDevAttrMultiProcessorCount, device));
  }

  void run(const std::string& line) {
    std::stringstream in(line);
    std::string kind;
    in >> kind;
    Options options;
    for (std::string word; in >> word;) {
      const size_t at = word.find('=');
      options[word.substr(0, at)] = word.substr(at + 1);
    }
    if (kind == "chain") chain(options, true);
    if (kind == "small") chain(options, false);
    if (kind == "solo") solo(options);
    if (kind == "read") read();
    if (kind == "copy") copy();
  }

 private:
  float median_ms(const std::function<void()>& issue) {
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    LORAX_CUDA(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    issue();
    LORAX_CUDA(cudaStreamEndCapture(stream_, &graph));
    LORAX_CUDA(cudaGraphInstantiate(&executable, graph, 0));
    std::vector<float> times;
    for (int i = 0; i < kReplays + 2; ++i) {
      LORAX_CUDA(cudaEventRecord(start_, stream_));
      LORAX_CUDA(cudaGraphLaunch(executable, stream_));
      LORAX_CUDA(cudaEventRecord(end_, stream_));
      LORAX_CUDA(cudaStreamSynchronize(stream_));
      float ms = 0;
      LORAX_CUDA(cudaEventElapsedTime(&ms, start_, end_));
      if (i >= 2) times.push_back(ms);
    }
    LORAX_CUDA(cudaGraphExecDestroy(executable));
    LORAX_CUDA(cudaGraphDestroy(graph));
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
  }

  StreamGemmConfig config(const Options& options, const std::string& key, int shape, int rows) {
    const auto found = options.find(key);
    if (found != options.end()) return parse_config(found->second);
    return stream_gemm_config(kShapes[shape].n, kShapes[shape].k, rows, sms_);
  }

  void small(int rows, int from, int from_columns, int to, int to_columns, int spin) {
    const dim3 grid((to_columns + 1023) / 1024, rows);
    launch_overlapping("small_kernel", small_kernel, {.grid = grid, .block = dim3(128)}, stream_,
                       buffers_[from], from_columns, buffers_[to], to_columns,
                       from_columns == 2 * to_columns, spin);
  }

  uint32_t hash_row(int buffer, int columns) {
    std::vector<uint16_t> row(columns);
    LORAX_CUDA(cudaMemcpy(row.data(), buffers_[buffer], columns * 2, cudaMemcpyDeviceToHost));
    uint32_t hash = 2166136261u;
    for (const uint16_t v : row) hash = (hash ^ v) * 16777619u;
    return hash;
  }

  void chain(const Options& options, bool gemms) {
    const int rows = std::stoi(options.at("rows"));
    const int spin = options.count("spin") ? std::stoi(options.at("spin")) : 0;
    StreamGemmConfig configs[4];
    for (int s = 0; s < 4; ++s) configs[s] = config(options, kShapes[s].name, s, rows);
    fill_random<<<256, 256, 0, stream_>>>(buffers_[0], 256 * 28672, 1.0f, 99);
    const float ms = median_ms([&] {
      // Replays start from the same x: a copy of buffer 8's random rows.
      small(rows, 7, 28672, 0, 4096, spin);
      for (int l = 0; l < kLayers; ++l) {
        for (int s = 0; s < 4; ++s) {
          // x of shape s is buffer 2 s % 8, its y the next.
          StreamGemmArguments a;
          a.x = buffers_[s];
          a.max_rows = 256;
          a.rows = rows;
          a.y = buffers_[4];
          const int next = (s + 1) % 4;
          const int next_layer = s == 3 ? l + 1 : l;
          if (next_layer < kLayers) {
            a.next = &plans_[next][next_layer];
            a.next_config = &configs[next];
          }
          a.trace = trace_ + (l * 4 + s) * 256 * 8;
          if (gemms) plans_[s][l].launch(a, configs[s], stream_);
          small(rows, 4, static_cast<int>(kShapes[s].n), next, static_cast<int>(kShapes[next].k),
                spin);
        }
      }
    });
    if (options.count("trace")) print_trace(8, 8);
    const double tb = weight_elements_ * 2e-12 / (ms * 1e-3);
    std::printf("%8.3f ms %6.3f TB/s %08x", ms, gemms ? tb : 0.0, hash_row(0, 4096));
  }

  void solo(const Options& options) {
    const int rows = std::stoi(options.at("rows"));
    int shape = 0;
    while (options.at("shape") != kShapes[shape].name) ++shape;
    const StreamGemmConfig c = config(options, "config", shape, rows);
    const auto& plans = plans_[shape];
    const int items = options.count("items") ? std::stoi(options.at("items")) : -1;
    std::vector<StreamGemmLora> loras;
    for (size_t l = 0; items >= 0 && l < plans.size(); ++l) {
      loras.push_back(lora_site(static_cast<int>(l), kShapes[shape].n, rows, items));
    }
    const float ms = median_ms([&] {
      for (size_t l = 0; l < plans.size(); ++l) {
        StreamGemmArguments a;
        a.x = buffers_[0];
        a.max_rows = 256;
        a.rows = rows;
        a.y = shape == kHead ? static_cast<void*>(logits_) : buffers_[4];
        a.float32_out = shape == kHead;
        if (l + 1 < plans.size()) {
          a.next = &plans[l + 1];
          a.next_config = &c;
        }
        a.trace = trace_ + l * 256 * 8;
        if (items >= 0) a.lora = &loras[l];
        plans[l].launch(a, c, stream_);
      }
    });
    if (options.count("trace")) print_trace(3, 3);
    const double lora_bytes = std::max(items, 0) * 32.0 * kShapes[shape].n * plans.size();
    const double bytes = 2.0 * kShapes[shape].n * kShapes[shape].k * plans.size() + lora_bytes;
    std::printf("%8.3f us each %6.3f TB/s", ms * 1e3 / plans.size(), bytes * 1e-12 / (ms * 1e-3));
  }

  // `items` adapters of rank 16 on the whole of y (one part), each with rows of its own; every
  // launch has other slices, out of 4 GB of weights.
  StreamGemmLora lora_site(int launch, int64_t n, int rows, int items) {
    std::vector<LoraItem> list(items);
    const int blocks = (rows + 7) / 8;
    for (int i = 0; i < items; ++i) {
      const int64_t slice = (static_cast<int64_t>(launch) * items + i) * n * 32 % (4ll << 30);
      list[i].b = reinterpret_cast<const uint8_t*>(weights_) + slice / 128 * 128;
      list[i].first_block = items >= blocks ? i * blocks / items : i;
      list[i].num_blocks = items >= blocks ? 1 : std::max(1, blocks / std::max(items, 1));
      if (items < blocks) list[i].first_block = i * list[i].num_blocks;
      list[i].v_begin = i * 16;
    }
    if (site_ == nullptr) {
      LORAX_CUDA(cudaMalloc(&site_, 64 * 64));
      LORAX_CUDA(cudaMalloc(&items_, 64 * 256 * sizeof(LoraItem)));
    }
    LoraSiteItems site;
    site.part_begin[0] = 0;
    for (int p = 1; p <= LoraSiteItems::kMaxParts; ++p) site.part_begin[p] = items;
    StreamGemmLora lora;
    auto* at = reinterpret_cast<LoraSiteItems*>(site_ + launch * 64);
    auto* list_at = reinterpret_cast<LoraItem*>(items_) + launch * 256;
    LORAX_CUDA(cudaMemcpy(at, &site, sizeof(site), cudaMemcpyHostToDevice));
    LORAX_CUDA(cudaMemcpy(list_at, list.data(), items * sizeof(LoraItem), cudaMemcpyHostToDevice));
    lora.items = list_at;
    lora.site = at;
    lora.v = buffers_[6];
    lora.num_parts = 1;
    lora.columns[0] = static_cast<int32_t>(n);
    return lora;
  }

  // Of `count` launches from `first` on: each event's least, median and greatest time over the
  // blocks, in us since the first block of all started.
  void print_trace(int first, int count) {
    std::vector<uint64_t> host(static_cast<size_t>(first + count) * 256 * 8);
    LORAX_CUDA(cudaMemcpy(host.data(), trace_, host.size() * 8, cudaMemcpyDeviceToHost));
    uint64_t zero = 0;
    for (int l = first; l < first + count; ++l) {
      std::printf("launch %d", l);
      for (int event = 0; event < 6; ++event) {
        static const char* names[] = {"start", "released", "first", "loaded", "last", "end"};
        std::vector<uint64_t> times;
        for (int b = 0; b < 256; ++b) {
          const uint64_t time = host[(l * 256 + b) * 8 + event];
          if (time != 0) times.push_back(time);
        }
        if (times.empty()) continue;
        std::sort(times.begin(), times.end());
        if (zero == 0) zero = times[0];
        auto us = [&](uint64_t t) { return 1e-3 * static_cast<double>(t - zero); };
        std::printf(" | %s %.2f %.2f %.2f", names[event], us(times[0]), us(times[times.size() / 2]),
                    us(times.back()));
      }
      std::printf("\n");
    }
    LORAX_CUDA(cudaMemset(trace_, 0, 256 * 256 * 8 * 8));
  }

  void read() {
    const float ms = median_ms([&] {
      read_all<<<sms_ * 4, 512, 0, stream_>>>(reinterpret_cast<const uint4*>(weights_),
                                              weight_elements_ / 8,
                                              reinterpret_cast<uint32_t*>(logits_));
    });
    std::printf("%8.3f ms %6.3f TB/s", ms, weight_elements_ * 2e-12 / (ms * 1e-3));
  }

  void copy() {
    const int64_t bytes = weight_elements_;  // half onto half
    uint8_t* to = nullptr;
    LORAX_CUDA(cudaMalloc(&to, bytes));
    const float ms = median_ms([&] {
      LORAX_CUDA(cudaMemcpyAsync(to, weights_, bytes, cudaMemcpyDeviceToDevice, stream_));
    });
    LORAX_CUDA(cudaFree(to));
    std::printf("%8.3f ms %6.3f TB/s", ms, bytes * 2e-12 / (ms * 1e-3));
  }

  cudaStream_t stream_ = nullptr;
  cudaEvent_t start_ = nullptr;
  cudaEvent_t end_ = nullptr;
  int64_t weight_elements_ = 0;
  __nv_bfloat16* weights_ = nullptr;
  __nv_bfloat16* buffers_[8] = {};  // [256, 28672] each
  float* logits_ = nullptr;
  uint8_t* site_ = nullptr;
  uint8_t* items_ = nullptr;
  uint64_t* trace_ = nullptr;  // [256 launches][256 blocks][8]
  std::vector<StreamGemm> plans_[5];
  int sms_ = 0;
};

}  // namespace
}  // namespace lorax::cuda

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: stream_gemm_bench EXPERIMENTS\n");
    return 2;
  }
  lorax::cuda::Bench bench;
  std::ifstream experiments(argv[1]);
  for (std::string line; std::getline(experiments, line);) {
    if (line.empty() || line[0] == '#') continue;
    try {
      bench.run(line);
      std::printf("  %s\n", line.c_str());
    } catch (const lorax::Error& error) {
      std::printf("%s  %s\n", error.what(), line.c_str());
    }
    std::fflush(stdout);
  }
  return 0;
}
