// Flat numbers that describe one decoder of the Llama family; mirrors DecoderConfig of
// worker/addon.ts field for field.
//
// Made by binding/ from the spec, checked by check_decoder_config, read by model/. Every variant of
// the decoder is a field here: there is no class per architecture.
#pragma once

#include <cstdint>
#include <string>

namespace lorax {

struct RopeScaling {
  enum class Type : uint8_t { kDefault, kLinear, kDynamic, kLlama3, kYarn };

  Type type = Type::kDefault;
  double factor = 1.0;
  int32_t original_context = 0;
  double low_freq_factor = 1.0;   // llama3
  double high_freq_factor = 4.0;  // llama3
  double beta_fast = 32.0;        // yarn
  double beta_slow = 1.0;         // yarn
  double attention_factor = 1.0;  // yarn: multiplies cos and sin
  bool truncate = true;           // yarn: correction range in whole dimensions
};

struct DecoderConfig {
  std::string architecture;
  int32_t vocab_size = 0;
  int32_t hidden_size = 0;
  int32_t intermediate_size = 0;
  int32_t num_layers = 0;
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  float rms_norm_eps = 0.0f;
  int32_t context_tokens = 0;
  bool tied_embeddings = false;
  bool qkv_bias = false;
  bool qk_norm = false;
  int32_t sliding_window = 0;  // 0 = full attention
  double rope_theta = 10000.0;
  RopeScaling rope;

  int32_t q_size() const { return num_heads * head_dim; }
  int32_t kv_size() const { return num_kv_heads * head_dim; }
};

// Throws MODEL_INVALID naming the field whose value no decoder can have.
void check_decoder_config(const DecoderConfig& config);

}  // namespace lorax
