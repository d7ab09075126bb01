// The operations of a decoder step on one device; implemented by native/cpu and native/cuda.
//
// A backend owns its buffers, threads, streams and copies; callers see opaque handles and integers.
// One thread calls the step operations; pack_adapter may be called from any thread. An operation
// may only be enqueued: its numbers exist once collect() has returned for its step. Its result
// stays valid until that operation is called again, and is consumed in place where said. On the
// CPU every output element has one order of accumulation, whatever the number of rows in the step:
// a sequence's numbers do not depend on its neighbours, its chunks or preemptions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backend/error.h"
#include "backend/sampling.h"
#include "backend/step_plan.h"

namespace lorax {

enum class DType : uint8_t { kF32, kF16, kBF16 };
enum class Precision : uint8_t { kBFloat16, kFloat32 };

inline int64_t dtype_bytes(DType dtype) { return dtype == DType::kF32 ? 4 : 2; }

// A tensor in host memory, [rows, cols] row-major; not necessarily aligned.
struct TensorView {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  const char* name = "";  // of the tensor, and
  const char* file = "";  // its file, for errors
};

// A packed matrix W [n, k] of y = x W^T, optionally with a bias [n]. Layout is the backend's.
class Weight {
 public:
  virtual ~Weight() = default;
  int64_t n = 0;
  int64_t k = 0;
};

// A float32 vector (norm gains). Layout is the backend's.
class Vector {
 public:
  virtual ~Vector() = default;
  int64_t size = 0;
};

// A [rows, cols] matrix in the backend's memory; element type is the backend's choice per
// operation. `pending` is the backend's: a LoRA delta that the next operation adds in passing.
struct Activation {
  void* data = nullptr;
  int32_t rows = 0;
  int32_t cols = 0;
  const void* pending = nullptr;
};

// An adapter in host memory, packed exactly as its pages will be.
class AdapterImage {
 public:
  virtual ~AdapterImage() = default;
  int32_t num_pages = 0;
  int64_t bytes = 0;
};

// An adapter whose image was copied into pool pages; dropped before its pages are freed.
class ResidentAdapter {
 public:
  virtual ~ResidentAdapter() = default;
  // Its copy is over. Steps may use it before, and wait for it where they need it. Step thread.
  virtual bool has_arrived() const { return true; }
};

// Values of one adapted module, as read from disk.
struct AdapterModule {
  int32_t layer = 0;
  int32_t module = 0;
  int32_t rank = 0;
  float scale = 0.0f;
  TensorView a;  // [rank, d_in]
  TensorView b;  // [d_out, rank]; rank 0: no a and b

  // What few adapters have beside; `data` is null without.
  TensorView b_bias = {};     // [1, d_out]: B is applied with a bias
  TensorView magnitude = {};  // [1, d_out] of DoRA: see OutputAffine
  TensorView whole = {};      // in place of W: [d_out, d_in]; of a table: [d_in, d_out]

  // The x of an embedding is a token: A x = A[:, token].
  bool is_table = false;
  bool sampled_rows = false;  // of a linear as LoraSite::sampled_rows has it
  // W is rows [base_row, base_row + d_out) of it, or this table. Given with magnitude or whole.
  const Weight* base = nullptr;
  int32_t base_row = 0;
};

// One adapted module inside a fused linear: it writes columns [column, column + columns) of y.
struct SitePart {
  int32_t module = 0;
  int32_t column = 0;
  int32_t columns = 0;
};

// Where a linear stands, so that it finds each adapter's slices: (layer, parts).
struct LoraSite {
  int32_t layer = 0;
  std::span<const SitePart> parts;
  bool sampled_rows = false;  // x has the rows that are sampled alone: the head
};

struct KvLayout {
  int32_t num_layers = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  int32_t widest_module = 0;  // largest d_in or d_out of an adapted projection
  int32_t hidden_size = 0;    // of the rows that pool() sums
};

struct AttentionConfig {
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  float scale = 0.0f;          // on q k^T
  int32_t sliding_window = 0;  // 0 = all; else position p sees (p - window, p]
};

struct RopeConfig {
  std::vector<float> inv_freq;  // [head_dim / 2], scaling already applied
  float magnitude = 1.0f;       // multiplies cos and sin (yarn's attention factor)
};

struct BackendInfo {
  std::string device;       // "cpu"
  std::string description;  // what was chosen and why, one line
};

// Rows of one step: what serves most uses, and the most that are computed at once.
struct BatchRows {
  int32_t usual = 512;
  int32_t most = 1 << 16;
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual BackendInfo info() const = 0;
  virtual BatchRows batch_rows() const { return {}; }
  virtual Precision precision() const = 0;

  // ---- load time ----

  // Stacks tensors along rows into one W [n, k] (fused qkv, gate-up) and packs it; `biases` is
  // empty or one vector per tensor. Throws MODEL_INVALID naming a tensor with NaN or Inf.
  virtual std::unique_ptr<Weight> pack_weight(std::span<const TensorView> tensors,
                                              std::span<const TensorView> biases) = 0;
  virtual std::unique_ptr<Vector> pack_vector(const TensorView& tensor) = 0;

  // Many rows are multiplied in tiles of up to so many: the last one takes as long if it is not
  // full.
  virtual int32_t row_tile() const { return 1; }

  // Tokens a KV page holds and the bytes it takes: block_tokens x num_layers x (k and v).
  virtual int32_t block_tokens() const = 0;
  virtual int64_t page_bytes(const KvLayout& layout) const = 0;

  // Buffers for steps of at most `max_rows` rows, `max_logits_rows` of them sampled; and as many
  // sums (PooledSpan::slot).
  virtual void reserve(const KvLayout& layout, const RopeConfig& rope, int32_t max_rows,
                       int32_t max_logits_rows) = 0;

