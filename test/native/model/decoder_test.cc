// The decoder on every backend: against the reference, against itself cut into other steps, beside
// neighbours, and with adapters against merged weights.
#include "model/decoder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <random>

#include "../reference/reference_backend.h"
#include "backend_cases.h"
#include "step_runner.h"
#include "tiny_model.h"

namespace lorax {
namespace {

std::vector<float> reference_logits(const ModelSpec& spec, const std::vector<int32_t>& tokens) {
  StepRunner runner(std::make_unique<ReferenceBackend>(), spec);
  return runner.run_alone(tokens, nullptr, static_cast<int32_t>(tokens.size()));
}

// Wide enough for what tiny sums never need: parts of k, several tiles.
DecoderConfig wider_config() {
  DecoderConfig config = tiny_config();
  config.hidden_size = 576;
  config.intermediate_size = 1536;
  config.num_heads = 9;
  config.num_kv_heads = 3;
  config.head_dim = 64;
  config.context_tokens = 256;
  return config;
}

class DecoderTest : public testing::TestWithParam<BackendCase> {
 protected:
  // bf16 weights and activations: a few tenths of a percent a layer.
  double tolerance() const { return GetParam().precision == Precision::kFloat32 ? 2e-5 : 3e-2; }

  // Of what is computed element by element.
  bool takes_minutes() const {
#ifdef __SANITIZE_ADDRESS__
    return GetParam().name == "reference" || GetParam().name.starts_with("portable");
#else
    return false;
#endif
  }

  // Bit for bit, where the backend promises that.
  void expect_same(const std::vector<float>& got, const std::vector<float>& want,
                   const std::string& what) const {
    if (GetParam().exact) {
      EXPECT_EQ(got, want) << what;
    } else {
      EXPECT_LE(relative_error(got, want), 2e-2) << what;
    }
  }

