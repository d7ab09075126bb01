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
#include "engine/grammar_cache.h"
#include "engine/step_loop.h"

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
        grammars_(model_limits_.vocab_size),
        loop_(*model_, checked(limits), commands_, outbox_, board_, std::move(notify)) {}

  void start();
  void stop();
  bool step();
  int32_t add_adapter(const AdapterSpec& spec);

  const std::unique_ptr<Model> model_;
  const ModelLimits model_limits_;
  CommandQueue commands_;
  Outbox outbox_;
  StatusBoard board_;
  GrammarCache grammars_;
  StepLoop loop_;  // engine thread

 private:
  void run() noexcept;
  void dispose() noexcept;

  std::mutex stop_mutex_;  // start and stop against each other
  bool disposed_ = false;
  std::thread thread_;
};

int32_t Engine::Impl::add_adapter(const AdapterSpec& spec) {
  if (commands_.closed()) throw Error("DISPOSED", "The engine was stopped.");
  if (loop_.is_lost()) {
    throw Error("ENGINE_LOST", "The engine failed earlier; create a new one.");
  }
  std::shared_ptr<const AdapterImage> image = model_->read_adapter(spec);
  if (image->num_pages >= model_limits_.num_pages) {
    throw adapter_too_large(image->num_pages, model_limits_);
  }
  const int32_t handle = board_.add_adapter(image->bytes);
  commands_.post(AddAdapterCommand{handle, std::move(image)});
  return handle;
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
    } else {
      commands_.wait();
    }
  }
  dispose();
}

bool Engine::Impl::step() { return !disposed_ && loop_.step(); }

void Engine::Impl::stop() {
  const std::lock_guard lock(stop_mutex_);
  commands_.close();
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

int32_t Engine::add_adapter(const AdapterSpec& spec) { return impl_->add_adapter(spec); }

void Engine::remove_adapter(int32_t handle) {
  impl_->board_.remove_adapter(handle);
  impl_->commands_.post(RemoveAdapterCommand{handle});
}

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
