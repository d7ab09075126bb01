// attention_decode and attention_prefill against a float64 reference of the same definition on the
// same bf16 inputs: ragged lengths, pages in random order, chunks that begin anywhere, and NaN in
// every slot and every position that no row may see.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "cuda/attention_decode.h"
#include "cuda/attention_prefill.h"
#include "cuda/on_all_cores.h"
#include "cuda/rope_kv.h"
#include "paged_step.h"

namespace lorax::cuda {
namespace {

constexpr int kLayer = 1;
constexpr int kNumLayers = 2;
constexpr double kTolerance = 4e-3;

struct Shape {
  int num_heads = 8;
  int num_kv_heads = 2;
  int head_dim = 128;
  int window = 0;
  float soft_cap = 0.0f;

  int qkv_cols() const { return (num_heads + 2 * num_kv_heads) * head_dim; }
  int64_t page_bytes() const { return int64_t{kNumLayers} * 2 * num_kv_heads * 16 * head_dim * 2; }
};

// The keys and values of some sequences, on the host and in device pages.
class Sequences {
 public:
  Sequences(const Shape& shape, const std::vector<int>& lengths, uint32_t seed)
      : shape_(shape), random_(seed) {
    block_tables = random_block_tables(lengths, random_, &num_pages_);
    for (const int length : lengths) {
      const auto size = static_cast<size_t>(length) * static_cast<size_t>(shape.num_kv_heads) *
                        static_cast<size_t>(shape.head_dim);
      keys_.push_back(random_bf16(size, random_, 1.5f));
      values_.push_back(random_bf16(size, random_));
      queries_.push_back(random_bf16(
          static_cast<size_t>(length) * static_cast<size_t>(shape.num_heads * shape.head_dim),
          random_, 1.5f));
    }
  }

  // Fills the pages for a step: positions that a chunk's rows may see, NaN elsewhere.
  void upload(const std::vector<Chunk>& chunks) {
    std::vector<uint16_t> pool(static_cast<size_t>(num_pages_ * shape_.page_bytes() / 2), kPoison);
    KvPages pages = pages_at(reinterpret_cast<uint8_t*>(pool.data()));
    for (size_t s = 0; s < chunks.size(); ++s) {
      const int end = chunks[s].first_position + chunks[s].num_rows;
      const int begin =
          shape_.window > 0 ? std::max(0, chunks[s].first_position - shape_.window + 1) : 0;
      for (int p = begin; p < end; ++p) {
        const int64_t offset =
            int64_t{block_tables[s][static_cast<size_t>(p / 16)]} * shape_.page_bytes() / 2 +
            p % 16 * shape_.head_dim;
        for (int h = 0; h < shape_.num_kv_heads; ++h) {
          const size_t from = kv_index(p, h);
          const auto bytes = static_cast<size_t>(shape_.head_dim) * 2;
          std::memcpy(static_cast<void*>(pages.keys(h) + offset), &keys_[s][from], bytes);
          std::memcpy(static_cast<void*>(pages.values(h) + offset), &values_[s][from], bytes);
        }
      }
    }
    if (pool_.size() != pool.size()) pool_ = DeviceArray<uint16_t>(pool.size());
    pool_.assign(pool);
  }

  KvPages pages() const { return pages_at(reinterpret_cast<uint8_t*>(pool_.data())); }

  // qkv of the chunks' rows; what is not q is NaN, since attention must not read it.
  std::vector<uint16_t> qkv(const std::vector<Chunk>& chunks, int rows) const {
    const auto cols = static_cast<size_t>(shape_.qkv_cols());
    const auto q_cols = static_cast<size_t>(shape_.num_heads * shape_.head_dim);
    std::vector<uint16_t> result(static_cast<size_t>(rows) * cols, kPoison);
    size_t row = 0;
    for (size_t s = 0; s < chunks.size(); ++s) {
      for (int i = 0; i < chunks[s].num_rows; ++i, ++row) {
        const auto position = static_cast<size_t>(chunks[s].first_position + i);
        std::copy_n(queries_[s].begin() + static_cast<int64_t>(position * q_cols), q_cols,
                    result.begin() + static_cast<int64_t>(row * cols));
      }
    }
    return result;
  }

