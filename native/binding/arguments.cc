// One small reader per shape; `name` is the way to the value, as its owner would write it.
#include "binding/arguments.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <utility>

#include "binding/packed_modules.h"

namespace lorax {
namespace {

constexpr double kMaxSafeInteger = 9007199254740991.0;
constexpr int32_t kMaxInt32 = std::numeric_limits<int32_t>::max();

[[noreturn]] void fail(Napi::Env env, const std::string& name, const std::string& wanted) {
  throw Napi::TypeError::New(env, name + " must be " + wanted);
}

double read_number(const Napi::Value& value, const std::string& name) {
  if (!value.IsNumber()) fail(value.Env(), name, "a number");
  const double number = value.As<Napi::Number>().DoubleValue();
  if (!std::isfinite(number)) fail(value.Env(), name, "a finite number");
  return number;
}

int64_t read_integer(const Napi::Value& value, const std::string& name, double low, double high) {
  const double number = read_number(value, name);
  if (number != std::floor(number) || number < low || number > high) {
    fail(value.Env(), name,
         "an integer between " + std::to_string(static_cast<int64_t>(low)) + " and " +
             std::to_string(static_cast<int64_t>(high)));
  }
  return static_cast<int64_t>(number);
}

bool read_bool(const Napi::Value& value, const std::string& name) {
  if (!value.IsBoolean()) fail(value.Env(), name, "a boolean");
  return value.As<Napi::Boolean>().Value();
}

// Index of the value among `choices`.
int32_t read_choice(const Napi::Value& value, const std::string& name,
                    std::initializer_list<const char*> choices) {
  const std::string text = read_string(value, name);
  std::string list;
  int32_t index = 0;
  for (const char* choice : choices) {
    if (text == choice) return index;
    list += (list.empty() ? "" : ", ") + std::string(choice);
    ++index;
  }
  fail(value.Env(), name, "one of " + list);
}

// Calls read(element, its name) for every element of an array.
template <typename Read>
void each_of(const Napi::Value& list, const std::string& name, const Read& read) {
  if (!list.IsArray()) fail(list.Env(), name, "an array");
  const auto array = list.As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::HandleScope scope(list.Env());
    read(array.Get(i), name + "[" + std::to_string(i) + "]");
  }
}

// Fields of one object.
class Fields {
 public:
  Fields(const Napi::Value& value, std::string name) : name_(std::move(name)) {
    if (!value.IsObject()) fail(value.Env(), name_, "an object");
    object_ = value.As<Napi::Object>();
  }

  Napi::Value value(const char* key) const { return object_.Get(key); }
  std::string path(const char* key) const { return name_ + "." + key; }

  double number(const char* key) const { return read_number(value(key), path(key)); }
  bool boolean(const char* key) const { return read_bool(value(key), path(key)); }
  std::string string(const char* key) const { return read_string(value(key), path(key)); }
  int32_t int32(const char* key, int32_t low, int32_t high = kMaxInt32) const {
    return static_cast<int32_t>(read_integer(value(key), path(key), low, high));
  }
  int64_t bytes(const char* key) const {
    return read_integer(value(key), path(key), 0, kMaxSafeInteger);
  }
  int32_t choice(const char* key, std::initializer_list<const char*> choices) const {
    return read_choice(value(key), path(key), choices);
  }

  template <typename Read>
  void each(const char* key, const Read& read) const {
    each_of(value(key), path(key), read);
  }

 private:
  Napi::Object object_;
  std::string name_;
};

template <typename T>
std::vector<T> read_typed_array(const Napi::Value& value, const std::string& name,
                                napi_typedarray_type type, const char* wanted) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != type) {
    fail(value.Env(), name, wanted);
  }
  const auto array = value.As<Napi::TypedArrayOf<T>>();
  std::vector<T> out(array.ElementLength());
  if (!out.empty()) std::memcpy(out.data(), array.Data(), out.size() * sizeof(T));
  return out;
}

TensorRef read_tensor(const Napi::Value& value, const std::string& name) {
  const Fields fields(value, name);
  TensorRef out;
  out.name = fields.string("name");
  out.file = fields.int32("file", 0);
  constexpr DType kTypes[] = {DType::kF32, DType::kF16, DType::kBF16};
  out.dtype = kTypes[fields.choice("dtype", {"F32", "F16", "BF16"})];
  out.rows = fields.bytes("rows");
  out.cols = fields.bytes("cols");
  out.offset = fields.bytes("offset");
  return out;
}

