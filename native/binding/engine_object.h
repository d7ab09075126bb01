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
  // `grammar_class`: what GrammarObject::define gave; it outlives the environment's objects.
  static Napi::Value make(Napi::Env env, const Napi::FunctionReference& constructor,
                          const Napi::FunctionReference& grammar_class,
                          std::shared_ptr<EngineSession> session);

  explicit EngineObject(const Napi::CallbackInfo& call);

 private:
  Napi::Value info(const Napi::CallbackInfo& call);
  Napi::Value add_adapter(const Napi::CallbackInfo& call);
  Napi::Value remove_adapter(const Napi::CallbackInfo& call);
  Napi::Value relocate_adapter(const Napi::CallbackInfo& call);
  Napi::Value prefetch_adapter(const Napi::CallbackInfo& call);
  Napi::Value adapters(const Napi::CallbackInfo& call);
  Napi::Value set_vocabulary(const Napi::CallbackInfo& call);
  Napi::Value compile_grammar(const Napi::CallbackInfo& call);
  Napi::Value submit(const Napi::CallbackInfo& call);
  Napi::Value embed(const Napi::CallbackInfo& call);
  Napi::Value cancel(const Napi::CallbackInfo& call);
  Napi::Value stats(const Napi::CallbackInfo& call);
  Napi::Value stop(const Napi::CallbackInfo& call);

  struct Parts {
    std::shared_ptr<EngineSession> session;
    const Napi::FunctionReference* grammar_class;
  };
  EngineSession& session() const { return *parts_.session; }

  Parts parts_;
};

}  // namespace lorax
