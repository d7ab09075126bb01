// A block a row of W, or 32 columns of a table; chunks of rows one after the other.
#include <cuda_bf16.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "backend/tensor_fault.h"
#include "backend/tensor_values.h"
#include "cuda/bf16_rows.h"
#include "cuda/check.h"
#include "cuda/merged_norms.h"

namespace lorax::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kColumns = 32;
constexpr int kTokens = 8;
constexpr int64_t kChunkBytes = int64_t{64} << 20;  // of a whole W, which is not on the device

// sums[row] = sum over k of (W[row, k] + scale B[row] A[:, k])^2
__global__ void row_sums_kernel(const __nv_bfloat16* w, const float* a, const float* b, float scale,
                                int32_t rank, int32_t d_in, double* sums) {
  __shared__ double parts[kThreads];
  const int64_t row = blockIdx.x;
  double sum = 0;
  for (int32_t k = threadIdx.x; k < d_in; k += kThreads) {
    float delta = 0.0f;
    for (int32_t r = 0; r < rank; ++r) {
      delta = fmaf(b[row * rank + r], a[int64_t{r} * d_in + k], delta);
    }
    const double merged = __bfloat162float(w[row * d_in + k]) + scale * delta;
    sum += merged * merged;
  }
  parts[threadIdx.x] = sum;
  __syncthreads();
  for (int step = kThreads / 2; step > 0; step /= 2) {
    if (threadIdx.x < step) parts[threadIdx.x] += parts[threadIdx.x + step];
    __syncthreads();
  }
  if (threadIdx.x == 0) sums[row] = parts[0];
}

// sums[column] += sum over the chunk's tokens of (W[token, column] + scale B[column] A[:, token])^2
__global__ void column_sums_kernel(const __nv_bfloat16* w, const float* a, const float* b,
                                   float scale, int32_t rank, int32_t hidden, int32_t all_tokens,
                                   int32_t first, int32_t count, double* sums) {
  __shared__ double parts[kTokens][kColumns];
  const int32_t column = blockIdx.x * kColumns + threadIdx.x;
  double sum = 0;
  if (column < hidden) {
    for (int32_t token = threadIdx.y; token < count; token += kTokens) {
      float delta = 0.0f;
      for (int32_t r = 0; r < rank; ++r) {
        delta =
            fmaf(b[int64_t{column} * rank + r], a[int64_t{r} * all_tokens + first + token], delta);
      }
      const double merged = __bfloat162float(w[int64_t{token} * hidden + column]) + scale * delta;
      sum += merged * merged;
    }
  }
  parts[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || column >= hidden) return;
  for (int i = 1; i < kTokens; ++i) sum += parts[i][threadIdx.x];
  sums[column] += sum;
}

