// The equations of backend.h as loops.
#include "reference_backend.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <utility>

#include "backend/base_copies.h"

namespace lorax {
namespace {

struct ReferenceWeight : Weight {
  std::vector<float> values;  // [n, k]
  std::vector<float> bias;    // [n] or empty
};

struct ReferenceVector : Vector {
  std::vector<float> values;  // [size]
};

struct ReferenceModule {
  int32_t layer = 0, module = 0, rank = 0;
  float scale = 0.0f;
  std::vector<float> a;          // [rank, d_in]
  std::vector<float> b;          // [d_out, rank]
  std::vector<float> b_bias;     // [d_out] or empty
  std::vector<float> magnitude;  // [d_out] or empty
  std::vector<float> whole;      // [d_out, d_in], of a table [d_in, d_out]; or empty
  bool is_table = false;
  std::vector<float> base;       // [d_out, d_in] of W, with a magnitude
  std::vector<float> base_bias;  // [d_out] or empty
};

struct ReferenceImage : AdapterImage {
  std::vector<ReferenceModule> modules;
};

struct ReferenceAdapter : ResidentAdapter {
  std::vector<ReferenceModule> modules;
};

float half_to_float(uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const int fraction = bits & 1023;
  const float sign = (bits >> 15) != 0 ? -1.0f : 1.0f;
  if (exponent == 31) {
    return fraction == 0 ? sign * std::numeric_limits<float>::infinity()
                         : std::numeric_limits<float>::quiet_NaN();
  }
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(fraction), -24);
  return sign * std::ldexp(static_cast<float>(fraction + 1024), exponent - 25);
}

float read_element(const TensorView& tensor, int64_t index) {
  const auto* bytes = static_cast<const uint8_t*>(tensor.data) + index * dtype_bytes(tensor.dtype);
  if (tensor.dtype == DType::kF32) {
    float value;
    std::memcpy(&value, bytes, 4);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, bytes, 2);
  if (tensor.dtype == DType::kF16) return half_to_float(bits);
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

void append_values(const TensorView& tensor, const char* code, std::vector<float>& out) {
  for (int64_t i = 0; i < tensor.rows * tensor.cols; ++i) {
    const float value = read_element(tensor, i);
    if (!std::isfinite(value)) {
      throw Error(code, std::string("tensor ") + tensor.name + " holds NaN or Inf",
                  {{"tensor", std::string(tensor.name)}});
    }
    out.push_back(value);
  }
}

const float* row_of(const Activation& x, int32_t row) {
  return static_cast<const float*>(x.data) + static_cast<int64_t>(row) * x.cols;
}

float dot(const float* x, const float* y, int64_t size) {
  double sum = 0;
  for (int64_t i = 0; i < size; ++i) sum += static_cast<double>(x[i]) * y[i];
  return static_cast<float>(sum);
}

// out = x / sqrt(mean(x^2) + eps) * gain
void norm_row(const float* x, const float* gain, int64_t size, float eps, float* out) {
  double sum = 0;
  for (int64_t i = 0; i < size; ++i) sum += static_cast<double>(x[i]) * x[i];
  const double inverse = 1.0 / std::sqrt(sum / static_cast<double>(size) + eps);
  for (int64_t i = 0; i < size; ++i) out[i] = static_cast<float>(x[i] * inverse * gain[i]);
}

// ||W + scale B A|| of one output.
double merged_norm(const ReferenceModule& module, int64_t output, int64_t d_in) {
  double sum = 0;
  for (int64_t k = 0; k < d_in; ++k) {
    double merged = module.base[output * d_in + k];
    for (int32_t r = 0; r < module.rank; ++r) {
      merged += double{module.scale} * module.b[output * module.rank + r] *
                module.a[int64_t{r} * d_in + k];
    }
    sum += merged * merged;
  }
  return std::sqrt(sum);
}

// W [d_out, d_in] of a module with a magnitude, and its bias.
void copy_base(const AdapterModule& module, ReferenceModule& to) {
  const auto& weight = static_cast<const ReferenceWeight&>(*module.base);
  const int64_t d_in = module.a.cols;
  const int64_t d_out = module.b.rows;
  const float* values =
      to.whole.empty() ? weight.values.data() + module.base_row * weight.k : to.whole.data();
  for (int64_t i = 0; i < d_out; ++i) {
    for (int64_t j = 0; j < d_in; ++j) {
      to.base.push_back(module.is_table ? values[j * d_out + i] : values[i * d_in + j]);
    }
  }
  for (int64_t i = 0; i < d_out; ++i) {
    if (merged_norm(to, i, d_in) > 0) continue;
    throw Error("ADAPTER_INVALID",
                std::string("tensor ") + module.magnitude.name + " scales output " +
                    std::to_string(i) + ", whose merged weights are all 0",
                {{"tensor", std::string(module.magnitude.name)}});
  }
  if (weight.bias.empty()) return;
  to.base_bias.assign(weight.bias.begin() + module.base_row,
                      weight.bias.begin() + module.base_row + d_out);
}

// What one adapter makes of one row y [d_out], which the base and adapters before it have made.
void add_adapter(const ReferenceModule& module, const float* x, int32_t d_in, float weight,
                 int32_t d_out, float* y) {
  std::vector<float> shrunk(module.rank);
  for (int32_t r = 0; r < module.rank; ++r) {
    shrunk[r] = dot(x, module.a.data() + int64_t{r} * d_in, d_in);
  }
  for (int32_t j = 0; j < d_out; ++j) {
    if (!module.whole.empty()) {
      double sum = 0;
      for (int64_t k = 0; k < d_in; ++k) {
        const int64_t at = module.is_table ? k * d_out + j : int64_t{j} * d_in + k;
        sum += double{x[k]} * module.whole[at];
      }
      y[j] = static_cast<float>(sum);
    }
    double delta = dot(shrunk.data(), module.b.data() + int64_t{j} * module.rank, module.rank);
    if (!module.b_bias.empty()) delta += module.b_bias[j];
    y[j] += static_cast<float>(weight * module.scale * delta);
    if (module.magnitude.empty()) continue;
    const float bias = module.base_bias.empty() ? 0.0f : module.base_bias[j];
    y[j] = static_cast<float>(module.magnitude[j] / merged_norm(module, j, d_in) * (y[j] - bias) +
                              bias);
  }
}

Activation activation(std::vector<float>& data, int32_t rows, int32_t cols) {
  return {data.data(), rows, cols};
}

}  // namespace

std::unique_ptr<Weight> ReferenceBackend::pack_weight(std::span<const TensorView> tensors,
                                                      std::span<const TensorView> biases) {
  auto out = std::make_unique<ReferenceWeight>();
  out->k = tensors[0].cols;
  for (const TensorView& tensor : tensors) {
    append_values(tensor, "MODEL_INVALID", out->values);
    out->n += tensor.rows;
  }
  for (const TensorView& bias : biases) append_values(bias, "MODEL_INVALID", out->bias);
  return out;
}

std::unique_ptr<Vector> ReferenceBackend::pack_vector(const TensorView& tensor) {
  auto out = std::make_unique<ReferenceVector>();
  append_values(tensor, "MODEL_INVALID", out->values);
  out->size = static_cast<int64_t>(out->values.size());
  return out;
}

int64_t ReferenceBackend::page_bytes(const KvLayout& layout) const {
  return int64_t{4} * layout.num_layers * 2 * block_tokens_ * layout.num_kv_heads * layout.head_dim;
}

int32_t ReferenceBackend::allocate_pages(int64_t memory_bytes, int32_t) {
  if (memory_bytes > 0) num_pages_ = static_cast<int32_t>(memory_bytes / page_bytes(layout_));
  // NaN, so that a page read before it is written shows.
  pages_.assign(num_pages_ * page_bytes(layout_) / 4, std::numeric_limits<float>::quiet_NaN());
  return num_pages_;
}

void ReferenceBackend::reserve(const KvLayout& layout, const RopeConfig& rope, int32_t max_rows,
                               int32_t max_logits_rows) {
  layout_ = layout;
  rope_ = rope;
  max_rows_ = max_rows;
  max_logits_rows_ = max_logits_rows;
}

std::unique_ptr<AdapterImage> ReferenceBackend::pack_adapter(std::span<const AdapterModule> given) {
  const auto modules = without_base_copies(given, [](const AdapterModule& m) {
    std::vector<float> whole;
    append_values(m.whole, "ADAPTER_INVALID", whole);
    const float* base = static_cast<const ReferenceWeight&>(*m.base).values.data();
    return std::equal(whole.begin(), whole.end(), base + m.base_row * m.whole.cols);
  });
  auto out = std::make_unique<ReferenceImage>();
  for (const AdapterModule& module : modules) {
    ReferenceModule copy;
    copy.layer = module.layer;
    copy.module = module.module;
    copy.rank = module.rank;
    copy.scale = module.scale;
    copy.is_table = module.is_table;
    if (module.rank > 0) {
      append_values(module.a, "ADAPTER_INVALID", copy.a);
      append_values(module.b, "ADAPTER_INVALID", copy.b);
    }
    for (const auto& [view, values] :
         {std::pair(&module.b_bias, &copy.b_bias), std::pair(&module.magnitude, &copy.magnitude),
          std::pair(&module.whole, &copy.whole)}) {
      if (view->data != nullptr) append_values(*view, "ADAPTER_INVALID", *values);
      out->bytes += static_cast<int64_t>(values->size()) * 4;
    }
    if (module.magnitude.data != nullptr) copy_base(module, copy);
    out->bytes += static_cast<int64_t>(copy.a.size() + copy.b.size()) * 4;
    out->modules.push_back(std::move(copy));
  }
  const int64_t page = page_bytes(layout_);
  out->num_pages = static_cast<int32_t>((out->bytes + page - 1) / page);
  return out;
}

std::unique_ptr<ResidentAdapter> ReferenceBackend::place_adapter(const AdapterImage& image,
                                                                 std::span<const int32_t> pages) {
  if (static_cast<int32_t>(pages.size()) != image.num_pages) {
    throw std::logic_error("place_adapter: wrong number of pages");
  }
  auto out = std::make_unique<ReferenceAdapter>();
  out->modules = static_cast<const ReferenceImage&>(image).modules;
  return out;
}

void ReferenceBackend::begin_step(const StepPlan& plan) {
  if (plan.num_rows() > max_rows_ ||
      static_cast<int32_t>(plan.logits_rows.size()) > max_logits_rows_) {
    throw std::logic_error("begin_step: more rows than reserved");
  }
  plan_ = &plan;
  samples_.clear();
  ended_sums_.clear();
}

Activation ReferenceBackend::embed(const Weight& table, const LoraSite* site) {
  const auto& weight = static_cast<const ReferenceWeight&>(table);
  residual_.clear();
  for (const int32_t token : plan_->token_ids) {
    const auto row = weight.values.begin() + token * weight.k;
    residual_.insert(residual_.end(), row, row + weight.k);
  }
  if (site != nullptr) {
    // A token is a column of the transposed table: y = W x for x that is 1 there and 0 elsewhere.
    std::vector<float> x(static_cast<size_t>(weight.n) * plan_->num_rows());
    for (int32_t row = 0; row < plan_->num_rows(); ++row) {
      x[static_cast<size_t>(row) * weight.n + plan_->token_ids[row]] = 1.0f;
    }
    add_adapters(activation(x, plan_->num_rows(), static_cast<int32_t>(weight.n)), *site,
                 static_cast<int32_t>(weight.k), residual_.data());
  }
  return activation(residual_, plan_->num_rows(), static_cast<int32_t>(weight.k));
}

Activation ReferenceBackend::rms_norm(const Activation& residual, const Vector& gain, float eps) {
  const auto& values = static_cast<const ReferenceVector&>(gain).values;
  normed_.resize(static_cast<size_t>(residual.rows) * residual.cols);
  for (int32_t row = 0; row < residual.rows; ++row) {
    norm_row(row_of(residual, row), values.data(), residual.cols, eps,
             normed_.data() + static_cast<int64_t>(row) * residual.cols);
  }
  return activation(normed_, residual.rows, residual.cols);
}

Activation ReferenceBackend::add_rms_norm(Activation& residual, const Activation& delta,
                                          const Vector& gain, float eps, bool sampled_rows) {
  auto* sum = static_cast<float*>(residual.data);
  const auto* added = static_cast<const float*>(delta.data);
  for (int64_t i = 0; i < int64_t{residual.rows} * residual.cols; ++i) sum[i] += added[i];
  if (!sampled_rows) return rms_norm(residual, gain, eps);
  const std::vector<int32_t>& rows = plan_->logits_rows;
  std::vector<float> chosen;
  for (const int32_t row : rows) {
    chosen.insert(chosen.end(), row_of(residual, row), row_of(residual, row) + residual.cols);
  }
  return rms_norm(activation(chosen, static_cast<int32_t>(rows.size()), residual.cols), gain, eps);
}

void ReferenceBackend::pool(const Activation& residual, Activation& delta, const Vector& gain,
                            float eps) {
  const auto& values = static_cast<const ReferenceVector&>(gain).values;
  const int32_t cols = residual.cols;
  std::vector<float> h(cols);
  for (const PooledSpan& span : plan_->pooled) {
    if (span.slot < 0 || span.slot >= max_logits_rows_) throw std::logic_error("pool: no such sum");
    std::vector<double>& sum = sums_[span.slot];
    if (span.starts) sum.assign(cols, 0.0);
    for (int32_t row = span.first_row; row < span.first_row + span.num_rows; ++row) {
      for (int32_t i = 0; i < cols; ++i) h[i] = row_of(residual, row)[i] + row_of(delta, row)[i];
      norm_row(h.data(), values.data(), cols, eps, h.data());
      for (int32_t i = 0; i < cols; ++i) sum[i] += h[i];
    }
    if (span.ends) ended_sums_.insert(ended_sums_.end(), sum.begin(), sum.end());
  }
}

Activation ReferenceBackend::linear(const Activation& x, const Weight& w, const LoraSite* site) {
  const auto& weight = static_cast<const ReferenceWeight&>(w);
  const auto n = static_cast<int32_t>(weight.n);
  std::vector<float> y(static_cast<size_t>(x.rows) * n);  // [rows, n]
  for (int32_t row = 0; row < x.rows; ++row) {
    for (int32_t j = 0; j < n; ++j) {
      const float bias = weight.bias.empty() ? 0.0f : weight.bias[j];
      y[static_cast<size_t>(row) * n + j] =
          dot(row_of(x, row), weight.values.data() + j * weight.k, weight.k) + bias;
    }
  }
  if (site != nullptr) add_adapters(x, *site, n, y.data());
  linear_ = std::move(y);
  return activation(linear_, x.rows, n);
}

// What the plan's segments do to y [rows of x, cols] at the site.
void ReferenceBackend::add_adapters(const Activation& x, const LoraSite& site, int32_t cols,
                                    float* y) {
  for (const LoraSegment& segment : plan_->segments) {
    const auto& adapter = static_cast<const ReferenceAdapter&>(*segment.adapter);
    for (const ReferenceModule& module : adapter.modules) {
      for (const SitePart& part : site.parts) {
        if (module.layer != site.layer || module.module != part.module) continue;
        for (int32_t i = segment.rows_begin; i < segment.rows_end; ++i) {
          int32_t row = plan_->segment_rows[i];
          if (site.sampled_rows) {
            const std::vector<int32_t>& sampled = plan_->logits_rows;
            const auto found = std::find(sampled.begin(), sampled.end(), row);
            if (found == sampled.end()) continue;
            row = static_cast<int32_t>(found - sampled.begin());
          }
          add_adapter(module, row_of(x, row), x.cols, plan_->segment_weights[i], part.columns,
                      y + int64_t{row} * cols + part.column);
        }
      }
    }
  }
}

float* ReferenceBackend::kv(const SequenceSpan& span, int32_t position, int32_t layer,
                            int32_t which) {
  const int32_t block = position / block_tokens_;
  if (block >= span.num_blocks) throw std::logic_error("kv: position outside the block table");
  const int32_t page = plan_->block_tables.at(span.block_table_begin + block);
  if (page < 0 || page >= num_pages_) throw std::logic_error("kv: no such page");
  const int64_t width = int64_t{layout_.num_kv_heads} * layout_.head_dim;
  const int64_t row = ((int64_t{page} * layout_.num_layers + layer) * 2 + which) * block_tokens_ +
                      position % block_tokens_;
  return pages_.data() + row * width;
}

void ReferenceBackend::rope_and_store_kv(Activation& qkv, int32_t layer,
                                         const AttentionConfig& config, const Vector* q_gain,
                                         const Vector* k_gain, float eps) {
  const int32_t dim = config.head_dim;
  const int32_t half = dim / 2;
  const int32_t q_and_k_heads = config.num_heads + config.num_kv_heads;
  for (const SequenceSpan& span : plan_->spans) {
    for (int32_t i = 0; i < span.num_rows; ++i) {
      const int32_t row = span.first_row + i;
      const int32_t position = span.first_position + i;
      float* values = static_cast<float*>(qkv.data) + int64_t{row} * qkv.cols;
      for (int32_t head = 0; head < q_and_k_heads; ++head) {
        float* x = values + head * dim;
        const Vector* gain = head < config.num_heads ? q_gain : k_gain;
        if (gain != nullptr) {
          norm_row(x, static_cast<const ReferenceVector*>(gain)->values.data(), dim, eps, x);
        }
        for (int32_t j = 0; j < half; ++j) {
          const float angle = static_cast<float>(position) * rope_.inv_freq[j];
          const float cosine = std::cos(angle) * rope_.magnitude;
          const float sine = std::sin(angle) * rope_.magnitude;
          const float low = x[j], high = x[j + half];
          x[j] = low * cosine - high * sine;
          x[j + half] = high * cosine + low * sine;
        }
      }
      const int32_t width = config.num_kv_heads * dim;
      const float* k = values + config.num_heads * dim;
      std::copy(k, k + width, kv(span, position, layer, 0));
      std::copy(k + width, k + 2 * width, kv(span, position, layer, 1));
    }
  }
}

Activation ReferenceBackend::attention(const Activation& qkv, int32_t layer,
                                       const AttentionConfig& config) {
  const int32_t dim = config.head_dim;
  const int32_t group = config.num_heads / config.num_kv_heads;
  attended_.assign(static_cast<size_t>(qkv.rows) * config.num_heads * dim, 0.0f);
  for (const SequenceSpan& span : plan_->spans) {
    for (int32_t i = 0; i < span.num_rows; ++i) {
      const int32_t row = span.first_row + i;
      const int32_t position = span.first_position + i;
      const int32_t window = config.sliding_window;
      const int32_t begin = window > 0 ? std::max(0, position - window + 1) : 0;
      for (int32_t head = 0; head < config.num_heads; ++head) {
        const float* q = row_of(qkv, row) + head * dim;
        const int32_t offset = head / group * dim;
        std::vector<double> scores;
        for (int32_t p = begin; p <= position; ++p) {
          scores.push_back(double{config.scale} * dot(q, kv(span, p, layer, 0) + offset, dim));
        }
        const double largest = *std::max_element(scores.begin(), scores.end());
        double total = 0;
        for (double& score : scores) total += score = std::exp(score - largest);
        for (int32_t d = 0; d < dim; ++d) {
          double sum = 0;
          for (int32_t p = begin; p <= position; ++p) {
            sum += scores[p - begin] * kv(span, p, layer, 1)[offset + d];
          }
          attended_[(static_cast<size_t>(row) * config.num_heads + head) * dim + d] =
              static_cast<float>(sum / total);
        }
      }
    }
  }
  return activation(attended_, qkv.rows, config.num_heads * dim);
}

Activation ReferenceBackend::silu_mul(const Activation& gate_up) {
  const int32_t inner = gate_up.cols / 2;
  gated_.resize(static_cast<size_t>(gate_up.rows) * inner);
  for (int32_t row = 0; row < gate_up.rows; ++row) {
    const float* gate = row_of(gate_up, row);
    for (int32_t j = 0; j < inner; ++j) {
      const double silu = gate[j] / (1.0 + std::exp(-static_cast<double>(gate[j])));
      gated_[static_cast<size_t>(row) * inner + j] = static_cast<float>(silu * gate[inner + j]);
    }
  }
  return activation(gated_, gate_up.rows, inner);
}

void ReferenceBackend::sample(const Activation& logits) {
  samples_.assign(logits.rows, {});
  for (int32_t row = 0; row < logits.rows; ++row) {
    const SampleRow& how = plan_->samples.at(row);
    if (how.temperature != 0.0f || how.history_size != 0 || how.bias_size != 0 ||
        how.num_logprobs >= 0) {
      throw std::logic_error("the reference backend samples greedily only");
    }
    const float* values = row_of(logits, row);
    int32_t& best = samples_[row].token;
    for (int32_t token = 0; token < logits.cols; ++token) {
      const bool allowed = how.mask == nullptr || (how.mask[token / 32] >> (token % 32) & 1) != 0;
      if (allowed && (best < 0 || values[token] > values[best])) best = token;
    }
  }
}

void ReferenceBackend::read_logits(const Activation& logits, std::span<float> out) {
  if (out.size() != static_cast<size_t>(logits.rows) * logits.cols) {
    throw std::logic_error("read_logits: wrong size");
  }
  std::copy(row_of(logits, 0), row_of(logits, logits.rows), out.begin());
}

void ReferenceBackend::collect(std::span<SampleResult> results) {
  std::copy(samples_.begin(), samples_.end(), results.begin());
}

}  // namespace lorax