  // Prefills and decodes of base and adapters side by side, as the scheduler mixes them: seven
  // sequences of `lengths` tokens, in chunks of up to `most`, some of them without logits.
  void neighbours_change_nothing(const DecoderConfig& config, const std::array<int32_t, 7>& lengths,
                                 int32_t most) const {
    const TinyModel model(config);
    StepRunner runner(GetParam().make(), model.write());
    const auto* first = runner.add_adapter(
        model.write_adapter(model.random_adapter(7, 2, kAllModules), "first.bin"));
    const auto* second = runner.add_adapter(model.write_adapter(
        model.random_adapter(8, 17, {kQProj, kVProj, kDownProj}), "second.bin"));
    const ResidentAdapter* adapters[] = {nullptr, first, second, first, nullptr, second, nullptr};

    std::vector<std::vector<int32_t>> tokens;
    std::vector<std::vector<float>> alone, together(7), expected(7);
    const int64_t vocab = model.config().vocab_size;
    std::vector<TestSequence> sequences(7);
    for (int32_t i = 0; i < 7; ++i) {
      tokens.push_back(random_tokens(10 + i, lengths[i], model.config().vocab_size));
      alone.push_back(runner.run_alone(tokens[i], adapters[i], std::min(lengths[i], 128)));
      sequences[i].adapter = adapters[i];
    }
    std::mt19937 rng(9);
    for (;;) {
      std::vector<TestChunk> chunks;
      std::vector<int32_t> who;
      for (int32_t i = 0; i < 7; ++i) {
        const int32_t left = lengths[i] - sequences[i].position;
        if (left == 0 || rng() % 4 == 0) continue;
        const int32_t count =
            rng() % 2 == 0 ? 1 : std::min<int32_t>(left, 1 + static_cast<int32_t>(rng() % most));
        const auto begin = tokens[i].begin() + sequences[i].position;
        const auto of_begin = alone[i].begin() + sequences[i].position * vocab;
        const bool wants_logits = count == left || rng() % 4 != 0;
        if (wants_logits) {
          expected[i].insert(expected[i].end(), of_begin, of_begin + count * vocab);
        }
        chunks.push_back({&sequences[i], {begin, begin + count}, wants_logits});
        who.push_back(i);
      }
      if (chunks.empty()) {
        const bool done = std::all_of(sequences.begin(), sequences.end(), [&](const auto& s) {
          return s.position == lengths[&s - sequences.data()];
        });
        if (done) break;
        continue;
      }
      const auto logits = runner.step(chunks);
      for (size_t c = 0; c < chunks.size(); ++c) {
        together[who[c]].insert(together[who[c]].end(), logits[c].begin(), logits[c].end());
      }
    }
    for (int32_t i = 0; i < 7; ++i) {
      expect_same(together[i], expected[i], "sequence " + std::to_string(i));
    }
  }
};

struct Variant {
  const char* name;
  std::function<void(DecoderConfig&)> change;
};

std::vector<Variant> variants() {
  return {
      {"llama", [](DecoderConfig&) {}},
      {"untied head", [](DecoderConfig& c) { c.tied_embeddings = false; }},
      {"qkv bias", [](DecoderConfig& c) { c.qkv_bias = true; }},
      {"q/k norm, own head size",
       [](DecoderConfig& c) {
         c.qk_norm = true;
         c.head_dim = 24;
       }},
      {"sliding window", [](DecoderConfig& c) { c.sliding_window = 7; }},
      {"no grouping", [](DecoderConfig& c) { c.num_kv_heads = c.num_heads; }},
      {"yarn",
       [](DecoderConfig& c) {
         c.rope.type = RopeScaling::Type::kYarn;
         c.rope.factor = 4;
         c.rope.original_context = 32;
         c.rope.attention_factor = 1.14;
       }},
      {"odd sizes",
       [](DecoderConfig& c) {
         c.vocab_size = 67;
         c.hidden_size = 50;
         c.intermediate_size = 53;
         c.num_heads = 3;
         c.num_kv_heads = 1;
         c.head_dim = 10;
       }},
  };
}

TEST_P(DecoderTest, EveryVariantIsCloseToTheReference) {
  for (const Variant& variant : variants()) {
    SCOPED_TRACE(variant.name);
    if (std::string(variant.name) == "odd sizes" && !GetParam().odd_sizes) continue;
    DecoderConfig config = tiny_config();
    variant.change(config);
    const TinyModel model(config);
    const ModelSpec spec = model.write();
    const auto tokens = random_tokens(3, 45, config.vocab_size);
    const auto expected = reference_logits(spec, tokens);
    StepRunner runner(GetParam().make(), spec);
    EXPECT_LE(relative_error(runner.run_alone(tokens, nullptr, 45), expected), tolerance());
  }
}

TEST_P(DecoderTest, EveryVariantChangesTheLogits) {
  const TinyModel plain(tiny_config());
  const auto tokens = random_tokens(3, 20, plain.config().vocab_size);
  const auto base = reference_logits(plain.write(), tokens);
  for (const Variant& variant : variants()) {
    const std::string name = variant.name;
    if (name == "llama" || name == "odd sizes") continue;
    DecoderConfig config = tiny_config();
    variant.change(config);
    TinyModel model(config);
    for (auto& [tensor, matrix] : model.tensors()) {
      const auto same = plain.tensors().find(tensor);
      const bool fits = same != plain.tensors().end() && same->second.rows == matrix.rows &&
                        same->second.cols == matrix.cols;
      if (fits) matrix = same->second;
    }
    StepRunner runner(GetParam().make(), model.write());
    EXPECT_GT(relative_error(runner.run_alone(tokens, nullptr, 20), base), 1e-2) << name;
  }
}

TEST_P(DecoderTest, ChunksChangeNothing) {
  DecoderConfig config = tiny_config();
  config.sliding_window = 19;
  config.qkv_bias = true;
  const TinyModel model(config);
  const auto adapter = model.random_adapter(5, 3, kAllModules);
  StepRunner runner(GetParam().make(), model.write());
  const auto* resident = runner.add_adapter(model.write_adapter(adapter, "adapter.bin"));
  const auto tokens = random_tokens(4, 60, config.vocab_size);
  for (const ResidentAdapter* a : {static_cast<const ResidentAdapter*>(nullptr), resident}) {
    const auto whole = runner.run_alone(tokens, a, 60);
    for (const int32_t chunk : {1, 2, 7, 16, 33}) {
      expect_same(runner.run_alone(tokens, a, chunk), whole, "chunk " + std::to_string(chunk));
    }
  }
}

TEST_P(DecoderTest, AChunkWithoutLogitsLeavesTheSameKeysAndValues) {
  const TinyModel model(tiny_config());
  StepRunner runner(GetParam().make(), model.write());
  const auto tokens = random_tokens(6, 30, model.config().vocab_size);
  const auto whole = runner.run_alone(tokens, nullptr, 30);
  TestSequence sequence;
  const std::vector<int32_t> head(tokens.begin(), tokens.begin() + 21);
  const std::vector<int32_t> tail(tokens.begin() + 21, tokens.end());
  EXPECT_TRUE(runner.step({{&sequence, head, false}}).at(0).empty());
  const auto logits = runner.step({{&sequence, tail, true}}).at(0);
  const int64_t vocab = model.config().vocab_size;
  expect_same(logits, std::vector<float>(whole.begin() + 21 * vocab, whole.end()), "the tail");
}

TEST_P(DecoderTest, NeighboursChangeNothing) {
  neighbours_change_nothing(tiny_config(), {9, 31, 17, 5, 40, 24, 1}, 13);
}

TEST_P(DecoderTest, NeighboursChangeNothingInAWiderModel) {
  if (takes_minutes()) GTEST_SKIP() << "a wider model, element by element, under a sanitizer";
  neighbours_change_nothing(wider_config(), {150, 31, 170, 64, 40, 90, 1}, 18);
}

// At any of its pauses, for one of more rows and for one of fewer; with what it samples and what
// it sums.
TEST_P(DecoderTest, AStepThatIsSetAsideForAnotherIsTheSame) {
  const TinyModel model(tiny_config());
  StepRunner runner(GetParam().make(), model.write());
  Decoder& decoder = runner.decoder();
  if (!decoder.limits().can_set_aside) GTEST_SKIP() << "its steps cannot be set aside";
  const auto* adapter = runner.add_adapter(
      model.write_adapter(model.random_adapter(7, 5, kAllModules), "adapter.bin"));
  const auto tokens = [&](int32_t seed, int32_t count) {
    return random_tokens(seed, count, model.config().vocab_size);
  };
  const std::vector<int32_t> sampled = tokens(1, 19), summed = tokens(2, 8);
  const auto sampled_alone = runner.run_alone(sampled, adapter, 19);
  const auto summed_alone = runner.pool_alone(summed, nullptr, 8);
  for (const int32_t count : {3, 60}) {
    const std::vector<int32_t> other = tokens(3, count), other_summed = tokens(4, count);
    const auto other_alone = runner.run_alone(other, adapter, count);
    const auto other_summed_alone = runner.pool_alone(other_summed, adapter, count);
    for (int32_t at = 0; at <= 2 * model.config().num_layers; ++at) {
      SCOPED_TRACE(std::to_string(count) + " tokens at pause " + std::to_string(at));
      std::vector<float> meanwhile, meanwhile_summed;
      decoder.set_on_pause([&, pause = 0]() mutable {
        if (pause++ != at) return;
        TestSequence a{adapter, {}}, b{adapter, {}};
        decoder.set_aside();
        meanwhile = runner.step({{&a, other}, {&b, other_summed, false, 1, 0, true}}).at(0);
        meanwhile_summed = runner.pooled();
        decoder.resume();
      });
      TestSequence a{adapter, {}}, b;
      const auto logits = runner.step({{&a, sampled}, {&b, summed, false, 0, 0, true}}).at(0);
      decoder.set_on_pause(nullptr);
      expect_same(logits, sampled_alone, "logits");
      expect_same(runner.pooled(), summed_alone, "a sum");
      expect_same(meanwhile, other_alone, "the other's logits");
      expect_same(meanwhile_summed, other_summed_alone, "the other's sum");
    }
  }
}

// More adapters than a backend may care to handle in passing, a row or two each.
TEST_P(DecoderTest, ManyAdaptersInAStepChangeNothing) {
  if (takes_minutes()) GTEST_SKIP() << "a wider model, element by element, under a sanitizer";
  constexpr int32_t kAdapters = 60, kTokens = 4;
  const TinyModel model(wider_config());
  StepRunner runner(GetParam().make(), model.write(), 128, int64_t{256} << 20);
  const int32_t vocab = model.config().vocab_size;
  std::vector<TestSequence> sequences(kAdapters);
  std::vector<std::vector<int32_t>> tokens;
  std::vector<std::vector<float>> alone, together(kAdapters);
  for (int32_t i = 0; i < kAdapters; ++i) {
    const std::vector<int32_t> few = {kQProj, kOProj, kUpProj};
    const std::vector<int32_t>& modules = i % 3 == 0 ? kAllModules : few;
    sequences[i].adapter = runner.add_adapter(model.write_adapter(
        model.random_adapter(100 + i, 1 + i % 20, modules), std::to_string(i) + ".bin"));
    tokens.push_back(random_tokens(200 + i, kTokens, vocab));
    alone.push_back(runner.run_alone(tokens[i], sequences[i].adapter, kTokens));
  }
  for (int32_t at = 0; at < kTokens;) {
    const int32_t count = at == 0 ? 2 : 1;  // a step of prompts, then decodes
    std::vector<TestChunk> chunks;
    for (int32_t i = 0; i < kAdapters; ++i) {
      const auto begin = tokens[i].begin() + at;
      chunks.push_back({&sequences[i], {begin, begin + count}});
    }
    const auto logits = runner.step(chunks);
    for (int32_t i = 0; i < kAdapters; ++i) {
      together[i].insert(together[i].end(), logits[i].begin(), logits[i].end());
    }
    at += count;
  }
  for (int32_t i = 0; i < kAdapters; ++i) {
    expect_same(together[i], alone[i], "adapter " + std::to_string(i));
  }
}

// A backend may keep what it made of the rows of one step for the next: then the same adapters come
// in another order, and others in their pages. Three adapters, and more than are handled in
// passing.
TEST_P(DecoderTest, StepsThatLookAlikeAreNotTheSame) {
  if (takes_minutes()) GTEST_SKIP() << "a wider model, element by element, under a sanitizer";
  constexpr int32_t kTokens = 2;
  const TinyModel model(wider_config());
  const int32_t vocab = model.config().vocab_size;
  for (const int32_t count : {3, 50}) {
    SCOPED_TRACE(count);
    StepRunner runner(GetParam().make(), model.write(), 64, int64_t{256} << 20);
    const auto write = [&](int32_t seed) {
      const std::vector<int32_t> modules = {kQProj, kOProj, kUpProj, kDownProj};
      return model.write_adapter(model.random_adapter(seed, 1 + seed % 20, modules), "adapter.bin");
    };
    std::vector<const ResidentAdapter*> adapters;
    for (int32_t i = 0; i < count; ++i) adapters.push_back(runner.add_adapter(write(i)));
    const auto run_all = [&](uint32_t seed, bool backwards) {
      std::vector<TestSequence> sequences(static_cast<size_t>(count));
      std::vector<std::vector<int32_t>> tokens;
      std::vector<std::vector<float>> together(static_cast<size_t>(count));
      for (int32_t i = 0; i < count; ++i) {
        sequences[i].adapter = adapters[backwards ? count - 1 - i : i];
        tokens.push_back(random_tokens(seed + i, kTokens, vocab));
      }
      for (int32_t at = 0; at < kTokens; ++at) {
        std::vector<TestChunk> chunks;
        for (int32_t i = 0; i < count; ++i) chunks.push_back({&sequences[i], {tokens[i][at]}});
        const auto logits = runner.step(chunks);
        for (int32_t i = 0; i < count; ++i) {
          together[i].insert(together[i].end(), logits[i].begin(), logits[i].end());
        }
      }
      for (int32_t i = 0; i < count; ++i) {
        expect_same(together[i], runner.run_alone(tokens[i], sequences[i].adapter, 1),
                    "sequence " + std::to_string(i));
      }
    };
    // Steps of all, and of each alone, follow each other.
    run_all(300, false);
    run_all(400, true);
    for (int32_t i = 0; i < count; ++i) {
      const auto tokens = random_tokens(500 + i, kTokens, vocab);
      const auto before = runner.run_alone(tokens, adapters[i], 1);
      adapters[i] = runner.replace_adapter(adapters[i], write(1000 + i));
      const auto after = runner.run_alone(tokens, adapters[i], 1);
      EXPECT_GT(relative_error(after, before), 5e-2) << "the adapter's predecessor is still used";
    }
    run_all(600, false);
  }
}

TEST_P(DecoderTest, AnAdapterIsItsMergedWeights) {
  const std::vector<std::vector<int32_t>> module_sets = {
      kAllModules, {kQProj, kVProj}, {kKProj}, {kOProj}, {kUpProj}, {kGateProj, kDownProj}};
  for (const auto& modules : module_sets) {
    SCOPED_TRACE(module_name(modules.front()));
    TinyModel model(tiny_config());
    const auto adapter = model.random_adapter(11, 4, modules);
    const ModelSpec base = model.write("base.bin");
    const auto tokens = random_tokens(12, 25, model.config().vocab_size);
    StepRunner runner(GetParam().make(), base);
    const auto* resident = runner.add_adapter(model.write_adapter(adapter, "adapter.bin"));
    const auto adapted = runner.run_alone(tokens, resident, 25);
    const auto plain = runner.run_alone(tokens, nullptr, 25);
    model.merge(adapter);
    const auto merged = reference_logits(model.write("merged.bin"), tokens);
    EXPECT_LE(relative_error(adapted, merged), tolerance());
    EXPECT_GT(relative_error(plain, merged), 0.1);
  }
}

TEST_P(DecoderTest, HalfPrecisionFilesAreReadAsTheyAre) {
  const TinyModel model(tiny_config());
  const auto adapter = model.random_adapter(13, 4, kAllModules);
  const auto tokens = random_tokens(14, 25, model.config().vocab_size);
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    const ModelSpec spec = model.write("half.bin", dtype);
    const AdapterSpec adapter_spec = model.write_adapter(adapter, "adapter.bin", dtype);
    StepRunner reference(std::make_unique<ReferenceBackend>(), spec);
    StepRunner runner(GetParam().make(), spec);
    const auto expected = reference.run_alone(tokens, reference.add_adapter(adapter_spec), 25);
    const auto got = runner.run_alone(tokens, runner.add_adapter(adapter_spec), 25);
    EXPECT_LE(relative_error(got, expected), tolerance());
  }
}

TEST_P(DecoderTest, ForwardSamplesTheArgmax) {
  const TinyModel model(tiny_config());
  StepRunner runner(GetParam().make(), model.write());
  const auto tokens = random_tokens(15, 10, model.config().vocab_size);
  const auto logits = runner.run_alone(tokens, nullptr, 10);
  TestSequence sequence;
  const StepPlan plan = runner.plan({{&sequence, tokens, true}});
  std::vector<SampleResult> results(10);
  runner.decoder().submit(plan);
  runner.decoder().sample();
  runner.decoder().collect(results);
  const int64_t vocab = model.config().vocab_size;
  for (int64_t i = 0; i < 10; ++i) {
    const auto row = logits.begin() + i * vocab;
    EXPECT_EQ(results[i].token, std::max_element(row, row + vocab) - row);
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, DecoderTest, testing::ValuesIn(all_backends()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace lorax
