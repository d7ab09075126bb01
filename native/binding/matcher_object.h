// NativeMatcher of worker/addon.ts: one output's way through a grammar, on the JavaScript thread,
// with no engine. What tests of grammars use.
#pragma once

#include <napi.h>

#include <memory>

#include "grammar/matcher.h"

namespace lorax {

class MatcherObject : public Napi::ObjectWrap<MatcherObject> {
 public:
  static Napi::Function define(Napi::Env env);
  // `constructor` is what define() gave; `call`: the arguments of createMatcher.
  static Napi::Value make(const Napi::CallbackInfo& call,
                          const Napi::FunctionReference& constructor);

  explicit MatcherObject(const Napi::CallbackInfo& call);

 private:
  Napi::Value shortest_tokens(const Napi::CallbackInfo& call);
  Napi::Value may_end(const Napi::CallbackInfo& call);
  Napi::Value allowed(const Napi::CallbackInfo& call);
  Napi::Value accept(const Napi::CallbackInfo& call);
  Napi::Value take_forced(const Napi::CallbackInfo& call);

  std::shared_ptr<grammar::Grammar> grammar_;
  std::unique_ptr<grammar::Matcher> matcher_;
};

}  // namespace lorax
