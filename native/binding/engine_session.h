// One engine as JavaScript holds it: its loading, its events, its end.
//
// Owns the engine, the threads that load for it and the way back to JavaScript. Made and used on
// the JavaScript thread of one environment; a session keeps itself alive until it has ended, by
// stop() or with its environment. After the end no thread of it runs and nothing calls JavaScript.
//
//   background jobs -> loaded, adapter packed, grammar | -> JsQueue::wake
//   engine thread   -> events                          |      -> drain() on the JavaScript thread
//   stop thread     -> stopped                         |
#pragma once

#include <napi.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "binding/arguments.h"
#include "binding/js_queue.h"
#include "engine/background_jobs.h"
#include "engine/engine.h"

namespace lorax {

class EngineSession : public std::enable_shared_from_this<EngineSession> {
 public:
  // Makes the object that a loaded engine is seen through.
  using MakeObject = std::function<Napi::Value(Napi::Env, std::shared_ptr<EngineSession>)>;

  // ---- JavaScript thread ----

  static Napi::Promise create(Napi::Env env, EngineConfig config, Napi::Function on_events,
                              Napi::Function on_progress, MakeObject make_object);
  Napi::Promise add_adapter(Napi::Env env, AdapterSpec spec);
  using MakeGrammar = std::function<Napi::Value(Napi::Env, std::shared_ptr<grammar::Grammar>)>;
  Napi::Promise compile_grammar(Napi::Env env, std::string text, MakeGrammar make_object);
  Napi::Promise stop(Napi::Env env);

  // Throws DISPOSED once stop() was called.
  std::shared_ptr<Engine> engine() const;
  std::shared_ptr<Engine> engine_or_null() const;
  const ModelLimits& limits() const { return limits_; }
  const BackendInfo& info() const { return info_; }

  // ---- any thread ----

  // Asks loading to give up; does not wait.
  void request_stop() { stopping_ = true; }
  // The process exits: JavaScript is told nothing any more.
  void abandon_javascript() { queue_->abandon(); }
  // Joins every thread but the caller's and frees the engine. Idempotent; a second caller waits.
  void shut_down();

 private:
  using Task = std::function<void(Napi::Env)>;

  EngineSession(Napi::Env env, Napi::Function on_events, Napi::Function on_progress);
  void open(Napi::Env env);
  void load(const EngineConfig& config, Napi::Promise::Deferred promise, MakeObject make_object);

  // Runs on the JavaScript thread, soon. Any thread.
  void post(Task task);

  void drain(Napi::Env env);
  void deliver_progress(Napi::Env env);
  void deliver_events(Napi::Env env);
  // Releases what belongs to the environment; the engine is gone by then.
  void end(Napi::Env env);
  static void on_environment_end(napi_async_cleanup_hook_handle handle, void* session);

  napi_env env_;
  std::shared_ptr<EngineSession> self_;  // until end()
  std::shared_ptr<JsQueue> queue_;
  napi_ref on_events_ = nullptr;
  napi_ref on_progress_ = nullptr;
  napi_async_cleanup_hook_handle hook_ = nullptr;
  std::thread stop_thread_;
  std::vector<Napi::Promise::Deferred> stop_promises_;
  bool stop_called_ = false;
  bool ended_ = false;

  ModelLimits limits_;  // set once, before JavaScript sees the session
  BackendInfo info_;

  std::atomic<bool> stopping_ = false;
  std::atomic<int64_t> loaded_bytes_ = 0;
  std::atomic<int64_t> total_bytes_ = 0;
  int64_t reported_bytes_ = -1;  // JavaScript thread

  mutable std::mutex mutex_;  // guards engine_, last_events_ and tasks_
  std::shared_ptr<Engine> engine_;
  StepEvents last_events_;  // what the engine said before it was freed
  std::vector<Task> tasks_;

  BackgroundJobs jobs_;
  BackgroundJobs grammar_jobs_;  // its own thread: adapters take long
  std::mutex shut_down_mutex_;
  bool is_shut_down_ = false;
};

}  // namespace lorax
