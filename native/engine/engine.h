// The engine: one thread that owns the pool, the adapters and the sequences.
//
// submit, cancel, adapters and stats may be called from any thread; they only post commands or read
// a snapshot. Every submitted request ends in exactly one Finished, Embedded, Aborted or Failed
// event. The sink is told once per step, from the engine thread, and never blocks it.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend/error.h"
#include "engine/embedding.h"
#include "grammar/grammar.h"
#include "model/model.h"
#include "sampling/sampling_params.h"

namespace lorax {

struct AdapterUse {
  int32_t handle = 0;  // from add_adapter
  float weight = 1.0f;
  int32_t first_position = 0;  // what comes before runs on the base (activated LoRA)
};

struct Request {
  int32_t id = 0;
  std::vector<int32_t> prompt;
  // y += weight * scale * B (A x) for each, from its first position on; empty = base. Distinct, at
  // most kMaxSegmentsPerRow.
  std::vector<AdapterUse> adapters = {};
  SamplingParams sampling;
  std::shared_ptr<grammar::Grammar> grammar = nullptr;  // that the output must match; null: free
  std::optional<EmbeddingParams> embedding;  // set: the prompt is embedded, and nothing generated
  std::string cache_scope = {};              // KV is shared with requests of the same scope alone
  // Whose turn it is (fair_queue.h): tenants share what there is by their weights; those without a
  // name are told apart by their adapters. Of a tenant's requests, higher priorities come first.
  std::string tenant = {};
  float tenant_weight = 1.0f;
  int32_t priority = 0;
  // From its submission. At its deadline it ends (step_loop_deadlines.cc); earlier, while it waits,
  // when it is not going to start by then. Unset: it has none.
  std::optional<int64_t> deadline_ms = {};
};

struct EngineLimits {
  int32_t max_batch_tokens = 512;
  int32_t max_queued = 1024;
  int32_t max_sequences = 256;                   // running at once
  int64_t host_memory_bytes = int64_t{1} << 60;  // for the images of adapters
  bool checks_itself = true;                     // after each step, in builds without NDEBUG
};

// The order is FINISH_REASONS in worker/addon.ts.
enum class FinishReason : int32_t {
  kStopToken,
  kMaxOutputTokens,
  kContext,
  kPool,
  kGrammar,
  kDeadline
};

struct Failure {
  std::string code;
  std::string message;
  ErrorData data;
};

// Records as worker/addon.ts describes them (StepEvents); appended by the engine, taken by the
// sink.
struct StepEvents {
  std::vector<int32_t> ints;
  std::vector<float> floats;
  std::vector<Failure> failures;

  bool empty() const { return ints.empty(); }
};

struct EngineStats {
  struct Pages {
    int32_t total = 0, free = 0, kv = 0, cold = 0, adapter = 0, retiring = 0;
  } pages;  // kv: held by sequences; cold: prefixes that none holds
  struct Step {
    int32_t prefill_tokens = 0, decode_tokens = 0, adapters = 0, us = 0;
  };
  int32_t running = 0;
  int32_t waiting = 0;
  int64_t steps = 0, prompt_tokens = 0, output_tokens = 0, preemptions = 0;
  int64_t cached_tokens = 0;                   // of the prompt tokens, those that were not computed
  int64_t prefix_hits = 0, prefix_misses = 0;  // generating requests that found some, and none
  int64_t prefix_evictions = 0;                // blocks
  int64_t adapter_hits = 0, adapter_loads = 0, adapter_evictions = 0;  // pool pages
  struct Host {
    int64_t bytes = 0, budget_bytes = 0, images = 0;
  } host;                                  // images of adapters in host memory
  int64_t host_reads = 0, host_drops = 0;  // of images: read again from disk, dropped
  int64_t admission_us = 0;  // from one admission to the next while requests wait; 0: not measured
  int64_t finished = 0, aborted = 0, failed = 0;
  std::vector<Step> recent_steps;  // oldest first, at most 256
};

struct AdapterStatus {
  int32_t handle = 0;
  int64_t bytes = 0;
  bool resident = false;  // in pool pages, or on its way there
  int32_t active_requests = 0;
  bool in_host = true;
};

class Engine {
 public:
  // `notify` is called from the engine thread when take_events() has something new; it must only
  // schedule the taking.
  Engine(std::unique_ptr<Model> model, EngineLimits limits, std::function<void()> notify);
  ~Engine();  // stop()

  void start();  // starts the thread; without it, tests call step() themselves

  // One turn: drain commands, schedule, submit, collect, tell. False when there was nothing to do.
  bool step();

  // Throws Error for an id in use, and a grammar that is another engine's.
  void submit(Request request);
  void cancel(int32_t id);

  // Any thread; reads and packs on the calling thread, then registers. Waits until there is room in
  // host memory. Throws Error. Its files may be read again later: when they have changed by then,
  // the requests that need them fail with ADAPTER_INVALID.
  int32_t add_adapter(AdapterSpec spec);
  void remove_adapter(int32_t handle);
  // The same content lies in these files, too: from now on it is read from there. Throws Error.
  void relocate_adapter(int32_t handle, AdapterSpec spec);
  // A request for it will come soon: it is brought to where that starts quickest, as far as others
  // leave room.
  void prefetch_adapter(int32_t handle);
  std::vector<AdapterStatus> adapters() const;

  // What the model's tokens spell. Once, before the first grammar. Any thread.
  void set_vocabulary(grammar::TokenBytes tokens);
  // Any thread; compiles on the calling thread. Equal texts share one. Throws Error.
  std::shared_ptr<grammar::Grammar> compile_grammar(const std::string& text);

  StepEvents take_events();
  EngineStats stats() const;
  ModelLimits limits() const;
  BackendInfo info() const;

  // Fails open requests with DISPOSED, joins the thread. Idempotent.
  void stop();

  // Every structure's invariants; throws std::logic_error with what is broken. For tests.
  void check_invariants() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lorax
