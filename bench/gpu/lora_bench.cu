// Times the LoRA kernels on Llama-3.1-8B's sizes: microseconds per launch inside a CUDA graph,
// against the bytes each must move. Correctness is test/native/cuda's.
//
// Adapters of several layers are walked in turn, so that A and B come from device memory; x and y
// are as hot as the kernel before leaves them (few rows) or rotate too (many rows). Prints CSV:
// kernel,site,rows,adapters,rank,us,GB/s,of_copy, the last one the share of --copy=<GB/s> (a device
// copy's, bytes read and written). Arguments: few, many, short; none = all. rows: the many rows of
// a prefill alone, each LoRA kernel beside its plain form and the sum of a layer. short: decodes
// that have an adapter each, both ways.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "common/graph_timer.h"
#include "cuda/adapter_image.h"
#include "cuda/check.h"
#include "cuda/lora_items.h"
#include "cuda/lora_rope.h"
#include "cuda/lora_rows.h"
#include "cuda/norm.h"
#include "cuda/rope_kv.h"
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

double copy_speed = 4300;  // GB/s

void print(const char* kernel, const char* site, int32_t rows, int adapters, int32_t rank,
           double us, double bytes) {
  const double speed = bytes / us * 1e-3;
  std::printf("%s,%s,%d,%d,%d,%.2f,%.0f,%.3f\n", kernel, site, rows, adapters, rank, us, speed,
              speed / copy_speed);
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
        Case{128, 128, 16, 2}, Case{32, 8, 64, 4}}) {
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
    lists.items = device_array<LoraSiteItems>(lists.num_sites);
    lists.units = device_array<LoraUnit>(int64_t{parts} * LoraItemsCapacity::kUnits);
    lists.sets = device_array<LoraSet>(int64_t{parts} * LoraItemsCapacity::kSets);
    lists.chunks = device_array<LoraChunk>(int64_t{parts} * LoraItemsCapacity::kChunks);
    lists.rows = device_array<LoraRow>(int64_t{parts} * LoraItemsCapacity::kRows);
    if (!LoraItemsCapacity::fits(step.load)) std::printf("# does not fit\n");
    const double items_us =
        micros(20, stream, [&](int) { make_lora_items(lists, step.arrays, stream); });
    print("items", "all", c.rows, c.adapters, c.rank, items_us, 0);
    std::fflush(stdout);
  }
}

// Rows as sequences of 1024 tokens, and a layer's pages for them.
RopeKv make_prompts(int32_t rows, StepArrays& arrays) {
  constexpr int32_t kPrompt = 1024, kHeadDim = 128, kHeads = 32, kKvHeads = 8;
  std::vector<DeviceSpan> spans;
  std::vector<int32_t> positions, row_span, tables;
  for (int32_t row = 0; row < rows; ++row) {
    if (row % kPrompt == 0) {
      const int32_t blocks = std::min(kPrompt, rows - row) / 16;
      spans.push_back({row, blocks * 16, 0, row / 16, blocks});
    }
    positions.push_back(row % kPrompt);
    row_span.push_back(row / kPrompt);
    if (row % 16 == 0) tables.push_back(row / 16);
  }
  arrays.positions = device_copy(positions);
  arrays.row_span = device_copy(row_span);
  arrays.spans = device_copy(spans);
  arrays.block_tables = device_copy(tables);
  RopeKv out;
  out.rows = rows;
  out.num_heads = kHeads;
  out.pages.page_bytes = int64_t{2} * kKvHeads * 16 * kHeadDim * 2;
  out.pages.pool = device_array<uint8_t>(rows / 16 * out.pages.page_bytes);
  out.pages.num_kv_heads = kKvHeads;
  out.pages.head_dim = kHeadDim;
  out.inv_freq = device_copy(std::vector<float>(kHeadDim / 2, 0.01f));
  return out;
}

LoraRowLists make_lists(const Step& step, int32_t tile_rows) {
  LoraRowLists out;
  const auto segment_rows = static_cast<int32_t>(step.load.rows);
  out.capacity = {step.rows, step.segments, segment_rows, step.load.row_groups};
  out.tile_rows = tile_rows;
  out.v_begin = device_array<int64_t>(step.segments);
  out.num_tiles = device_array<int32_t>(1);
  out.tiles = device_array<LoraRowTile>(out.capacity.max_tiles(tile_rows));
  out.pair_begin = device_array<int32_t>((step.rows + 15) / 16 + 1);
  out.pairs = device_array<LoraRowPair>(segment_rows);
  out.slices = device_array<LoraRowSlices>(int64_t{step.segments} * LoraSiteItems::kMaxParts);
  out.v = device_array<__nv_bfloat16>(out.capacity.v_bytes() / 2);
  return out;
}

LoraRowSite row_site(int s, int32_t layer) {
  LoraRowSite out;
  out.layer = layer;
  int32_t column = 0;
  for (const int32_t m : kSites[s].modules) {
    out.modules[out.num_parts] = m;
    out.column[out.num_parts] = column;
    out.columns[out.num_parts++] = kDOut[m];
    column += kDOut[m];
  }
  return out;
}

