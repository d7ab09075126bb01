// The packed weights of one decoder, and how they come from safetensors files.
//
// Files are mapped, each tensor is read once by the backend's packing and its pages released, then
// files are unmapped: memory peaks at the packed weights plus the largest matrix. Called by
// Decoder.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "lora/adapter.h"
#include "model/decoder_config.h"

namespace lorax {

// What worker/addon.ts calls NativeModelSpec.
struct ModelSpec {
  DecoderConfig config;
  std::vector<std::string> files;
  std::vector<TensorRef> tensors;  // Hugging Face names
};

struct LayerWeights {
  std::unique_ptr<Vector> attention_norm;  // [hidden]
  std::unique_ptr<Weight> qkv;             // [(heads + 2 kv_heads) * head_dim, hidden]
  std::unique_ptr<Vector> q_norm;          // [head_dim]; null without qk_norm
  std::unique_ptr<Vector> k_norm;          // [head_dim]; null without qk_norm
  std::unique_ptr<Weight> o;               // [hidden, heads * head_dim]
  std::unique_ptr<Vector> mlp_norm;        // [hidden]
  std::unique_ptr<Weight> gate_up;         // [2 * intermediate, hidden]
  std::unique_ptr<Weight> down;            // [hidden, intermediate]
};

struct DecoderWeights {
  std::unique_ptr<Weight> embedding;  // [vocab, hidden]
  std::vector<LayerWeights> layers;
  std::unique_ptr<Vector> final_norm;   // [hidden]
  std::unique_ptr<Weight> untied_head;  // [vocab, hidden]; null when tied to the embedding

  const Weight& head() const { return untied_head ? *untied_head : *embedding; }
};

// Told after every packed weight; may throw to give up.
using LoadProgress = std::function<void(int64_t loaded_bytes, int64_t total_bytes)>;

// Throws MODEL_INVALID naming file and tensor.
DecoderWeights load_weights(const ModelSpec& spec, Backend& backend, const LoadProgress& progress);

}  // namespace lorax
