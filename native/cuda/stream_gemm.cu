// Launches of the streaming GEMM: which instance of the kernel, on which grid, with which tensor
// maps. A tensor map is made per launch: it is plain arithmetic on the host, and a captured graph
// keeps its own copy. Called by the CUDA backend through stream_gemm.h.
#include <algorithm>
#include <array>
#include <string>

#include "cuda/check.h"
#include "cuda/stream_gemm.h"
#include "cuda/stream_gemm_kernel.cuh"

namespace lorax::cuda {

namespace {

constexpr int64_t kMaxSharedBytes = 232448;
constexpr int64_t kAlignmentSlack = 1024;
// Of W, by one block: keeps the memory busy. More only makes queues longer, for the small kernels
// beside this one too, and their shares of the bandwidth uneven.
constexpr int32_t kBytesInFlight = 64 * 1024;
constexpr int32_t kMaxStages = 16;
// The accumulators of 256 columns fill the registers: one warpgroup only, tiles of 64 rows.
constexpr int32_t kMaxColumnsOf128 = 128;

using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*,
                            const cuuint64_t*, const cuuint32_t*, const cuuint32_t*,
                            CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion,
                            CUtensorMapFloatOOBfill);

// From the driver that is loaded, so that nothing links libcuda.
Encode tensor_map_encoder() {
  static const Encode encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    LORAX_CUDA(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                                cudaEnableDefault, &found));
    if (found != cudaDriverEntryPointSuccess) {
      throw Error("ENGINE_LOST", "the CUDA driver has no cuTensorMapEncodeTiled: update it");
    }
    return reinterpret_cast<Encode>(function);
  }();
  return encode;
}

// Boxes of box_rows x 64 of a bf16 matrix [rows, columns], 128-byte swizzle, zeros outside.
CUtensorMap tensor_map(const void* data, int64_t rows, int64_t columns, int32_t box_rows) {
  CUtensorMap map;
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(columns) * 2};
  const cuuint32_t box[2] = {kAtom, static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[2] = {1, 1};
  const CUresult status = tensor_map_encoder()(
      &map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(data), sizes, strides, box,
      steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
      CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS) {
    throw Error("ENGINE_LOST", "cuTensorMapEncodeTiled failed: " + std::to_string(status) +
                                   " for [" + std::to_string(rows) + ", " +
                                   std::to_string(columns) + "]");
  }
  return map;
}

int32_t ceil_div(int64_t a, int64_t b) { return static_cast<int32_t>((a + b - 1) / b); }

int num_sms() {
  static const int count = [] {
    int device = 0;
    int value = 0;
    LORAX_CUDA(cudaGetDevice(&device));
    LORAX_CUDA(cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, device));
    return value;
  }();
  return count;
}

StreamSchedule schedule_of(int64_t n, int64_t k, const StreamGemmConfig& config) {
  StreamSchedule schedule;
  schedule.split = config.split;
  schedule.tile_rows = config.tile_rows;
  schedule.block_atoms = config.block_atoms;
  schedule.atoms = ceil_div(k, kAtom);
  schedule.num_tiles = ceil_div(n, config.tile_rows);
  schedule.clusters = config.clusters;
  if (schedule.clusters == 0) {
    const int32_t at_once = std::max(1, num_sms() / config.split);
    const int32_t rounds = ceil_div(schedule.num_tiles, at_once);
    schedule.clusters = ceil_div(schedule.num_tiles, rounds);
  }
  return schedule;
}

using Kernel = void (*)(StreamGemmParameters);

template <int kColumns, int kWarpgroups, bool kLora>
Kernel prepared() {
  static const Kernel kernel = [] {
    Kernel function = stream_gemm_kernel<kColumns, kWarpgroups, kLora>;
    LORAX_CUDA(cudaFuncSetAttribute(reinterpret_cast<const void*>(function),
                                    cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(kMaxSharedBytes)));
    return function;
  }();
  return kernel;
}

template <int kColumns>
Kernel kernel_of(int32_t tile_rows, bool lora) {
  if constexpr (kColumns <= kMaxColumnsOf128) {
    if (tile_rows == 128) {
      return lora ? prepared<kColumns, 2, true>() : prepared<kColumns, 2, false>();
    }
  }
  return lora ? prepared<kColumns, 1, true>() : prepared<kColumns, 1, false>();
}

Kernel kernel_of(int32_t columns, int32_t tile_rows, bool lora) {
  switch (columns) {
    case 8:
      return kernel_of<8>(tile_rows, lora);
    case 16:
      return kernel_of<16>(tile_rows, lora);
    case 32:
      return kernel_of<32>(tile_rows, lora);
    case 64:
      return kernel_of<64>(tile_rows, lora);
    case 128:
      return kernel_of<128>(tile_rows, lora);
    default:
      return kernel_of<256>(tile_rows, lora);
  }
}

void require(bool holds, const char* what) {
  if (!holds) throw Error("ENGINE_LOST", std::string("stream_gemm: ") + what);
}

}  // namespace

int32_t stream_gemm_columns(int32_t rows) {
  for (const int32_t columns : {8, 16, 32, 64, 128, 256}) {
    if (rows <= columns) return columns;
  }
  return 0;
}

