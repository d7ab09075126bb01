// Weight files that lie: each is a MODEL_INVALID that names file and tensor.
#include "model/weights.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <limits>

#include "../reference/reference_backend.h"
#include "model/decoder.h"
#include "tiny_model.h"

namespace lorax {
namespace {

std::unique_ptr<Decoder> load(const ModelSpec& spec, LoadProgress progress = nullptr) {
  DecoderOptions options;
  options.progress = std::move(progress);
  return std::make_unique<Decoder>(std::make_unique<ReferenceBackend>(), spec, options);
}

void expect_invalid(const ModelSpec& spec, const std::string& words, const std::string& key) {
  try {
    load(spec);
    FAIL() << "loaded, though it should say: " << words;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), "MODEL_INVALID");
    EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    EXPECT_EQ(error.data().count(key), 1u) << key;
  }
}

TensorRef& tensor(ModelSpec& spec, const std::string& name) {
  for (TensorRef& ref : spec.tensors) {
    if (ref.name == name) return ref;
  }
  throw std::logic_error(name);
}

TEST(Weights, ReportsProgressInBytes) {
  const TinyModel model(tiny_config());
  const ModelSpec spec = model.write();
  int64_t total = 0;
  for (const TensorRef& ref : spec.tensors) total += ref.rows * ref.cols * 4;
  std::vector<int64_t> seen;
  load(spec, [&](int64_t loaded, int64_t of) {
    EXPECT_EQ(of, total);
    seen.push_back(loaded);
  });
  EXPECT_GT(seen.size(), 10u);
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
  EXPECT_EQ(seen.back(), total);
}

TEST(Weights, ProgressMayGiveUp) {
  const TinyModel model(tiny_config());
  const ModelSpec spec = model.write();
  EXPECT_THROW(load(spec, [](int64_t, int64_t) { throw std::runtime_error("enough"); }),
               std::runtime_error);
}

TEST(Weights, AMissingFileIsNamed) {
  const TinyModel model(tiny_config());
  ModelSpec spec = model.write();
  spec.files[0] = model.path("absent.safetensors");
  expect_invalid(spec, "absent.safetensors: cannot be opened", "file");
}

TEST(Weights, ADirectoryIsNoFile) {
  const TinyModel model(tiny_config());
  ModelSpec spec = model.write();
  spec.files[0] = model.path("");
  expect_invalid(spec, "is not a regular file", "file");
}

TEST(Weights, ATruncatedFileIsNeverTouched) {
  const TinyModel model(tiny_config());
  const ModelSpec spec = model.write();
  std::filesystem::resize_file(spec.files[0], std::filesystem::file_size(spec.files[0]) - 1);
  expect_invalid(spec, "the file is cut off", "tensor");
  std::filesystem::resize_file(spec.files[0], 0);
  expect_invalid(spec, "the file is cut off", "tensor");
}

TEST(Weights, OffsetsThatLieAreCaught) {
  const TinyModel model(tiny_config());
  ModelSpec spec = model.write();
  tensor(spec, "model.norm.weight").offset = std::numeric_limits<int64_t>::max() - 3;
  expect_invalid(spec, "model.norm.weight", "tensor");
  tensor(spec, "model.norm.weight").offset = -4;
  expect_invalid(spec, "model.norm.weight", "tensor");
}

TEST(Weights, ShapesAndFilesThatLieAreCaught) {
  const TinyModel model(tiny_config());
  const std::string name = "model.layers.1.mlp.down_proj.weight";
  ModelSpec spec = model.write();
  std::swap(tensor(spec, name).rows, tensor(spec, name).cols);
  expect_invalid(spec, name + " has shape [72, 48], the config asks for [48, 72]", "tensor");
  tensor(spec, name).rows = int64_t{1} << 62;
  expect_invalid(spec, name, "tensor");
  spec = model.write();
  tensor(spec, name).file = 7;
  expect_invalid(spec, name + " is in file 7", "tensor");
}

TEST(Weights, AMissingOrDoubledTensorIsNamed) {
  const TinyModel model(tiny_config());
  ModelSpec spec = model.write();
  tensor(spec, "model.norm.weight").name = "model.other.weight";
  expect_invalid(spec, "tensor model.norm.weight is missing", "tensor");
  spec = model.write();
  spec.tensors.push_back(spec.tensors.front());
  expect_invalid(spec, "is listed twice", "tensor");
}

TEST(Weights, NaNIsNamed) {
  TinyModel model(tiny_config());
  const std::string name = "model.layers.0.self_attn.v_proj.weight";
  model.tensors().at(name).values[17] = std::numeric_limits<float>::quiet_NaN();
  expect_invalid(model.write(), name, "tensor");
}

TEST(Weights, AConfigNoDecoderCanHaveIsRefused) {
  const TinyModel model(tiny_config());
  ModelSpec spec = model.write();
  spec.config.num_kv_heads = 4;
  expect_invalid(spec, "numKvHeads", "field");
  spec.config = tiny_config();
  spec.config.head_dim = 7;
  expect_invalid(spec, "headDim", "field");
  spec.config = tiny_config();
  spec.config.num_layers = 0;
  expect_invalid(spec, "numLayers", "field");
  spec.config = tiny_config();
  spec.config.rope_theta = std::numeric_limits<double>::quiet_NaN();
  expect_invalid(spec, "ropeTheta", "field");
}

TEST(Weights, AnUnusedHeadIsNotRead) {
  DecoderConfig config = tiny_config();
  config.tied_embeddings = false;
  TinyModel model(config);
  model.tensors().at("lm_head.weight").values[0] = std::numeric_limits<float>::quiet_NaN();
  ModelSpec spec = model.write();
  spec.config.tied_embeddings = true;
  int64_t last = 0, total = 1;
  load(spec, [&](int64_t loaded, int64_t of) { last = loaded, total = of; });
  EXPECT_EQ(last, total);
}

}  // namespace
}  // namespace lorax
