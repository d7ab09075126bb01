// Times the LoRA kernels on Llama-3.1-8B's sizes: microseconds per launch inside a CUDA graph,
// against the bytes each must move. Correctness is test/native/cuda's.
//
// Adapters of several layers are walked in turn, so that A and B come from device memory; x and y
// are as hot as the kernel before leaves them (few rows) or rotate too (many rows). Prints CSV:
// kernel,site,rows,adapters,rank,us,GB/s. Arguments: few, many; none = both.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "common/graph_timer.h"
#include "cuda/adapter_image.h"
#include "cuda/check.h"
#include "cuda/lora_items.h"
#include "cuda/lora_rows.h"
#include "cuda/norm.h"
#include "cuda/silu_mul.h"

namespace lorax::cuda {
namespace {

using bench::micros;

constexpr int32_t kHidden = 4096, kKv = 1024, kInner = 14336;
constexpr int32_t kModules = 7;  // q k v o gate up down
constexpr int32_t kDIn[kModules] = {kHidden, kHidden, kHidden, kHidden, kHidden, kHidden, kInner};
constexpr int32_t kDOut[kModules] = {kHidden, kKv, kKv, kHidden, kInner, kInner, kHidden};

struct Site {
  const char* name;
  std::vector<int32_t> modules;
};
const Site kSites[] = {{"qkv", {0, 1, 2}}, {"o", {3}}, {"gate_up", {4, 5}}, {"down", {6}}};

__global__ void fill_random(__nv_bfloat16* data, int64_t count) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x) {
    uint32_t h = static_cast<uint32_t>(i) * 2654435761u + static_cast<uint32_t>(i >> 32);
    h ^= h >> 15, h *= 2246822519u, h ^= h >> 13;
    data[i] = __float2bfloat16((static_cast<float>(h & 0xffff) / 65536.0f - 0.5f) * 0.1f);
  }
}

