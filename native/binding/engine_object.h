// NativeEngine of worker/addon.ts: checks arguments, hands them to an EngineSession.
//
// JavaScript thread only. Letting go of the object does not stop its engine; stop() or the end of
// the environment does.
#pragma once

#include <napi.h>

#include <memory>

#include "binding/engine_session.h"

namespace lorax {

class EngineObject : public Napi::ObjectWrap<EngineObject> {
 public:
  static Napi::Function define(Napi::Env env);
  // `constructor` is what define() gave.
  static Napi::Value make(Napi::Env env, const Napi::FunctionReference& constructor,
                          std::shared_ptr<EngineSession> session);

  explicit EngineObject(const Napi::CallbackInfo& call);

 private:
  Napi::Value info(const Napi::CallbackInfo& call);
  Napi::Value add_adapter(const Napi::CallbackInfo& call);
  Napi::Value remove_adapter(const Napi::CallbackInfo& call);
  Napi::Value adapters(const Napi::CallbackInfo& call);
  Napi::Value submit(const Napi::CallbackInfo& call);
  Napi::Value embed(const Napi::CallbackInfo& call);
  Napi::Value cancel(const Napi::CallbackInfo& call);
  Napi::Value stats(const Napi::CallbackInfo& call);
  Napi::Value stop(const Napi::CallbackInfo& call);

  std::shared_ptr<EngineSession> session_;
};

}  // namespace lorax
