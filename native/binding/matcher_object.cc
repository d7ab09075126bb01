// Every method is one guarded call; faults of grammars are what an engine makes of them.
#include "binding/matcher_object.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "binding/arguments.h"
#include "binding/values.h"
#include "engine/grammar_cache.h"

namespace lorax {
namespace {

using SharedGrammar = std::shared_ptr<grammar::Grammar>;

constexpr int32_t kMaxInt32 = std::numeric_limits<int32_t>::max();

template <typename Call>
Napi::Value guarded_grammar(Napi::Env env, const Call& call) {
  return guarded(env, [&]() -> Napi::Value {
    try {
      return call();
    } catch (const grammar::Fault& fault) {
      throw grammar_invalid(fault);
    }
  });
}

Napi::Value ids_value(Napi::Env env, const std::vector<int32_t>& ids) {
  auto out = Napi::Int32Array::New(env, ids.size());
  std::copy(ids.begin(), ids.end(), out.Data());
  return out;
}

}  // namespace

Napi::Function MatcherObject::define(Napi::Env env) {
  return DefineClass(env, "NativeMatcher",
                     {InstanceAccessor<&MatcherObject::shortest_tokens>("shortestTokens"),
                      InstanceAccessor<&MatcherObject::may_end>("mayEnd"),
                      InstanceMethod<&MatcherObject::allowed>("allowed"),
                      InstanceMethod<&MatcherObject::accept>("accept"),
                      InstanceMethod<&MatcherObject::take_forced>("takeForced")});
}

Napi::Value MatcherObject::make(const Napi::CallbackInfo& call,
                                const Napi::FunctionReference& constructor) {
  return guarded_grammar(call.Env(), [&] {
    grammar::TokenBytes tokens = read_vocabulary(call[0], "vocabulary");
    const auto size = static_cast<int32_t>(tokens.offsets.size() - 1);
    const std::string text = read_string(call[1], "text");
    const std::vector<grammar::Trigger> triggers = read_triggers(call[2], "triggers", size);
    SharedGrammar grammar = grammar::Grammar::compile(
        text, std::make_shared<grammar::Vocabulary>(std::move(tokens), size));
    if (!triggers.empty()) grammar = grammar->behind(triggers);
    return constructor.New({Napi::External<SharedGrammar>::New(call.Env(), &grammar)});
  });
}

MatcherObject::MatcherObject(const Napi::CallbackInfo& call) : ObjectWrap(call) {
  if (call.Length() != 1 || !call[0].IsExternal()) {
    throw Napi::TypeError::New(call.Env(), "NativeMatcher is made by createMatcher");
  }
  grammar_ = *call[0].As<Napi::External<SharedGrammar>>().Data();
  matcher_ = std::make_unique<grammar::Matcher>(grammar_);
}

Napi::Value MatcherObject::shortest_tokens(const Napi::CallbackInfo& call) {
  return Napi::Number::New(call.Env(), grammar_->shortest());
}

Napi::Value MatcherObject::may_end(const Napi::CallbackInfo& call) {
  return Napi::Boolean::New(call.Env(), matcher_->may_end());
}

Napi::Value MatcherObject::allowed(const Napi::CallbackInfo& call) {
  return guarded_grammar(call.Env(), [&] {
    const grammar::Vocabulary& vocabulary = *grammar_->vocabulary();
    grammar::TokenSet mask(vocabulary.num_words());
    matcher_->fill_mask(read_int32(call[0], "left", 0, kMaxInt32), mask);
    std::vector<int32_t> ids;
    for (int32_t token = 0; token < vocabulary.size(); ++token) {
      if (grammar::contains(mask, token)) ids.push_back(token);
    }
    return ids_value(call.Env(), ids);
  });
}

Napi::Value MatcherObject::accept(const Napi::CallbackInfo& call) {
  return guarded_grammar(call.Env(), [&] {
    const int32_t token = read_int32(call[0], "token", 0, grammar_->vocabulary()->size() - 1);
    return Napi::Boolean::New(call.Env(), matcher_->accept(token));
  });
}

Napi::Value MatcherObject::take_forced(const Napi::CallbackInfo& call) {
  return guarded_grammar(call.Env(), [&] {
    const int32_t left = read_int32(call[0], "left", 0, kMaxInt32);
    return ids_value(call.Env(), matcher_->take_forced(left, {}, true));
  });
}

}  // namespace lorax
