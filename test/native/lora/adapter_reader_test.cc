// Adapter files that lie: each is an ADAPTER_INVALID that names file and tensor, read through a
// Decoder as the engine does.
#include "lora/adapter_reader.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>

#include "../model/step_runner.h"
#include "../model/tiny_model.h"
#include "../reference/reference_backend.h"

namespace lorax {
namespace {

class AdapterReaderTest : public testing::Test {
 protected:
  AdapterReaderTest()
      : model_(tiny_config()),
        adapter_(model_.random_adapter(2, 3, {kQProj, kDownProj})),
        spec_(model_.write_adapter(adapter_, "adapter.bin")),
        runner_(std::make_unique<ReferenceBackend>(), model_.write()) {}

  void expect_invalid(const AdapterSpec& spec, const std::string& words) {
    try {
      runner_.decoder().read_adapter(spec);
      FAIL() << "read, though it should say: " << words;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), "ADAPTER_INVALID");
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
      EXPECT_TRUE(error.data().count("file") == 1 || error.data().count("tensor") == 1);
    }
  }

  AdapterSpec changed(const std::function<void(AdapterModuleSpec&)>& change) const {
    AdapterSpec spec = spec_;
    change(spec.modules[1]);
    return spec;
  }

  TinyModel model_;
  TinyAdapter adapter_;
  AdapterSpec spec_;
  StepRunner runner_;
};

TEST_F(AdapterReaderTest, ReadsWhatWasWritten) {
  AdapterShapes shapes;
  shapes.num_layers = 2;
  shapes.d_in = {48, 48, 48, 96, 48, 48, 72};
  shapes.d_out = {96, 32, 32, 48, 72, 72, 48};
  const AdapterTensors tensors = read_adapter_tensors(spec_, shapes);
  ASSERT_EQ(tensors.modules.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    const AdapterModule& got = tensors.modules[i];
    const TinyAdapter::Module& wrote = adapter_.modules[i];
    EXPECT_EQ(got.layer, wrote.layer);
    EXPECT_EQ(got.module, wrote.module);
    EXPECT_EQ(got.rank, wrote.rank);
    EXPECT_EQ(got.scale, wrote.scale);
    EXPECT_EQ(got.a.rows, wrote.a.rows);
    EXPECT_EQ(got.a.cols, wrote.a.cols);
    EXPECT_EQ(got.b.rows, wrote.b.rows);
    EXPECT_EQ(got.b.cols, wrote.b.cols);
    EXPECT_EQ(std::memcmp(got.a.data, wrote.a.values.data(), wrote.a.values.size() * 4), 0);
    EXPECT_EQ(std::memcmp(got.b.data, wrote.b.values.data(), wrote.b.values.size() * 4), 0);
  }
}

TEST_F(AdapterReaderTest, AMissingOrTruncatedFileIsNamed) {
  AdapterSpec spec = spec_;
  spec.files[0] = model_.path("absent.safetensors");
  expect_invalid(spec, "absent.safetensors: cannot be opened");
  spec.files[0] = model_.path("");
  expect_invalid(spec, "is not a regular file");
  std::filesystem::resize_file(spec_.files[0], std::filesystem::file_size(spec_.files[0]) - 1);
  expect_invalid(spec_, "the file is cut off");
}

TEST_F(AdapterReaderTest, ModulesOfAnotherBaseAreRefused) {
  expect_invalid(changed([](auto& m) { m.layer = 2; }), "layer 2 of a base model with 2");
  expect_invalid(changed([](auto& m) { m.layer = -1; }), "layer -1");
  expect_invalid(changed([](auto& m) { m.module = 9; }), "unknown module 9");
  expect_invalid(changed([](auto& m) { m.module = kKProj; }), "has shape");
  expect_invalid(changed([](auto& m) { m.a.cols = 80; }), "ask for [3, 72]");
  expect_invalid(changed([](auto& m) { m.b.rows = 47; }), "ask for [48, 3]");
}

TEST_F(AdapterReaderTest, RanksScalesAndOffsetsThatLieAreRefused) {
  expect_invalid(changed([](auto& m) { m.rank = 0; }), "has rank 0");
  expect_invalid(changed([](auto& m) { m.rank = -5; }), "has rank -5");
  expect_invalid(changed([](auto& m) { m.rank = 4; }), "has shape");
  expect_invalid(changed([](auto& m) { m.scale = std::numeric_limits<float>::infinity(); }),
                 "scale");
  expect_invalid(changed([](auto& m) { m.a.offset = -1; }), "lora_A");
  expect_invalid(changed([](auto& m) { m.b.offset = std::numeric_limits<int64_t>::max(); }),
                 "lora_B");
  expect_invalid(changed([](auto& m) { m.a.file = 1; }), "which is not listed");
}

TEST_F(AdapterReaderTest, WhatIsBesideALoraHasItsShape) {
  const auto beside = [&](auto&& change) {
    return changed([&](auto& m) {
      TensorRef vector = m.b;
      vector.name = "beside";
      vector.rows = 1;
      vector.cols = m.b.rows;
      change(m, vector);
    });
  };
  expect_invalid(beside([](auto& m, TensorRef v) {
                   v.cols -= 1;
                   m.b_bias = v;
                 }),
                 "beside has shape [1, 47]");
  expect_invalid(beside([](auto& m, TensorRef v) {
                   v.rows = 2;
                   m.magnitude = v;
                 }),
                 "beside has shape [2, 48]");
  expect_invalid(beside([](auto& m, TensorRef v) { m.whole = v; }), "replaces a projection");
  expect_invalid(beside([](auto& m, TensorRef v) {
                   m.module = kLmHead;
                   m.layer = 1;
                   m.whole = v;
                 }),
                 "belongs to layer 1, which has none");
  expect_invalid(beside([](auto& m, TensorRef v) {
                   m.module = kLmHead;
                   m.layer = 0;
                   m.rank = 0;
                   m.magnitude = v;
                   m.whole = v;
                 }),
                 "for a LoRA that is not there");
}

TEST_F(AdapterReaderTest, TwoForOneModuleAreRefused) {
  AdapterSpec spec = spec_;
  spec.modules.push_back(spec.modules[0]);
  expect_invalid(spec, "is the second for q_proj of layer 0");
}

TEST_F(AdapterReaderTest, NaNIsNamed) {
  adapter_.modules[2].b.values[5] = std::numeric_limits<float>::quiet_NaN();
  expect_invalid(model_.write_adapter(adapter_, "nan.bin"), "q_proj.weight.lora_B");
}

}  // namespace
}  // namespace lorax
