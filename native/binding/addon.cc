// The module: EngineAddon of worker/addon.ts. One instance of LoraxAddon per environment (the main
// thread, each worker); environments share nothing but the list of engines to stop at exit.
#include <napi.h>

#include <memory>
#include <utility>

#include "binding/arguments.h"
#include "binding/engine_object.h"
#include "binding/engine_session.h"
#include "binding/evaluator_object.h"
#include "binding/grammar_object.h"
#include "binding/matcher_object.h"
#include "binding/values.h"

namespace lorax {

class LoraxAddon : public Napi::Addon<LoraxAddon> {
 public:
  LoraxAddon(Napi::Env env, Napi::Object exports)
      : engine_class_(Napi::Persistent(EngineObject::define(env))),
        evaluator_class_(Napi::Persistent(EvaluatorObject::define(env))),
        grammar_class_(Napi::Persistent(GrammarObject::define(env))),
        matcher_class_(Napi::Persistent(MatcherObject::define(env))) {
    DefineAddon(exports, {InstanceMethod<&LoraxAddon::create_engine>("createEngine"),
                          InstanceMethod<&LoraxAddon::create_evaluator>("createEvaluator"),
                          InstanceMethod<&LoraxAddon::create_matcher>("createMatcher")});
  }

 private:
  Napi::Value create_engine(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    try {
      return guarded(env, [&] {
        EngineConfig config = read_engine_config(call[0], "config");
        const Napi::Function on_events = read_function(call[1], "onEvents");
        const Napi::Function on_progress = read_function(call[2], "onProgress");
        // The addon outlives the promise: both belong to the environment.
        const auto make_object = [this](Napi::Env js_env, std::shared_ptr<EngineSession> session) {
          return EngineObject::make(js_env, engine_class_, grammar_class_, std::move(session));
        };
        return EngineSession::create(env, std::move(config), on_events, on_progress, make_object);
      });
    } catch (const Napi::Error& error) {
      const auto promise = Napi::Promise::Deferred::New(env);
      promise.Reject(error.Value());
      return promise.Promise();
    }
  }

  Napi::Value create_evaluator(const Napi::CallbackInfo& call) {
    return guarded(call.Env(), [&] {
      return EvaluatorObject::make(call.Env(), evaluator_class_,
                                   read_engine_config(call[0], "config"));
    });
  }

  Napi::Value create_matcher(const Napi::CallbackInfo& call) {
    return MatcherObject::make(call, matcher_class_);
  }

  Napi::FunctionReference engine_class_;
  Napi::FunctionReference evaluator_class_;
  Napi::FunctionReference grammar_class_;
  Napi::FunctionReference matcher_class_;
};

}  // namespace lorax

using lorax::LoraxAddon;
NODE_API_ADDON(LoraxAddon)
