// Times the library's best guesses as steps will run them: back to back, on weights that come from
// device memory because those of the turns between have pushed them out of the cache.
#include <algorithm>
#include <chrono>
#include <random>
#include <vector>

#include "cuda/check.h"
#include "cuda/cublaslt_state.h"

namespace lorax::cuda {
namespace {

constexpr int32_t kGuesses = 8;
constexpr float kHopeless = 1.3f;       // of the best so far: its first run settles it
constexpr float kRoundMicros = 300.0f;  // a round repeats a matmul for about as long
constexpr int kMostRepeats = 10;
constexpr int kRounds = 3;
constexpr int64_t kCacheTimes = 3;  // weights in rotation, in sizes of the cache

// Device memory for the operands, full of random bf16; null data when there was not enough.
class Scratch {
 public:
  Scratch(int64_t weight_bytes, int64_t x_bytes, int64_t y_bytes) {
    const int64_t total = weight_bytes + x_bytes + y_bytes;
    if (cudaMalloc(&data_, static_cast<size_t>(total)) != cudaSuccess) {
      cudaGetLastError();
      data_ = nullptr;
      return;
    }
    weight = static_cast<uint8_t*>(data_);
    x = weight + weight_bytes;
    y = x + x_bytes;
    // Zeros would draw less power, and so run faster, than any model does.
    std::vector<uint16_t> random(1 << 20);
    std::minstd_rand generator(1);
    for (uint16_t& value : random) {
      // Sign, mantissa, and an exponent of 2^-8 to 2^-1.
      const uint32_t bits = static_cast<uint32_t>(generator());
      value = static_cast<uint16_t>((bits & 0x8000) | (119 + (bits >> 7) % 8) << 7 | (bits & 0x7F));
    }
    int64_t filled = std::min<int64_t>(total, static_cast<int64_t>(random.size()) * 2);
    LORAX_CUDA(
        cudaMemcpy(data_, random.data(), static_cast<size_t>(filled), cudaMemcpyHostToDevice));
    while (filled < total) {
      const int64_t more = std::min(filled, total - filled);
      LORAX_CUDA(
          cudaMemcpy(weight + filled, weight, static_cast<size_t>(more), cudaMemcpyDeviceToDevice));
      filled += more;
    }
  }
  ~Scratch() { cudaFree(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  explicit operator bool() const { return data_ != nullptr; }

  uint8_t* weight = nullptr;
  uint8_t* x = nullptr;
  uint8_t* y = nullptr;

 private:
  void* data_ = nullptr;
};

class Timer {
 public:
  explicit Timer(cudaStream_t stream) : stream_(stream) {
    LORAX_CUDA(cudaEventCreate(&begin_));
    LORAX_CUDA(cudaEventCreate(&end_));
  }
  ~Timer() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  template <typename Work>
  float micros(Work&& work) {
    LORAX_CUDA(cudaEventRecord(begin_, stream_));
    work();
    LORAX_CUDA(cudaEventRecord(end_, stream_));
    LORAX_CUDA(cudaEventSynchronize(end_));
    float millis = 0.0f;
    LORAX_CUDA(cudaEventElapsedTime(&millis, begin_, end_));
    return millis * 1000.0f;
  }

 private:
  cudaStream_t stream_;
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
};

int64_t round_up(int64_t bytes) { return (bytes + 255) / 256 * 256; }

// One (shape, bucket) to choose for.
struct Question {
  GemmShape shape;
  int32_t rows;

  int64_t weight_bytes() const { return round_up(int64_t{shape.n} * shape.k * 2); }
  int64_t x_bytes() const { return round_up(int64_t{rows} * shape.k * 2); }
  int64_t y_bytes() const {
    return round_up(int64_t{rows} * shape.n * (shape.float_output ? 4 : 2));
  }
};

class Contest {
 public:
  Contest(CublasLt::State& state, const Scratch& scratch, int64_t weight_space, cudaStream_t stream)
      : state_(state),
        scratch_(scratch),
        weight_space_(weight_space),
        stream_(stream),
        timer_(stream) {}

  cublasLtMatmulAlgo_t fastest(const Question& question) {
    const auto guesses = state_.guesses(question.shape, question.rows, kGuesses);
    cublasLtMatmulAlgo_t best = guesses.front();
    float best_micros = 0.0f;
    for (const cublasLtMatmulAlgo_t& algo : guesses) {
      if (!runs(question, algo)) continue;  // warms up: the first run loads the kernel
      const float once = timer_.micros([&] { runs(question, algo); });
      if (best_micros > 0.0f && once > kHopeless * best_micros + 5.0f) continue;
      const int repeats = std::clamp(static_cast<int>(kRoundMicros / once), 1, kMostRepeats);
      float rounds[kRounds];
      for (float& micros : rounds) {
        micros = timer_.micros([&] {
          for (int i = 0; i < repeats; ++i) runs(question, algo);
        });
        micros /= static_cast<float>(repeats);
      }
      std::sort(rounds, rounds + kRounds);
      const float median = rounds[kRounds / 2];
      if (best_micros == 0.0f || median < best_micros) {
        best_micros = median;
        best = algo;
      }
    }
    return best;
  }

 private:
  bool runs(const Question& question, const cublasLtMatmulAlgo_t& algo) {
    const int64_t bytes = question.weight_bytes();
    if (next_ + bytes > weight_space_) next_ = 0;
    GemmOperands operands;
    operands.weight = reinterpret_cast<const __nv_bfloat16*>(scratch_.weight + next_);
    operands.x = reinterpret_cast<const __nv_bfloat16*>(scratch_.x);
    operands.bias = scratch_.x;
    operands.y = scratch_.y;
    next_ += bytes;
    return state_.run(question.shape, question.rows, operands, algo, stream_) ==
           CUBLAS_STATUS_SUCCESS;
  }

  CublasLt::State& state_;
  const Scratch& scratch_;
  const int64_t weight_space_;
  int64_t next_ = 0;
  cudaStream_t stream_;
  Timer timer_;
};

}  // namespace

TuningReport CublasLt::tune(std::span<const GemmUse> uses, cudaStream_t stream) {
  const auto start = std::chrono::steady_clock::now();
  State& state = *state_;
  TuningReport report;
  GemmChoices kept = read_choices(state.cache_directory, state.owner);
  std::vector<Question> questions;
  for (const GemmUse& use : uses) {
    if (use.max_rows <= 0) continue;
    const int32_t last = row_bucket(use.max_rows);
    for (const int32_t rows : kRowBuckets) {
      if (rows > last || state.choices.contains({use.shape, rows})) continue;
      const auto found = kept.find({use.shape, rows});
      if (found != kept.end() && state.can_run(use.shape, rows, found->second)) {
        state.choices[{use.shape, rows}] = found->second;
        ++report.remembered;
      } else {
        questions.push_back({use.shape, rows});
      }
    }
  }

  if (!questions.empty()) {
    int cache_bytes = 0;
    LORAX_CUDA(cudaDeviceGetAttribute(&cache_bytes, cudaDevAttrL2CacheSize, state.device));
    int64_t weight_space = kCacheTimes * cache_bytes, x_bytes = 0, y_bytes = 0;
    for (const Question& question : questions) {
      weight_space = std::max(weight_space, question.weight_bytes());
      // The bias is read from x.
      x_bytes = std::max({x_bytes, question.x_bytes(), round_up(int64_t{question.shape.n} * 4)});
      y_bytes = std::max(y_bytes, question.y_bytes());
    }
    const Scratch scratch(weight_space, x_bytes, y_bytes);
    if (scratch) {
      Contest contest(state, scratch, weight_space, stream);
      for (const Question& question : questions) {
        const cublasLtMatmulAlgo_t best = contest.fastest(question);
        state.choices[{question.shape, question.rows}] = best;
        kept[{question.shape, question.rows}] = best;
        ++report.measured;
      }
      LORAX_CUDA(cudaStreamSynchronize(stream));
      write_choices(state.cache_directory, state.owner, kept);
    }
  }
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace lorax::cuda
