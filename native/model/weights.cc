// Finds each tensor by its Hugging Face name, checks its shape against the config, packs it.
#include "model/weights.h"

#include <initializer_list>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "backend/error.h"
#include "model/mapped_file.h"

namespace lorax {
namespace {

struct Expected {
  std::string name;
  int64_t rows = 0;
  int64_t cols = 0;
};

std::string shape_text(int64_t rows, int64_t cols) {
  std::string out = std::to_string(rows);  // begun so, gcc 12 sees no overlapping copy in it
  out.insert(0, 1, '[');
  return out + ", " + std::to_string(cols) + "]";
}

class WeightLoader {
 public:
  WeightLoader(const ModelSpec& spec, Backend& backend, const LoadProgress& progress)
      : spec_(spec), backend_(backend), progress_(progress) {
    for (const std::string& path : spec.files) {
      files_.push_back(std::make_unique<MappedFile>(path));
    }
    for (const TensorRef& tensor : spec.tensors) {
      check_extent(tensor);
      if (!tensors_.emplace(tensor.name, &tensor).second) {
        fail(tensor, "is listed twice");
      }
      total_bytes_ += tensor_bytes(tensor);
    }
  }

  std::unique_ptr<Weight> weight(std::initializer_list<Expected> matrices,
                                 std::initializer_list<Expected> biases = {}) {
    std::vector<TensorView> matrix_views, bias_views;
    for (const Expected& matrix : matrices) matrix_views.push_back(view(matrix));
    for (const Expected& bias : biases) bias_views.push_back(view(bias));
    auto packed = backend_.pack_weight(matrix_views, bias_views);
    for (const Expected& matrix : matrices) release(matrix);
    for (const Expected& bias : biases) release(bias);
    report();
    return packed;
  }

  std::unique_ptr<Vector> vector(const Expected& expected) {
    auto packed = backend_.pack_vector(view(expected));
    release(expected);
    report();
    return packed;
  }

  // A tensor that is there but not used (a head beside tied embeddings) counts as done.
  void finish() const {
    if (progress_) progress_(total_bytes_, total_bytes_);
  }

 private:
  static int64_t tensor_bytes(const TensorRef& tensor) {
    return tensor.rows * tensor.cols * dtype_bytes(tensor.dtype);
  }

  [[noreturn]] void fail(const TensorRef& tensor, const std::string& what) const {
    const bool known = tensor.file >= 0 && static_cast<size_t>(tensor.file) < spec_.files.size();
    const std::string file = known ? spec_.files[tensor.file] : "";
    throw Error("MODEL_INVALID", (known ? file + ": " : "") + "tensor " + tensor.name + " " + what,
                {{"file", file}, {"tensor", tensor.name}});
  }

  void check_extent(const TensorRef& tensor) const {
    constexpr int64_t kMaxRows = int64_t{1} << 30;  // rows * cols * 4 stays below 2^62
    if (tensor.file < 0 || static_cast<size_t>(tensor.file) >= files_.size()) {
      fail(tensor, "is in file " + std::to_string(tensor.file) + ", which is not listed");
    }
    if (tensor.rows < 1 || tensor.rows > kMaxRows || tensor.cols < 1 || tensor.cols > kMaxRows) {
      fail(tensor, "has shape " + shape_text(tensor.rows, tensor.cols));
    }
    const int64_t available = files_[tensor.file]->bytes();
    const int64_t needed = tensor_bytes(tensor);
    if (tensor.offset < 0 || needed > available || tensor.offset > available - needed) {
      fail(tensor, "takes " + std::to_string(needed) + " bytes from byte " +
                       std::to_string(tensor.offset) + " of a file of " +
                       std::to_string(available) + ": the file is cut off");
    }
  }

  const TensorRef& find(const Expected& expected) const {
    const auto found = tensors_.find(expected.name);
    if (found == tensors_.end()) {
      throw Error("MODEL_INVALID", "tensor " + expected.name + " is missing",
                  {{"tensor", expected.name}});
    }
    const TensorRef& tensor = *found->second;
    if (tensor.rows != expected.rows || tensor.cols != expected.cols) {
      fail(tensor, "has shape " + shape_text(tensor.rows, tensor.cols) + ", the config asks for " +
                       shape_text(expected.rows, expected.cols));
    }
    return tensor;
  }

