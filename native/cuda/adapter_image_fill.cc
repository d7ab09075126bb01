// fill_image() of adapter_image.h: values into the places that the layout has for them.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <system_error>
#include <thread>

#include "backend/tensor_fault.h"
#include "cuda/adapter_image.h"
#include "cuda/bf16_rows.h"

namespace lorax::cuda {
namespace {

[[noreturn]] void fail_values(const TensorView& tensor) {
  fail_tensor("ADAPTER_INVALID", tensor, "holds NaN or Inf");
}

// Threads for work(i), i < count, which must not throw.
template <typename Work>
void share_out(int64_t count, int32_t num_threads, const Work& work) {
  std::atomic<int64_t> next{0};
  const auto run = [&] {
    for (int64_t i; (i = next.fetch_add(1)) < count;) work(i);
  };
  std::vector<std::thread> threads;
  try {
    while (static_cast<int32_t>(threads.size()) + 1 < num_threads) threads.emplace_back(run);
  } catch (const std::system_error&) {
    // The system gives no more threads: those that run do the work.
  }
  run();
  for (std::thread& thread : threads) thread.join();
}

// The smallest i for which something was bad.
class FirstBad {
 public:
  void tell(int64_t i) {
    int64_t first = first_.load();
    while (i < first && !first_.compare_exchange_weak(first, i)) {
    }
  }
  int64_t first() const { return first_.load(); }

