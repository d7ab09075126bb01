// The class behind make_cuda_backend: state here, load time in cuda_backend.cc, what comes before
// the first step in cuda_reserve.cc, the operations of a step in cuda_step.cc, linears and their
// adapters in cuda_linear.cc.
//
// Activations are bf16, [rows, cols] without gaps; the residual and logits are float32. Every
// operation enqueues on one stream; buffers are taken in reserve(), so their addresses never change
// and a step can be recorded. Rows of a recorded step are a bucket: see step_arrays.h.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "backend/backend.h"
#include "cuda/adapter_image.h"
#include "cuda/cublaslt.h"
#include "cuda/cuda_backend.h"
#include "cuda/device_memory.h"
#include "cuda/kv_pages.h"
#include "cuda/load_timer.h"
#include "cuda/lora_items.h"
#include "cuda/lora_rows.h"
#include "cuda/pinned_heap.h"
#include "cuda/sample.h"
#include "cuda/split_sum.h"
#include "cuda/step_graphs.h"
#include "cuda/step_upload.h"
#include "cuda/stream_gemm.h"
#include "cuda/weight_loader.h"

namespace lorax::cuda {

// With their owners.
class Stream {
 public:
  Stream();
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

class Event {
 public:
  Event();
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  operator cudaEvent_t() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

// An adapter in pinned host memory, exactly as its pages will be but for the tables.
class HostImage final : public AdapterImage {
 public:
  ImageLayout layout;
  std::shared_ptr<PinnedHeap::Block> data;
};

// An adapter on its way into pages, or there. Steps that use it wait on the device, each layer for
// the part of the copy that holds its slices.
class PlacedAdapter final : public ResidentAdapter {
 public:
  static constexpr int32_t kParts = 8;

  explicit PlacedAdapter(uint64_t number) : id(number) {}
  ~PlacedAdapter() override;          // waits for the copies
  bool has_arrived() const override;  // then it needs host memory no more

  // Of parts, counted from the first: so many hold all that layers [0, layer] need.
  int32_t parts_of_layers(int32_t layer) const;

  const uint64_t id;                    // no other ever placed has it: pages, and so tables, return
  const AdapterTable* table = nullptr;  // on the device
  int32_t max_groups = 0;
  uint32_t formats = kPlain;                         // AdapterFormats
  std::vector<int32_t> pages_of_layers;              // ImageLayout's
  int32_t pages_of_part = 0;                         // the last one may have fewer
  std::array<Event, kParts> arrived;                 // after each part of the copy, in order
  mutable int32_t parts_waited_for = 0;              // by the step stream
  mutable std::shared_ptr<PinnedHeap::Block> image;  // sources of the copies, until they are over
  mutable PinnedHeap::Block tables;
};

// Steps of so many rows stream the weights; above, cuBLASLt is as fast or faster.
inline constexpr int32_t kStreamedRows = 128;

// Steps of so many rows are recorded.
inline constexpr int32_t kMaxRecordedRows = 256;

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const CudaOptions& options);
  ~CudaBackend() override;

  BackendInfo info() const override;
  BatchRows batch_rows() const override;
  Precision precision() const override { return Precision::kBFloat16; }

  std::unique_ptr<Weight> pack_weight(std::span<const TensorView> tensors,
                                      std::span<const TensorView> biases) override;
  std::unique_ptr<Vector> pack_vector(const TensorView& tensor) override;
  int32_t row_tile() const override { return 256; }
  int32_t block_tokens() const override { return KvPages::kBlockTokens; }
  int64_t page_bytes(const KvLayout& layout) const override;
  void reserve(const KvLayout& layout, const RopeConfig& rope, int32_t max_rows,
               int32_t max_logits_rows) override;
  void record(const std::function<Activation()>& issue) override;
  int32_t allocate_pages(int64_t memory_bytes, int32_t context_tokens) override;

  std::unique_ptr<AdapterImage> pack_adapter(std::span<const AdapterModule> given) override;
  std::unique_ptr<ResidentAdapter> place_adapter(const AdapterImage& image,
                                                 std::span<const int32_t> pages) override;
  bool copies_beside_steps() const override { return true; }
  int64_t page_load_ns() override;

