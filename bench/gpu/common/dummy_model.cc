// Values are normal with a standard deviation near a trained model's, in bf16; norms are one.
#include "common/dummy_model.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <random>
#include <stdexcept>
#include <utility>
#include <vector>

namespace lorax::bench {
namespace {

constexpr int64_t kOnes = 1 << 16;  // values of 1.0 at the end of the file

void write_values(const std::string& path, int64_t count) {
  const int64_t bytes = (count + kOnes) * 2;
  if (std::filesystem::exists(path) &&
      static_cast<int64_t>(std::filesystem::file_size(path)) == bytes) {
    return;
  }
  std::mt19937 engine(1);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  const auto bf16 = [](float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return static_cast<uint16_t>(bits >> 16);
  };
  std::vector<uint16_t> block(1 << 22);
  for (uint16_t& value : block) value = bf16(normal(engine));
  std::ofstream out(path, std::ios::binary);
  for (int64_t at = 0; at < count; at += static_cast<int64_t>(block.size())) {
    const int64_t part = std::min<int64_t>(count - at, static_cast<int64_t>(block.size()));
    out.write(reinterpret_cast<const char*>(block.data()), part * 2);
  }
  const std::vector<uint16_t> ones(kOnes, bf16(1.0f));
  out.write(reinterpret_cast<const char*>(ones.data()), kOnes * 2);
  if (!out) throw std::runtime_error("cannot write " + path);
}

}  // namespace

DecoderConfig llama_8b_config() {
  DecoderConfig config;
  config.architecture = "llama";
  config.vocab_size = 128256;
  config.hidden_size = 4096;
  config.intermediate_size = 14336;
  config.num_layers = 32;
  config.num_heads = 32;
  config.num_kv_heads = 8;
  config.head_dim = 128;
  config.rms_norm_eps = 1e-5f;
  config.context_tokens = 131072;
  config.rope_theta = 500000.0;
  config.rope.type = RopeScaling::Type::kLlama3;
  config.rope.factor = 8.0;
  config.rope.original_context = 8192;
  return config;
}

ModelSpec dummy_model(const DecoderConfig& config, const std::string& folder) {
  ModelSpec spec;
  spec.config = config;
  spec.files = {folder + "/weights.bin"};
  const int64_t hidden = config.hidden_size;
  const int64_t largest = config.vocab_size * hidden;
  write_values(spec.files[0], largest);
  int64_t shift = 0;  // so that layers differ
  const auto matrix = [&](const std::string& name, int64_t rows, int64_t cols) {
    const int64_t room = largest - rows * cols;
    spec.tensors.push_back({name, 0, DType::kBF16, rows, cols, room == 0 ? 0 : (shift % room) * 2});
    shift += 999983;
  };
  const auto ones = [&](const std::string& name, int64_t cols) {
    spec.tensors.push_back({name, 0, DType::kBF16, 1, cols, largest * 2});
  };
  matrix("model.embed_tokens.weight", config.vocab_size, hidden);
  for (int32_t layer = 0; layer < config.num_layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    ones(prefix + "input_layernorm.weight", hidden);
    ones(prefix + "post_attention_layernorm.weight", hidden);
    matrix(prefix + "self_attn.q_proj.weight", config.q_size(), hidden);
    matrix(prefix + "self_attn.k_proj.weight", config.kv_size(), hidden);
    matrix(prefix + "self_attn.v_proj.weight", config.kv_size(), hidden);
    matrix(prefix + "self_attn.o_proj.weight", hidden, config.q_size());
    matrix(prefix + "mlp.gate_proj.weight", config.intermediate_size, hidden);
    matrix(prefix + "mlp.up_proj.weight", config.intermediate_size, hidden);
    matrix(prefix + "mlp.down_proj.weight", hidden, config.intermediate_size);
  }
  ones("model.norm.weight", hidden);
  if (!config.tied_embeddings) matrix("lm_head.weight", config.vocab_size, hidden);
  return spec;
}

std::optional<ModelSpec> stored_model(const std::string& folder) {
  std::ifstream in(folder + "/tensors.txt");
  if (!in) return std::nullopt;
  ModelSpec spec;
  DecoderConfig& config = spec.config;
  config.architecture = "llama";
  config.rms_norm_eps = 1e-5f;
  config.context_tokens = 131072;
  config.rope_theta = 500000.0;
  in >> config.vocab_size >> config.hidden_size >> config.intermediate_size >> config.num_layers >>
      config.num_heads >> config.num_kv_heads >> config.head_dim;
  size_t num_files = 0;
  in >> num_files;
  for (size_t i = 0; i < num_files; ++i) {
    std::string name;
    in >> name;
    spec.files.push_back(folder + "/" + name);
  }
  TensorRef tensor;
  tensor.dtype = DType::kBF16;
  while (in >> tensor.name >> tensor.file >> tensor.rows >> tensor.cols >> tensor.offset) {
    spec.tensors.push_back(tensor);
  }
  if (!in.eof() || spec.tensors.empty()) {
    throw std::runtime_error(folder + "/tensors.txt is not what make-model.mjs writes");
  }
  return spec;
}

ModelSpec bench_model(const std::string& folder) {
  if (std::optional<ModelSpec> stored = stored_model(folder)) return *std::move(stored);
  return dummy_model(llama_8b_config(), folder);
}

AdapterSpec dummy_adapter(const DecoderConfig& config, int32_t rank, const std::string& folder) {
  AdapterSpec spec;
  spec.hash = "dummy-" + std::to_string(rank);
  spec.files = {folder + "/adapter-" + std::to_string(rank) + ".bin"};
  const int64_t hidden = config.hidden_size;
  const int64_t inner = config.intermediate_size;
  const int64_t in[] = {hidden, hidden, hidden, config.q_size(), hidden, hidden, inner};
  const int64_t out[] = {config.q_size(), config.kv_size(), config.kv_size(), hidden, inner, inner,
                         hidden};
  int64_t offset = 0;
  for (int32_t layer = 0; layer < config.num_layers; ++layer) {
    for (int32_t module = 0; module < kNumProjections; ++module) {
      AdapterModuleSpec entry;
      entry.layer = layer;
      entry.module = module;
      entry.rank = rank;
      entry.scale = 2.0f;
      const std::string name = std::to_string(layer) + "." + module_name(module);
      entry.a = {name + ".lora_A", 0, DType::kBF16, rank, in[module], offset};
      offset += rank * in[module] * 2;
      entry.b = {name + ".lora_B", 0, DType::kBF16, out[module], rank, offset};
      offset += rank * out[module] * 2;
      spec.modules.push_back(entry);
    }
  }
  write_values(spec.files[0], offset / 2);
  return spec;
}

}  // namespace lorax::bench