// Freed when the program ends.
template <typename T>
T* device_array(int64_t count) {
  T* data = nullptr;
  LORAX_CUDA(cudaMalloc(&data, static_cast<size_t>(std::max<int64_t>(count, 1)) * sizeof(T)));
  return data;
}
template <typename T>
T* device_copy(const std::vector<T>& values) {
  T* data = device_array<T>(static_cast<int64_t>(values.size()));
  LORAX_CUDA(cudaMemcpy(data, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  return data;
}
__nv_bfloat16* random_bf16(int64_t count) {
  auto* data = device_array<__nv_bfloat16>(count);
  fill_random<<<1024, 256>>>(data, count);
  LORAX_CUDA(cudaDeviceSynchronize());
  return data;
}

// `count` adapters of one rank on all modules of `layers` layers, with random pages.
std::vector<const AdapterTable*> make_adapters(int count, int32_t layers, int32_t rank) {
  std::vector<AdapterModule> modules;
  static const int kNothing = 0;
  for (int32_t layer = 0; layer < layers; ++layer) {
    for (int32_t m = 0; m < kModules; ++m) {
      modules.push_back({layer,
                         m,
                         rank,
                         1.0f,
                         {&kNothing, DType::kBF16, rank, kDIn[m], "", ""},
                         {&kNothing, DType::kBF16, kDOut[m], rank, "", ""}});
    }
  }
  const ImageLayout layout = image_layout(modules, 2 << 20);
  const int64_t bytes = layout.num_pages * layout.page_bytes;
  uint8_t* pool = reinterpret_cast<uint8_t*>(random_bf16(bytes * count / 2));
  std::vector<const AdapterTable*> tables;
  std::vector<int32_t> pages(static_cast<size_t>(layout.num_pages));
  std::vector<uint8_t> table(static_cast<size_t>(layout.table_bytes));
  for (int i = 0; i < count; ++i) {
    for (int32_t p = 0; p < layout.num_pages; ++p) pages[p] = i * layout.num_pages + p;
    write_tables(layout, pool, pages, table.data());
    LORAX_CUDA(cudaMemcpy(pool + i * bytes, table.data(), table.size(), cudaMemcpyHostToDevice));
    tables.push_back(reinterpret_cast<const AdapterTable*>(pool + i * bytes));
  }
  return tables;
}

struct Step {
  StepArrays arrays;
  LoraLoad load;
  int32_t rows = 0;
  int32_t segments = 0;
};

// Row r has adapter r % count (decode), or adapters have equal runs of rows (prefill).
Step make_step(const std::vector<const AdapterTable*>& adapters, int32_t rows, bool runs,
               int32_t max_groups) {
  Step out;
  out.rows = rows;
  const auto count = static_cast<int32_t>(adapters.size());
  std::vector<DeviceSegment> segments;
  std::vector<int32_t> segment_rows;
  for (int32_t a = 0; a < count; ++a) {
    const auto begin = static_cast<int32_t>(segment_rows.size());
    if (runs) {
      for (int32_t r = rows / count * a; r < rows / count * (a + 1); ++r) {
        segment_rows.push_back(r);
      }
    } else {
      for (int32_t r = a; r < rows; r += count) segment_rows.push_back(r);
    }
    segments.push_back({adapters[a], begin, static_cast<int32_t>(segment_rows.size())});
    out.load.add(max_groups, std::span(segment_rows).subspan(begin));
  }
  out.segments = static_cast<int32_t>(segments.size());
  out.arrays.counts = device_copy(std::vector<StepCounts>{{rows, rows, rows, out.segments}});
  out.arrays.segments = device_copy(segments);
  out.arrays.segment_rows = device_copy(segment_rows);
  out.arrays.segment_weights = device_copy(std::vector<float>(segment_rows.size(), 1.0f));
  return out;
}

void print(const char* kernel, const char* site, int32_t rows, int adapters, int32_t rank,
           double us, double bytes) {
  std::printf("%s,%s,%d,%d,%d,%.2f,%.0f\n", kernel, site, rows, adapters, rank, us,
              bytes / us * 1e-3);
}

void few(cudaStream_t stream) {
  struct Case {
    int32_t rows;
    int adapters;
    int32_t rank;
    int32_t layers;
  };
  for (const Case& c :
       {Case{1, 1, 16, 32}, Case{32, 1, 16, 32}, Case{128, 1, 16, 32}, Case{8, 8, 16, 8},
        Case{32, 8, 16, 8}, Case{128, 8, 16, 8}, Case{32, 32, 16, 4}, Case{64, 64, 16, 3},
        Case{128, 128, 16, 2}, Case{32, 8, 64, 4}, Case{256, 256, 16, 2}}) {
    const auto adapters = make_adapters(c.adapters, c.layers, c.rank);
    const Step step = make_step(adapters, c.rows, false, (c.rank + 15) / 16);
    std::vector<LoraSiteModules> sites;
    std::vector<int32_t> before;
    int32_t parts = 0;
    for (int32_t layer = 0; layer < c.layers; ++layer) {
      for (const Site& site : kSites) {
        LoraSiteModules entry;
        entry.layer = layer;
        entry.num_parts = static_cast<int32_t>(site.modules.size());
        std::copy(site.modules.begin(), site.modules.end(), entry.modules);
        sites.push_back(entry);
        before.push_back(parts);
        parts += entry.num_parts;
      }
    }
    LoraItemLists lists;
    lists.num_sites = static_cast<int32_t>(sites.size());
    lists.sites = device_copy(sites);
    lists.parts_before = device_copy(before);
    lists.ranges = device_array<LoraSiteItems>(lists.num_sites);
    lists.num_units = device_array<int32_t>(lists.num_sites);
    lists.items = device_array<LoraItem>(int64_t{parts} * lists.capacity.groups);
    lists.units = device_array<LoraUnit>(int64_t{parts} * lists.capacity.units);
    if (!lists.capacity.fits(step.load)) std::printf("# does not fit\n");
    const double items_us =
        micros(20, stream, [&](int) { make_lora_items(lists, step.arrays, stream); });
    print("items", "all", c.rows, c.adapters, c.rank, items_us, 0);
    std::fflush(stdout);
  }
}

void many(cudaStream_t stream) {
  struct Case {
    int32_t rows;
    int adapters;
    int32_t rank;
  };
  for (const Case& c : {Case{256, 1, 16}, Case{1024, 1, 16}, Case{2048, 2, 16}, Case{8192, 1, 16},
                        Case{8192, 8, 16}, Case{8192, 64, 16}, Case{8192, 8, 64}}) {
    const int32_t layers = 2;
    const auto adapters = make_adapters(c.adapters, layers, c.rank);
    const int32_t groups = (c.rank + 15) / 16;
    const Step step = make_step(adapters, c.rows, true, groups);
    LoraRowLists lists;
    lists.capacity = {c.rows, step.segments, c.rows, step.load.row_groups};
    lists.v_begin = device_array<int64_t>(step.segments);
    lists.num_tiles = device_array<int32_t>(1);
    lists.tiles = device_array<LoraRowTile>(lists.capacity.max_tiles());
    lists.pair_begin = device_array<int32_t>((c.rows + 15) / 16 + 1);
    lists.pairs = device_array<LoraRowPair>(c.rows);
    lists.v = device_array<__nv_bfloat16>(lists.capacity.v_bytes() / 2);
    print("rows_lists", "all", c.rows, c.adapters, c.rank,
          micros(4, stream, [&](int) { make_lora_rows(lists, step.arrays, c.rows, stream); }), 0);
    const auto site_of = [&](int s, int i) {
      LoraRowSite site;
      site.layer = i % layers;
      int32_t column = 0;
      for (const int32_t m : kSites[s].modules) {
        site.modules[site.num_parts] = m;
        site.column[site.num_parts] = column;
        site.columns[site.num_parts++] = kDOut[m];
        column += kDOut[m];
      }
      return site;
    };
    // Two of each buffer: at 8192 rows each is larger than the cache, at 256 both stay in it.
    const int64_t wide = int64_t{c.rows} * 2 * kInner;
    __nv_bfloat16* buffers[2] = {random_bf16(wide), random_bf16(wide)};
    __nv_bfloat16* out = random_bf16(int64_t{c.rows} * kInner);
    float* residual = device_array<float>(int64_t{c.rows} * kHidden);
    LORAX_CUDA(cudaMemset(residual, 0, static_cast<size_t>(c.rows) * kHidden * 4));
    const float* gain = device_copy(std::vector<float>(kHidden, 1.0f));
    double sum = 0;
    for (int s = 0; s < 4; ++s) {
      const int32_t k = kDIn[kSites[s].modules[0]];
      const double us = micros(6, stream, [&](int i) {
        lora_shrink_rows(lists, site_of(s, i), step.arrays, buffers[i % 2], c.rows, k, stream);
      });
      sum += us;
      print("shrink_rows", kSites[s].name, c.rows, c.adapters, c.rank, us, 2.0 * c.rows * k);
    }
    print("shrink_rows", "layer", c.rows, c.adapters, c.rank, sum, 0);
    for (int s = 0; s < 4; ++s) {
      int32_t n = 0;
      for (const int32_t m : kSites[s].modules) n += kDOut[m];
      print("expand", kSites[s].name, c.rows, c.adapters, c.rank,
            micros(6, stream,
                   [&](int i) {
                     lora_expand(lists, site_of(s, i), step.arrays, buffers[i % 2], c.rows, n,
                                 stream);
                   }),
            4.0 * c.rows * n);
    }
    print("silu_plain", "gate_up", c.rows, c.adapters, c.rank,
          micros(6, stream, [&](int i) { silu_mul(buffers[i % 2], out, c.rows, kInner, stream); }),
          6.0 * c.rows * kInner);
    print("silu_lora", "gate_up", c.rows, c.adapters, c.rank,
          micros(6, stream,
                 [&](int i) {
                   lora_silu_mul(lists, site_of(2, i), step.arrays, buffers[i % 2], out, c.rows,
                                 kInner, stream);
                 }),
          6.0 * c.rows * kInner);
    print("norm_plain", "down", c.rows, c.adapters, c.rank,
          micros(6, stream,
                 [&](int i) {
                   NormArguments args;
                   args.residual = residual;
                   args.delta = buffers[i % 2];
                   args.gain = gain;
                   args.y = out;
                   args.rows = c.rows;
                   args.hidden = kHidden;
                   rms_norm(args, stream);
                 }),
          12.0 * c.rows * kHidden);
    print("norm_lora", "down", c.rows, c.adapters, c.rank,
          micros(6, stream,
                 [&](int i) {
                   lora_add_rms_norm(lists, site_of(3, i), step.arrays,
                                     {residual, buffers[i % 2], gain, out, 1e-5f, c.rows, kHidden},
                                     stream);
                 }),
          12.0 * c.rows * kHidden);
    std::fflush(stdout);
    LORAX_CUDA(cudaFree(buffers[0]));
    LORAX_CUDA(cudaFree(buffers[1]));
  }
}

}  // namespace
}  // namespace lorax::cuda

int main(int argc, char** argv) {
  const auto wants = [&](const char* part) {
    if (argc == 1) return true;
    for (int i = 1; i < argc; ++i) {
      if (std::strcmp(argv[i], part) == 0) return true;
    }
    return false;
  };
  try {
    cudaStream_t stream;
    LORAX_CUDA(cudaStreamCreate(&stream));
    std::printf("kernel,site,rows,adapters,rank,us,GB/s\n");
    if (wants("few")) lorax::cuda::few(stream);
    if (wants("many")) lorax::cuda::many(stream);
  } catch (const lorax::Error& error) {
    std::printf("%s\n", error.what());
    return 1;
  }
  return 0;
}