bool stream_gemm_available(int device) {
  int major = 0;
  LORAX_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  return major == 9;
}

// The choices of docs/decisions/2026-11-22-weights-are-streamed-by-tma.md.
StreamGemmConfig stream_gemm_config(int64_t n, int64_t k, int32_t rows, int32_t num_sms) {
  const int32_t columns = stream_gemm_columns(rows);
  const int32_t atoms = ceil_div(k, kAtom);
  StreamGemmConfig config;

  // From n and k alone: they say in which order a sum is made. Two parts of k where one would leave
  // half of the device idle, four where they leave room: clusters of four do not fill every GPU
  // cluster of multiprocessors.
  const int32_t tiles = ceil_div(n, 64);
  if (tiles * 2 <= num_sms && atoms >= 16) config.split = 2;
  if (tiles * 4 <= num_sms * 3 / 4 && atoms >= 32) config.split = 4;

  // Reading x again for every tile costs more than coarse tiles do at 128 rows.
  config.tile_rows = columns == 128 && ceil_div(n, 128) >= num_sms ? 128 : 64;
  config.block_atoms = columns <= 8 ? 4 : columns <= 64 ? 2 : 1;
  const int32_t block_bytes = config.block_atoms * config.tile_rows * kAtomRowBytes;
  config.in_flight = std::max(1, kBytesInFlight / block_bytes);
  config.stages = kMaxStages;
  while (stream_gemm_shared_bytes(config, rows, true) > kMaxSharedBytes) --config.stages;
  return config;
}

int64_t stream_gemm_shared_bytes(const StreamGemmConfig& config, int32_t rows, bool lora) {
  return SharedLayout(stream_gemm_columns(rows), config.tile_rows, config.block_atoms,
                      config.stages, config.split, lora ? config.lora_slots : 0)
             .bytes +
         kAlignmentSlack;
}

StreamGemm::StreamGemm(const void* w, int64_t n, int64_t k) : w_(w), n_(n), k_(k) {
  require(k % 8 == 0, "k is not a multiple of 8");
}

void StreamGemm::launch(const StreamGemmArguments& arguments, const StreamGemmConfig& config,
                        cudaStream_t stream) const {
  const int32_t columns = stream_gemm_columns(arguments.rows);
  const bool lora = arguments.lora != nullptr;
  const int64_t shared_bytes = std::max<int64_t>(
      stream_gemm_shared_bytes(config, arguments.rows, lora), config.min_shared_bytes);
  require(columns > 0, "more than 256 rows");
  require(arguments.float32_out || n_ % 2 == 0, "n is odd");
  require(config.tile_rows == 64 || config.tile_rows == 128, "tile_rows is not 64 or 128");
  require(config.tile_rows == 64 || columns <= kMaxColumnsOf128, "128 tile_rows for 256 rows");
  require(config.tile_rows / 16 % config.split == 0, "split does not divide a tile's warps");
  require(ceil_div(k_, kAtom) >= config.split, "split is larger than k / 64");
  require(shared_bytes <= kMaxSharedBytes, "the configuration needs too much shared memory");

  StreamGemmParameters p;
  p.schedule = schedule_of(n_, k_, config);
  p.w = tensor_map(w_, n_, k_, config.tile_rows);
  p.x = tensor_map(arguments.x, arguments.max_rows, k_, columns);
  if (arguments.next != nullptr && config.prefetch_next > 0) {
    const StreamGemm& next = *arguments.next;
    p.next = schedule_of(next.n_, next.k_, *arguments.next_config);
    p.next_w = tensor_map(next.w_, next.n_, next.k_, arguments.next_config->tile_rows);
  }
  p.stages = config.stages;
  // More than the stages would wait for a use of a stage that is already over.
  p.in_flight = config.in_flight > 0 ? std::min(config.in_flight, config.stages) : config.stages;
  p.prefetch_next = config.prefetch_next;
  p.trigger = config.trigger;
  p.y = arguments.y;
  p.bias = arguments.bias;
  p.x_ready = arguments.x_ready;
  p.x_ready_count = arguments.x_ready_count;
  p.trace = arguments.trace;
  p.rows = arguments.rows;
  p.n = static_cast<int32_t>(n_);
  p.float32_out = arguments.float32_out;
  if (lora) {
    p.lora_slots = config.lora_slots;
    p.lora = *arguments.lora;
  }

  const int32_t cluster = config.split;
  std::array<cudaLaunchAttribute, 2> attributes{};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = static_cast<unsigned>(cluster);
  attributes[1].val.clusterDim.y = 1;
  attributes[1].val.clusterDim.z = 1;
  cudaLaunchConfig_t launch{};
  launch.gridDim = dim3(static_cast<unsigned>(p.schedule.clusters * cluster));
  launch.blockDim = dim3(static_cast<unsigned>(config.tile_rows * 2 + (lora ? 96 : 64)));
  launch.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  launch.stream = stream;
  launch.attrs = attributes.data();
  launch.numAttrs = cluster > 1 ? 2 : 1;
  check(cudaLaunchKernelEx(&launch, kernel_of(columns, config.tile_rows, lora), p),
        "stream_gemm_kernel");
}

}  // namespace lorax::cuda
