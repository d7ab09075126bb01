// Creation, load time, pages and adapters.
#include <algorithm>
#include <string>
#include <thread>

#include "backend/base_copies.h"
#include "backend/output_affine.h"
#include "backend/tensor_fault.h"
#include "backend/tensor_values.h"
#include "cuda/check.h"
#include "cuda/cuda_backend_impl.h"
#include "cuda/merged_norms.h"
#include "cuda/probe.h"

namespace lorax {
namespace cuda {

Stream::Stream() { LORAX_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }

Stream::~Stream() {
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

// Waiting threads sleep: with a step queued behind the one awaited, latency costs nothing.
Event::Event() {
  LORAX_CUDA(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming | cudaEventBlockingSync));
}

Event::~Event() {
  if (event_ != nullptr) cudaEventDestroy(event_);
}

PlacedAdapter::~PlacedAdapter() { static_cast<void>(cudaEventSynchronize(arrived.back())); }

bool PlacedAdapter::has_arrived() const {
  if (!is_over(arrived.back())) return false;
  image.reset();
  tables = {};
  return true;
}

int32_t PlacedAdapter::parts_of_layers(int32_t layer) const {
  if (pages_of_layers.empty()) return kParts;
  const auto last = static_cast<int32_t>(pages_of_layers.size()) - 1;
  const int32_t pages = pages_of_layers[static_cast<size_t>(std::min(layer, last))];
  return std::clamp((pages + pages_of_part - 1) / pages_of_part, 1, kParts);
}

namespace {

// Everything made after it is made on the device asked for.
const CudaOptions& on_device(const CudaOptions& options) {
  LORAX_CUDA(cudaSetDevice(options.device));
  return options;
}

int attribute(cudaDeviceAttr which, int32_t device) {
  int value = 0;
  LORAX_CUDA(cudaDeviceGetAttribute(&value, which, device));
  return value;
}

}  // namespace

CudaBackend::CudaBackend(const CudaOptions& options)
    : options_(on_device(options)),
      device_name_(probe_device(options.device)),
      num_sms_(attribute(cudaDevAttrMultiProcessorCount, options.device)),
      streams_(stream_gemm_available(options.device)),
      host_images_(std::make_shared<PinnedHeap>(options.device, int64_t{256} << 20)),
      host_tables_(std::make_shared<PinnedHeap>(options.device, int64_t{16} << 20)),
      loader_(std::make_unique<WeightLoader>(stream_)),
      cublaslt_(options.device, options.cache_directory) {}

CudaBackend::~CudaBackend() {
  cudaSetDevice(options_.device);
  cudaStreamSynchronize(copies_);
  cudaStreamSynchronize(stream_);
}

BackendInfo CudaBackend::info() const {
  return {"cuda", device_name_ + ", bf16 weights and KV" +
                      (options_.deterministic ? ", deterministic" : "")};
}

// Long prompts beside running streams: a step of 2048 rows is some 50 ms for an 8B model on an
// H100. Deterministic: few rows alone have one order of accumulation whatever their number.
BatchRows CudaBackend::batch_rows() const {
  if (options_.deterministic) return {kStreamedRows, kStreamedRows};
  return {2048, 1 << 16};
}

// ---- load time ----

std::unique_ptr<Weight> CudaBackend::pack_weight(std::span<const TensorView> tensors,
                                                 std::span<const TensorView> biases) {
  std::unique_ptr<DeviceWeight> out = loader_->weight(tensors, biases);
  streams_ = streams_ && out->k % 8 == 0;
  if (streams_) out->stream.emplace(out->values.as<void>(), out->n, out->k);
  return out;
}

std::unique_ptr<Vector> CudaBackend::pack_vector(const TensorView& tensor) {
  return loader_->vector(tensor);
}

// A page holds a block of KV, and at least one slice of an adapter.
int64_t CudaBackend::page_bytes(const KvLayout& layout) const {
  constexpr int64_t kAlign = 4096;
  const int64_t kv =
      int64_t{layout.num_layers} * 2 * layout.num_kv_heads * block_tokens() * layout.head_dim * 2;
  const int64_t needed =
      std::max({kv, a_slice_bytes(layout.widest_module, kRankGroup),
                b_slice_bytes(layout.widest_module, kRankGroup), int64_t{64} << 10});
  return (needed + kAlign - 1) / kAlign * kAlign;
}

int32_t CudaBackend::allocate_pages(int64_t memory_bytes, int32_t context_tokens) {
  static_cast<void>(context_tokens);  // the fraction of a device is worth more than one sequence
  LORAX_CUDA(cudaSetDevice(options_.device));
  LORAX_CUDA(cudaStreamSynchronize(stream_));
  const int64_t page = page_bytes(layout_);
  const int64_t available = arena_->available_bytes();
  const int64_t budget =
      memory_bytes > 0
          ? memory_bytes
          : static_cast<int64_t>(static_cast<double>(available) * options_.memory_fraction);
  if (budget > available || budget < page) {
    throw Error("POOL_EXHAUSTED",
                "a pool of " + std::to_string(budget) + " bytes is asked for, one page takes " +
                    std::to_string(page) + " and " + std::to_string(available) +
                    " bytes of device memory are free after weights and buffers",
                {{"memoryBytes", static_cast<double>(budget)},
                 {"pageBytes", static_cast<double>(page)},
                 {"availableBytes", static_cast<double>(available)}});
  }
  num_pages_ = static_cast<int32_t>(std::min<int64_t>(budget / page, INT32_MAX));
  arena_->map(num_pages_ * page);
  return num_pages_;
}

// ---- adapters ----

namespace {

std::vector<float> vector_values(const TensorView& tensor) {
  std::vector<float> out(static_cast<size_t>(tensor.data == nullptr ? 0 : tensor.cols));
  if (!read_floats(tensor.data, tensor.dtype, static_cast<int64_t>(out.size()), out.data())) {
    fail_tensor("ADAPTER_INVALID", tensor, "holds NaN or Inf");
  }
  return out;
}

}  // namespace

// [modules]; empty where none has one.
std::vector<OutputAffine> CudaBackend::affines_of(std::span<const AdapterModule> modules) const {
  if (std::none_of(modules.begin(), modules.end(), has_affine)) return {};
  std::vector<OutputAffine> out;
  for (const AdapterModule& m : modules) {
    check_adapter_module(m);
    if (!has_affine(m)) {
      out.emplace_back();
      continue;
    }
    const std::vector<float> magnitude = vector_values(m.magnitude);
    std::vector<float> norms, bias;
    if (!magnitude.empty()) {
      norms = merged_norms(m);
      bias = base_bias(m);
    }
    out.push_back(output_affine(m, vector_values(m.b_bias), magnitude, norms, bias));
  }
  return out;
}

std::unique_ptr<AdapterImage> CudaBackend::pack_adapter(std::span<const AdapterModule> given) {
  LORAX_CUDA(cudaSetDevice(options_.device));
  const std::vector<AdapterModule> modules = without_base_copies(given, is_base);
  const std::vector<OutputAffine> affines = affines_of(modules);
  auto out = std::make_unique<HostImage>();
  out->layout = image_layout(modules, page_bytes(layout_), affines);
  out->num_pages = out->layout.num_pages;
  out->bytes = out->layout.bytes;
  out->data = std::make_shared<PinnedHeap::Block>(host_images_->take(out->layout.bytes));
  // One at a time, with some of the cores: the engine's thread and JavaScript's must find theirs
  // idle, or they lose milliseconds.
  const std::lock_guard lock(packing_);
  const auto cores = static_cast<int32_t>(std::thread::hardware_concurrency());
  fill_image(modules, out->layout, out->data->data(), std::clamp(cores * 3 / 8, 1, 6), affines);
  return out;
}

std::unique_ptr<ResidentAdapter> CudaBackend::place_adapter(const AdapterImage& image,
                                                            std::span<const int32_t> pages) {
  LORAX_CUDA(cudaSetDevice(options_.device));
  const auto& host = static_cast<const HostImage&>(image);
  const ImageLayout& layout = host.layout;
  auto out = std::make_unique<PlacedAdapter>(++num_placed_);
  out->max_groups = layout.max_groups;
  out->formats = layout.formats;
  out->image = host.data;
  out->tables = host_tables_->take(layout.table_bytes);
  write_tables(layout, arena_->data(), pages, out->tables.data());
  const auto page_at = [&](int32_t page) {
    return arena_->data() + pages[page] * layout.page_bytes;
  };
  out->pages_of_layers = layout.pages_of_layers;
  out->pages_of_part = (layout.num_pages + PlacedAdapter::kParts - 1) / PlacedAdapter::kParts;
  const auto copy = [&](int32_t page, const uint8_t* from, int64_t size) {
    from += page * layout.page_bytes;
    uint8_t* to = page_at(page);
    int64_t left = std::min(layout.page_bytes, size - page * layout.page_bytes);
    while (left > 0) {
      const int64_t bytes = std::min(left, PinnedHeap::bytes_in_piece(from));
      LORAX_CUDA(
          cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, copies_));
      to += bytes, from += bytes, left -= bytes;
    }
  };
  load_timer_.begin(copies_);
  int32_t page = 0;
  for (int32_t part = 0; part < PlacedAdapter::kParts; ++part) {
    const int32_t end = std::min(layout.num_pages, (part + 1) * out->pages_of_part);
    for (; page < end; ++page) {
      copy(page, host.data->data(), layout.bytes);
      copy(page, out->tables.data(), layout.table_bytes);
    }
    LORAX_CUDA(cudaEventRecord(out->arrived[static_cast<size_t>(part)], copies_));
  }
  load_timer_.end(copies_, layout.num_pages);
  out->table = reinterpret_cast<const AdapterTable*>(page_at(0));
  return out;
}

int64_t CudaBackend::page_load_ns() { return load_timer_.page_ns(); }

}  // namespace cuda

std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& options) {
  return std::make_unique<cuda::CudaBackend>(options);
}

}  // namespace lorax
