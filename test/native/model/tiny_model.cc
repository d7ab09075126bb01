// Random values of a scale that keeps activations near one.
#include "tiny_model.h"

#include <unistd.h>

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
  const char* block = module <= kOProj ? "self_attn." : "mlp.";
  return "model.layers." + std::to_string(layer) + "." + block + module_name(module) + ".weight";
}

}  // namespace

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
    for (int32_t module = 0; module < kNumModules; ++module) {
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
      const Matrix& w = tensors_.at(projection_name(layer, module));
      const int32_t own_rank = rank + module % 3;
      out.modules.push_back(
          {layer, module, own_rank, 0.5f + 0.1f * static_cast<float>(module),
           random_matrix(rng, own_rank, w.cols, 1.0f / std::sqrt(static_cast<float>(w.cols))),
           random_matrix(rng, w.rows, own_rank, 0.4f)});
    }
  }
  return out;
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
    m.a = append(out, name + ".lora_A", module.a, dtype);
    m.b = append(out, name + ".lora_B", module.b, dtype);
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
