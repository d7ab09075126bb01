// The engine's thread, and what other threads may ask of it.
//
// The turn itself is in step_loop, which belongs to the engine thread; submit, cancel, add_adapter
// and the reads go through command_queue, outbox and status_board, each with its own lock;
// grammars are made here and meet the engine thread in a request.
#include "engine/engine.h"

#ifdef __linux__
#include <pthread.h>
#endif

#include <algorithm>
#include <chrono>
#include <mutex>
#include <thread>
#include <utility>

#include "engine/admission.h"
#include "engine/background_jobs.h"
#include "engine/grammar_cache.h"
#include "engine/host_budget.h"
#include "engine/step_loop.h"
#include "lora/adapter_reader.h"

namespace lorax {

namespace {

void require(bool ok, const char* field, int32_t value, const char* allowed) {
  if (ok) return;
  throw Error("INVALID_OPTIONS",
              std::string(field) + " is " + std::to_string(value) + "; it must be " + allowed + ".",
              {{"field", field}, {"value", static_cast<double>(value)}});
}

EngineLimits checked(const EngineLimits& limits) {
  require(limits.max_batch_tokens >= 1, "maxBatchTokens", limits.max_batch_tokens, "1 or more");
  require(limits.max_queued >= 0, "maxQueued", limits.max_queued, "0 or more");
  require(limits.max_sequences >= 1, "maxSequences", limits.max_sequences, "1 or more");
  return limits;
}

// Adapters that are read from disk at once.
constexpr int kReaders = 4;

// Bytes of an image, before it is packed: its elements in two bytes each.
int64_t size_estimate(const AdapterSpec& spec) {
  int64_t elements = 0;
  for (const AdapterModuleSpec& module : spec.modules) {
    elements += int64_t{module.rank} * (module.a.cols + module.b.rows);
    if (module.whole) elements += module.whole->rows * module.whole->cols;
  }
  return 2 * elements;
}

/** What tools that list threads call this one (`top -H`, /proc/PID/task). */
void name_this_thread() {
#ifdef __linux__
  pthread_setname_np(pthread_self(), "lorax-engine");
#endif
}

}  // namespace

class Engine::Impl {
 public:
  Impl(std::unique_ptr<Model> model, const EngineLimits& limits, std::function<void()> notify)
      : model_(std::move(model)),
        model_limits_(model_->limits()),
        budget_(limits.host_memory_bytes, [this] { wake(); }),
        grammars_(model_limits_.vocab_size),
        loop_(*model_, checked(limits), {commands_, budget_, readers_}, outbox_, board_,
              std::move(notify)) {}

  void start();
  void stop();
  bool step();
  int32_t add_adapter(AdapterSpec spec);

  const std::unique_ptr<Model> model_;
  const ModelLimits model_limits_;
  HostBudget budget_;
  CommandQueue commands_;
  Outbox outbox_;
  StatusBoard board_;
  GrammarCache grammars_;
  BackgroundJobs readers_{kReaders, /*yields=*/true};
  StepLoop loop_;  // engine thread

 private:
  void wake() noexcept;
  void run() noexcept;
  void dispose() noexcept;

