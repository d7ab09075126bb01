// What adapters have beside A and B of the projections, on every backend: biases of B, DoRA, head
// and embedding, whole weights; against the reference, beside neighbours, and in other steps.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>

#include "../reference/reference_backend.h"
#include "backend/error.h"
#include "backend_cases.h"
#include "model/decoder.h"
#include "step_runner.h"
#include "tiny_model.h"

namespace lorax {
namespace {

struct Format {
  const char* name;
  std::function<TinyAdapter(const TinyModel&)> make;
};

std::vector<Format> formats() {
  const auto with = [](std::vector<int32_t> modules, auto... adds) {
    return [=](const TinyModel& model) {
      TinyAdapter adapter = model.random_adapter(7, 3, modules);
      (adds(model, adapter), ...);
      return adapter;
    };
  };
  const auto biases = [](const TinyModel& model, TinyAdapter& a) { model.add_biases(a, 8); };
  const auto dora = [](const TinyModel& model, TinyAdapter& a) { model.add_magnitudes(a, 9); };
  const auto whole_head = [](const TinyModel& model, TinyAdapter& a) {
    model.add_whole(a, kLmHead, 10);
  };
  const auto whole_embedding = [](const TinyModel& model, TinyAdapter& a) {
    model.add_whole(a, kEmbedTokens, 11);
  };
  std::vector<int32_t> everything = kAllModules;
  everything.insert(everything.end(), {kLmHead, kEmbedTokens});
  return {
      {"biases of B", with(kAllModules, biases)},
      {"biases of B in some projections", with({kVProj, kUpProj}, biases)},
      {"DoRA", with(kAllModules, dora)},
      {"DoRA of k, o and gate", with({kKProj, kOProj, kGateProj}, dora)},
      {"DoRA of down", with({kDownProj}, dora)},
      {"a LoRA on the head", with({kLmHead})},
      {"a LoRA on the embedding", with({kEmbedTokens})},
      {"DoRA on everything", with(everything, dora)},
      {"biases of B of the head", with({kLmHead, kQProj}, biases)},
      {"a whole head", with({kQProj}, whole_head)},
      {"a whole embedding", with({kQProj}, whole_embedding)},
      {"whole head and embedding, no LoRA", with({}, whole_head, whole_embedding)},
      {"whole head and embedding under DoRA",
       with({kLmHead, kEmbedTokens}, whole_head, whole_embedding, dora)},
  };
}

class AdapterFormatsTest : public testing::TestWithParam<BackendCase> {
 protected:
  // Sizes that a backend takes; the deterministic one needs whole tiles where gates are scaled.
  void adjust(DecoderConfig& config) const {
    if (GetParam().odd_sizes) return;
    config.intermediate_size = 80;
  }
  double tolerance() const { return GetParam().precision == Precision::kFloat32 ? 2e-5 : 3e-2; }
};

TEST_P(AdapterFormatsTest, AgreesWithTheReference) {
  for (const bool tied : {true, false}) {
    DecoderConfig config = tiny_config();
    config.tied_embeddings = tied;
    config.qkv_bias = !tied;
    adjust(config);
    const TinyModel model(config);
    const ModelSpec spec = model.write();
    StepRunner reference(std::make_unique<ReferenceBackend>(), spec);
    StepRunner runner(GetParam().make(), spec);
    const auto tokens = random_tokens(12, 40, config.vocab_size);
    const auto base = reference.run_alone(tokens, nullptr, 40);
    for (const Format& format : formats()) {
      SCOPED_TRACE(format.name);
      const AdapterSpec adapter = model.write_adapter(format.make(model), "adapter.bin");
      const auto expected = reference.run_alone(tokens, reference.add_adapter(adapter), 40);
      EXPECT_GT(relative_error(base, expected), 0.1);
      const auto* resident = runner.add_adapter(adapter);
      EXPECT_LE(relative_error(runner.run_alone(tokens, resident, 40), expected), tolerance());
      // Decoded one by one.
      EXPECT_LE(relative_error(runner.run_alone(tokens, resident, 1), expected), tolerance());
    }
  }
}

// Rows of all formats, a plain adapter's and the base's in one step, some of them without logits.
TEST_P(AdapterFormatsTest, NeighboursChangeNothing) {
  DecoderConfig config = tiny_config();
  adjust(config);
  config.tied_embeddings = false;
  const TinyModel model(config);
  StepRunner runner(GetParam().make(), model.write());
  std::vector<const ResidentAdapter*> adapters = {nullptr};
  adapters.push_back(runner.add_adapter(
      model.write_adapter(model.random_adapter(3, 17, kAllModules), "plain.bin")));
  for (const Format& format : formats()) {
    adapters.push_back(runner.add_adapter(model.write_adapter(format.make(model), "adapter.bin")));
  }
  const int64_t vocab = config.vocab_size;
  const auto count = static_cast<int32_t>(adapters.size());
  std::vector<std::vector<int32_t>> tokens;
  std::vector<std::vector<float>> alone;
  std::vector<TestSequence> sequences(adapters.size());
  for (int32_t i = 0; i < count; ++i) {
    tokens.push_back(random_tokens(20 + i, 18, config.vocab_size));
    alone.push_back(runner.run_alone(tokens[i], adapters[i], 18));
    sequences[i].adapter = adapters[i];
  }
  for (int32_t step = 0; step < 6; ++step) {
    std::vector<TestChunk> chunks;
    std::vector<int32_t> who;
    for (int32_t i = 0; i < count; ++i) {
      const int32_t at = sequences[i].position;
      const int32_t size = std::min((i + step) % 5, 18 - at);
      if (size == 0) continue;
      const auto begin = tokens[i].begin() + at;
      chunks.push_back({&sequences[i], {begin, begin + size}, (i + step) % 3 != 0});
      who.push_back(i);
    }
    std::vector<int32_t> positions;
    for (const TestChunk& chunk : chunks) positions.push_back(chunk.sequence->position);
    const auto logits = runner.step(chunks);
    for (size_t c = 0; c < chunks.size(); ++c) {
      if (!chunks[c].wants_logits) continue;
      const auto begin = alone[who[c]].begin() + positions[c] * vocab;
      const std::vector<float> expected(
          begin, begin + static_cast<int64_t>(chunks[c].tokens.size()) * vocab);
      if (GetParam().exact) {
        EXPECT_EQ(logits[c], expected) << "adapter " << who[c] << " in step " << step;
      } else {
        EXPECT_LE(relative_error(logits[c], expected), 2e-2)
            << "adapter " << who[c] << " in step " << step;
      }
    }
  }
}

// As PEFT saves them with a LoRA on these.
TEST_P(AdapterFormatsTest, TheBasesOwnWeightsTakeNoRoom) {
  for (const bool tied : {true, false}) {
    DecoderConfig config = tiny_config();
    adjust(config);
    config.tied_embeddings = tied;
    const TinyModel model(config);
    StepRunner runner(GetParam().make(), model.write());
    TinyAdapter adapter = model.random_adapter(5, 3, {kQProj, kLmHead, kEmbedTokens});
    const AdapterSpec plain = model.write_adapter(adapter, "plain.bin");
    model.add_whole(adapter, kLmHead, 1);
    model.add_whole(adapter, kEmbedTokens, 1);
    TinyAdapter copies = adapter;
    for (TinyAdapter::Module& m : copies.modules) {
      if (!m.whole.values.empty()) m.whole = model.base_weight(0, m.module);
    }
    const AdapterSpec copied = model.write_adapter(copies, "copied.bin");
    const int64_t bytes = runner.decoder().read_adapter(plain)->bytes;
    EXPECT_EQ(runner.decoder().read_adapter(copied)->bytes, bytes);
    const AdapterSpec trained = model.write_adapter(adapter, "trained.bin");
    EXPECT_GT(runner.decoder().read_adapter(trained)->bytes, bytes + config.vocab_size * 96);
    // One value of the last row is enough.
    for (TinyAdapter::Module& m : copies.modules) {
      if (m.module == kEmbedTokens) m.whole.values.back() += 0.5f;
    }
    const AdapterSpec touched = model.write_adapter(copies, "touched.bin");
    EXPECT_GT(runner.decoder().read_adapter(touched)->bytes, bytes + config.vocab_size * 48);
    const auto tokens = random_tokens(6, 20, config.vocab_size);
    const auto expected = runner.run_alone(tokens, runner.add_adapter(plain), 20);
    EXPECT_EQ(runner.run_alone(tokens, runner.add_adapter(copied), 20), expected);
  }
}

TEST_P(AdapterFormatsTest, DamagedValuesAreNamed) {
  DecoderConfig config = tiny_config();
  adjust(config);
  TinyModel model(config);
  Matrix& o_proj = model.tensors().at("model.layers.0.self_attn.o_proj.weight");
  std::fill_n(o_proj.values.begin(), o_proj.cols, 0.0f);
  StepRunner runner(GetParam().make(), model.write());
  const auto expect_named = [&](const TinyAdapter& adapter, const std::string& tensor) {
    try {
      runner.add_adapter(model.write_adapter(adapter, "damaged.bin"));
      ADD_FAILURE() << "a damaged " << tensor << " was taken";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), "ADAPTER_INVALID");
      EXPECT_NE(std::string(error.what()).find(tensor), std::string::npos) << error.what();
    }
  };
  for (const int32_t module : {int32_t{kOProj}, int32_t{kEmbedTokens}}) {
    TinyAdapter adapter = model.random_adapter(1, 2, {module});
    model.add_magnitudes(adapter, 2);
    TinyAdapter damaged = adapter;
    damaged.modules[0].magnitude.values[3] = NAN;
    expect_named(damaged, ".lora_magnitude_vector");
    damaged = adapter;
    damaged.modules[0].a.values[3] = INFINITY;
    expect_named(damaged, ".lora_A");
  }
  TinyAdapter zero = model.random_adapter(1, 2, {kOProj});
  model.add_magnitudes(zero, 2);
  std::fill_n(zero.modules[0].b.values.begin(), zero.modules[0].rank, 0.0f);
  expect_named(zero, "output 0, whose merged weights are all 0");
  TinyAdapter adapter = model.random_adapter(1, 2, {kQProj});
  model.add_biases(adapter, 2);
  adapter.modules[0].b_bias.values[1] = INFINITY;
  expect_named(adapter, ".lora_B.bias");
  TinyAdapter whole = model.random_adapter(1, 2, {kQProj});
  model.add_whole(whole, kEmbedTokens, 3);
  whole.modules.back().whole.values[5] = NAN;
  expect_named(whole, "embed_tokens.weight.whole");
}

INSTANTIATE_TEST_SUITE_P(Backends, AdapterFormatsTest, testing::ValuesIn(all_backends()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace lorax