  // After the weights and reserve, before the pages: `issue` issues the operations of a step in
  // which every row decodes and is sampled, up to its logits. A backend that replays steps (CUDA
  // graphs) records them here, for the numbers of rows it wants; others do nothing.
  virtual void record(const std::function<Activation()>& issue) = 0;

  // The arena of equal pages, sized last. `memory_bytes` 0 = the backend's choice: where memory
  // allows, at least one sequence of `context_tokens`; otherwise any size that holds a page.
  // Returns the number of pages; fixes page_bytes for pack_adapter. Throws POOL_EXHAUSTED.
  virtual int32_t allocate_pages(int64_t memory_bytes, int32_t context_tokens) = 0;

  // ---- adapters ----

  // Packs into page images of exact rank. Any thread. Throws ADAPTER_INVALID naming a tensor with
  // NaN or Inf. Weights take the backend's compute type (float32 in Precision::kFloat32).
  virtual std::unique_ptr<AdapterImage> pack_adapter(std::span<const AdapterModule> modules) = 0;

  // Copies the image into `pages` [image.num_pages]. Step thread.
  virtual std::unique_ptr<ResidentAdapter> place_adapter(const AdapterImage& image,
                                                         std::span<const int32_t> pages) = 0;

  // Copies into pages go on while steps run.
  virtual bool copies_beside_steps() const { return false; }

  // Nanoseconds that a page of an adapter took to load, of late; 0: none was. Step thread.
  virtual int64_t page_load_ns() = 0;

  // ---- one step: begin, replay or issue, sample, end; then collect ----

  // Steps that may have begun when one more begins, before the oldest is collected. 0: operations
  // compute at once, and the plan must outlive its step; else begin_step copies what it needs, but
  // for masks, which are read by sample().
  virtual int32_t steps_ahead() const = 0;

  virtual void begin_step(const StepPlan& plan) = 0;

  // All steps before the one begun are over: nothing is computed until it is replayed or issued.
  virtual bool is_idle() const = 0;

  // Runs the recorded step whose shape is the begun one's and gives its logits. Nothing, and
  // nothing is done, when there is none: the caller issues the operations.
  virtual std::optional<Activation> replay() = 0;

  // residual[row] = table[token_ids[row]], then as linear() for the adapters that have the site's
  // one part, a table. `site` null: base only.                  [num_rows, hidden]
  virtual Activation embed(const Weight& table, const LoraSite* site) = 0;

  // y = x / sqrt(mean(x^2) + eps) * gain                        (Zhang & Sennrich 2019)
  virtual Activation rms_norm(const Activation& residual, const Vector& gain, float eps) = 0;

  // residual += delta, in place; returns rms_norm(residual): of the rows that are sampled alone,
  // in their order, when `sampled_rows`.
  virtual Activation add_rms_norm(Activation& residual, const Activation& delta, const Vector& gain,
                                  float eps, bool sampled_rows) = 0;

  // For each of the plan's pooled spans, its rows ascending, in float32 on every device:
  //   sum[slot] += rms_norm(residual[row] + delta[row])
  // one row after another, so a sum does not depend on how its rows were cut into steps. Before the
  // last add_rms_norm; leaves residual as it is, and adds to delta what is pending for it.
  virtual void pool(const Activation& residual, Activation& delta, const Vector& gain,
                    float eps) = 0;

  // y = x W^T + bias, then y[rows of a] += weight * scale_a (x A_a^T) B_a^T for every segment a of
  // the plan that has slices at `site`. Where a has a whole W of its own it takes W's place, and
  // where it has an affine, that is applied last. `site` null: base only.    [rows, n]
  virtual Activation linear(const Activation& x, const Weight& weight, const LoraSite* site) = 0;

  // In place on qkv [num_rows, (heads + 2 kv_heads) * head_dim]: optional per-head RMS norm of q
  // and k (Qwen3), rotary embedding of q and k (Su et al. 2021, halves rotated), k and v stored
  // into the pages of their sequences.
  virtual void rope_and_store_kv(Activation& qkv, int32_t layer, const AttentionConfig& config,
                                 const Vector* q_gain, const Vector* k_gain, float eps) = 0;

  // softmax(scale q k^T) v, causal, over the pages of each row's sequence; fixed KV blocks from
  // position 0, online softmax (Milakov & Gimelshein 2018).     [num_rows, heads * head_dim]
  virtual Activation attention(const Activation& qkv, int32_t layer,
                               const AttentionConfig& config) = 0;

  // y = silu(gate) * up, x = [gate | up]                        [rows, intermediate]
  virtual Activation silu_mul(const Activation& gate_up) = 0;

  // Sample i of the step from logits row i with plan.samples[i] (sampling.h says how). The step
  // before may have been collected meanwhile, and the masks filled by what it gave.
  virtual void sample(const Activation& logits) = 0;

  // logits [rows, vocab] as float32 on the host, for tests and goldens. Waits.
  virtual void read_logits(const Activation& logits, std::span<float> out) = 0;

  virtual void end_step() = 0;

  // Waits for the oldest step begun and not collected; results [its plan's samples.size()], left
  // alone when the step did not sample. Throws what went wrong in it.
  virtual void collect(std::span<SampleResult> results) = 0;

  // In a step whose operations compute at once, where nothing but its residual and that one's norm
  // is needed any more: another is begun, ended and collected; resume() goes on
  // with the first, which is as it was. Where `can_set_aside`.
  virtual bool can_set_aside() const { return false; }
  virtual void set_aside() {}
  virtual void resume() {}

  // The sums that ended in the step collected last, in the order of its plan, [.., hidden]. Valid
  // until the next step begins or is collected.
  virtual std::span<const float> pooled() const = 0;
};

}  // namespace lorax