  // softmax(score) v in float64, [num_heads * head_dim] of one row.
  std::vector<double> reference(size_t s, int position) const {
    const auto dim = static_cast<size_t>(shape_.head_dim);
    const int lo = shape_.window > 0 ? std::max(0, position - shape_.window + 1) : 0;
    const double scale = attention_scale();
    std::vector<double> out(static_cast<size_t>(shape_.num_heads) * dim, 0.0);
    std::vector<double> score(static_cast<size_t>(position + 1));
    for (int h = 0; h < shape_.num_heads; ++h) {
      const int kv_head = h / (shape_.num_heads / shape_.num_kv_heads);
      const uint16_t* q =
          &queries_[s][(static_cast<size_t>(position) * static_cast<size_t>(shape_.num_heads) +
                        static_cast<size_t>(h)) *
                       dim];
      double max = -std::numeric_limits<double>::infinity();
      for (int p = lo; p <= position; ++p) {
        const uint16_t* k = &keys_[s][kv_index(p, kv_head)];
        double dot = 0.0;
        for (size_t d = 0; d < dim; ++d) dot += double{to_float(q[d])} * double{to_float(k[d])};
        dot *= scale;
        if (shape_.soft_cap > 0) dot = shape_.soft_cap * std::tanh(dot / shape_.soft_cap);
        score[static_cast<size_t>(p)] = dot;
        max = std::max(max, dot);
      }
      double sum = 0.0;
      double* o = &out[static_cast<size_t>(h) * dim];
      for (int p = lo; p <= position; ++p) {
        const double weight = std::exp(score[static_cast<size_t>(p)] - max);
        const uint16_t* v = &values_[s][kv_index(p, kv_head)];
        sum += weight;
        for (size_t d = 0; d < dim; ++d) o[d] += weight * double{to_float(v[d])};
      }
      for (size_t d = 0; d < dim; ++d) o[d] /= sum;
    }
    return out;
  }

  float attention_scale() const { return 1.0f / std::sqrt(static_cast<float>(shape_.head_dim)); }

  std::vector<std::vector<int32_t>> block_tables;

 private:
  size_t kv_index(int position, int kv_head) const {
    return (static_cast<size_t>(position) * static_cast<size_t>(shape_.num_kv_heads) +
            static_cast<size_t>(kv_head)) *
           static_cast<size_t>(shape_.head_dim);
  }
  KvPages pages_at(uint8_t* pool) const {
    return {pool, shape_.page_bytes(), kLayer, shape_.num_kv_heads, shape_.head_dim};
  }

  Shape shape_;
  std::mt19937 random_;
  int num_pages_ = 0;
  std::vector<std::vector<uint16_t>> keys_;     // [position][kv_head][head_dim]
  std::vector<std::vector<uint16_t>> values_;   // [position][kv_head][head_dim]
  std::vector<std::vector<uint16_t>> queries_;  // [position][head][head_dim]
  DeviceArray<uint16_t> pool_;
};

class Runner {
 public:
  Runner(const Shape& shape, int max_spans)
      : shape_(shape),
        workspace_(static_cast<size_t>(attention_decode_workspace_bytes(
            max_spans, shape.num_heads, shape.num_kv_heads, shape.head_dim))) {
    workspace_.fill_bytes(0);
  }

  // The outputs [rows, num_heads * head_dim] of a step, poisoned before both kernels ran.
  std::vector<uint16_t> run(Sequences& sequences, const std::vector<Chunk>& chunks,
                            int bucket_rows = 0) {
    sequences.upload(chunks);
    UploadedStep step(chunks, sequences.block_tables, bucket_rows);
    DeviceArray<uint16_t> qkv(sequences.qkv(chunks, step.rows));
    DeviceArray<uint16_t> out(static_cast<size_t>(step.rows) *
                              static_cast<size_t>(shape_.num_heads * shape_.head_dim));
    out.fill_bytes(0xff);
    const Attention args = attention(sequences, qkv, out, step);
    attention_decode(args, step.arrays, workspace_.data(), nullptr);
    attention_prefill(args, step.arrays, nullptr);
    LORAX_CUDA(cudaDeviceSynchronize());
    return out.read();
  }

