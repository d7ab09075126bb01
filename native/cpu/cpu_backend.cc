// Creation, load-time packing, the page arena and the small operations of a step.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

#include "backend/base_copies.h"
#include "cpu/amx_check.h"
#include "cpu/cpu_backend_impl.h"
#include "cpu/machine_limits.h"
#include "cpu/merged_norms.h"
#include "cpu/sample.h"

namespace lorax {
namespace cpu {
namespace {

const Kernels& kernels_of(Isa isa, bool bf16) {
#if defined(LORAX_HAVE_AVX512)
  if (isa == Isa::kAvx512 || isa == Isa::kAmx) return avx512_kernels(bf16);
#endif
#if defined(LORAX_HAVE_AVX2)
  if (isa == Isa::kAvx2) return avx2_kernels(bf16);
#endif
  (void)isa;
  return portable_kernels(bf16);
}

}  // namespace

CpuBackend::CpuBackend(Precision precision, Isa isa, int threads, const AmxKernels* amx)
    : precision_(precision),
      isa_(isa),
      kernels_(kernels_of(isa, precision == Precision::kBFloat16)),
      amx_(amx),
      pool_(threads) {}

BackendInfo CpuBackend::info() const {
  return {"cpu", std::string(isa_name(isa_)) + ", " + std::to_string(pool_.size()) +
                     (pool_.size() == 1 ? " thread, " : " threads, ") +
                     (bf16() ? "bf16 weights and KV" : "float32 weights and KV")};
}

std::unique_ptr<Weight> CpuBackend::pack_weight(std::span<const TensorView> tensors,
                                                std::span<const TensorView> biases) {
  return cpu::pack_weight(tensors, biases, bf16(), pool_);
}

std::unique_ptr<Vector> CpuBackend::pack_vector(const TensorView& tensor) {
  return cpu::pack_vector(tensor);
}

int64_t CpuBackend::page_bytes(const KvLayout& layout) const {
  return KvPageLayout{layout, bf16() ? 2 : 4}.page_bytes();
}

void CpuBackend::reserve(const KvLayout& layout, const RopeConfig& rope, int32_t max_rows,
                         int32_t max_logits_rows) {
  layout_ = {layout, bf16() ? 2 : 4};
  rope_ = rope;
  // Buffers grow to what a step needs when it needs it; only the plan's own arrays are sized here.
  step_.block_rows.reserve(static_cast<size_t>(std::max(max_rows, max_logits_rows)));
}

int32_t CpuBackend::allocate_pages(int64_t memory_bytes, int32_t context_tokens) {
  const int64_t page = layout_.page_bytes();
  const int64_t needed =
      (std::max(context_tokens, 1) + int64_t{kBlockTokens} - 1) / kBlockTokens * page;
  const int64_t available = available_memory_bytes();
  int64_t budget = memory_bytes;
  if (budget > available) {
    throw Error("POOL_EXHAUSTED",
                "a pool of " + std::to_string(budget) + " bytes (memoryBytes) is asked for, but " +
                    std::to_string(available) + " bytes of memory are available",
                {{"memoryBytes", static_cast<double>(budget)},
                 {"availableBytes", static_cast<double>(available)}});
  }
  if (budget <= 0) {
    // Pages are committed when first touched, so an unused pool costs nothing.
    constexpr int64_t kMost = int64_t{4} << 30;
    budget = std::min(std::max(std::min(available / 4, kMost), needed), available / 2);
  }
  if (budget < page) {
    throw Error(
        "POOL_EXHAUSTED",
        "a pool of " + std::to_string(budget) + " bytes has no room for one page of " +
            std::to_string(page) + " bytes (" + std::to_string(kBlockTokens) +
            " tokens): give more memory (memoryBytes)",
        {{"memoryBytes", static_cast<double>(budget)}, {"pageBytes", static_cast<double>(page)}});
  }
  num_pages_ = static_cast<int32_t>(std::min<int64_t>(budget / page, INT32_MAX));
  arena_ = HostBuffer(num_pages_ * page);
  return num_pages_;
}

std::unique_ptr<AdapterImage> CpuBackend::pack_adapter(std::span<const AdapterModule> modules) {
  const std::vector<AdapterModule> own =
      without_base_copies(modules, [&](const AdapterModule& m) { return is_base(m, bf16()); });
  return cpu::pack_adapter(own, bf16(), layout_.page_bytes());
}

std::unique_ptr<ResidentAdapter> CpuBackend::place_adapter(const AdapterImage& image,
                                                           std::span<const int32_t> pages) {
  const auto begin = std::chrono::steady_clock::now();
  auto placed = cpu::place_adapter(static_cast<const PackedAdapter&>(image), pages, arena());
  const std::chrono::nanoseconds took = std::chrono::steady_clock::now() - begin;
  page_loads_.add(image.num_pages, took.count());
  return placed;
}

void CpuBackend::begin_step(const StepPlan& plan) {
  step_.plan = &plan;
  step_.samples.clear();
  step_.ended_sums.clear();
  step_.block_rows.clear();
  for (const SequenceSpan& span : plan.spans) {
    for (int32_t row = 0; row < span.num_rows;) {
      const int32_t position = span.first_position + row;
      const int32_t count = std::min(span.num_rows - row, kBlockTokens - position % kBlockTokens);
      step_.block_rows.push_back({&span, span.first_row + row, count, position});
      row += count;
    }
  }
  // The longest first, so that the threads end together.
  std::stable_sort(step_.block_rows.begin(), step_.block_rows.end(),
                   [](const BlockRows& a, const BlockRows& b) {
                     return a.first_position / kBlockTokens > b.first_position / kBlockTokens;
                   });

  // The angle is rounded to float32 as in the reference implementations, its cosine is exact.
  half_dim_ = static_cast<int32_t>(rope_.inv_freq.size());
  const int64_t bytes = int64_t{plan.num_rows()} * half_dim_ * 4;
  step_.cos.ensure(bytes);
  step_.sin.ensure(bytes);
  for_rows(plan.num_rows(), half_dim_ * 16, [&](int32_t row) {
    float* cos = step_.cos.as<float>() + int64_t{row} * half_dim_;
    float* sin = step_.sin.as<float>() + int64_t{row} * half_dim_;
    for (int32_t i = 0; i < half_dim_; ++i) {
      const float angle = static_cast<float>(plan.positions[row]) * rope_.inv_freq[i];
      cos[i] = static_cast<float>(std::cos(double{angle})) * rope_.magnitude;
      sin[i] = static_cast<float>(std::sin(double{angle})) * rope_.magnitude;
    }
  });
}

Activation CpuBackend::rms_norm(const Activation& residual, const Vector& gain, float eps) {
  step_.norm_out.ensure(int64_t{residual.rows} * residual.cols * 4);
  float* out = step_.norm_out.as<float>();
  float* in = static_cast<float*>(residual.data);
  const float* g = static_cast<const FloatVector&>(gain).values.data();
  for_rows(residual.rows, residual.cols, [&](int32_t row) {
    const int64_t at = int64_t{row} * residual.cols;
    kernels_.rms_norm(in + at, nullptr, g, eps, residual.cols, out + at);
  });
  return {out, residual.rows, residual.cols};
}

Activation CpuBackend::add_rms_norm(Activation& residual, const Activation& delta,
                                    const Vector& gain, float eps, bool sampled_rows) {
  const int32_t cols = residual.cols;
  float* x = static_cast<float*>(residual.data);
  const float* d = static_cast<const float*>(delta.data);
  const float* g = static_cast<const FloatVector&>(gain).values.data();
  const std::vector<int32_t>& rows = step_.plan->logits_rows;
  const int32_t out_rows = sampled_rows ? static_cast<int32_t>(rows.size()) : residual.rows;
  step_.norm_out.ensure(int64_t{out_rows} * cols * 4);
  float* out = step_.norm_out.as<float>();
  for_rows(residual.rows, cols, [&](int32_t row) {
    const int64_t at = int64_t{row} * cols;
    kernels_.rms_norm(x + at, d + at, g, eps, cols, sampled_rows ? nullptr : out + at);
  });
  if (sampled_rows) {
    for_rows(out_rows, cols, [&](int32_t i) {
      kernels_.rms_norm(x + int64_t{rows[i]} * cols, nullptr, g, eps, cols,
                        out + int64_t{i} * cols);
    });
  }
  return {out, out_rows, cols};
}

Activation CpuBackend::silu_mul(const Activation& gate_up) {
  const int32_t width = gate_up.cols / 2;
  silu_out_.ensure(int64_t{gate_up.rows} * width * 4);
  float* out = silu_out_.as<float>();
  const float* in = static_cast<const float*>(gate_up.data);
  for_rows(gate_up.rows, width * 2, [&](int32_t row) {
    const float* gate = in + int64_t{row} * gate_up.cols;
    kernels_.silu_mul(gate, gate + width, width, out + int64_t{row} * width);
  });
  return {out, gate_up.rows, width};
}

void CpuBackend::sample(const Activation& logits) {
  const float* rows = static_cast<const float*>(logits.data);
  step_.samples.resize(step_.plan->samples.size());
  pool_.run(static_cast<int64_t>(step_.samples.size()), [&](int64_t i, int) {
    sample_row(rows + i * logits.cols, logits.cols, step_.plan->samples[i], &step_.samples[i]);
  });
}

void CpuBackend::read_logits(const Activation& logits, std::span<float> out) {
  const size_t count = static_cast<size_t>(logits.rows) * logits.cols;
  std::memcpy(out.data(), logits.data, std::min(out.size(), count) * sizeof(float));
}

void CpuBackend::collect(std::span<SampleResult> results) {
  std::move(step_.samples.begin(), step_.samples.end(), results.begin());
}

}  // namespace cpu

std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options) {
  Isa isa = options.isa;
  if (isa == Isa::kAuto) {
    for (Isa best : {Isa::kAmx, Isa::kAvx512, Isa::kAvx2, Isa::kPortable}) {
      // Tiles multiply bf16 only.
      if (best == Isa::kAmx && options.precision == Precision::kFloat32) continue;
#if defined(LORAX_HAVE_AMX)
      if (best == Isa::kAmx && isa_available(best) && !cpu::computes_exactly(cpu::amx_kernels())) {
        continue;
      }
#endif
      if (isa_available(best)) {
        isa = best;
        break;
      }
    }
  }
  if (!isa_available(isa)) {
    throw Error("INVALID_OPTIONS",
                std::string("this processor or build has no ") + isa_name(isa) +
                    ": leave the instruction set out to have the best one chosen",
                {{"isa", std::string(isa_name(isa))}});
  }
  if (isa == Isa::kAmx && options.precision == Precision::kFloat32) isa = Isa::kAvx512;
  int threads = options.threads;
  if (threads <= 0) threads = cpu::usable_cores();
  const cpu::AmxKernels* amx = nullptr;
#if defined(LORAX_HAVE_AMX)
  if (isa == Isa::kAmx) amx = &cpu::amx_kernels();
#endif
  return std::make_unique<cpu::CpuBackend>(options.precision, isa, threads, amx);
}

}  // namespace lorax