  std::mutex stop_mutex_;  // start and stop against each other
  bool disposed_ = false;
  std::thread thread_;
};

int32_t Engine::Impl::add_adapter(AdapterSpec spec) {
  if (commands_.closed()) throw Error("DISPOSED", "The engine was stopped.");
  if (loop_.is_lost()) {
    throw Error("ENGINE_LOST", "The engine failed earlier; create a new one.");
  }
  stamp_files(&spec);
  HostBudget::Share share = budget_.take(size_estimate(spec));
  std::shared_ptr<const AdapterImage> image = model_->read_adapter(spec);
  if (image->num_pages >= model_limits_.num_pages) {
    throw adapter_too_large(image->num_pages, model_limits_);
  }
  share.resize(image->bytes);
  const int32_t handle = board_.add_adapter(image->bytes);
  spec.is_cached = true;
  LoadedAdapter loaded{std::make_shared<const AdapterSpec>(std::move(spec)), std::move(image),
                       std::move(share)};
  commands_.post(AddAdapterCommand{handle, std::move(loaded)});
  return handle;
}

// What it cannot tell for want of memory, the engine finds out with the next command.
void Engine::Impl::wake() noexcept {
  try {
    commands_.post(HostRoomCommand{});
  } catch (...) {
  }
}

// ---- the thread ----

void Engine::Impl::start() {
  const std::lock_guard lock(stop_mutex_);
  if (commands_.closed()) throw Error("DISPOSED", "The engine was stopped.");
  if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
}

void Engine::Impl::run() noexcept {
  name_this_thread();
  while (!commands_.closed()) {
    if (step()) continue;
    if (loop_.has_untold()) {
      commands_.wait(std::chrono::milliseconds(10));
    } else if (loop_.waits_for_copies()) {
      commands_.wait(std::chrono::milliseconds(1));
    } else {
      commands_.wait(loop_.until_deadline());
    }
  }
  dispose();
}

bool Engine::Impl::step() { return !disposed_ && loop_.step(); }

void Engine::Impl::stop() {
  const std::lock_guard lock(stop_mutex_);
  commands_.close();
  budget_.close();
  readers_.stop();
  if (thread_.joinable()) {
    thread_.join();
  } else {
    dispose();
  }
}

void Engine::Impl::dispose() noexcept {
  if (!disposed_) loop_.dispose();
  disposed_ = true;
}

// ---- the public face ----

Engine::Engine(std::unique_ptr<Model> model, EngineLimits limits, std::function<void()> notify)
    : impl_(std::make_unique<Impl>(std::move(model), limits, std::move(notify))) {}

Engine::~Engine() { stop(); }

void Engine::start() { impl_->start(); }

bool Engine::step() { return impl_->step(); }

void Engine::submit(Request request) {
  if (request.grammar != nullptr && !impl_->grammars_.owns(*request.grammar)) {
    throw Error("INVALID_OPTIONS", "The grammar was compiled by another engine.",
                {{"field", std::string("grammar")}});
  }
  std::ranges::sort(request.adapters, {}, &AdapterUse::handle);
  impl_->commands_.post(SubmitCommand{std::move(request), Clock::now()});
}

void Engine::cancel(int32_t id) { impl_->commands_.post(CancelCommand{id}); }

int32_t Engine::add_adapter(AdapterSpec spec) { return impl_->add_adapter(std::move(spec)); }

void Engine::remove_adapter(int32_t handle) {
  impl_->board_.remove_adapter(handle);
  impl_->commands_.post(RemoveAdapterCommand{handle});
}

void Engine::relocate_adapter(int32_t handle, AdapterSpec spec) {
  stamp_files(&spec);
  spec.is_cached = true;
  impl_->commands_.post(
      RelocateAdapterCommand{handle, std::make_shared<const AdapterSpec>(std::move(spec))});
}

void Engine::prefetch_adapter(int32_t handle) { impl_->commands_.post(PrefetchCommand{handle}); }

std::vector<AdapterStatus> Engine::adapters() const { return impl_->board_.adapters(); }

void Engine::set_vocabulary(grammar::TokenBytes tokens) {
  impl_->grammars_.set_vocabulary(std::move(tokens));
}

std::shared_ptr<grammar::Grammar> Engine::compile_grammar(const std::string& text) {
  if (impl_->commands_.closed()) throw Error("DISPOSED", "The engine was stopped.");
  return impl_->grammars_.compile(text);
}

StepEvents Engine::take_events() { return impl_->outbox_.take(); }

EngineStats Engine::stats() const { return impl_->board_.stats(); }

ModelLimits Engine::limits() const { return impl_->model_limits_; }

BackendInfo Engine::info() const { return impl_->model_->info(); }

void Engine::stop() { impl_->stop(); }

void Engine::check_invariants() const { impl_->loop_.check_invariants(); }

}  // namespace lorax