  TensorView view(const Expected& expected) {
    const TensorRef& tensor = find(expected);
    TensorView view;
    view.data = files_[tensor.file]->data() + tensor.offset;
    view.dtype = tensor.dtype;
    view.rows = tensor.rows;
    view.cols = tensor.cols;
    view.name = tensor.name.c_str();
    view.file = spec_.files[tensor.file].c_str();
    return view;
  }

  void release(const Expected& expected) {
    const TensorRef& tensor = find(expected);
    files_[tensor.file]->release(tensor.offset, tensor_bytes(tensor));
    loaded_bytes_ += tensor_bytes(tensor);
  }

  void report() const {
    if (progress_) progress_(loaded_bytes_, total_bytes_);
  }

  const ModelSpec& spec_;
  Backend& backend_;
  const LoadProgress& progress_;
  std::vector<std::unique_ptr<MappedFile>> files_;
  std::unordered_map<std::string_view, const TensorRef*> tensors_;
  int64_t loaded_bytes_ = 0;
  int64_t total_bytes_ = 0;
};

LayerWeights load_layer(const DecoderConfig& config, int32_t layer, WeightLoader& loader) {
  const std::string prefix = "model.layers." + std::to_string(layer) + ".";
  const std::string attention = prefix + "self_attn.";
  const std::string mlp = prefix + "mlp.";
  const int64_t hidden = config.hidden_size;
  const int64_t inner = config.intermediate_size;
  const int64_t q = config.q_size();
  const int64_t kv = config.kv_size();

  LayerWeights out;
  out.attention_norm = loader.vector({prefix + "input_layernorm.weight", 1, hidden});
  const Expected q_proj{attention + "q_proj.weight", q, hidden};
  const Expected k_proj{attention + "k_proj.weight", kv, hidden};
  const Expected v_proj{attention + "v_proj.weight", kv, hidden};
  if (config.qkv_bias) {
    out.qkv = loader.weight({q_proj, k_proj, v_proj}, {{attention + "q_proj.bias", 1, q},
                                                       {attention + "k_proj.bias", 1, kv},
                                                       {attention + "v_proj.bias", 1, kv}});
  } else {
    out.qkv = loader.weight({q_proj, k_proj, v_proj});
  }
  if (config.qk_norm) {
    out.q_norm = loader.vector({attention + "q_norm.weight", 1, config.head_dim});
    out.k_norm = loader.vector({attention + "k_norm.weight", 1, config.head_dim});
  }
  out.o = loader.weight({{attention + "o_proj.weight", hidden, q}});
  out.mlp_norm = loader.vector({prefix + "post_attention_layernorm.weight", 1, hidden});
  out.gate_up = loader.weight(
      {{mlp + "gate_proj.weight", inner, hidden}, {mlp + "up_proj.weight", inner, hidden}});
  out.down = loader.weight({{mlp + "down_proj.weight", hidden, inner}});
  return out;
}

}  // namespace

DecoderWeights load_weights(const ModelSpec& spec, Backend& backend, const LoadProgress& progress) {
  const DecoderConfig& config = spec.config;
  WeightLoader loader(spec, backend, progress);
  DecoderWeights out;
  out.embedding =
      loader.weight({{"model.embed_tokens.weight", config.vocab_size, config.hidden_size}});
  for (int32_t layer = 0; layer < config.num_layers; ++layer) {
    out.layers.push_back(load_layer(config, layer, loader));
  }
  out.final_norm = loader.vector({"model.norm.weight", 1, config.hidden_size});
  if (!config.tied_embeddings) {
    out.untied_head = loader.weight({{"lm_head.weight", config.vocab_size, config.hidden_size}});
  }
  loader.finish();
  return out;
}

}  // namespace lorax
