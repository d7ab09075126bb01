// What adapters have beside the LoRA of projections, in images: rows where the kernels look for
// them, none of them across a page. Host only.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <limits>
#include <random>
#include <string>

#include "backend/output_affine.h"
#include "cuda/adapter_image.h"
#include "cuda/step_arrays.h"

namespace lorax::cuda {
namespace {

constexpr int64_t kPageBytes = 8192;

// Values that bf16 holds.
std::vector<float> random_values(std::mt19937& random, int64_t count) {
  std::vector<float> out;
  for (int64_t i = 0; i < count; ++i) {
    out.push_back(static_cast<float>(static_cast<int32_t>(random() % 255) - 127) / 64.0f);
  }
  return out;
}

float from_bf16(const uint8_t* at) {
  uint16_t bits;
  std::memcpy(&bits, at, 2);
  const uint32_t wide = uint32_t{bits} << 16;
  float out;
  std::memcpy(&out, &wide, 4);
  return out;
}

class HostAdapterRows : public ::testing::Test {
 protected:
  AdapterModule module(int32_t layer, int32_t id, int32_t rank, int64_t d_in, int64_t d_out) {
    AdapterModule m;
    m.layer = layer;
    m.module = id;
    m.rank = rank;
    m.scale = 0.25f;
    if (rank > 0) {
      m.a = tensor(rank, d_in, "a");
      m.b = tensor(d_out, rank, "b");
    }
    return m;
  }
  TensorView tensor(int64_t rows, int64_t cols, const char* name) {
    values_.push_back(random_values(random_, rows * cols));
    return {values_.back().data(), DType::kF32, rows, cols, name, "adapter.safetensors"};
  }

  // Lays out, fills, and places in a pool whose pages run backwards.
  void place(const std::vector<AdapterModule>& modules, const std::vector<OutputAffine>& affines) {
    const ImageLayout layout = image_layout(modules, kPageBytes, affines);
    formats_ = layout.formats;
    std::vector<uint8_t> image(static_cast<size_t>(layout.bytes), 0xff);
    fill_image(modules, layout, image.data(), 3, affines);
    std::vector<int32_t> pages;
    for (int32_t p = 0; p < layout.num_pages; ++p) pages.push_back(layout.num_pages - 1 - p);
    pool_.assign(static_cast<size_t>(kPageBytes * layout.num_pages), 0xff);
    std::vector<uint8_t> tables(static_cast<size_t>(layout.table_bytes));
    write_tables(layout, pool_.data(), pages, tables.data());
    std::memcpy(image.data(), tables.data(), tables.size());
    for (int32_t p = 0; p < layout.num_pages; ++p) {
      const int64_t begin = p * kPageBytes;
      std::memcpy(pool_.data() + pages[p] * kPageBytes, image.data() + begin,
                  static_cast<size_t>(std::min(kPageBytes, layout.bytes - begin)));
    }
    table_ = reinterpret_cast<const AdapterTable*>(pool_.data() + pages[0] * kPageBytes);
  }
  const AdapterExtra& extra(const AdapterModule& m) const {
    return table_->extras[m.layer * table_->num_modules + m.module];
  }
  const uint8_t* row(const PagedRows& rows, int32_t i) const {
    const uint8_t* at =
        rows.chunks[i / rows.rows_per_chunk] + int64_t{i % rows.rows_per_chunk} * rows.row_bytes;
    const auto page = [&](const uint8_t* byte) { return (byte - pool_.data()) / kPageBytes; };
    EXPECT_EQ(page(at), page(at + rows.row_bytes - 1));
    return at;
  }
  void expect_rows(const PagedRows& rows, const TensorView& of, bool transposed) const {
    ASSERT_NE(rows.chunks, nullptr) << of.name;
    const auto* values = static_cast<const float*>(of.data);
    for (int64_t r = 0; r < of.rows; ++r) {
      for (int64_t c = 0; c < of.cols; ++c) {
        const auto i = static_cast<int32_t>(transposed ? c : r);
        const int64_t j = transposed ? r : c;
        ASSERT_EQ(from_bf16(row(rows, i) + j * 2), values[r * of.cols + c]) << of.name;
      }
    }
  }
  void expect_floats(const PagedRows& rows, const std::vector<float>& values) const {
    ASSERT_NE(rows.chunks, nullptr);
    for (size_t i = 0; i < values.size(); ++i) {
      float got;
      std::memcpy(&got, row(rows, static_cast<int32_t>(i)), 4);
      ASSERT_EQ(got, values[i]);
    }
  }

