// Typed arrays are fresh and own their buffer, so that JavaScript may transfer them.
#include "binding/values.h"

#include <cstring>
#include <new>
#include <string>
#include <variant>
#include <vector>

namespace lorax {
namespace {

Napi::Object data_value(Napi::Env env, const ErrorData& data) {
  Napi::Object out = Napi::Object::New(env);
  for (const auto& [key, value] : data) {
    if (const double* number = std::get_if<double>(&value)) {
      out.Set(key, Napi::Number::New(env, *number));
    } else if (const bool* flag = std::get_if<bool>(&value)) {
      out.Set(key, Napi::Boolean::New(env, *flag));
    } else {
      out.Set(key, Napi::String::New(env, std::get<std::string>(value)));
    }
  }
  return out;
}

Napi::Value coded_error(Napi::Env env, const std::string& code, const std::string& message,
                        const ErrorData& data) {
  const Napi::Object out = Napi::Error::New(env, message).Value();
  out.Set("code", Napi::String::New(env, code));
  out.Set("data", data_value(env, data));
  return out;
}

template <typename T>
Napi::TypedArrayOf<T> typed_array(Napi::Env env, const std::vector<T>& values) {
  auto out = Napi::TypedArrayOf<T>::New(env, values.size());
  if (!values.empty()) std::memcpy(out.Data(), values.data(), values.size() * sizeof(T));
  return out;
}

void set_number(Napi::Object& object, const char* key, double value) {
  object.Set(key, Napi::Number::New(object.Env(), value));
}

}  // namespace

Napi::Value error_value(Napi::Env env, const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const Error& e) {
    return coded_error(env, e.code(), e.what(), e.data());
  } catch (const std::bad_alloc&) {
    return coded_error(env, "ENGINE_LOST", "out of memory", {});
  } catch (const std::exception& e) {
    return coded_error(env, "ENGINE_LOST", std::string("internal error: ") + e.what(), {});
  } catch (...) {
    return coded_error(env, "ENGINE_LOST", "internal error", {});
  }
}

Napi::Object failure_value(Napi::Env env, const Failure& failure) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("code", Napi::String::New(env, failure.code));
  out.Set("message", Napi::String::New(env, failure.message));
  out.Set("data", data_value(env, failure.data));
  return out;
}

Napi::Object events_value(Napi::Env env, const StepEvents& events) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("ints", typed_array(env, events.ints));
  out.Set("floats", typed_array(env, events.floats));
  Napi::Array failures = Napi::Array::New(env, events.failures.size());
  for (uint32_t i = 0; i < events.failures.size(); ++i) {
    failures.Set(i, failure_value(env, events.failures[i]));
  }
  out.Set("failures", failures);
  return out;
}

Napi::Object stats_value(Napi::Env env, const EngineStats& stats) {
  Napi::Object pages = Napi::Object::New(env);
  set_number(pages, "total", stats.pages.total);
  set_number(pages, "free", stats.pages.free);
  set_number(pages, "kv", stats.pages.kv);
  set_number(pages, "cold", stats.pages.cold);
  set_number(pages, "adapter", stats.pages.adapter);
  set_number(pages, "retiring", stats.pages.retiring);
  Napi::Object out = Napi::Object::New(env);
  out.Set("pages", pages);
  Napi::Object host = Napi::Object::New(env);
  set_number(host, "bytes", static_cast<double>(stats.host.bytes));
  set_number(host, "budgetBytes", static_cast<double>(stats.host.budget_bytes));
  set_number(host, "images", static_cast<double>(stats.host.images));
  out.Set("host", host);
  set_number(out, "hostReads", static_cast<double>(stats.host_reads));
  set_number(out, "hostDrops", static_cast<double>(stats.host_drops));
  set_number(out, "running", stats.running);
  set_number(out, "waiting", stats.waiting);
  set_number(out, "steps", static_cast<double>(stats.steps));
  set_number(out, "promptTokens", static_cast<double>(stats.prompt_tokens));
  set_number(out, "cachedTokens", static_cast<double>(stats.cached_tokens));
  set_number(out, "outputTokens", static_cast<double>(stats.output_tokens));
  set_number(out, "preemptions", static_cast<double>(stats.preemptions));
  set_number(out, "prefixHits", static_cast<double>(stats.prefix_hits));
  set_number(out, "prefixMisses", static_cast<double>(stats.prefix_misses));
  set_number(out, "prefixEvictions", static_cast<double>(stats.prefix_evictions));
  set_number(out, "adapterHits", static_cast<double>(stats.adapter_hits));
  set_number(out, "adapterLoads", static_cast<double>(stats.adapter_loads));
  set_number(out, "adapterEvictions", static_cast<double>(stats.adapter_evictions));
  set_number(out, "finished", static_cast<double>(stats.finished));
  set_number(out, "aborted", static_cast<double>(stats.aborted));
  set_number(out, "failed", static_cast<double>(stats.failed));
  std::vector<int32_t> steps;
  for (const EngineStats::Step& step : stats.recent_steps) {
    steps.insert(steps.end(), {step.prefill_tokens, step.decode_tokens, step.adapters, step.us});
  }
  out.Set("recentSteps", typed_array(env, steps));
  return out;
}

Napi::Object info_value(Napi::Env env, const ModelLimits& limits, const BackendInfo& info) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("device", Napi::String::New(env, info.device));
  out.Set("deviceDescription", Napi::String::New(env, info.description));
  set_number(out, "numPages", limits.num_pages);
  set_number(out, "pageBytes", static_cast<double>(limits.page_bytes));
  set_number(out, "blockTokens", limits.block_tokens);
  return out;
}

Napi::Array adapters_value(Napi::Env env, const std::vector<AdapterStatus>& adapters) {
  Napi::Array out = Napi::Array::New(env, adapters.size());
  for (uint32_t i = 0; i < adapters.size(); ++i) {
    Napi::Object one = Napi::Object::New(env);
    set_number(one, "handle", adapters[i].handle);
    set_number(one, "bytes", static_cast<double>(adapters[i].bytes));
    one.Set("resident", Napi::Boolean::New(env, adapters[i].resident));
    one.Set("inHost", Napi::Boolean::New(env, adapters[i].in_host));
    set_number(one, "activeRequests", adapters[i].active_requests);
    out.Set(i, one);
  }
  return out;
}

}  // namespace lorax
