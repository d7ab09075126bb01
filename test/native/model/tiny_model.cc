// Random values of a scale that keeps activations near one.
#include "tiny_model.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <stdexcept>

namespace lorax {
namespace {

Matrix random_matrix(std::mt19937& rng, int64_t rows, int64_t cols, float spread) {
  std::normal_distribution<float> normal(0.0f, spread);
  Matrix out{rows, cols, {}};
  out.values.resize(static_cast<size_t>(rows * cols));
  for (float& value : out.values) value = normal(rng);
  return out;
}

uint16_t to_half(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const int exponent = static_cast<int>((bits >> 23) & 255) - 112;
  if (exponent <= 0 || exponent >= 31) return static_cast<uint16_t>(sign);  // test data is tame
  return static_cast<uint16_t>(sign | (exponent << 10) | ((bits >> 13) & 1023));
}

// Appends to the stream; returns where it lies.
TensorRef append(std::ofstream& out, const std::string& name, const Matrix& matrix, DType dtype) {
  TensorRef ref;
  ref.name = name;
  ref.dtype = dtype;
  ref.rows = matrix.rows;
  ref.cols = matrix.cols;
  ref.offset = out.tellp();
  for (const float value : matrix.values) {
    if (dtype == DType::kF32) {
      out.write(reinterpret_cast<const char*>(&value), 4);
    } else {
      const uint16_t bits = dtype == DType::kF16 ? to_half(value) : to_bfloat16(value);
      out.write(reinterpret_cast<const char*>(&bits), 2);
    }
  }
  return ref;
}

std::string projection_name(int32_t layer, int32_t module) {
  if (module == kLmHead) return "lm_head.weight";
  if (module == kEmbedTokens) return "model.embed_tokens.weight";
  const char* block = module <= kOProj ? "self_attn." : "mlp.";
  return "model.layers." + std::to_string(layer) + "." + block + module_name(module) + ".weight";
}

}  // namespace

std::vector<int32_t> random_tokens(uint32_t seed, int32_t count, int32_t vocab) {
  std::mt19937 rng(seed);
  std::vector<int32_t> out(count);
  for (int32_t& token : out) token = static_cast<int32_t>(rng() % vocab);
  return out;
}

uint16_t to_bfloat16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

TempDirectory::TempDirectory() {
  static std::atomic<int> count{0};
  path_ = std::filesystem::temp_directory_path() /
          ("lorax-test-" + std::to_string(::getpid()) + "-" + std::to_string(count++));
  std::filesystem::create_directories(path_);
}

TempDirectory::~TempDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

DecoderConfig tiny_config() {
  DecoderConfig config;
  config.architecture = "LlamaForCausalLM";
  config.vocab_size = 61;
  config.hidden_size = 48;
  config.intermediate_size = 72;
  config.num_layers = 2;
  config.num_heads = 6;
  config.num_kv_heads = 2;
  config.head_dim = 16;
  config.rms_norm_eps = 1e-5f;
  config.context_tokens = 128;
  config.tied_embeddings = true;
  return config;
}

TinyModel::TinyModel(const DecoderConfig& config, uint32_t seed) : config_(config) {
  std::mt19937 rng(seed);
  const int64_t hidden = config.hidden_size, inner = config.intermediate_size;
  const int64_t q = config.q_size(), kv = config.kv_size();
  const auto add = [&](const std::string& name, int64_t rows, int64_t cols) {
    tensors_[name] = random_matrix(rng, rows, cols, 1.0f / std::sqrt(static_cast<float>(cols)));
  };
  const auto add_gain = [&](const std::string& name, int64_t size) {
    Matrix gain = random_matrix(rng, 1, size, 0.2f);
    for (float& value : gain.values) value += 1.0f;
    tensors_[name] = gain;
  };
  tensors_["model.embed_tokens.weight"] = random_matrix(rng, config.vocab_size, hidden, 1.0f);
  if (!config.tied_embeddings) add("lm_head.weight", config.vocab_size, hidden);
  add_gain("model.norm.weight", hidden);
  for (int32_t layer = 0; layer < config.num_layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    add_gain(prefix + "input_layernorm.weight", hidden);
    add_gain(prefix + "post_attention_layernorm.weight", hidden);
    const int64_t rows[] = {q, kv, kv, hidden, inner, inner, hidden};
    const int64_t cols[] = {hidden, hidden, hidden, q, hidden, hidden, inner};
    for (int32_t module = 0; module < kNumProjections; ++module) {
      add(projection_name(layer, module), rows[module], cols[module]);
    }
    if (config.qkv_bias) {
      tensors_[prefix + "self_attn.q_proj.bias"] = random_matrix(rng, 1, q, 0.5f);
      tensors_[prefix + "self_attn.k_proj.bias"] = random_matrix(rng, 1, kv, 0.5f);
      tensors_[prefix + "self_attn.v_proj.bias"] = random_matrix(rng, 1, kv, 0.5f);
    }
    if (config.qk_norm) {
      add_gain(prefix + "self_attn.q_norm.weight", config.head_dim);
      add_gain(prefix + "self_attn.k_norm.weight", config.head_dim);
    }
  }
}

ModelSpec TinyModel::write(const std::string& file_name, DType dtype) const {
  ModelSpec spec;
  spec.config = config_;
  spec.files = {path(file_name)};
  std::ofstream out(spec.files[0], std::ios::binary);
  out.write("odd", 3);  // so that no tensor is aligned
  for (const auto& [name, matrix] : tensors_) {
    spec.tensors.push_back(append(out, name, matrix, dtype));
  }
  if (!out.good()) throw std::runtime_error("cannot write " + spec.files[0]);
  return spec;
}

TinyAdapter TinyModel::random_adapter(uint32_t seed, int32_t rank,
                                      const std::vector<int32_t>& modules) const {
  std::mt19937 rng(seed);
  TinyAdapter out;
  for (int32_t layer = 0; layer < config_.num_layers; ++layer) {
    for (const int32_t module : modules) {
      if (module >= kNumProjections && layer > 0) continue;
      const Matrix& w = base_weight(layer, module);
      const bool is_table = module == kEmbedTokens;
      const int64_t d_in = is_table ? w.rows : w.cols;
      const int64_t d_out = is_table ? w.cols : w.rows;
      const int32_t own_rank = rank + module % 3;
      const float deviation = is_table ? 1.0f : 1.0f / std::sqrt(static_cast<float>(d_in));
      out.modules.push_back({layer, module, own_rank, 0.5f + 0.1f * static_cast<float>(module),
                             random_matrix(rng, own_rank, d_in, deviation),
                             random_matrix(rng, d_out, own_rank, 0.4f)});
    }
  }
  return out;
}

const Matrix& TinyModel::base_weight(int32_t layer, int32_t module) const {
  const bool tied_head = module == kLmHead && config_.tied_embeddings;
  return tensors_.at(projection_name(layer, tied_head ? int32_t{kEmbedTokens} : module));
}

void TinyModel::add_biases(TinyAdapter& adapter, uint32_t seed) const {
  std::mt19937 rng(seed);
  for (TinyAdapter::Module& m : adapter.modules) {
    m.b_bias = random_matrix(rng, 1, m.b.rows, 0.5f);
  }
}

void TinyModel::add_magnitudes(TinyAdapter& adapter, uint32_t seed) const {
  std::mt19937 rng(seed);
  for (TinyAdapter::Module& m : adapter.modules) {
    const Matrix& w = base_weight(m.layer, m.module);
    double sum = 0;
    for (const float x : w.values) sum += double{x} * x;
    const double norm = std::sqrt(sum / static_cast<double>(m.b.rows));  // of an output, usually
    m.magnitude = random_matrix(rng, 1, m.b.rows, static_cast<float>(0.3 * norm));
    for (float& x : m.magnitude.values) x += static_cast<float>(norm);
  }
}

void TinyModel::add_whole(TinyAdapter& adapter, int32_t module, uint32_t seed) const {
  std::mt19937 rng(seed);
  const Matrix& w = base_weight(0, module);
  auto found = std::find_if(adapter.modules.begin(), adapter.modules.end(),
                            [&](const auto& m) { return m.module == module; });
  if (found == adapter.modules.end()) {
    adapter.modules.push_back({0, module, 0, 1.0f, {}, {}});
    found = adapter.modules.end() - 1;
  }
  const float deviation = module == kEmbedTokens ? 1.0f : 0.2f;
  found->whole = random_matrix(rng, w.rows, w.cols, deviation);
}

AdapterSpec TinyModel::write_adapter(const TinyAdapter& adapter, const std::string& file_name,
                                     DType dtype) const {
  AdapterSpec spec;
  spec.hash = file_name;
  spec.files = {path(file_name)};
  std::ofstream out(spec.files[0], std::ios::binary);
  for (const TinyAdapter::Module& module : adapter.modules) {
    const std::string name = projection_name(module.layer, module.module);
    AdapterModuleSpec m;
    m.layer = module.layer;
    m.module = module.module;
    m.rank = module.rank;
    m.scale = module.scale;
    if (module.rank > 0) {
      m.a = append(out, name + ".lora_A", module.a, dtype);
      m.b = append(out, name + ".lora_B", module.b, dtype);
    }
    const auto append_if = [&](const Matrix& matrix, const char* ending) {
      std::optional<TensorRef> ref;
      if (!matrix.values.empty()) ref = append(out, name + ending, matrix, dtype);
      return ref;
    };
    m.b_bias = append_if(module.b_bias, ".lora_B.bias");
    m.magnitude = append_if(module.magnitude, ".lora_magnitude_vector");
    m.whole = append_if(module.whole, ".whole");
    spec.modules.push_back(m);
  }
  if (!out.good()) throw std::runtime_error("cannot write " + spec.files[0]);
  return spec;
}

void TinyModel::merge(const TinyAdapter& adapter) {
  for (const TinyAdapter::Module& module : adapter.modules) {
    Matrix& w = tensors_.at(projection_name(module.layer, module.module));
    for (int64_t i = 0; i < w.rows; ++i) {
      for (int64_t j = 0; j < w.cols; ++j) {
        double sum = 0;
        for (int32_t r = 0; r < module.rank; ++r) {
          sum += double{module.b.values[i * module.rank + r]} * module.a.values[r * w.cols + j];
        }
        w.values[i * w.cols + j] += static_cast<float>(module.scale * sum);
      }
    }
  }
}

}  // namespace lorax
