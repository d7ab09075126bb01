// Launches of the streaming GEMM: which instance of the kernel, on which grid, with which tensor
// maps. A tensor map is made per launch: it is plain arithmetic on the host, and a captured graph
// keeps its own copy. Called by the CUDA backend through stream_gemm.h.
#include <algorithm>
#include <string>

#include "cuda/check.h"
#include "cuda/stream_gemm.h"
#include "cuda/stream_gemm_kernel.cuh"

namespace lorax::cuda {

namespace {

constexpr int64_t kMaxSharedBytes = 232448;
constexpr int64_t kAlignmentSlack = 1024;
// What the rings take: leaves room on a multiprocessor for a block of the small kernel that
// follows, which then need not wait for this one's end to start.
constexpr int64_t kRingBytes = 213 * 1024;
// Of W, by one block: keeps the memory busy. More only makes queues longer, for the small kernels
// beside this one too, and their shares of the bandwidth uneven.
constexpr int32_t kBytesInFlight = 64 * 1024;
// Of x: the two blocks that are held, and what arrives from L2 in its latency, which is long beside
// a stream of weights. 128 rows take as much of x as of W; with adapters, whose ring takes room, a
// block less.
constexpr int32_t kMaxXBytes = 48 * 1024;
constexpr int32_t kMaxXBytes128 = 80 * 1024;
constexpr int32_t kMaxXBytes128Lora = 64 * 1024;

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

using Kernel = void (*)(StreamGemmParameters);

template <int kColumns, bool kLora>
Kernel prepared() {
  static const Kernel kernel = [] {
    Kernel function = stream_gemm_kernel<kColumns, kLora>;
    LORAX_CUDA(cudaFuncSetAttribute(reinterpret_cast<const void*>(function),
                                    cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(kMaxSharedBytes)));
    return function;
  }();
  return kernel;
}

Kernel kernel_of(int32_t columns, bool lora) {
  switch (columns) {
    case 8:
      return lora ? prepared<8, true>() : prepared<8, false>();
    case 16:
      return lora ? prepared<16, true>() : prepared<16, false>();
    case 32:
      return lora ? prepared<32, true>() : prepared<32, false>();
    case 64:
      return lora ? prepared<64, true>() : prepared<64, false>();
    default:
      return lora ? prepared<128, true>() : prepared<128, false>();
  }
}

// Every block of a launch must run at the same time: with adapters they wait for each other.
StreamSchedule schedule_of(int64_t n, int64_t k, const StreamGemmConfig& config, bool gated) {
  StreamSchedule schedule;
  schedule.split = config.split;
  schedule.block_atoms = config.block_atoms;
  schedule.atoms = ceil_div(k, kAtom);
  if (gated) {
    schedule.tile_step = kHalfRows;
    schedule.half_distance = static_cast<int32_t>(n / 2);
  }
  schedule.num_work = ceil_div(gated ? n / 2 : n, schedule.tile_step) * config.split;
  schedule.blocks = config.blocks;
  if (schedule.blocks == 0) {
    schedule.blocks = ceil_div(schedule.num_work, ceil_div(schedule.num_work, num_sms()));
  }
  return schedule;
}

void require(bool holds, const char* what) {
  if (!holds) throw Error("ENGINE_LOST", std::string("stream_gemm: ") + what);
}

}  // namespace

int32_t stream_gemm_columns(int32_t rows) {
  for (const int32_t columns : {8, 16, 32, 64, 128}) {
    if (rows <= columns) return columns;
  }
  return 0;
}

bool stream_gemm_available(int device) {
  int major = 0;
  LORAX_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  return major == 9;
}

int32_t stream_gemm_split(int64_t n, int64_t k, int32_t num_sms) {
  const int32_t tiles = ceil_div(n, kTileRows);
  const int32_t atoms = ceil_div(k, kAtom);
  int32_t split = 1;
  while (split < 4 && tiles * split * 2 <= num_sms && atoms >= 16 * split) split *= 2;
  return split;
}

// The choices of docs/decisions/2026-11-28-adapters-inside-the-weights-kernel.md.
StreamGemmConfig stream_gemm_config(int32_t split, int32_t rows, bool lora, bool gated) {
  const int32_t columns = stream_gemm_columns(rows);
  StreamGemmConfig config;
  config.split = split;
  config.block_atoms = columns <= 64 ? 2 : 1;
  const int32_t w_bytes = config.block_atoms * kTileRows * kAtomRowBytes;
  const int32_t x_bytes = config.block_atoms * columns * kAtomRowBytes;
  config.in_flight = kBytesInFlight / w_bytes;
  const int32_t max_x_bytes = columns != 128 ? kMaxXBytes
                              : lora         ? kMaxXBytes128Lora
                                             : kMaxXBytes128;
  config.w_stages = 16;
  const auto too_large = [&] {
    config.x_stages = std::min(config.w_stages, std::max(2, max_x_bytes / x_bytes));
    return stream_gemm_shared_bytes(config, rows, lora, gated) > kRingBytes;
  };
  while (config.w_stages > 2 && too_large()) --config.w_stages;
  return config;
}

int64_t stream_gemm_shared_bytes(const StreamGemmConfig& config, int32_t rows, bool lora,
                                 bool gated) {
  return SharedLayout(stream_gemm_columns(rows), config.block_atoms, config.w_stages,
                      config.x_stages, config.split, lora ? config.lora_sets : 0, gated)
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
  const int64_t shared_bytes =
      stream_gemm_shared_bytes(config, arguments.rows, lora, arguments.gated);
  require(columns > 0, "more than 128 rows");
  require(arguments.float32_out || n_ % 2 == 0, "n is odd");
  require(kTileWarps % config.split == 0, "split does not divide a tile's warps");
  require(ceil_div(k_, kAtom) >= config.split, "split is larger than k / 64");
  require(!arguments.gated || (config.split == 1 && n_ % 4 == 0 && !arguments.float32_out),
          "gate and up are not of one even length, or in parts, or not bf16");
  require(!lora || !arguments.lora->early || config.block_atoms <= 2,
          "adapters on the way through k want blocks of one or two atoms");
  require(shared_bytes <= kMaxSharedBytes, "the configuration needs too much shared memory");

  StreamGemmParameters p;
  p.schedule = schedule_of(n_, k_, config, arguments.gated);
  p.w = tensor_map(w_, n_, k_, kHalfRows);
  p.x = tensor_map(arguments.x, arguments.max_rows, k_, columns);
  p.w_stages = config.w_stages;
  p.x_stages = config.x_stages;
  // More than the stages would wait for a use of a stage that is already over.
  p.in_flight = std::min(config.in_flight, config.w_stages);
  p.y = arguments.y;
  p.part_stride = arguments.part_stride;
  p.bias = arguments.bias;
  p.rows = arguments.rows;
  p.n = static_cast<int32_t>(n_);
  p.k = static_cast<int32_t>(k_);
  p.float32_out = arguments.float32_out;
  p.gated = arguments.gated;
  p.x_rows = arguments.x;
  p.trace = arguments.trace;
  if (lora) {
    p.lora_sets = config.lora_sets;
    p.lora = *arguments.lora;
  }

  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t launch{};
  launch.gridDim = dim3(static_cast<unsigned>(p.schedule.blocks));
  launch.blockDim =
      dim3(static_cast<unsigned>(lora ? kStreamThreads<true> : kStreamThreads<false>));
  launch.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  launch.stream = stream;
  launch.attrs = &attribute;
  launch.numAttrs = 1;
  check(cudaLaunchKernelEx(&launch, kernel_of(columns, lora), p), "stream_gemm_kernel");
}

}  // namespace lorax::cuda
