// A shared pointer in a JavaScript object.
#include "binding/grammar_object.h"

#include <utility>
#include <vector>

#include "binding/arguments.h"

namespace lorax {

using SharedGrammar = std::shared_ptr<grammar::Grammar>;

Napi::Function GrammarObject::define(Napi::Env env) {
  return DefineClass(env, "NativeGrammar",
                     {InstanceAccessor<&GrammarObject::shortest_tokens>("shortestTokens")});
}

Napi::Value GrammarObject::make(Napi::Env env, const Napi::FunctionReference& constructor,
                                SharedGrammar grammar) {
  return constructor.New({Napi::External<SharedGrammar>::New(env, &grammar)});
}

GrammarObject::GrammarObject(const Napi::CallbackInfo& call) : ObjectWrap(call) {
  if (call.Length() != 1 || !call[0].IsExternal()) {
    throw Napi::TypeError::New(call.Env(), "NativeGrammar is made by compileGrammar");
  }
  grammar_ = *call[0].As<Napi::External<SharedGrammar>>().Data();
}

Napi::Value GrammarObject::shortest_tokens(const Napi::CallbackInfo& call) {
  return Napi::Number::New(call.Env(), grammar_->shortest());
}

SharedGrammar GrammarObject::read_constraint(const Napi::Value& value, const std::string& name,
                                             const Napi::FunctionReference& constructor,
                                             int32_t vocab_size) {
  if (value.IsUndefined()) return nullptr;
  if (!value.IsObject()) throw Napi::TypeError::New(value.Env(), name + " must be an object");
  const auto object = value.As<Napi::Object>();
  const Napi::Value handle = object.Get("grammar");
  if (!handle.IsObject() || !handle.As<Napi::Object>().InstanceOf(constructor.Value())) {
    throw Napi::TypeError::New(value.Env(), name + ".grammar must be made by compileGrammar");
  }
  const SharedGrammar grammar = Unwrap(handle.As<Napi::Object>())->grammar_;
  const std::vector<grammar::Trigger> triggers =
      read_triggers(object.Get("triggers"), name + ".triggers", vocab_size);
  return triggers.empty() ? grammar : grammar->behind(triggers);
}

}  // namespace lorax
