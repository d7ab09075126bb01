// Times the streaming GEMM as a decode step uses it: the linears of 32 layers of Llama-3.1-8B, each
// with its own weights, small kernels between them, in one CUDA graph; and each shape alone.
//
//   stream_gemm_bench EXPERIMENTS    lines of a file, e.g. (every setting but rows is optional)
//     chain rows=8 spin=0 qkv=2,6,4,2 o=... gate_up=... down=... lora=8
//     solo shape=gate_up rows=8 config=2,6,4,2 lora=8
//     read | copy | small rows=8
//   A configuration is block_atoms,w_stages,x_stages,in_flight[,lora_sets[,blocks]]; the parts
//   of k follow from the shape. lora=N: N adapters of rank 16 on every part, the rows shared
//   among them. Prints TB/s of weights (medians), and of a chain the last activations' hash.
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

StreamGemmConfig parse_config(const std::string& text, StreamGemmConfig c) {
  std::vector<int> v;
  std::stringstream in(text);
  for (std::string field; std::getline(in, field, ',');) v.push_back(std::stoi(field));
  int32_t* to[] = {&c.block_atoms, &c.w_stages, &c.x_stages, &c.in_flight, &c.lora_sets, &c.blocks};
  for (size_t i = 0; i < v.size() && i < 6; ++i) *to[i] = v[i];
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
    try {
      issue();
    } catch (...) {
      static_cast<void>(cudaStreamEndCapture(stream_, &graph));
      throw;
    }
    LORAX_CUDA(cudaStreamEndCapture(stream_, &graph));
    LORAX_CUDA(cudaGraphInstantiate(&executable, graph, 0));
    std::vector<float> times;
    for (int i = 0; i < kReplays + 2; ++i) {
      if (counts_ != nullptr) {
        StepCounts counts;
        counts.mark = ++mark_;
        LORAX_CUDA(cudaMemcpy(counts_, &counts, sizeof(counts), cudaMemcpyHostToDevice));
      }
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

  StreamGemmConfig config(const Options& options, const std::string& key, int shape, int rows,
                          bool lora) {
    const int64_t n = kShapes[shape].n;
    const int64_t k = kShapes[shape].k;
    const int32_t split = shape == 2 || shape == kHead ? 1 : stream_gemm_split(n, k, sms_);
    const StreamGemmConfig chosen = stream_gemm_config(split, rows, lora, shape == 2);
    const auto found = options.find(key);
    return found == options.end() ? chosen : parse_config(found->second, chosen);
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
    const int adapters = options.count("lora") ? std::stoi(options.at("lora")) : 0;
    for (int s = 0; s < 4; ++s) {
      configs[s] = config(options, kShapes[s].name, s, rows, adapters > 0);
    }
    if (adapters > 0) make_lora(rows, adapters);
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
          a.y = buffers_[s == 2 ? 3 : 4];
          const int next = (s + 1) % 4;
          a.trace = trace_ + (l * 4 + s) * 256 * 8;
          set_output(a, configs[s], s);
          StreamGemmLora lora;
          if (adapters > 0) {
            lora = lora_site(l, s);
            a.lora = &lora;
          }
          if (gemms) plans_[s][l].launch(a, configs[s], stream_);
          // Gate and up are multiplied already: down reads them as they are.
          if (s == 2) continue;
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
    const int adapters = options.count("lora") ? std::stoi(options.at("lora")) : 0;
    const StreamGemmConfig c = config(options, "config", shape, rows, adapters > 0);
    const auto& plans = plans_[shape];
    if (adapters > 0) make_lora(rows, adapters);
    const float ms = median_ms([&] {
      for (size_t l = 0; l < plans.size(); ++l) {
        StreamGemmArguments a;
        a.x = buffers_[0];
        a.max_rows = 256;
        a.rows = rows;
        a.y = shape == kHead ? static_cast<void*>(logits_) : buffers_[4];
        a.float32_out = shape == kHead;
        set_output(a, c, shape);
        a.trace = trace_ + l * 256 * 8;
        StreamGemmLora lora;
        if (adapters > 0) {
          lora = lora_site(static_cast<int>(l), shape);
          a.lora = &lora;
        }
        plans[l].launch(a, c, stream_);
      }
    });
    if (options.count("trace")) print_trace(3, 3);
    const double lora_bytes =
        adapters * 32.0 *
        static_cast<double>(kShapes[shape].n + kShapes[shape].k * num_parts(shape)) * plans.size();
    const double bytes = 2.0 * kShapes[shape].n * kShapes[shape].k * plans.size() + lora_bytes;
    std::printf("%8.3f us each %6.3f TB/s", ms * 1e3 / plans.size(), bytes * 1e-12 / (ms * 1e-3));
  }

  // Parts of k go where the logits would.
  void set_output(StreamGemmArguments& a, const StreamGemmConfig& config, int shape) {
    a.gated = shape == 2;
    if (config.split == 1) return;
    a.y = logits_;
    a.part_stride = 128 * kShapes[shape].n;
  }

  static int num_parts(int shape) { return shape == 0 ? 3 : shape == 2 ? 2 : 1; }

  // Lists for every launch of the layers, as lora_items.cu would make them: `adapters` of rank 16,
  // adapter i the rows [i, i + 1) * rows / adapters; slices of their own out of 4 GB of weights.
  void make_lora(int rows, int adapters) {
    constexpr int kUnits = 1024;
    if (units_ == nullptr) {
      LORAX_CUDA(cudaMalloc(&sites_, kLayers * 4 * sizeof(LoraSiteItems)));
      LORAX_CUDA(cudaMalloc(&units_, kLayers * 4 * kUnits * sizeof(LoraUnit)));
      LORAX_CUDA(cudaMalloc(&sets_, kLayers * 4 * kUnits * sizeof(LoraSet)));
      LORAX_CUDA(cudaMalloc(&chunks_, kLayers * 4 * kUnits * sizeof(LoraChunk)));
      LORAX_CUDA(cudaMalloc(&rows_, kLayers * 4 * kUnits * sizeof(LoraRow)));
      LORAX_CUDA(cudaMalloc(&counts_, sizeof(StepCounts)));
      LORAX_CUDA(cudaMalloc(&pieces_, kUnits * LoraUnit::kPieces * 512));
    }
    const auto* slices = reinterpret_cast<const uint8_t*>(weights_);
    int64_t at = 0;
    const auto take = [&](int64_t bytes) {
      const uint8_t* slice = slices + at;
      at = (at + bytes + 127) / 128 * 128 % (4ll << 30);
      return slice;
    };
    for (int l = 0; l < kLayers; ++l) {
      for (int s = 0; s < 4; ++s) {
        const int32_t outs = static_cast<int32_t>(kShapes[s].n) / num_parts(s);
        LoraSiteItems site;
        std::vector<LoraUnit> units;
        std::vector<LoraSet> sets;
        std::vector<LoraChunk> chunks;
        std::vector<LoraRow> row_list;
        for (int p = 0; p < num_parts(s); ++p) {
          for (int i = 0; i < adapters; ++i) {
            const int32_t begin = i * rows / adapters;
            const int32_t end = (i + 1) * rows / adapters;
            const uint8_t* a = take(kShapes[s].k * 32);
            const uint8_t* b = take(int64_t{outs} * 32);
            for (int32_t row = begin; row < end; ++row) {
              const int place = (row - begin) % 8;
              if (place == 0) {
                units.push_back({a});
                std::fill_n(units.back().rows, LoraUnit::kMaxRows, LoraUnit::kNoRow);
              }
              units.back().rows[place] = static_cast<uint8_t>(row);
              const bool new_set = sets.size() == static_cast<size_t>(site.set_begin[p]) ||
                                   sets.back().num_chunks == LoraSet::kMaxChunks;
              if (row == begin || row % 16 == 0) {
                if (new_set) {
                  sets.push_back(
                      {static_cast<int32_t>(chunks.size()), static_cast<int32_t>(row_list.size())});
                }
                chunks.push_back({b, row / 16 * 16});
                ++sets.back().num_chunks;
              }
              row_list.push_back({(static_cast<int32_t>(units.size()) - 1) * 8 + place,
                                  (sets.back().num_chunks - 1) * 16 + row % 16, 1.0f});
              ++sets.back().num_rows;
            }
          }
          for (int q = p + 1; q <= LoraSiteItems::kMaxParts; ++q) {
            site.set_begin[q] = static_cast<int32_t>(sets.size());
          }
        }
        const int at_site = l * 4 + s;
        site.num_units = static_cast<int32_t>(units.size());
        const auto put = [&](auto* to, const auto& from) {
          LORAX_CUDA(cudaMemcpy(to + at_site * kUnits, from.data(), from.size() * sizeof(from[0]),
                                cudaMemcpyHostToDevice));
        };
        LORAX_CUDA(cudaMemcpy(sites_ + at_site, &site, sizeof(site), cudaMemcpyHostToDevice));
        put(units_, units);
        put(sets_, sets);
        put(chunks_, chunks);
        put(rows_, row_list);
      }
    }
  }

  StreamGemmLora lora_site(int layer, int shape) {
    const int at = layer * 4 + shape;
    StreamGemmLora lora;
    lora.lists = {sites_ + at, units_ + at * 1024, sets_ + at * 1024, chunks_ + at * 1024,
                  rows_ + at * 1024};
    lora.early = true;
    lora.pieces = pieces_;
    lora.counts = counts_;
    lora.site_index = at;
    lora.num_parts = num_parts(shape);
    for (int p = 0; p < lora.num_parts; ++p) {
      lora.columns[p] = static_cast<int32_t>(kShapes[shape].n) / lora.num_parts;
      lora.column[p] = p * lora.columns[p];
    }
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
      for (int event = 0; event < 8; ++event) {
        static const char* names[] = {"start", "released", "first",  "loaded",
                                      "last",  "end",      "pieces", "filled"};
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
  LoraSiteItems* sites_ = nullptr;  // of launch (layer, shape): layer * 4 + shape
  LoraUnit* units_ = nullptr;
  LoraSet* sets_ = nullptr;
  LoraChunk* chunks_ = nullptr;
  LoraRow* rows_ = nullptr;
  StepCounts* counts_ = nullptr;  // its mark changes before every replay
  uint4* pieces_ = nullptr;
  int32_t mark_ = 0;
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
