// Every method is one guarded call.
#include "binding/engine_object.h"

#include <limits>
#include <utility>

#include "binding/grammar_object.h"
#include "binding/values.h"

namespace lorax {
namespace {

constexpr int32_t kMaxInt32 = std::numeric_limits<int32_t>::max();

// A promise that was rejected before it began; what a promise-returning function throws.
Napi::Value rejected(Napi::Env env, const Napi::Value& error) {
  const auto promise = Napi::Promise::Deferred::New(env);
  promise.Reject(error);
  return promise.Promise();
}

}  // namespace

Napi::Function EngineObject::define(Napi::Env env) {
  return DefineClass(
      env, "NativeEngine",
      {InstanceMethod<&EngineObject::info>("info"),
       InstanceMethod<&EngineObject::add_adapter>("addAdapter"),
       InstanceMethod<&EngineObject::remove_adapter>("removeAdapter"),
       InstanceMethod<&EngineObject::relocate_adapter>("relocateAdapter"),
       InstanceMethod<&EngineObject::prefetch_adapter>("prefetchAdapter"),
       InstanceMethod<&EngineObject::adapters>("adapters"),
       InstanceMethod<&EngineObject::set_vocabulary>("setVocabulary"),
       InstanceMethod<&EngineObject::compile_grammar>("compileGrammar"),
       InstanceMethod<&EngineObject::submit>("submit"),
       InstanceMethod<&EngineObject::embed>("embed"),
       InstanceMethod<&EngineObject::cancel>("cancel"),
       InstanceMethod<&EngineObject::stats>("stats"), InstanceMethod<&EngineObject::stop>("stop")});
}

Napi::Value EngineObject::make(Napi::Env env, const Napi::FunctionReference& constructor,
                               const Napi::FunctionReference& grammar_class,
                               std::shared_ptr<EngineSession> session) {
  Parts parts{std::move(session), &grammar_class};
  return constructor.New({Napi::External<Parts>::New(env, &parts)});
}

EngineObject::EngineObject(const Napi::CallbackInfo& call) : ObjectWrap(call) {
  if (call.Length() != 1 || !call[0].IsExternal()) {
    throw Napi::TypeError::New(call.Env(), "NativeEngine is made by createEngine");
  }
  parts_ = *call[0].As<Napi::External<Parts>>().Data();
}

Napi::Value EngineObject::info(const Napi::CallbackInfo& call) {
  return guarded(call.Env(),
                 [&] { return info_value(call.Env(), session().limits(), session().info()); });
}

Napi::Value EngineObject::add_adapter(const Napi::CallbackInfo& call) {
  try {
    return guarded(call.Env(), [&] {
      return session().add_adapter(call.Env(), read_adapter_spec(call[0], "spec"));
    });
  } catch (const Napi::Error& error) {
    return rejected(call.Env(), error.Value());
  }
}

Napi::Value EngineObject::remove_adapter(const Napi::CallbackInfo& call) {
  return guarded(call.Env(), [&] {
    session().engine()->remove_adapter(read_int32(call[0], "handle", 0, kMaxInt32));
    return call.Env().Undefined();
  });
}

Napi::Value EngineObject::relocate_adapter(const Napi::CallbackInfo& call) {
  return guarded(call.Env(), [&] {
    session().engine()->relocate_adapter(read_int32(call[0], "handle", 0, kMaxInt32),
                                         read_adapter_spec(call[1], "spec"));
    return call.Env().Undefined();
  });
}

Napi::Value EngineObject::prefetch_adapter(const Napi::CallbackInfo& call) {
  return guarded(call.Env(), [&] {
    session().engine()->prefetch_adapter(read_int32(call[0], "handle", 0, kMaxInt32));
    return call.Env().Undefined();
  });
}

Napi::Value EngineObject::adapters(const Napi::CallbackInfo& call) {
  return guarded(call.Env(),
                 [&] { return adapters_value(call.Env(), session().engine()->adapters()); });
}

Napi::Value EngineObject::set_vocabulary(const Napi::CallbackInfo& call) {
  return guarded(call.Env(), [&] {
    session().engine()->set_vocabulary(read_vocabulary(call[0], "vocabulary"));
    return call.Env().Undefined();
  });
}

Napi::Value EngineObject::compile_grammar(const Napi::CallbackInfo& call) {
  try {
    return guarded(call.Env(), [&] {
      return session().compile_grammar(
          call.Env(), read_string(call[0], "text"),
          [&made = *parts_.grammar_class](Napi::Env env,
                                          std::shared_ptr<grammar::Grammar> grammar) {
            return GrammarObject::make(env, made, std::move(grammar));
          });
    });
  } catch (const Napi::Error& error) {
    return rejected(call.Env(), error.Value());
  }
}

Napi::Value EngineObject::submit(const Napi::CallbackInfo& call) {
  return guarded(call.Env(), [&] {
    const auto engine = session().engine();
    const int32_t vocab_size = session().limits().vocab_size;
    Request request;
    request.id = read_int32(call[0], "request", 1, kMaxInt32);
    request.prompt = read_tokens(call[1], "promptTokens", vocab_size);
    request.adapters = read_adapter_uses(call[2], "adapters");
    request.sampling = read_sampling(call[3], "sampling", vocab_size);
    request.grammar =
        GrammarObject::read_constraint(call[4], "constraint", *parts_.grammar_class, vocab_size);
    read_service(call[5], "service", &request);
    engine->submit(std::move(request));
    return call.Env().Undefined();
  });
}

Napi::Value EngineObject::embed(const Napi::CallbackInfo& call) {
  return guarded(call.Env(), [&] {
    const auto engine = session().engine();
    Request request;
    request.id = read_int32(call[0], "request", 1, kMaxInt32);
    request.prompt = read_tokens(call[1], "promptTokens", session().limits().vocab_size);
    request.adapters = read_adapter_uses(call[2], "adapters");
    request.embedding = read_embedding(call[3], "embedding");
    engine->submit(std::move(request));
    return call.Env().Undefined();
  });
}

Napi::Value EngineObject::cancel(const Napi::CallbackInfo& call) {
  return guarded(call.Env(), [&] {
    const int32_t id =
        read_int32(call[0], "request", std::numeric_limits<int32_t>::min(), kMaxInt32);
    // A stopped engine has ended every request already.
    if (const auto engine = session().engine_or_null()) engine->cancel(id);
    return call.Env().Undefined();
  });
}

Napi::Value EngineObject::stats(const Napi::CallbackInfo& call) {
  return guarded(call.Env(), [&] { return stats_value(call.Env(), session().engine()->stats()); });
}

Napi::Value EngineObject::stop(const Napi::CallbackInfo& call) {
  return guarded(call.Env(), [&] { return session().stop(call.Env()); });
}

}  // namespace lorax
