// Adapter images: values where the kernels look for them, pages never straddled, bad tensors named.
// Host only.
#include "cuda/adapter_image.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>

#include "cuda/step_arrays.h"

namespace lorax::cuda {
namespace {

float from_bf16(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

// Nearest bf16 by comparing both neighbours, ties to even: another way than the code's.
uint16_t nearest_bf16(float x) {
  const auto down = static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16);
  const auto up = static_cast<uint16_t>(down + 1);
  const double below = std::fabs(double{x} - from_bf16(down));
  const double above = std::fabs(double{x} - from_bf16(up));
  if (below != above) return below < above ? down : up;
  return down % 2 == 0 ? down : up;
}

float from_f16(uint16_t h) {
  const int exponent = (h >> 10) & 31;
  const int fraction = h & 1023;
  const double value =
      exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  return static_cast<float>((h & 0x8000) != 0 ? -value : value);
}

struct Tensor {
  std::vector<uint8_t> bytes;
  std::vector<float> values;  // what the bytes say
  std::string name;
  TensorView view(DType dtype, int64_t rows, int64_t cols) const {
    // One byte off, as in files.
    return {bytes.data() + 1, dtype, rows, cols, name.c_str(), "adapter.safetensors"};
  }
};

Tensor random_tensor(std::mt19937& random, DType dtype, int64_t count, std::string name) {
  Tensor out;
  out.name = std::move(name);
  out.bytes.resize(static_cast<size_t>(count * dtype_bytes(dtype) + 1));
  std::normal_distribution<float> normal;
  for (int64_t i = 0; i < count; ++i) {
    float value = normal(random);
    uint16_t half = static_cast<uint16_t>(random());
    if (dtype == DType::kF16) {
      if ((half & 0x7c00) == 0x7c00) half &= 0x83ff;  // finite; a subnormal in its place
      value = from_f16(half);
    } else if (dtype == DType::kBF16) {
      half = static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);
      value = from_bf16(half);
    }
    out.values.push_back(value);
    uint8_t* to = out.bytes.data() + 1 + i * dtype_bytes(dtype);
    if (dtype == DType::kF32) {
      std::memcpy(to, &value, 4);
    } else {
      std::memcpy(to, &half, 2);
    }
  }
  return out;
}

struct Case {
  int32_t layer, module, rank;
  int64_t d_in, d_out;
};

class AdapterImageTest : public ::testing::TestWithParam<DType> {
 protected:
  void make(const std::vector<Case>& cases) {
    for (const Case& c : cases) {
      const std::string name = std::to_string(c.layer) + "." + std::to_string(c.module);
      tensors_.push_back(random_tensor(random_, GetParam(), c.rank * c.d_in, name + ".lora_A"));
      tensors_.push_back(random_tensor(random_, GetParam(), c.d_out * c.rank, name + ".lora_B"));
    }
    for (size_t i = 0; i < cases.size(); ++i) {
      const Case& c = cases[i];
      modules_.push_back({c.layer, c.module, c.rank, 0.5f + static_cast<float>(i),
                          tensors_[2 * i].view(GetParam(), c.rank, c.d_in),
                          tensors_[2 * i + 1].view(GetParam(), c.d_out, c.rank)});
    }
  }