class OwnStream {
 public:
  OwnStream() { LORAX_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~OwnStream() { cudaStreamDestroy(stream_); }
  OwnStream(const OwnStream&) = delete;
  OwnStream& operator=(const OwnStream&) = delete;
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

// Memory of the stream's.
template <typename T>
class StreamArray {
 public:
  StreamArray(int64_t count, cudaStream_t stream) : stream_(stream), count_(count) {
    const cudaError_t status = cudaMallocAsync(reinterpret_cast<void**>(&data_), bytes(), stream);
    if (status == cudaErrorMemoryAllocation) {
      static_cast<void>(cudaGetLastError());
      throw Error("POOL_EXHAUSTED",
                  "no device memory for " + std::to_string(bytes()) +
                      " bytes to load a DoRA adapter with: leave more (memoryFraction)",
                  {{"bytes", static_cast<double>(bytes())}});
    }
    check(status, "cudaMallocAsync");
  }
  ~StreamArray() { cudaFreeAsync(data_, stream_); }
  StreamArray(const StreamArray&) = delete;
  StreamArray& operator=(const StreamArray&) = delete;

  T* data() const { return data_; }
  void put(const T* from, int64_t count) {
    LORAX_CUDA(cudaMemcpyAsync(data_, from, static_cast<size_t>(count) * sizeof(T),
                               cudaMemcpyHostToDevice, stream_));
  }
  void get(T* to) const {
    LORAX_CUDA(cudaMemcpyAsync(to, data_, bytes(), cudaMemcpyDeviceToHost, stream_));
  }
  void clear() { LORAX_CUDA(cudaMemsetAsync(data_, 0, bytes(), stream_)); }

 private:
  size_t bytes() const { return static_cast<size_t>(count_) * sizeof(T); }

  cudaStream_t stream_;
  int64_t count_;
  T* data_ = nullptr;
};

std::vector<float> values_of(const TensorView& tensor) {
  std::vector<float> out(static_cast<size_t>(tensor.rows * tensor.cols));
  if (!read_floats(tensor.data, tensor.dtype, static_cast<int64_t>(out.size()), out.data())) {
    fail_tensor("ADAPTER_INVALID", tensor, "holds NaN or Inf");
  }
  return out;
}

std::vector<uint16_t> bf16_rows(const TensorView& tensor, int64_t first, int64_t count) {
  std::vector<uint16_t> out(static_cast<size_t>(count * tensor.cols));
  const auto* from = static_cast<const uint8_t*>(tensor.data);
  const int64_t row_bytes = tensor.cols * dtype_bytes(tensor.dtype);
  for (int64_t i = 0; i < count; ++i) {
    if (!to_bf16_row(from + (first + i) * row_bytes, tensor.dtype,
                     static_cast<int32_t>(tensor.cols), out.data() + i * tensor.cols)) {
      fail_tensor("ADAPTER_INVALID", tensor, "holds NaN or Inf");
    }
  }
  return out;
}

}  // namespace

std::vector<float> merged_norms(const AdapterModule& m) {
  const auto d_in = static_cast<int32_t>(m.a.cols);
  const auto d_out = static_cast<int32_t>(m.b.rows);
  const int64_t rows = m.is_table ? d_in : d_out;
  const int64_t cols = m.is_table ? d_out : d_in;
  const std::vector<float> a = values_of(m.a);
  const std::vector<float> b = values_of(m.b);
  const OwnStream stream;
  StreamArray<float> a_on_device(static_cast<int64_t>(a.size()), stream);
  StreamArray<float> b_on_device(static_cast<int64_t>(b.size()), stream);
  StreamArray<double> sums(d_out, stream);
  a_on_device.put(a.data(), static_cast<int64_t>(a.size()));
  b_on_device.put(b.data(), static_cast<int64_t>(b.size()));
  sums.clear();

  const auto add = [&](const __nv_bfloat16* w, int64_t first, int64_t count) {
    if (m.is_table) {
      const dim3 block(kColumns, kTokens);
      column_sums_kernel<<<(d_out + kColumns - 1) / kColumns, block, 0, stream>>>(
          w, a_on_device.data(), b_on_device.data(), m.scale, m.rank, d_out, d_in,
          static_cast<int32_t>(first), static_cast<int32_t>(count), sums.data());
    } else {
      row_sums_kernel<<<static_cast<unsigned>(count), kThreads, 0, stream>>>(
          w, a_on_device.data(), b_on_device.data() + first * m.rank, m.scale, m.rank, d_in,
          sums.data() + first);
    }
    check_launch("merged_norms");
  };
  if (m.whole.data == nullptr) {
    const auto& base = static_cast<const DeviceWeight&>(*m.base);
    add(base.values.as<__nv_bfloat16>() + m.base_row * cols, 0, rows);
  } else {
    const int64_t step = std::clamp<int64_t>(kChunkBytes / (cols * 2), 1, rows);
    StreamArray<uint16_t> chunk(step * cols, stream);
    for (int64_t first = 0; first < rows; first += step) {
      const int64_t count = std::min(step, rows - first);
      const std::vector<uint16_t> values = bf16_rows(m.whole, first, count);
      chunk.put(values.data(), count * cols);
      add(reinterpret_cast<const __nv_bfloat16*>(chunk.data()), first, count);
      LORAX_CUDA(cudaStreamSynchronize(stream));
    }
  }
  std::vector<double> squares(static_cast<size_t>(d_out));
  sums.get(squares.data());
  LORAX_CUDA(cudaStreamSynchronize(stream));
  std::vector<float> norms;
  for (const double square : squares) norms.push_back(static_cast<float>(std::sqrt(square)));
  return norms;
}

bool is_base(const AdapterModule& m) {
  const auto& base = static_cast<const DeviceWeight&>(*m.base);
  const int64_t rows = m.whole.rows;
  const int64_t cols = m.whole.cols;
  const OwnStream stream;
  // Trained weights differ soon: a little is looked at first.
  const int64_t most = std::max<int64_t>(kChunkBytes / (cols * 2), 1);
  std::vector<uint16_t> there;
  for (int64_t first = 0, count = 0; first < rows; first += count) {
    count = std::min<int64_t>(first == 0 ? 16 : most, rows - first);
    there.resize(static_cast<size_t>(count * cols));
    LORAX_CUDA(cudaMemcpyAsync(there.data(),
                               base.values.as<uint16_t>() + (m.base_row + first) * cols,
                               there.size() * 2, cudaMemcpyDeviceToHost, stream));
    LORAX_CUDA(cudaStreamSynchronize(stream));
    if (bf16_rows(m.whole, first, count) != there) return false;
  }
  return true;
}

std::vector<float> base_bias(const AdapterModule& m) {
  const auto& base = static_cast<const DeviceWeight&>(*m.base);
  if (base.bias.bytes() == 0) return {};
  const OwnStream stream;
  std::vector<float> out(static_cast<size_t>(m.b.rows));
  LORAX_CUDA(cudaMemcpyAsync(out.data(), base.bias.as<float>() + m.base_row,
                             out.size() * sizeof(float), cudaMemcpyDeviceToHost, stream));
  LORAX_CUDA(cudaStreamSynchronize(stream));
  return out;
}

}  // namespace lorax::cuda