 private:
  std::atomic<int64_t> first_{std::numeric_limits<int64_t>::max()};
};

// One group of A, with room for `room` ranks: block after block, the rows of a block together, so
// that writes are sequential.
bool fill_a(const TensorView& a, int32_t first_rank, int32_t room, uint8_t* to) {
  const auto ranks = static_cast<int32_t>(std::min<int64_t>(room, a.rows - first_rank));
  const int64_t block_bytes = a_block_bytes(room);
  const int64_t row_bytes = a.cols * dtype_bytes(a.dtype);
  const auto* from = static_cast<const uint8_t*>(a.data) + first_rank * row_bytes;
  bool finite = true;
  for (int64_t k = 0; k < a.cols; k += kABlockColumns, to += block_bytes) {
    const auto columns = static_cast<int32_t>(std::min<int64_t>(kABlockColumns, a.cols - k));
    if (columns == kABlockColumns && ranks == room) {
      finite &= to_bf16_block(from + k * dtype_bytes(a.dtype), a.dtype, row_bytes, ranks, to);
      continue;
    }
    std::memset(to, 0, static_cast<size_t>(block_bytes));
    for (int32_t r = 0; r < ranks; ++r) {
      finite &= to_bf16_row(from + r * row_bytes + k * dtype_bytes(a.dtype), a.dtype, columns,
                            reinterpret_cast<uint16_t*>(to) + r * kABlockColumns);
    }
  }
  if (room < kRankGroup) std::memset(to, 0, static_cast<size_t>(block_bytes));
  return finite;
}

// One group of B: a tile of 16 outs is converted to rows, then its words are laid out by lane.
bool fill_b(const TensorView& b, int32_t first_rank, int32_t room, uint8_t* to) {
  const auto ranks = static_cast<int32_t>(std::min<int64_t>(room, b.cols - first_rank));
  const int64_t tile_bytes = b_slice_bytes(kBTileRows, room);
  const int64_t row_bytes = b.cols * dtype_bytes(b.dtype);
  const auto* from = static_cast<const uint8_t*>(b.data) + first_rank * dtype_bytes(b.dtype);
  bool finite = true;
  alignas(64) uint16_t rows[kBTileRows * kRankGroup];
  for (int64_t out = 0; out < b.rows; out += kBTileRows, to += tile_bytes) {
    const auto outs = static_cast<int32_t>(std::min<int64_t>(kBTileRows, b.rows - out));
    if (outs == kBTileRows && ranks == room) {
      finite &= to_bf16_tile(from + out * row_bytes, b.dtype, row_bytes, ranks, to);
      continue;
    }
    std::memset(rows, 0, sizeof rows);
    for (int32_t r = 0; r < outs; ++r) {
      finite &= to_bf16_row(from + (out + r) * row_bytes, b.dtype, ranks, rows + r * room);
    }
    interleave_tile(rows, room, to);
  }
  return finite;
}

// A chunk of rows of one of a module's extras, and the tensor that it comes from.
struct Chunk {
  const TensorView* from = nullptr;
  const std::vector<float>* floats = nullptr;  // instead
  bool transposed = false;
  int32_t first_row = 0;
  int32_t num_rows = 0;
  int32_t row_bytes = 0;
  uint8_t* to = nullptr;
};

bool fill_chunk(const Chunk& chunk) {
  if (chunk.floats != nullptr) {
    std::memcpy(chunk.to, chunk.floats->data() + chunk.first_row,
                static_cast<size_t>(chunk.num_rows) * sizeof(float));
    return true;
  }
  const TensorView& t = *chunk.from;
  const auto* data = static_cast<const uint8_t*>(t.data);
  const int64_t element = dtype_bytes(t.dtype);
  auto* to = reinterpret_cast<uint16_t*>(chunk.to);
  bool finite = true;
  if (!chunk.transposed) {
    for (int32_t row = 0; row < chunk.num_rows; ++row) {
      finite &= to_bf16_row(data + (chunk.first_row + row) * t.cols * element, t.dtype,
                            static_cast<int32_t>(t.cols), to + row * t.cols);
    }
    return finite;
  }
  std::vector<uint16_t> row(static_cast<size_t>(chunk.num_rows));
  for (int64_t r = 0; r < t.rows; ++r) {
    finite &= to_bf16_row(data + (r * t.cols + chunk.first_row) * element, t.dtype, chunk.num_rows,
                          row.data());
    for (int32_t i = 0; i < chunk.num_rows; ++i) to[i * t.rows + r] = row[i];
  }
  return finite;
}

std::vector<Chunk> chunks_of(std::span<const AdapterModule> modules, const ImageLayout& layout,
                             uint8_t* image, std::span<const OutputAffine> affines) {
  std::vector<Chunk> out;
  const auto add = [&](const ImageLayout::Rows& rows, Chunk chunk) {
    for (int32_t i = 0; i < rows.num_chunks(); ++i) {
      chunk.first_row = i * rows.rows_per_chunk;
      chunk.num_rows = std::min(rows.rows_per_chunk, rows.rows - chunk.first_row);
      chunk.row_bytes = rows.row_bytes;
      chunk.to = image + layout.chunk_at[static_cast<size_t>(rows.first_chunk + i)];
      out.push_back(chunk);
    }
  };
  for (const ImageLayout::Extra& extra : layout.extras) {
    const AdapterModule& m = modules[extra.index];
    add(extra.a, {.from = &m.a, .transposed = m.is_table});
    add(extra.b, {.from = &m.b});
    add(extra.whole, {.from = &m.whole});
    if (affines.empty()) continue;
    add(extra.gain, {.floats = &affines[extra.index].gain});
    add(extra.shift, {.floats = &affines[extra.index].shift});
  }
  return out;
}

}  // namespace

void fill_image(std::span<const AdapterModule> modules, const ImageLayout& layout, uint8_t* image,
                int32_t num_threads, std::span<const OutputAffine> affines) {
  // Tensor 2 i is A of module i, 2 i + 1 its B: shared out one by one, the first bad one is told.
  FirstBad bad;
  const auto num_tensors = static_cast<int64_t>(modules.size()) * 2;
  share_out(num_tensors, num_threads, [&](int64_t i) {
    const AdapterModule& m = modules[static_cast<size_t>(i / 2)];
    const ImageLayout::Module& to = layout.modules[static_cast<size_t>(i / 2)];
    bool finite = true;
    for (int32_t group = 0; group < to.num_groups; ++group) {
      const size_t slice = static_cast<size_t>(to.first_slice + 2 * group + i % 2);
      uint8_t* at = image + layout.slice_at[slice];
      const int32_t rank = group * kRankGroup;
      const int32_t room = ranks_of_group(m.rank, group);
      finite &= i % 2 == 0 ? fill_a(m.a, rank, room, at) : fill_b(m.b, rank, room, at);
    }
    if (!finite) bad.tell(i);
  });
  if (const int64_t i = bad.first(); i < num_tensors) {
    const AdapterModule& m = modules[static_cast<size_t>(i / 2)];
    fail_values(i % 2 == 0 ? m.a : m.b);
  }
  if (layout.extras.empty()) return;
  const std::vector<Chunk> chunks = chunks_of(modules, layout, image, affines);
  FirstBad bad_chunk;
  share_out(static_cast<int64_t>(chunks.size()), num_threads, [&](int64_t i) {
    if (!fill_chunk(chunks[static_cast<size_t>(i)])) bad_chunk.tell(i);
  });
  if (const int64_t i = bad_chunk.first(); i < static_cast<int64_t>(chunks.size())) {
    fail_values(*chunks[static_cast<size_t>(i)].from);
  }
}

}  // namespace lorax::cuda