  std::mt19937 random_{7};
  std::vector<Tensor> tensors_;
  std::vector<AdapterModule> modules_;
};

uint16_t load(const uint8_t* at, int64_t index) {
  uint16_t out;
  std::memcpy(&out, at + index * 2, 2);
  return out;
}

// Through the tables, as a kernel would, in a pool whose pages are not in the image's order.
TEST_P(AdapterImageTest, ValuesAreWhereTheTablesSay) {
  make({{0, 0, 16, 256, 256},
        {0, 3, 1, 100, 40},
        {0, 6, 17, 33, 48},
        {2, 0, 8, 256, 24},
        {2, 5, 64, 64, 256},
        {2, 6, 28, 64, 64},
        {3, 1, 40, 256, 17}});
  const int64_t page_bytes = 32 * 256;  // one slice of the widest module
  const ImageLayout layout = image_layout(modules_, page_bytes);
  std::vector<uint8_t> image(static_cast<size_t>(layout.bytes), 0xff);
  fill_image(modules_, layout, image.data(), 3);

  std::vector<uint8_t> pool(static_cast<size_t>(page_bytes * (layout.num_pages + 2)), 0xff);
  std::vector<int32_t> pages;
  for (int32_t p = 0; p < layout.num_pages; ++p) pages.push_back((p * 5 + 3) % layout.num_pages);
  std::vector<bool> used(pages.size());
  for (const int32_t page : pages) used[page] = true;
  if (std::find(used.begin(), used.end(), false) != used.end()) {
    for (size_t p = 0; p < pages.size(); ++p) pages[p] = static_cast<int32_t>(pages.size() - p);
  }
  std::vector<uint8_t> tables(static_cast<size_t>(layout.table_bytes));
  write_tables(layout, pool.data(), pages, tables.data());
  std::memcpy(image.data(), tables.data(), tables.size());
  for (int32_t p = 0; p < layout.num_pages; ++p) {
    const int64_t begin = p * page_bytes;
    std::memcpy(pool.data() + pages[p] * page_bytes, image.data() + begin,
                static_cast<size_t>(std::min(page_bytes, layout.bytes - begin)));
  }

  AdapterTable table;
  std::memcpy(&table, pool.data() + pages[0] * page_bytes, sizeof table);
  EXPECT_EQ(table.num_layers, 4);
  EXPECT_EQ(table.num_modules, 7);
  EXPECT_EQ(table.max_groups, 4);
  int adapted = 0;
  for (int i = 0; i < table.num_layers * table.num_modules; ++i) {
    adapted += table.entries[i].num_groups > 0 ? 1 : 0;
  }
  EXPECT_EQ(adapted, 7);
  for (size_t i = 0; i < modules_.size(); ++i) {
    const AdapterModule& m = modules_[i];
    const AdapterEntry& entry = table.entries[m.layer * table.num_modules + m.module];
    ASSERT_EQ(entry.num_groups, (m.rank + 15) / 16);
    EXPECT_EQ(entry.scale, m.scale);
    for (int32_t group = 0; group < entry.num_groups; ++group) {
      const RankGroup& slices = entry.groups[group];
      const int32_t room = m.rank - group * 16 <= 8 ? 8 : 16;  // for ranks
      ASSERT_EQ(slices.a.is_half(), room == 8);
      ASSERT_EQ(slices.b.is_half(), room == 8);
      EXPECT_EQ(slices.a.a_block_bytes(), 32 * room * 2);
      EXPECT_EQ(slices.b.b_tile_bytes(), 16 * room * 2);
      const uint8_t* const a = slices.a.a_block(0);
      const uint8_t* const b = slices.b.b_tile(0);
      const auto straddles = [&](const uint8_t* from, int64_t bytes) {
        return (from - pool.data()) / page_bytes != (from + bytes - 1 - pool.data()) / page_bytes;
      };
      EXPECT_FALSE(straddles(a, ((m.a.cols + 31) / 32 + (room == 8 ? 1 : 0)) * 32 * room * 2));
      EXPECT_FALSE(straddles(b, (m.b.rows + 15) / 16 * 16 * room * 2));
      EXPECT_EQ((a - pool.data()) % kSliceAlignment, 0);
      EXPECT_EQ((b - pool.data()) % kSliceAlignment, 0);
      for (int64_t k = 0; k < (m.a.cols + 31) / 32 * 32; ++k) {
        for (int32_t r = 0; r < room; ++r) {
          const int32_t rank = group * 16 + r;
          const bool padding = rank >= m.rank || k >= m.a.cols;
          const uint16_t want =
              padding ? 0 : nearest_bf16(tensors_[2 * i].values[rank * m.a.cols + k]);
          ASSERT_EQ(load(slices.a.a_block(k / 32), r * 32 + k % 32), want) << k << " " << rank;
        }
      }
      // Behind a half of A lie as many zeros as the other half of its last block would take.
      for (int64_t i = 0; room == 8 && i < 32 * 8; ++i) {
        ASSERT_EQ(load(slices.a.a_block((m.a.cols + 31) / 32), i), 0) << i;
      }
      for (int64_t out = 0; out < (m.b.rows + 15) / 16 * 16; ++out) {
        for (int32_t r = 0; r < room; ++r) {
          const int32_t rank = group * 16 + r;
          const bool padding = rank >= m.rank || out >= m.b.rows;
          const uint16_t want =
              padding ? 0 : nearest_bf16(tensors_[2 * i + 1].values[out * m.rank + rank]);
          const int64_t lane = out % 8 * (room / 4) + r / 4;
          const int64_t word = r % 4 / 2 * 2 + out % 16 / 8;
          ASSERT_EQ(load(slices.b.b_tile(out / 16), lane * 8 + word * 2 + r % 2), want)
              << out << " " << rank;
        }
      }
    }
  }
}

TEST_P(AdapterImageTest, WastesLittle) {
  std::vector<Case> cases;
  for (int32_t layer = 0; layer < 4; ++layer) {
    for (int32_t module = 0; module < 7; ++module) {
      const bool down = module == 6;
      const bool up = module == 4 || module == 5;
      cases.push_back({layer, module, 16, down ? 1024 : 320, up ? 1024 : module == 1 ? 64 : 320});
    }
  }
  make(cases);
  int64_t bytes = 0;
  for (const Case& c : cases) bytes += (c.d_in + c.d_out) * c.rank * 2;
  const ImageLayout layout = image_layout(modules_, 1 << 17);
  EXPECT_LE(layout.bytes, bytes * 11 / 10 + layout.table_bytes);

  // Half the rank, half the bytes.
  tensors_.clear();
  modules_.clear();
  for (Case& c : cases) c.rank = 8;
  make(cases);
  const ImageLayout half = image_layout(modules_, 1 << 17);
  EXPECT_LE(half.bytes, bytes / 2 * 11 / 10 + half.table_bytes);
}

TEST_P(AdapterImageTest, TablesOfManyRanksSpanPages) {
  make({{0, 0, 600, 32, 32}, {0, 1, 600, 32, 32}, {1, 0, 600, 32, 32}});
  const ImageLayout layout = image_layout(modules_, 1024);
  EXPECT_GT(layout.table_bytes, 1024);
  std::vector<uint8_t> image(static_cast<size_t>(layout.bytes));
  fill_image(modules_, layout, image.data(), 1);
  for (const int64_t at : layout.slice_at) EXPECT_GE(at, layout.table_bytes);
}

TEST_P(AdapterImageTest, NamesTheTensorThatIsNotFinite) {
  for (const float value :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    for (const bool in_b : {false, true}) {
      for (const int64_t at : {int64_t{0}, int64_t{17 * 64 - 1}}) {
        tensors_.clear();
        modules_.clear();
        make({{0, 0, 17, 64, 64}, {1, 2, 17, 64, 64}, {1, 3, 17, 64, 64}});
        const uint32_t bits = std::bit_cast<uint32_t>(value);
        const auto half = static_cast<uint16_t>(GetParam() == DType::kBF16 ? bits >> 16
                                                : std::isnan(value)        ? 0x7e00
                                                                           : 0xfc00);
        for (const int i : {1, 2}) {  // the first is told
          uint8_t* to =
              tensors_[2 * i + (in_b ? 1 : 0)].bytes.data() + 1 + at * dtype_bytes(GetParam());
          if (GetParam() == DType::kF32) {
            std::memcpy(to, &value, 4);
          } else {
            std::memcpy(to, &half, 2);
          }
        }
        const ImageLayout layout = image_layout(modules_, 1 << 16);
        std::vector<uint8_t> image(static_cast<size_t>(layout.bytes));
        try {
          fill_image(modules_, layout, image.data(), 2);
          ADD_FAILURE() << "no error";
        } catch (const Error& error) {
          const std::string name = in_b ? "1.2.lora_B" : "1.2.lora_A";
          EXPECT_EQ(error.code(), "ADAPTER_INVALID");
          EXPECT_EQ(std::string(error.what()),
                    "adapter.safetensors: tensor " + name + " holds NaN or Inf");
          EXPECT_EQ(std::get<std::string>(error.data().at("tensor")), name);
          EXPECT_EQ(std::get<std::string>(error.data().at("file")), "adapter.safetensors");
        }
      }
    }
  }
}

TEST_P(AdapterImageTest, RefusesShapesThatAreNotTheRanks) {
  make({{0, 0, 8, 64, 64}});
  const auto code = [](const std::vector<AdapterModule>& modules) -> std::string {
    try {
      static_cast<void>(image_layout(modules, 1 << 16));
    } catch (const Error& error) {
      return error.code();
    }
    return "";
  };
  EXPECT_EQ(code(modules_), "");
  EXPECT_EQ(code({modules_[0], modules_[0]}), "ADAPTER_INVALID");
  AdapterModule m = modules_[0];
  m.a.rows = 7;
  EXPECT_EQ(code({m}), "ADAPTER_INVALID");
  m = modules_[0];
  m.b.cols = 9;
  EXPECT_EQ(code({m}), "ADAPTER_INVALID");
  m = modules_[0];
  m.rank = 0;
  EXPECT_EQ(code({m}), "ADAPTER_INVALID");
  m = modules_[0];
  m.layer = -1;
  EXPECT_EQ(code({m}), "ADAPTER_INVALID");
  EXPECT_THROW(static_cast<void>(image_layout(modules_, 512)), std::logic_error);
}

// More than the steps' buffers have room for.
TEST_P(AdapterImageTest, RefusesRanksBeyond1024) {
  make({{0, 0, 1024, 64, 64}});
  EXPECT_EQ(image_layout(modules_, 1 << 16).max_groups, 64);
  make({{0, 0, 1025, 64, 64}});
  try {
    static_cast<void>(image_layout(modules_, 1 << 16));
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), "ADAPTER_UNSUPPORTED");
    EXPECT_EQ(std::string(error.what()),
              "adapter.safetensors: tensor " + std::get<std::string>(error.data().at("tensor")) +
                  " has rank 1025; on a GPU an adapter may have rank 1024 at most");
  }
}

INSTANTIATE_TEST_SUITE_P(Host, AdapterImageTest,
                         ::testing::Values(DType::kF32, DType::kF16, DType::kBF16),
                         [](const auto& info) {
                           return std::string(info.param == DType::kF32   ? "f32"
                                              : info.param == DType::kF16 ? "f16"
                                                                          : "bf16");
                         });

}  // namespace
}  // namespace lorax::cuda