std::vector<std::string> read_files(const Fields& fields) {
  std::vector<std::string> out;
  fields.each("files", [&](const Napi::Value& file, const std::string& name) {
    out.push_back(read_string(file, name));
  });
  return out;
}

RopeScaling read_rope(const Napi::Value& value, const std::string& name) {
  using Type = RopeScaling::Type;
  constexpr Type kTypes[] = {Type::kDefault, Type::kLinear, Type::kDynamic, Type::kLlama3,
                             Type::kYarn};
  const Fields fields(value, name);
  RopeScaling out;
  out.type = kTypes[fields.choice("type", {"default", "linear", "dynamic", "llama3", "yarn"})];
  if (out.type == Type::kDefault) return out;
  out.factor = fields.number("factor");
  if (out.type == Type::kLinear) return out;
  out.original_context = fields.int32("originalContext", 1);
  if (out.type == Type::kLlama3) {
    out.low_freq_factor = fields.number("lowFreqFactor");
    out.high_freq_factor = fields.number("highFreqFactor");
  }
  if (out.type == Type::kYarn) {
    out.beta_fast = fields.number("betaFast");
    out.beta_slow = fields.number("betaSlow");
    out.attention_factor = fields.number("attentionFactor");
    out.truncate = fields.boolean("truncate");
  }
  return out;
}

DecoderConfig read_decoder_config(const Napi::Value& value, const std::string& name) {
  const Fields fields(value, name);
  DecoderConfig out;
  out.architecture = fields.string("architecture");
  out.vocab_size = fields.int32("vocabSize", 1);
  out.hidden_size = fields.int32("hiddenSize", 1);
  out.intermediate_size = fields.int32("intermediateSize", 1);
  out.num_layers = fields.int32("numLayers", 1);
  out.num_heads = fields.int32("numHeads", 1);
  out.num_kv_heads = fields.int32("numKvHeads", 1);
  out.head_dim = fields.int32("headDim", 1);
  out.rms_norm_eps = static_cast<float>(fields.number("rmsNormEps"));
  out.context_tokens = fields.int32("contextTokens", 1);
  out.tied_embeddings = fields.boolean("tiedEmbeddings");
  out.qkv_bias = fields.boolean("qkvBias");
  out.qk_norm = fields.boolean("qkNorm");
  out.sliding_window = fields.int32("slidingWindow", 0);
  out.rope_theta = fields.number("ropeTheta");
  out.rope = read_rope(fields.value("rope"), fields.path("rope"));
  return out;
}

ModelSpec read_model_spec(const Napi::Value& value, const std::string& name) {
  const Fields fields(value, name);
  ModelSpec out;
  out.config = read_decoder_config(fields.value("config"), fields.path("config"));
  out.files = read_files(fields);
  fields.each("tensors", [&](const Napi::Value& tensor, const std::string& tensor_name) {
    out.tensors.push_back(read_tensor(tensor, tensor_name));
  });
  return out;
}

void check_tokens(Napi::Env env, const std::vector<int32_t>& tokens, const std::string& name,
                  int32_t vocab_size) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocab_size) {
      fail(env, name + "[" + std::to_string(i) + "]",
           "a token id below " + std::to_string(vocab_size) + ", it is " +
               std::to_string(tokens[i]));
    }
  }
}

}  // namespace

EngineConfig read_engine_config(const Napi::Value& value, const std::string& name) {
  const Fields fields(value, name);
  EngineConfig out;
  out.model = read_model_spec(fields.value("model"), fields.path("model"));
  fields.choice("device", {"auto", "cpu", "cuda"});
  out.device = fields.string("device");
  constexpr Precision kPrecisions[] = {Precision::kBFloat16, Precision::kFloat32};
  out.cpu.precision = kPrecisions[fields.choice("precision", {"bfloat16", "float32"})];
  out.memory_bytes = fields.bytes("memoryBytes");
  out.max_batch_tokens = fields.int32("maxBatchTokens", 0, 1 << 16);
  out.max_queued = fields.int32("maxQueued", 0);
  out.host_memory_bytes = fields.bytes("hostMemoryBytes");
  out.cpu.threads = fields.int32("threads", 0, 1024);
  constexpr Isa kIsas[] = {Isa::kAuto, Isa::kAmx, Isa::kAvx512, Isa::kAvx2, Isa::kPortable};
  out.cpu.isa = kIsas[fields.choice("isa", {"auto", "amx", "avx512", "avx2", "portable"})];
  const Fields cuda(fields.value("cuda"), fields.path("cuda"));
  out.cuda_plugin = cuda.string("plugin");
  out.cuda.device = cuda.int32("device", 0);
  out.cuda.memory_fraction = cuda.number("memoryFraction");
  if (out.cuda.memory_fraction <= 0 || out.cuda.memory_fraction > 1) {
    fail(value.Env(), cuda.path("memoryFraction"), "above 0 and at most 1");
  }
  out.cuda.cache_directory = cuda.string("cacheDirectory");
  out.cuda.deterministic = cuda.boolean("deterministic");
  return out;
}

