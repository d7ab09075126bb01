// NativeGrammar of worker/addon.ts: a compiled grammar that JavaScript holds.
//
// Letting go of the object lets go of the grammar. JavaScript thread only.
#pragma once

#include <napi.h>

#include <memory>
#include <string>

#include "grammar/grammar.h"

namespace lorax {

class GrammarObject : public Napi::ObjectWrap<GrammarObject> {
 public:
  static Napi::Function define(Napi::Env env);
  // `constructor` is what define() gave.
  static Napi::Value make(Napi::Env env, const Napi::FunctionReference& constructor,
                          std::shared_ptr<grammar::Grammar> grammar);

  // The grammar of NativeConstraint `value`, behind its triggers; null where it is undefined.
  // Throws a Napi::TypeError that names the field.
  static std::shared_ptr<grammar::Grammar> read_constraint(
      const Napi::Value& value, const std::string& name, const Napi::FunctionReference& constructor,
      int32_t vocab_size);

  explicit GrammarObject(const Napi::CallbackInfo& call);

 private:
  Napi::Value shortest_tokens(const Napi::CallbackInfo& call);

  std::shared_ptr<grammar::Grammar> grammar_;
};

}  // namespace lorax