  int32_t steps_ahead() const override { return 1; }
  void begin_step(const StepPlan& plan) override;
  bool is_idle() const override;
  std::optional<Activation> replay() override;
  Activation embed(const Weight& table, const LoraSite* site) override;
  Activation rms_norm(const Activation& residual, const Vector& gain, float eps) override;
  Activation add_rms_norm(Activation& residual, const Activation& delta, const Vector& gain,
                          float eps, bool sampled_rows) override;
  void pool(const Activation& residual, Activation& delta, const Vector& gain, float eps) override;
  Activation linear(const Activation& x, const Weight& weight, const LoraSite* site) override;
  void rope_and_store_kv(Activation& qkv, int32_t layer, const AttentionConfig& config,
                         const Vector* q_gain, const Vector* k_gain, float eps) override;
  Activation attention(const Activation& qkv, int32_t layer,
                       const AttentionConfig& config) override;
  Activation silu_mul(const Activation& gate_up) override;
  void sample(const Activation& logits) override;
  void read_logits(const Activation& logits, std::span<float> out) override;
  void end_step() override;
  void collect(std::span<SampleResult> results) override;
  std::span<const float> pooled() const override { return collected_sums_; }

 private:
  static constexpr int kSlots = 3;  // steps between begin_step and collect, at most, and one more
  static constexpr int64_t kSampleEntries = 1 << 16;  // of a step's penalties and biases, usually

  // The step being issued, or recorded: what the host must know of it to choose launches.
  struct Issue {
    StepArrays arrays;
    SampleArrays samples;
    int32_t rows = 0;         // of every activation: the bucket's when recorded or replayed
    int32_t logits_rows = 0;  // likewise
    int32_t num_spans = 0;
    int32_t num_pooled = 0;  // spans; then it is not recorded
    bool decodes = false;    // every row is a span of its own
    AdapterKernels adapters = AdapterKernels::kNone;
    // Of kernels of their own (lora_rows.h): segments of `long_from` rows are long; there are such,
    // and shorter ones.
    int32_t long_from = 1;
    bool has_long = false;
    bool has_short = false;
    uint32_t formats = kPlain;  // of all adapters (AdapterFormats); others are not recorded
    int32_t bucket = 0;         // 0: not recorded
  };

  // What the operation after a linear still has to do for its result: Activation::pending.
  struct Pending {
    const LoraRowSite* site = nullptr;  // add the adapters' expand
    SplitSum split;                     // add up the parts of k, which are here and not in `data`
    void* gated = nullptr;              // nothing: silu(gate) * up is here already
  };

  // A step between begin_step and collect.
  struct InFlight {
    int slot = 0;
    bool sampled = false;
    std::vector<int32_t> num_logprobs;   // of each sample
    std::vector<const uint32_t*> masks;  // the plan's, in the order of its samples
    int32_t num_sums = 0;                // that end
  };

  // A buffer for the most rows of a step, taken when an operation first runs.
  template <typename T>
  static T* ensure(DeviceBuffer& buffer, int32_t max_rows, int64_t cols) {
    const int64_t bytes = max_rows * cols * static_cast<int64_t>(sizeof(T));
    if (buffer.bytes() < bytes) {
      buffer = {};
      buffer = DeviceBuffer(bytes, "buffers for the rows of a step (maxBatchTokens)");
    }
    return buffer.as<T>();
  }
  KvPages kv_pages(int32_t layer) const;
  float* exported_sums(int slot) const {
    return exported_sums_.as<float>() + int64_t{slot} * max_logits_rows_ * layout_.hidden_size;
  }
  void upload_samples(const StepPlan& plan);
  void reserve_masks(int32_t vocab);
  const uint32_t* upload_masks(int32_t vocab);
  std::vector<OutputAffine> affines_of(std::span<const AdapterModule> modules) const;
  void finish_affine(const LoraRowSite& site, const Activation& y);
  void wait_for_parts(const PlacedAdapter& adapter, int32_t num_parts);
  void wait_for_layer(int32_t layer);
  bool may_fuse_adapters(int32_t rows, uint32_t formats) const;
  AdapterKernels choose_kernels(const StepPlan& plan, uint32_t formats) const;
  bool keeps_lists(const StepPlan& plan, AdapterKernels adapters, int32_t bucket);
  void choose_lists(const StepPlan& plan);
  void plan_adapters();
  bool has_adapters() const { return issue_.adapters != AdapterKernels::kNone; }
  void lay_out_lists();
  void lay_out_row_lists();
  void tune_linears();
  bool streams_few_rows() const;
  int32_t site_index(const LoraSite& site);
  void run_streamed(const Activation& x, const DeviceWeight& weight, const LoraSite* site,
                    int32_t index, void* y);
  void run_many(const Activation& x, const DeviceWeight& weight, bool head, int32_t index, void* y);

