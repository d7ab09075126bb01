// Native structs to JavaScript values: errors, events, stats, as worker/addon.ts describes them.
//
// JavaScript thread only; throws Napi::Error when the environment can make no values any more.
#pragma once

#include <napi.h>

#include <exception>
#include <utility>

#include "engine/engine.h"

namespace lorax {

// An Error with `code` and `data`. What is no lorax::Error is ENGINE_LOST.
Napi::Value error_value(Napi::Env env, const std::exception_ptr& error);
Napi::Object failure_value(Napi::Env env, const Failure& failure);
Napi::Object events_value(Napi::Env env, const StepEvents& events);
Napi::Object stats_value(Napi::Env env, const EngineStats& stats);
Napi::Object info_value(Napi::Env env, const ModelLimits& limits, const BackendInfo& info);
Napi::Array adapters_value(Napi::Env env, const std::vector<AdapterStatus>& adapters);

// Runs a native call made by JavaScript; whatever it throws becomes a JavaScript exception.
template <typename Call>
Napi::Value guarded(Napi::Env env, const Call& call) {
  try {
    return call();
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    throw Napi::Error(env, error_value(env, std::current_exception()));
  }
}

}  // namespace lorax
