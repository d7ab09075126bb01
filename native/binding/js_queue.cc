// The thread-safe function behind JsQueue; only here.
//
// Node frees a thread-safe function after its environment's cleanup hooks, however many threads
// still know it. So close() clears the pointer under the mutex that wake() calls through.
#include "binding/js_queue.h"

#include <napi.h>

#include <utility>

namespace lorax {

std::shared_ptr<JsQueue> JsQueue::create(napi_env env, std::function<void(napi_env)> on_wake) {
  std::shared_ptr<JsQueue> queue(new JsQueue(env, std::move(on_wake)));
  // Lives until on_finalize: Node may still hold a call when we close.
  auto context = std::make_unique<std::shared_ptr<JsQueue>>(queue);
  napi_value name = nullptr;
  napi_status status = napi_create_string_utf8(env, "lorax", NAPI_AUTO_LENGTH, &name);
  if (status == napi_ok) {
    status =
        napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, context.get(),
                                        on_finalize, context.get(), on_call, &queue->function_);
  }
  if (status != napi_ok) throw Napi::Error::New(env);
  context.release();
  napi_unref_threadsafe_function(env, queue->function_);
  return queue;
}

void JsQueue::wake() {
  std::lock_guard lock(mutex_);
  if (function_ == nullptr || pending_) return;
  pending_ = napi_call_threadsafe_function(function_, nullptr, napi_tsfn_nonblocking) == napi_ok;
}

void JsQueue::abandon() {
  std::lock_guard lock(mutex_);
  function_ = nullptr;
}

void JsQueue::close() {
  std::lock_guard lock(mutex_);
  if (function_ == nullptr) return;
  napi_release_threadsafe_function(function_, napi_tsfn_abort);
  function_ = nullptr;
}

void JsQueue::hold() {
  std::lock_guard lock(mutex_);
  if (holds_++ == 0 && function_ != nullptr) napi_ref_threadsafe_function(env_, function_);
}

void JsQueue::unhold() {
  std::lock_guard lock(mutex_);
  if (--holds_ == 0 && function_ != nullptr) napi_unref_threadsafe_function(env_, function_);
}

void JsQueue::on_call(napi_env env, napi_value, void* context, void*) {
  if (env == nullptr) return;  // the environment goes: what is queued is dropped
  const std::shared_ptr<JsQueue> queue = *static_cast<std::shared_ptr<JsQueue>*>(context);
  {
    std::lock_guard lock(queue->mutex_);
    queue->pending_ = false;
    if (queue->function_ == nullptr) return;
  }
  queue->on_wake_(env);
}

void JsQueue::on_finalize(napi_env, void* data, void*) {
  delete static_cast<std::shared_ptr<JsQueue>*>(data);
}

}  // namespace lorax