  const CudaOptions options_;
  Stream stream_;  // of steps
  Stream copies_;  // of adapters into pages
  Stream mask_copies_;
  LoadTimer load_timer_;
  const std::string device_name_;
  const int num_sms_;
  bool streams_;  // the device and every weight have what the streaming GEMM needs
  std::shared_ptr<PinnedHeap> host_images_;
  std::shared_ptr<PinnedHeap> host_tables_;  // taken on the engine's thread: never waits for images
  std::mutex packing_;
  uint64_t num_placed_ = 0;
  std::unique_ptr<WeightLoader> loader_;  // until reserve()

  // From reserve().
  KvLayout layout_;
  DeviceBuffer inv_freq_;  // [head_dim / 2]
  float rope_magnitude_ = 1.0f;
  int32_t max_rows_ = 0;
  int32_t max_logits_rows_ = 0;
  std::optional<PageArena> arena_;
  std::optional<StepGraphs> graphs_;
  std::optional<StepUpload> upload_;
  int32_t num_pages_ = 0;

  // Of the operations, for max_rows_ rows; taken when one first runs.
  DeviceBuffer residual_;
  DeviceBuffer norm_out_;
  DeviceBuffer linear_out_;
  DeviceBuffer attention_out_;
  DeviceBuffer silu_out_;
  DeviceBuffer logits_;  // float32 [max_logits_rows_, vocab]
  DeviceBuffer attention_workspace_;

  // Of linears (cuda_linear.cc).
  CublasLt cublaslt_;
  Pending pending_;            // of the linear issued last
  DeviceBuffer linear_parts_;  // where its result is in parts
  std::vector<GemmUse> gemm_uses_;
  bool recorded_ = false;          // record() is done
  std::deque<LoraRowSite> sites_;  // in the order of a step; addresses stay
  LoraItemLists lists_;
  DeviceBuffer list_storage_;
  std::vector<int32_t> parts_before_;  // [sites], as the lists have it
  bool aligned_sites_ = true;          // as the streaming GEMM takes their parts
  bool aligned_gates_ = true;          // the same of gate and up, where they are not multiplied
  DeviceBuffer lora_pieces_;
  LoraRowLists row_lists_;    // of long segments
  LoraRowLists short_lists_;  // of the others
  DeviceBuffer row_list_storage_;
  std::vector<uint64_t> listed_;  // what the newest lists are of (keeps_lists)

  // Of sampling.
  DeviceBuffer sample_upload_;
  std::array<PinnedBuffer, kSlots> sample_staging_;
  std::array<DeviceBuffer, kSlots> masks_;  // [max_logits_rows_, mask_words]
  std::array<PinnedBuffer, kSlots> mask_staging_;
  Event masks_arrived_;
  DeviceBuffer sample_workspace_;
  DeviceBuffer sample_tokens_;  // [max_logits_rows_]; the next step's unknown tokens
  DeviceBuffer sample_logprobs_;
  DeviceBuffer sample_top_tokens_;
  DeviceBuffer sample_top_logprobs_;
  DeviceBuffer input_tokens_;  // [max_rows_]
  PinnedBuffer exported_;      // ExportedSample [kSlots][max_logits_rows_]

  // Of pooling.
  DeviceBuffer sums_;           // [max_logits_rows_, hidden], by slot
  DeviceBuffer pool_factors_;   // [max_rows_]
  PinnedBuffer exported_sums_;  // [kSlots][max_logits_rows_][hidden]
  std::span<const float> collected_sums_;

  Issue issue_;
  std::vector<const PlacedAdapter*> coming_;  // of the step being issued, on their way into pages
  Activation recorded_logits_;                // of every recorded step, but for its rows
  int slot_ = 0;
  std::array<Event, kSlots> ended_;
  std::deque<InFlight> in_flight_;
};

}  // namespace lorax::cuda
