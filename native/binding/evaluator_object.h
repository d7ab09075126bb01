// NativeEvaluator of worker/addon.ts: a Decoder without an engine, for tests and goldens.
//
// Everything happens on the calling thread. Adapters take pages from the end of the arena, the one
// sequence of each logits() call from its beginning.
#pragma once

#include <napi.h>

#include <memory>
#include <vector>

#include "binding/arguments.h"
#include "model/decoder.h"

namespace lorax {

class EvaluatorObject : public Napi::ObjectWrap<EvaluatorObject> {
 public:
  static Napi::Function define(Napi::Env env);
  static Napi::Value make(Napi::Env env, const Napi::FunctionReference& constructor,
                          EngineConfig config);

  explicit EvaluatorObject(const Napi::CallbackInfo& call);

 private:
  Napi::Value add_adapter(const Napi::CallbackInfo& call);
  Napi::Value logits(const Napi::CallbackInfo& call);

  std::unique_ptr<Decoder> decoder_;
  std::vector<std::unique_ptr<ResidentAdapter>> adapters_;  // by handle
  int32_t chunk_ = 0;
  int32_t num_free_pages_ = 0;  // [0, num_free_pages) of the arena
};

}  // namespace lorax
