// How other threads reach the JavaScript thread of one environment: wake() makes it call `on_wake`.
//
// Calls are coalesced: at most one is under way. Never keeps the process alive by itself; hold()
// does, while a promise is open. After close() nothing is called any more, and wake() from any
// thread does nothing: so a thread may outlive the environment's last turn, never its memory.
#pragma once

#include <node_api.h>

#include <functional>
#include <memory>
#include <mutex>

namespace lorax {

class JsQueue : public std::enable_shared_from_this<JsQueue> {
 public:
  // JavaScript thread. Throws Napi::Error.
  static std::shared_ptr<JsQueue> create(napi_env env, std::function<void(napi_env)> on_wake);

  // Any thread; never blocks on JavaScript.
  void wake();

  // Any thread, while the process exits: wake() does nothing from here on, nothing is released.
  void abandon();

  // JavaScript thread, also while the environment is torn down. Idempotent.
  void close();

  // JavaScript thread. Counted.
  void hold();
  void unhold();

 private:
  JsQueue(napi_env env, std::function<void(napi_env)> on_wake)
      : env_(env), on_wake_(std::move(on_wake)) {}
  static void on_call(napi_env env, napi_value function, void* context, void* data);
  static void on_finalize(napi_env env, void* data, void* hint);

  napi_env env_;
  std::function<void(napi_env)> on_wake_;
  int holds_ = 0;
  std::mutex mutex_;  // guards what follows
  napi_threadsafe_function function_ = nullptr;
  bool pending_ = false;
};

}  // namespace lorax
