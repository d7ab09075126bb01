// Order at the end of an environment (natural end, worker.terminate(), process.exit() in a worker):
// Node runs cleanup hooks last-in first-out and only then closes thread-safe functions. Our hook is
// added after the JsQueue, so it runs first: it joins all threads, then closes the queue. No thread
// of ours is left that could call a closed function.
#include "binding/engine_session.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "binding/live_sessions.h"
#include "binding/make_model.h"
#include "binding/values.h"

namespace lorax {
namespace {

// Adapters packed at once: enough to overlap reading with packing.
constexpr int kBackgroundThreads = 2;

// Thrown out of a load that nobody waits for any more.
struct LoadCancelled {};

Error disposed() { return Error("DISPOSED", "the engine was stopped"); }

napi_ref make_reference(Napi::Env env, Napi::Function function) {
  napi_ref out = nullptr;
  if (napi_create_reference(env, function, 1, &out) != napi_ok) throw Napi::Error::New(env);
  return out;
}

void drop_reference(napi_env env, napi_ref& reference) {
  if (reference != nullptr) napi_delete_reference(env, reference);
  reference = nullptr;
}

// An exception out of a callback is the process's uncaught exception, as out of any event handler.
// Statuses are looked at by hand: while an environment is terminated every call fails, and nothing
// may throw then.
void call_function(napi_env env, napi_ref reference, std::initializer_list<napi_value> arguments) {
  napi_value function = nullptr, global = nullptr, ignored = nullptr;
  if (napi_get_reference_value(env, reference, &function) != napi_ok || function == nullptr ||
      napi_get_global(env, &global) != napi_ok) {
    return;
  }
  if (napi_call_function(env, global, function, arguments.size(), arguments.begin(), &ignored) ==
      napi_ok) {
    return;
  }
  bool pending = false;
  napi_value exception = nullptr;
  if (napi_is_exception_pending(env, &pending) == napi_ok && pending &&
      napi_get_and_clear_last_exception(env, &exception) == napi_ok) {
    napi_fatal_exception(env, exception);
  }
}

// Runs what makes JavaScript values outside of any JavaScript call.
template <typename Call>
void run_on_js_thread(Napi::Env env, const Call& call) {
  try {
    const Napi::HandleScope scope(env);
    call();
  } catch (const Napi::Error& error) {
    napi_fatal_exception(env, error.Value());
  } catch (...) {
    // Nothing of ours throws here but out of memory; the next wake tries again.
  }
}

}  // namespace

EngineSession::EngineSession(Napi::Env env, Napi::Function on_events, Napi::Function on_progress)
    : env_(env), jobs_(kBackgroundThreads), grammar_jobs_(1) {
  on_events_ = make_reference(env, on_events);
  on_progress_ = make_reference(env, on_progress);
}

Napi::Promise EngineSession::create(Napi::Env env, EngineConfig config, Napi::Function on_events,
                                    Napi::Function on_progress, MakeObject make_object) {
  const auto promise = Napi::Promise::Deferred::New(env);
  std::shared_ptr<EngineSession> session(new EngineSession(env, on_events, on_progress));
  session->open(env);
  session->queue_->hold();
  try {
    session->jobs_.post([session = session.get(), config = std::move(config), promise,
                         make_object = std::move(make_object)]() mutable {
      session->load(config, promise, std::move(make_object));
    });
  } catch (...) {  // no thread to be had
    session->end(env);
    throw;
  }
  return promise.Promise();
}

void EngineSession::open(Napi::Env env) {
  queue_ = JsQueue::create(env, [weak = weak_from_this()](napi_env js_env) {
    if (const auto session = weak.lock()) session->drain(js_env);
  });
  if (napi_add_async_cleanup_hook(env, on_environment_end, this, &hook_) != napi_ok) {
    queue_->close();
    throw Napi::Error::New(env);
  }
  self_ = shared_from_this();
  register_session(self_);
}

void EngineSession::load(const EngineConfig& config, Napi::Promise::Deferred promise,
                         MakeObject make_object) {
  try {
    if (stopping_) throw LoadCancelled();
    auto model = make_model(config, kMaxSequences, [this](int64_t loaded, int64_t total) {
      if (stopping_) throw LoadCancelled();
      total_bytes_ = total;
      loaded_bytes_ = loaded;
      queue_->wake();
    });
    const EngineLimits limits{model->limits().max_batch_tokens, config.max_queued, kMaxSequences,
                              config.host_memory_bytes};
    auto engine =
        std::make_shared<Engine>(std::move(model), limits, [queue = queue_] { queue->wake(); });
    limits_ = engine->limits();
    info_ = engine->info();
    engine->start();
    {
      std::lock_guard lock(mutex_);
      engine_ = std::move(engine);
    }
    post([this, promise, make_object = std::move(make_object)](Napi::Env env) {
      queue_->unhold();
      drop_reference(env, on_progress_);
      promise.Resolve(make_object(env, shared_from_this()));
    });
  } catch (...) {
    post([this, promise, error = std::current_exception()](Napi::Env env) {
      queue_->unhold();
      shut_down();
      end(env);
      promise.Reject(error_value(env, error));
    });
  }
}

std::shared_ptr<Engine> EngineSession::engine() const {
  std::shared_ptr<Engine> engine = engine_or_null();
  if (engine == nullptr) throw disposed();
  return engine;
}

std::shared_ptr<Engine> EngineSession::engine_or_null() const {
  std::lock_guard lock(mutex_);
  return stop_called_ ? nullptr : engine_;
}

Napi::Promise EngineSession::add_adapter(Napi::Env env, AdapterSpec spec) {
  const auto promise = Napi::Promise::Deferred::New(env);
  const std::shared_ptr<Engine> target = engine();
  jobs_.post([this, promise, target, spec = std::move(spec)]() {
    try {
      if (stopping_) throw disposed();
      const int32_t handle = target->add_adapter(spec);
      post([this, promise, handle](Napi::Env js_env) {
        queue_->unhold();
        promise.Resolve(Napi::Number::New(js_env, handle));
      });
    } catch (...) {
      post([this, promise, error = std::current_exception()](Napi::Env js_env) {
        queue_->unhold();
        promise.Reject(error_value(js_env, error));
      });
    }
  });
  queue_->hold();
  return promise.Promise();
}

Napi::Promise EngineSession::compile_grammar(Napi::Env env, std::string text,
                                             MakeGrammar make_object) {
  const auto promise = Napi::Promise::Deferred::New(env);
  const std::shared_ptr<Engine> target = engine();
  grammar_jobs_.post([this, promise, target, text = std::move(text),
                      make_object = std::move(make_object)]() {
    try {
      if (stopping_) throw disposed();
      post([this, promise, make_object, grammar = target->compile_grammar(text)](Napi::Env js_env) {
        queue_->unhold();
        promise.Resolve(make_object(js_env, grammar));
      });
    } catch (...) {
      post([this, promise, error = std::current_exception()](Napi::Env js_env) {
        queue_->unhold();
        promise.Reject(error_value(js_env, error));
      });
    }
  });
  queue_->hold();
  return promise.Promise();
}

Napi::Promise EngineSession::stop(Napi::Env env) {
  const auto promise = Napi::Promise::Deferred::New(env);
  if (ended_) {
    promise.Resolve(env.Undefined());
    return promise.Promise();
  }
  stop_promises_.push_back(promise);
  if (!stop_called_) {
    stop_called_ = true;
    request_stop();
    queue_->hold();
    stop_thread_ = std::thread([this] {
      shut_down();
      post([this](Napi::Env js_env) {
        deliver_events(js_env);
        end(js_env);
        for (const auto& waiting : stop_promises_) waiting.Resolve(js_env.Undefined());
        stop_promises_.clear();
      });
    });
  }
  return promise.Promise();
}

void EngineSession::shut_down() {
  std::lock_guard shut_down_lock(shut_down_mutex_);
  if (is_shut_down_) return;
  request_stop();
  jobs_.stop();
  grammar_jobs_.stop();
  std::shared_ptr<Engine> engine;
  {
    std::lock_guard lock(mutex_);
    engine.swap(engine_);
  }
  if (engine != nullptr) {
    engine->stop();
    StepEvents events = engine->take_events();
    engine.reset();
    std::lock_guard lock(mutex_);
    last_events_ = std::move(events);
  }
  is_shut_down_ = true;
}

void EngineSession::post(Task task) {
  {
    std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  queue_->wake();
}

void EngineSession::drain(Napi::Env env) {
  deliver_progress(env);
  deliver_events(env);
  std::vector<Task> tasks;
  {
    std::lock_guard lock(mutex_);
    tasks.swap(tasks_);
  }
  for (const Task& task : tasks) {
    run_on_js_thread(env, [&] { task(env); });
  }
}

void EngineSession::deliver_progress(Napi::Env env) {
  const int64_t loaded = loaded_bytes_;
  if (on_progress_ == nullptr || loaded == 0 || loaded == reported_bytes_) return;
  reported_bytes_ = loaded;
  run_on_js_thread(env, [&] {
    call_function(env, on_progress_,
                  {Napi::Number::New(env, static_cast<double>(loaded)),
                   Napi::Number::New(env, static_cast<double>(total_bytes_.load()))});
  });
}

void EngineSession::deliver_events(Napi::Env env) {
  StepEvents events;
  std::shared_ptr<Engine> engine;
  {
    std::lock_guard lock(mutex_);
    engine = engine_;
    events = std::exchange(last_events_, {});
  }
  if (engine != nullptr) events = engine->take_events();
  // Dropped before JavaScript runs, which may well call stop().
  engine.reset();
  if (events.empty() || ended_) return;
  run_on_js_thread(env, [&] { call_function(env, on_events_, {events_value(env, events)}); });
}

void EngineSession::end(Napi::Env env) {
  if (ended_) return;
  ended_ = true;
  const std::shared_ptr<EngineSession> keep = std::move(self_);
  if (stop_thread_.joinable()) stop_thread_.join();
  forget_session(this);
  queue_->close();
  drop_reference(env, on_events_);
  drop_reference(env, on_progress_);
  if (hook_ != nullptr) napi_remove_async_cleanup_hook(std::exchange(hook_, nullptr));
}

void EngineSession::on_environment_end(napi_async_cleanup_hook_handle, void* raw) {
  const std::shared_ptr<EngineSession> session = static_cast<EngineSession*>(raw)->self_;
  if (session == nullptr) return;
  session->shut_down();
  session->end(session->env_);
}

}  // namespace lorax