AdapterSpec read_adapter_spec(const Napi::Value& value, const std::string& name) {
  const Fields fields(value, name);
  AdapterSpec out;
  out.hash = fields.string("hash");
  out.files = read_files(fields);
  const Fields modules(fields.value("modules"), fields.path("modules"));
  out.modules =
      read_packed_modules(modules.value("numbers"), modules.value("names"), fields.path("modules"));
  return out;
}

SamplingParams read_sampling(const Napi::Value& value, const std::string& name,
                             int32_t vocab_size) {
  const Fields fields(value, name);
  const Napi::Env env = value.Env();
  const auto at_least = [&](const char* key, double low) {
    const double number = fields.number(key);
    if (number < low) fail(env, fields.path(key), "at least " + std::to_string(low));
    return static_cast<float>(number);
  };
  const auto fraction = [&](const char* key) {
    const double number = fields.number(key);
    if (number < 0 || number > 1) fail(env, fields.path(key), "between 0 and 1");
    return static_cast<float>(number);
  };
  SamplingParams out;
  out.max_output_tokens = fields.int32("maxOutputTokens", 0);
  out.temperature = at_least("temperature", 0);
  out.top_k = fields.int32("topK", 0);
  out.top_p = fraction("topP");
  out.min_p = fraction("minP");
  out.repetition_penalty = static_cast<float>(fields.number("repetitionPenalty"));
  if (!(out.repetition_penalty > 0)) fail(env, fields.path("repetitionPenalty"), "above 0");
  out.frequency_penalty = static_cast<float>(fields.number("frequencyPenalty"));
  out.presence_penalty = static_cast<float>(fields.number("presencePenalty"));
  out.bias_ids = read_tokens(fields.value("logitBiasIds"), fields.path("logitBiasIds"), vocab_size);
  out.bias_values =
      read_typed_array<float>(fields.value("logitBiasValues"), fields.path("logitBiasValues"),
                              napi_float32_array, "a Float32Array");
  if (out.bias_ids.size() != out.bias_values.size()) {
    fail(env, fields.path("logitBiasValues"), "as long as logitBiasIds");
  }
  for (const float bias : out.bias_values) {
    if (std::isnan(bias)) fail(env, fields.path("logitBiasValues"), "free of NaN");
  }
  const Napi::Value seed = fields.value("seed");
  if (!seed.IsArray() || seed.As<Napi::Array>().Length() != 2) {
    fail(env, fields.path("seed"), "two 32-bit halves");
  }
  constexpr double kMaxUint32 = 4294967295.0;
  const auto halves = seed.As<Napi::Array>();
  const auto low = read_integer(halves.Get(0u), fields.path("seed[0]"), 0, kMaxUint32);
  const auto high = read_integer(halves.Get(1u), fields.path("seed[1]"), 0, kMaxUint32);
  out.seed = static_cast<uint64_t>(high) << 32 | static_cast<uint64_t>(low);
  out.num_logprobs = fields.int32("logprobs", -1, 20);
  // Ids no token has can never stop it; a tokenizer may know more than the model.
  out.stop_token_ids = read_typed_array<int32_t>(
      fields.value("stopTokenIds"), fields.path("stopTokenIds"), napi_int32_array, "an Int32Array");
  return out;
}