  Attention attention(const Sequences& sequences, const DeviceArray<uint16_t>& qkv,
                      const DeviceArray<uint16_t>& out, const UploadedStep& step) const {
    Attention args;
    args.qkv = reinterpret_cast<const __nv_bfloat16*>(qkv.data());
    args.out = reinterpret_cast<__nv_bfloat16*>(out.data());
    args.rows = step.rows;
    args.max_spans =
        std::max(step.counts.num_spans, step.rows - step.counts.num_rows + step.counts.num_spans);
    args.num_heads = shape_.num_heads;
    args.pages = sequences.pages();
    args.scale = sequences.attention_scale();
    args.sliding_window = shape_.window;
    args.soft_cap = shape_.soft_cap;
    return args;
  }

  void* workspace() const { return workspace_.data(); }

 private:
  Shape shape_;
  DeviceArray<uint8_t> workspace_;
};

// ||out - ref|| / ||ref|| over all rows; NaN if any element is.
double error_of(const Shape& shape, const Sequences& sequences, const std::vector<Chunk>& chunks,
                const std::vector<uint16_t>& out) {
  struct Row {
    size_t sequence;
    int position;
  };
  std::vector<Row> rows;
  for (size_t s = 0; s < chunks.size(); ++s) {
    for (int i = 0; i < chunks[s].num_rows; ++i) rows.push_back({s, chunks[s].first_position + i});
  }
  const auto cols = static_cast<size_t>(shape.num_heads * shape.head_dim);
  std::vector<std::pair<double, double>> sums(rows.size());
  on_all_cores(static_cast<int64_t>(rows.size()), [&](int64_t r) {
    const std::vector<double> reference = sequences.reference(rows[r].sequence, rows[r].position);
    for (size_t c = 0; c < cols; ++c) {
      const double difference = to_float(out[static_cast<size_t>(r) * cols + c]) - reference[c];
      sums[r].first += difference * difference;
      sums[r].second += reference[c] * reference[c];
    }
  });
  double difference = 0.0;
  double norm = 0.0;
  for (const auto& [of_row, norm_of_row] : sums) {
    difference += of_row;
    norm += norm_of_row;
  }
  return std::sqrt(difference / norm);
}

std::vector<int> lengths_of(const std::vector<Chunk>& chunks) {
  std::vector<int> lengths;
  for (const Chunk& chunk : chunks) lengths.push_back(chunk.first_position + chunk.num_rows);
  return lengths;
}

double run_and_compare(const Shape& shape, const std::vector<Chunk>& chunks, uint32_t seed) {
  Sequences sequences(shape, lengths_of(chunks), seed);
  Runner runner(shape, static_cast<int>(chunks.size()));
  return error_of(shape, sequences, chunks, runner.run(sequences, chunks));
}

class AttentionOfShape : public testing::TestWithParam<Shape> {};

TEST_P(AttentionOfShape, DecodesAtRaggedLengths) {
  std::vector<Chunk> chunks;
  for (const int position : {0, 1, 14, 15, 16, 17, 62, 63, 64, 199, 255, 256, 257, 700, 1999}) {
    chunks.push_back({position, 1});
  }
  EXPECT_LE(run_and_compare(GetParam(), chunks, 1), kTolerance);
}

TEST_P(AttentionOfShape, PrefillsChunksThatBeginAnywhereBesideDecodes) {
  const std::vector<Chunk> chunks = {{0, 2},   {0, 129},  {5, 1},  {15, 2},   {16, 47}, {0, 1},
                                     {63, 66}, {777, 70}, {31, 3}, {1200, 1}, {640, 5}};
  EXPECT_LE(run_and_compare(GetParam(), chunks, 2), kTolerance);
}

std::string name_of(const testing::TestParamInfo<Shape>& info) {
  const Shape& shape = info.param;
  return "Heads" + std::to_string(shape.num_heads) + "Kv" + std::to_string(shape.num_kv_heads) +
         "Dim" + std::to_string(shape.head_dim) + "Window" + std::to_string(shape.window) + "Cap" +
         std::to_string(static_cast<int>(shape.soft_cap));
}

INSTANTIATE_TEST_SUITE_P(Shapes, AttentionOfShape,
                         testing::Values(Shape{8, 2, 16}, Shape{6, 2, 24}, Shape{4, 4, 32},
                                         Shape{9, 3, 64}, Shape{14, 2, 64}, Shape{4, 4, 80},
                                         Shape{6, 2, 96}, Shape{32, 8, 128}, Shape{28, 4, 128},
                                         Shape{8, 4, 256}, Shape{5, 1, 128}, Shape{20, 1, 64},
                                         Shape{8, 8, 128}, Shape{8, 2, 128, 5},
                                         Shape{8, 2, 128, 64}, Shape{8, 2, 64, 64, 30},
                                         Shape{8, 4, 256, 64, 50}, Shape{8, 2, 128, 0, 30},
                                         Shape{8, 2, 96, 5, 50}, Shape{8, 2, 80, 1}),
                         name_of);

TEST(AttentionDecode, SplitsLongContexts) {
  for (const Shape& shape : {Shape{8, 2, 128}, Shape{32, 8, 64}, Shape{8, 2, 128, 4096}}) {
    EXPECT_LE(run_and_compare(shape, {{9999, 1}, {40000, 1}, {300, 1}, {4095, 1}}, 3), kTolerance);
  }
}

// A split context among neighbours that keep the device busy without it.
TEST(AttentionDecode, SplitsALongContextAmongManyShort) {
  std::vector<Chunk> chunks;
  for (int s = 0; s < 150; ++s) chunks.push_back({s == 70 ? 40000 : s * 7, 1});
  for (const Shape& shape : {Shape{8, 2, 128}, Shape{8, 2, 64}}) {
    EXPECT_LE(run_and_compare(shape, chunks, 10), kTolerance);
  }
}

// From one item a block, which all warps share, to more than its warps, and every remainder.
TEST(AttentionDecode, AnyNumberOfRows) {
  const Shape shape{8, 8, 128};
  for (const int rows : {1, 2, 17, 33, 50, 66, 83, 100, 117, 133, 150, 200}) {
    std::vector<Chunk> chunks;
    for (int s = 0; s < rows; ++s) chunks.push_back({(s * 397 + rows) % 150, 1});
    Sequences sequences(shape, lengths_of(chunks), 4);
    Runner runner(shape, rows);
    const std::vector<uint16_t> out = runner.run(sequences, chunks);
    EXPECT_LE(error_of(shape, sequences, chunks, out), kTolerance) << rows << " rows";
    EXPECT_EQ(out, runner.run(sequences, chunks)) << rows << " rows, again";
  }
}

// More spans than a block has threads, and more items than a warp finds at once.
TEST(AttentionDecode, ManyShortSequences) {
  const Shape shape{16, 16, 16};
  std::vector<Chunk> chunks;
  for (int s = 0; s < 1500; ++s) chunks.push_back({s * 31 % 50, 1});
  EXPECT_LE(run_and_compare(shape, chunks, 11), kTolerance);
}

TEST(AttentionDecode, LeavesPaddingAndPrefillRowsAlone) {
  const Shape shape{8, 2, 64};
  const std::vector<Chunk> chunks = {{30, 1}, {500, 1}, {9, 1}};
  Sequences sequences(shape, lengths_of(chunks), 5);
  Runner runner(shape, 16);
  const std::vector<uint16_t> out = runner.run(sequences, chunks, 16);
  EXPECT_LE(error_of(shape, sequences, chunks, out), kTolerance);
  const auto cols = static_cast<size_t>(shape.num_heads * shape.head_dim);
  for (size_t i = chunks.size() * cols; i < out.size(); ++i) ASSERT_EQ(out[i], kPoison);
}

TEST(AttentionDecode, OneGraphServesAnyLengths) {
  const Shape shape{32, 8, 128};
  const std::vector<Chunk> first = {{100, 1}, {3000, 1}, {17, 1}, {900, 1}};
  const std::vector<Chunk> second = {{2000, 1}, {31, 1}, {255, 1}};
  std::vector<int> lengths = {2001, 3001, 256, 901};
  Sequences sequences(shape, lengths, 6);
  Runner runner(shape, 4);
  UploadedStep step(first, sequences.block_tables);
  DeviceArray<uint16_t> qkv(sequences.qkv(first, 4));
  DeviceArray<uint16_t> out(static_cast<size_t>(4 * shape.num_heads * shape.head_dim));
  sequences.upload(first);
  cudaStream_t stream = nullptr;
  LORAX_CUDA(cudaStreamCreate(&stream));
  LORAX_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  const Attention args = runner.attention(sequences, qkv, out, step);
  attention_decode(args, step.arrays, runner.workspace(), stream);
  attention_decode(args, step.arrays, runner.workspace(), stream);
  cudaGraph_t graph = nullptr;
  LORAX_CUDA(cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t replay = nullptr;
  LORAX_CUDA(cudaGraphInstantiate(&replay, graph, 0));

  for (const auto& chunks : {first, second}) {
    sequences.upload(chunks);
    UploadedStep now(chunks, sequences.block_tables, 4);
    step.d_counts.assign(now.d_counts.read());
    step.d_positions.assign(now.positions);
    step.d_row_span.assign(now.row_span);
    step.d_spans.assign(now.d_spans.read());
    step.d_tables.assign(now.d_tables.read());
    qkv.assign(sequences.qkv(chunks, 4));
    out.fill_bytes(0xff);
    LORAX_CUDA(cudaGraphLaunch(replay, stream));
    LORAX_CUDA(cudaStreamSynchronize(stream));
    EXPECT_LE(error_of(shape, sequences, chunks, out.read()), kTolerance);
  }
  LORAX_CUDA(cudaGraphExecDestroy(replay));
  LORAX_CUDA(cudaGraphDestroy(graph));
  LORAX_CUDA(cudaStreamDestroy(stream));
}

// Early reads of old pages must not pass by what the kernel just before stores.
TEST(AttentionDecode, SeesWhatRopeStoresJustBefore) {
  const Shape shape{32, 8, 128};
  std::vector<Chunk> chunks;
  for (int s = 0; s < 64; ++s) chunks.push_back({s * 5, 1});
  Sequences sequences(shape, lengths_of(chunks), 7);
  sequences.upload(chunks);
  UploadedStep step(chunks, sequences.block_tables);
  std::mt19937 random(8);
  DeviceArray<float> inv_freq(std::vector<float>(64, 0.37f));
  DeviceArray<uint16_t> out(static_cast<size_t>(64 * shape.num_heads * shape.head_dim));
  Runner runner(shape, 64);
  for (int round = 0; round < 20; ++round) {
    DeviceArray<uint16_t> qkv(random_bf16(static_cast<size_t>(64 * shape.qkv_cols()), random));
    const Attention args = runner.attention(sequences, qkv, out, step);
    RopeKv rope;
    rope.qkv = reinterpret_cast<__nv_bfloat16*>(qkv.data());
    rope.rows = 64;
    rope.num_heads = shape.num_heads;
    rope.pages = args.pages;
    rope.inv_freq = inv_freq.data();
    rope_and_store_kv(rope, step.arrays, nullptr);
    attention_decode(args, step.arrays, runner.workspace(), nullptr);
    const std::vector<uint16_t> behind = out.read();
    attention_decode(args, step.arrays, runner.workspace(), nullptr);
    ASSERT_EQ(behind, out.read()) << "round " << round;
  }
}

// Many chunks: a difference in the last bit of a float32 shows in few of the bfloat16 outputs.
TEST(AttentionPrefill, ARowIsTheSameBitsWhateverTheChunks) {
  for (const Shape& shape : {Shape{8, 2, 128}, Shape{9, 3, 64}, Shape{8, 2, 128, 96}}) {
    const std::vector<Chunk> whole = {{0, 533}, {0, 100}};
    Sequences sequences(shape, lengths_of(whole), 9);
    Runner runner(shape, 2);
    const std::vector<uint16_t> expected = runner.run(sequences, whole);
    const auto cols = static_cast<size_t>(shape.num_heads * shape.head_dim);
    std::mt19937 random(10);
    for (int split = 0; split < 12; ++split) {
      const int most = 1 << (4 + split % 5);
      for (int begin = 0; begin < whole[0].num_rows;) {
        const int rows = std::min(1 + static_cast<int>(random() % static_cast<uint32_t>(most)),
                                  whole[0].num_rows - begin);
        if (rows == 1) {  // a decode, by another kernel
          ++begin;
          continue;
        }
        const std::vector<uint16_t> out = runner.run(sequences, {{begin, rows}, {0, 2}});
        for (size_t i = 0; i < static_cast<size_t>(rows) * cols; ++i) {
          ASSERT_EQ(out[i], expected[static_cast<size_t>(begin) * cols + i])
              << begin << " + " << i << " of a chunk of " << rows;
        }
        begin += rows;
      }
    }
  }
}

TEST(Attention, RefusesAHeadDimItHasNoKernelFor) {
  EXPECT_THROW(check_attention_head_dim(20), Error);
  EXPECT_THROW(check_attention_head_dim(512), Error);
  EXPECT_NO_THROW(check_attention_head_dim(128));
}

}  // namespace
}  // namespace lorax::cuda