struct RowsCase {
  int32_t rows;
  int adapters;
  int32_t rank;
};

// One LoRA kernel a site, and what base rows would take there.
void time_rows(const RowsCase& c, bool alone_too, cudaStream_t stream) {
  const int32_t layers = 2;
  const auto adapters = make_adapters(c.adapters, layers, c.rank);
  const int32_t groups = (c.rank + 15) / 16;
  Step step = make_step(adapters, c.rows, true, groups);
  RopeKv rope = make_prompts(c.rows, step.arrays);
  const LoraRowLists lists = make_lists(step, LoraRowTile::kRows);
  const auto site_of = [&](int s, int i) { return row_site(s, i % layers); };
  // Two of each buffer: at 8192 rows each is larger than the cache, at 256 both stay in it.
  const int64_t wide = int64_t{c.rows} * 2 * kInner;
  __nv_bfloat16* buffers[2] = {random_bf16(wide), random_bf16(wide)};
  __nv_bfloat16* out = random_bf16(int64_t{c.rows} * kInner);
  float* residual = device_array<float>(int64_t{c.rows} * kHidden);
  LORAX_CUDA(cudaMemset(residual, 0, static_cast<size_t>(c.rows) * kHidden * 4));
  const float* gain = device_copy(std::vector<float>(kHidden, 1.0f));
  const auto time = [&](const char* kernel, const char* site, double bytes,
                        const std::function<void(int)>& launch) {
    const double us = micros(6, stream, launch);
    print(kernel, site, c.rows, c.adapters, c.rank, us, bytes);
    return us;
  };
  const auto shrink = [&](int s, int i) {
    lora_shrink_rows(lists, site_of(s, i), step.arrays, buffers[i % 2], c.rows,
                     kDIn[kSites[s].modules[0]], stream);
  };
  time("rows_lists", "all", 0, [&](int) { make_lora_rows(lists, step.arrays, c.rows, stream); });
  // The slices and v of a site are those of its shrink: it comes before what reads them.
  const auto after = [&](int s) {
    shrink(s, 0);
    LORAX_CUDA(cudaStreamSynchronize(stream));
  };
  double shrinks = 0;
  for (int s = 0; s < 4; ++s) {
    const double x_bytes = 2.0 * c.rows * kDIn[kSites[s].modules[0]];
    shrinks += time("shrink_rows", kSites[s].name, x_bytes, [&](int i) { shrink(s, i); });
    if (!alone_too) continue;
    int32_t n = 0;
    for (const int32_t m : kSites[s].modules) n += kDOut[m];
    time("expand", kSites[s].name, 4.0 * c.rows * n,
         [&](int i) { lora_expand(lists, site_of(s, i), buffers[i % 2], c.rows, n, stream); });
  }
  print("shrink_rows", "layer", c.rows, c.adapters, c.rank, shrinks,
        2.0 * c.rows * (3 * kHidden + kInner));

  after(0);
  const auto rope_of = [&](int i) {
    rope.qkv = buffers[i % 2];
    return rope;
  };
  const double rope_bytes = 4.0 * c.rows * (kHidden + 2 * kKv);
  const double rope_plain = time("rope_plain", "qkv", rope_bytes, [&](int i) {
    rope_and_store_kv(rope_of(i), step.arrays, stream);
  });
  const double rope_lora = time("rope_lora", "qkv", rope_bytes, [&](int i) {
    lora_rope_and_store_kv(lists, rope_of(i), step.arrays, stream);
  });
  after(2);
  const double silu_bytes = 6.0 * c.rows * kInner;
  const double silu_plain = time("silu_plain", "gate_up", silu_bytes, [&](int i) {
    silu_mul(buffers[i % 2], out, c.rows, kInner, stream);
  });
  const double silu_lora = time("silu_lora", "gate_up", silu_bytes, [&](int i) {
    lora_silu_mul(lists, buffers[i % 2], out, c.rows, kInner, stream);
  });
  after(3);
  const double norm_bytes = 12.0 * c.rows * kHidden;
  const double norm_plain = time("norm_plain", "down", norm_bytes, [&](int i) {
    NormArguments args;
    args.residual = residual;
    args.delta = buffers[i % 2];
    args.gain = gain;
    args.y = out;
    args.rows = c.rows;
    args.hidden = kHidden;
    rms_norm(args, stream);
  });
  const double norm_lora = time("norm_lora", "down", norm_bytes, [&](int i) {
    lora_add_rms_norm(lists, {residual, buffers[i % 2], gain, out, 1e-5f, c.rows, kHidden}, stream);
  });
  const double plain = rope_plain + silu_plain + 2 * norm_plain;
  const double lora = rope_lora + silu_lora + 2 * norm_lora + shrinks;
  std::printf("# %d rows, %d adapters: %.1f us a layer more than the base's %.1f\n", c.rows,
              c.adapters, lora - plain, plain);
  std::fflush(stdout);
  for (void* data : {static_cast<void*>(buffers[0]), static_cast<void*>(buffers[1]),
                     static_cast<void*>(out), static_cast<void*>(residual)}) {
    LORAX_CUDA(cudaFree(data));
  }
}