  std::mt19937 random_{3};
  std::deque<std::vector<float>> values_;
  std::vector<uint8_t> pool_;
  const AdapterTable* table_ = nullptr;
  uint32_t formats_ = 0;
};

TEST_F(HostAdapterRows, HeadEmbeddingAndAffinesAreWhereTheTablesSay) {
  AdapterModule plain = module(1, 0, 20, 64, 64);
  AdapterModule scaled = module(2, 3, 4, 64, 250);
  AdapterModule head = module(0, 7, 5, 64, 2500);
  head.sampled_rows = true;
  head.whole = tensor(2500, 64, "whole head");
  AdapterModule embedding = module(0, 8, 3, 700, 64);
  embedding.is_table = true;
  embedding.whole = tensor(700, 64, "whole embedding");
  std::vector<OutputAffine> affines(4);
  affines[1] = {random_values(random_, 250), random_values(random_, 250)};
  affines[2].shift = random_values(random_, 2500);  // more than a page
  affines[3].gain = random_values(random_, 64);
  place({plain, scaled, head, embedding}, affines);

  EXPECT_EQ(formats_, kHasAffine | kAtHead | kAtTable);
  EXPECT_EQ(table_->max_groups, 2);  // of the projections alone
  const auto groups = [&](const AdapterModule& m) {
    return table_->entries[m.layer * table_->num_modules + m.module].num_groups;
  };
  EXPECT_EQ(groups(plain), 2);
  EXPECT_EQ(groups(scaled), 1);
  EXPECT_EQ(groups(head), 0);
  EXPECT_EQ(groups(embedding), 0);

  EXPECT_EQ(extra(plain).gain.chunks, nullptr);
  EXPECT_EQ(extra(plain).whole.chunks, nullptr);
  EXPECT_EQ(extra(scaled).rank, 0);
  expect_floats(extra(scaled).gain, affines[1].gain);
  expect_floats(extra(scaled).shift, affines[1].shift);
  EXPECT_EQ(extra(head).rank, 5);
  EXPECT_EQ(extra(head).scale, 0.25f);
  EXPECT_EQ(extra(head).gain.chunks, nullptr);
  expect_floats(extra(head).shift, affines[2].shift);
  expect_rows(extra(head).a, head.a, false);
  expect_rows(extra(head).b, head.b, false);
  expect_rows(extra(head).whole, head.whole, false);
  expect_rows(extra(embedding).a, embedding.a, true);
  expect_rows(extra(embedding).b, embedding.b, false);
  expect_rows(extra(embedding).whole, embedding.whole, false);
  expect_floats(extra(embedding).gain, affines[3].gain);
}

TEST_F(HostAdapterRows, PlainAdaptersHaveNothingOfIt) {
  const AdapterModule plain = module(1, 0, 20, 64, 64);
  place({plain}, {});
  EXPECT_EQ(formats_, kPlain);
  EXPECT_EQ(table_->extras, nullptr);
  place({plain}, {OutputAffine{}});
  EXPECT_EQ(formats_, kPlain);
}

TEST_F(HostAdapterRows, NaNIsNamed) {
  AdapterModule head = module(0, 7, 0, 64, 700);
  head.sampled_rows = true;
  head.whole = tensor(700, 64, "whole head");
  values_.back().back() = std::numeric_limits<float>::quiet_NaN();
  try {
    place({head}, {});
    FAIL() << "NaN was taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), "ADAPTER_INVALID");
    EXPECT_NE(std::string(error.what()).find("whole head"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace lorax::cuda
