// A random decoder and random adapters on disk, as specs: what decoder tests load.
//
// Values are known in memory too, so that a test can merge an adapter into the weights. Files live
// in a directory of their own, removed with the object.
#pragma once

#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "lora/adapter.h"
#include "model/weights.h"

namespace lorax {

class TempDirectory {
 public:
  TempDirectory();
  ~TempDirectory();
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;
  std::string file(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

struct Matrix {
  int64_t rows = 0, cols = 0;
  std::vector<float> values;
};

// Two layers, GQA, odd sizes on purpose; tests change what they are about.
DecoderConfig tiny_config();

struct TinyAdapter {
  struct Module {
    int32_t layer, module, rank;
    float scale;
    Matrix a, b;
    Matrix b_bias = {}, magnitude = {}, whole = {};  // no values: without
  };
  std::vector<Module> modules;
};

class TinyModel {
 public:
  explicit TinyModel(const DecoderConfig& config, uint32_t seed = 1);

  const DecoderConfig& config() const { return config_; }
  std::map<std::string, Matrix>& tensors() { return tensors_; }
  const std::map<std::string, Matrix>& tensors() const { return tensors_; }

  // Writes every tensor and says where it lies. Values are rounded to `dtype`.
  ModelSpec write(const std::string& file_name = "model.bin", DType dtype = DType::kF32) const;

  // Random A and B of the given modules in every layer; ranks differ by module. Head and embedding
  // are of layer 0.
  TinyAdapter random_adapter(uint32_t seed, int32_t rank,
                             const std::vector<int32_t>& modules) const;
  // What some adapters have beside A and B, at random: of all their modules, or one of these two.
  void add_biases(TinyAdapter& adapter, uint32_t seed) const;
  void add_magnitudes(TinyAdapter& adapter, uint32_t seed) const;
  void add_whole(TinyAdapter& adapter, int32_t module, uint32_t seed) const;
  AdapterSpec write_adapter(const TinyAdapter& adapter, const std::string& file_name,
                            DType dtype = DType::kF32) const;

  // W += scale B A in every adapted projection.
  void merge(const TinyAdapter& adapter);

  // Of layer 0 where it is there once; a tied head is the embedding.
  const Matrix& base_weight(int32_t layer, int32_t module) const;

  std::string path(const std::string& name) const { return directory_.file(name); }

 private:
  DecoderConfig config_;
  std::map<std::string, Matrix> tensors_;
  TempDirectory directory_;
};

// The projections that a decoder layer has.
inline const std::vector<int32_t> kAllModules = {kQProj,    kKProj,  kVProj,   kOProj,
                                                 kGateProj, kUpProj, kDownProj};

std::vector<int32_t> random_tokens(uint32_t seed, int32_t count, int32_t vocab);

// Rounds to the nearest bfloat16, ties to even.
uint16_t to_bfloat16(float value);

}  // namespace lorax