void many(cudaStream_t stream) {
  for (const RowsCase& c :
       {RowsCase{256, 1, 16}, RowsCase{1024, 1, 16}, RowsCase{2048, 2, 16}, RowsCase{8192, 1, 16},
        RowsCase{8192, 8, 16}, RowsCase{8192, 64, 16}, RowsCase{8192, 8, 64}}) {
    time_rows(c, true, stream);
  }
}

// Decodes: shrink and expand as of short segments and as of long ones, beside the bytes of A and B.
void short_rows(cudaStream_t stream) {
  for (const RowsCase& c :
       {RowsCase{32, 32, 16}, RowsCase{128, 8, 16}, RowsCase{128, 32, 16}, RowsCase{128, 128, 16},
        RowsCase{256, 8, 16}, RowsCase{256, 256, 16}, RowsCase{256, 64, 64}}) {
    const int32_t layers = std::max(2, 64 / c.adapters);
    const int32_t groups = (c.rank + 15) / 16;
    const auto adapters = make_adapters(c.adapters, layers, c.rank);
    const Step step = make_step(adapters, c.rows, false, groups);
    __nv_bfloat16* x = random_bf16(int64_t{c.rows} * kInner);
    __nv_bfloat16* y = random_bf16(int64_t{c.rows} * 2 * kInner);
    for (const int32_t tile_rows : {LoraRowTile::kShortRows, LoraRowTile::kRows}) {
      const bool is_short = tile_rows == LoraRowTile::kShortRows;
      const LoraRowLists lists = make_lists(step, tile_rows);
      print(is_short ? "lists_short" : "lists", "all", c.rows, c.adapters, c.rank,
            micros(20, stream, [&](int) { make_lora_rows(lists, step.arrays, c.rows, stream); }),
            0);
      double all = 0, all_bytes = 0;
      for (int s = 0; s < 4; ++s) {
        const int32_t k = kDIn[kSites[s].modules[0]];
        int32_t n = 0;
        for (const int32_t m : kSites[s].modules) n += kDOut[m];
        const double a_bytes = 32.0 * groups * k * c.adapters * kSites[s].modules.size();
        const double b_bytes = 32.0 * groups * n * c.adapters;
        const auto shrink = is_short ? lora_shrink_short : lora_shrink_rows;
        const double shrink_us = micros(4 * layers, stream, [&](int i) {
          shrink(lists, row_site(s, i % layers), step.arrays, x, c.rows, k, stream);
        });
        // Slices are those of the site that was shrunk last: of one layer.
        const double both_us = micros(4 * layers, stream, [&](int i) {
          const LoraRowSite site = row_site(s, i % layers);
          shrink(lists, site, step.arrays, x, c.rows, k, stream);
          lora_expand(lists, site, y, c.rows, n, stream);
        });
        print(is_short ? "shrink_short" : "shrink_rows", kSites[s].name, c.rows, c.adapters, c.rank,
              shrink_us, a_bytes);
        print("and_expand", kSites[s].name, c.rows, c.adapters, c.rank, both_us - shrink_us,
              b_bytes);
        all += both_us;
        all_bytes += a_bytes + b_bytes;
      }
      print(is_short ? "layer_short" : "layer_rows", "all", c.rows, c.adapters, c.rank, all,
            all_bytes);
    }
    std::fflush(stdout);
    LORAX_CUDA(cudaFree(x));
    LORAX_CUDA(cudaFree(y));
  }
}

void prefill_rows(cudaStream_t stream) {
  for (const int32_t rows : {2048, 8192}) {
    for (const int adapters : {1, 8, 64}) time_rows({rows, adapters, 16}, false, stream);
  }
}

}  // namespace
}  // namespace lorax::cuda

int main(int argc, char** argv) {
  bool any = false;
  for (int i = 1; i < argc; ++i) {
    if (std::strncmp(argv[i], "--copy=", 7) == 0) {
      lorax::cuda::copy_speed = std::atof(argv[i] + 7);
    } else {
      any = true;
    }
  }
  const auto wants = [&](const char* part) {
    return std::any_of(argv + 1, argv + argc, [&](char* a) { return std::strcmp(a, part) == 0; });
  };
  try {
    cudaStream_t stream;
    LORAX_CUDA(cudaStreamCreate(&stream));
    std::printf("kernel,site,rows,adapters,rank,us,GB/s,of_copy\n");
    if (!any || wants("few")) lorax::cuda::few(stream);
    if (!any || wants("many")) lorax::cuda::many(stream);
    if (!any || wants("short")) lorax::cuda::short_rows(stream);
    if (wants("rows")) lorax::cuda::prefill_rows(stream);
  } catch (const lorax::Error& error) {
    std::printf("%s\n", error.what());
    return 1;
  }
  return 0;
}