std::vector<AdapterUse> read_adapter_uses(const Napi::Value& value, const std::string& name) {
  std::vector<AdapterUse> out;
  each_of(value, name, [&](const Napi::Value& use, const std::string& use_name) {
    const Fields fields(use, use_name);
    const int32_t handle = fields.int32("handle", 0);
    const auto weight = static_cast<float>(fields.number("weight"));
    if (!std::isfinite(weight)) fail(use.Env(), fields.path("weight"), "a finite 32-bit float");
    if (std::ranges::count(out, handle, &AdapterUse::handle) > 0) {
      fail(use.Env(), fields.path("handle"), "another than those before it");
    }
    const int32_t first_position =
        fields.value("firstPosition").IsUndefined() ? 0 : fields.int32("firstPosition", 0);
    out.push_back({handle, weight, first_position});
  });
  if (out.size() > kMaxSegmentsPerRow) {
    fail(value.Env(), name, "an array of at most " + std::to_string(kMaxSegmentsPerRow));
  }
  return out;
}

// More is as good as none.
constexpr double kLongestMs = 1e12;

void read_service(const Napi::Value& value, const std::string& name, Request* request) {
  if (value.IsUndefined()) return;
  const Fields fields(value, name);
  const auto is_set = [&](const char* key) { return !fields.value(key).IsUndefined(); };
  if (is_set("tenant")) request->tenant = fields.string("tenant");
  if (is_set("tenantWeight")) {
    request->tenant_weight = static_cast<float>(fields.number("tenantWeight"));
    if (request->tenant_weight <= 0) fail(value.Env(), fields.path("tenantWeight"), "above 0");
  }
  if (is_set("priority")) request->priority = fields.int32("priority", -1000, 1000);
  if (is_set("deadlineMs")) {
    request->deadline_ms =
        static_cast<int64_t>(std::clamp(fields.number("deadlineMs"), -kLongestMs, kLongestMs));
  }
  if (is_set("cacheScope")) request->cache_scope = fields.string("cacheScope");
}

EmbeddingParams read_embedding(const Napi::Value& value, const std::string& name) {
  constexpr Pooling kPoolings[] = {Pooling::kMean, Pooling::kLast, Pooling::kCls};
  const Fields fields(value, name);
  EmbeddingParams out;
  out.pooling = kPoolings[fields.choice("pooling", {"mean", "last", "cls"})];
  out.normalize = fields.boolean("normalize");
  return out;
}

std::vector<int32_t> read_tokens(const Napi::Value& value, const std::string& name,
                                 int32_t vocab_size) {
  auto out = read_typed_array<int32_t>(value, name, napi_int32_array, "an Int32Array");
  check_tokens(value.Env(), out, name, vocab_size);
  return out;
}

grammar::TokenBytes read_vocabulary(const Napi::Value& value, const std::string& name) {
  const Fields fields(value, name);
  grammar::TokenBytes out;
  out.bytes = read_typed_array<uint8_t>(fields.value("bytes"), fields.path("bytes"),
                                        napi_uint8_array, "a Uint8Array");
  out.offsets = read_typed_array<uint32_t>(fields.value("offsets"), fields.path("offsets"),
                                           napi_uint32_array, "a Uint32Array");
  if (out.offsets.empty() || out.offsets.back() > out.bytes.size() ||
      !std::is_sorted(out.offsets.begin(), out.offsets.end())) {
    fail(value.Env(), fields.path("offsets"), "ascending, within the bytes, and one at least");
  }
  return out;
}

std::vector<grammar::Trigger> read_triggers(const Napi::Value& value, const std::string& name,
                                            int32_t vocab_size) {
  std::vector<grammar::Trigger> out;
  if (value.IsUndefined()) return out;
  if (!value.IsArray()) fail(value.Env(), name, "an array");
  const auto array = value.As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value trigger = array.Get(i);
    const std::string path = name + "[" + std::to_string(i) + "]";
    if (trigger.IsNumber()) {
      out.emplace_back(read_int32(trigger, path, 0, vocab_size - 1));
      continue;
    }
    std::string text = read_string(trigger, path);
    if (text.empty()) fail(value.Env(), path, "a token id or a text that is not empty");
    out.emplace_back(std::move(text));
  }
  return out;
}

std::string read_string(const Napi::Value& value, const std::string& name) {
  if (!value.IsString()) fail(value.Env(), name, "a string");
  return value.As<Napi::String>().Utf8Value();
}

int32_t read_int32(const Napi::Value& value, const std::string& name, int32_t low, int32_t high) {
  return static_cast<int32_t>(read_integer(value, name, low, high));
}

Napi::Function read_function(const Napi::Value& value, const std::string& name) {
  if (!value.IsFunction()) fail(value.Env(), name, "a function");
  return value.As<Napi::Function>();
}

}  // namespace lorax
