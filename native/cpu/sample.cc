// One row of logits to one token. The vocabulary is passed over a few times in plain loops that the
// compiler vectorises; it is never sorted as a whole.
//
// Top-k keeps a heap; top-p finds the bucket of values in which the mass is reached and sorts only
// that; Gumbel-max draws noise only where a token could still win. Pruning changes no result.
#include "cpu/sample.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "cpu/philox.h"

namespace lorax::cpu {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int kLanes = 16;  // independent accumulators, so that loops vectorise in a fixed order

struct Candidate {
  int32_t token;
  float logit;
};

// Descending by logit; ties: the lowest token id first.
bool before(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

// Per thread, so that sampling allocates only when the vocabulary grows.
struct Scratch {
  std::vector<float> logits;  // [vocab]
  std::vector<Candidate> candidates;
  std::vector<Candidate> sorted;
};

Scratch& scratch() {
  static thread_local Scratch instance;
  return instance;
}

// ---- passes over a row ----

struct Maximum {
  float value = -kInfinity;
  bool usable = false;  // neither NaN nor +inf is there, and something above -inf is
};

Maximum maximum_of(const float* x, int32_t n) {
  float max[kLanes];
  uint32_t faults[kLanes] = {};
  std::fill_n(max, kLanes, -kInfinity);
  const int32_t whole = n / kLanes * kLanes;
  for (int32_t i = 0; i < whole; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const float value = x[i + lane];
      max[lane] = value > max[lane] ? value : max[lane];
      faults[lane] |= value < kInfinity ? 0u : 1u;  // NaN compares false
    }
  }
  for (int32_t i = whole; i < n; ++i) {
    max[0] = x[i] > max[0] ? x[i] : max[0];
    faults[0] |= x[i] < kInfinity ? 0u : 1u;
  }
  Maximum result;
  uint32_t fault = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    result.value = std::max(result.value, max[lane]);
    fault |= faults[lane];
  }
  result.usable = fault == 0 && result.value > -kInfinity;
  return result;
}

int32_t first_equal(const float* x, int32_t n, float value) {
  int32_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    uint32_t found = 0;
    for (int lane = 0; lane < kLanes; ++lane) found |= x[i + lane] == value ? 1u : 0u;
    if (found != 0) break;
  }
  while (i < n && x[i] != value) ++i;
  return i;
}

// exp(x) for x <= 0, within 2e-7 of the true value, relatively; below -87 it stays at 1.6e-38. The
// same bits on every machine: e^x = 2^k e^r, k = round(x / ln 2), a polynomial for e^r (Cephes).
inline float exp_of_negative(float x) {
  // max(x, -87) on the bits of -x: loops over a float comparison would not vectorise.
  const int32_t negated = std::bit_cast<int32_t>(x) & 0x7FFFFFFF;
  const int32_t limit = std::bit_cast<int32_t>(87.0f);
  const float clamped = -std::bit_cast<float>(negated < limit ? negated : limit);
  const float shifted = clamped * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: rounds to an integer
  const float k = shifted - 12582912.0f;
  const float r = (clamped - k * 0.693359375f) + k * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const float e = (p * r * r + r) + 1.0f;
  const uint32_t scale = (std::bit_cast<uint32_t>(shifted) << 23) + 0x3F800000u;
  return e * std::bit_cast<float>(scale);
}

constexpr int32_t kExpChunk = 1024;  // floats add up no further than this

// out[i] = exp(x[i] - max)
void exp_chunk(const float* x, int32_t n, float max, float* out) {
  for (int32_t i = 0; i < n; ++i) out[i] = exp_of_negative(x[i] - max);
}

// sum exp(x - max)
double sum_exp(const float* x, int32_t n, float max) {
  float e[kExpChunk];
  double sum = 0.0;
  for (int32_t begin = 0; begin < n; begin += kExpChunk) {
    const int32_t size = std::min(n - begin, kExpChunk);
    exp_chunk(x + begin, size, max, e);
    std::fill(e + size, e + kExpChunk, 0.0f);
    float lanes[kLanes] = {};
    for (int32_t i = 0; i < kExpChunk; i += kLanes) {
      for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += e[i + lane];
    }
    for (const float lane : lanes) sum += lane;
  }
  return sum;
}

// ---- the largest k ----

// The k first in the order of before(), sorted. Skips whole blocks that hold nothing large enough.
void select_top(const float* x, int32_t n, int32_t k, std::vector<Candidate>* top) {
  top->clear();
  if (k <= 0) return;
  if (k > 512) {
    top->reserve(n);
    for (int32_t i = 0; i < n; ++i) top->push_back({i, x[i]});
    if (k < n) {
      std::nth_element(top->begin(), top->begin() + k, top->end(), before);
      top->resize(k);
    }
    std::sort(top->begin(), top->end(), before);
    return;
  }
  // A heap whose front is the last of the kept; tokens ascend, so an equal newcomer loses.
  int32_t i = 0;
  for (; i < std::min(k, n); ++i) top->push_back({i, x[i]});
  std::make_heap(top->begin(), top->end(), before);
  const auto offer = [&](int32_t token) {
    if (x[token] <= top->front().logit) return;
    std::pop_heap(top->begin(), top->end(), before);
    top->back() = {token, x[token]};
    std::push_heap(top->begin(), top->end(), before);
  };
  while (i < n) {
    if (i + kLanes > n) {
      for (; i < n; ++i) offer(i);
      break;
    }
    const float threshold = top->front().logit;
    uint32_t found = 0;
    for (int lane = 0; lane < kLanes; ++lane) found |= x[i + lane] > threshold ? 1u : 0u;
    if (found != 0) {
      for (int lane = 0; lane < kLanes; ++lane) offer(i + lane);
    }
    i += kLanes;
  }
  std::sort_heap(top->begin(), top->end(), before);
}

// ---- steps 1 and 2: bias, penalties, mask ----

bool adjusts(const SampleRow& row) {
  const bool penalty = row.repetition_penalty != 1.0f || row.frequency_penalty != 0.0f ||
                       row.presence_penalty != 0.0f;
  return row.bias_size > 0 || (penalty && row.history_size > 0) || row.mask != nullptr;
}

void apply_mask(const uint32_t* mask, int32_t vocab, float* l) {
  for (int32_t begin = 0; begin < vocab; begin += 32) {
    const uint32_t word = mask[begin / 32];
    if (word == ~0u) continue;
    const int32_t size = std::min(vocab - begin, 32);
    for (int32_t i = 0; i < size; ++i) {
      l[begin + i] = (word >> i & 1) != 0 ? l[begin + i] : -kInfinity;
    }
  }
}

void adjust(const SampleRow& row, int32_t vocab, float* l) {
  for (int32_t i = 0; i < row.bias_size; ++i) l[row.bias_ids[i]] += row.bias_values[i];
  for (int32_t i = 0; i < row.history_size; ++i) {
    const TokenCount& seen = row.history[i];
    float& value = l[seen.token];
    if (row.repetition_penalty != 1.0f) {
      value = value > 0.0f ? value / row.repetition_penalty : value * row.repetition_penalty;
    }
    value -= row.frequency_penalty * static_cast<float>(seen.output_count) +
             row.presence_penalty * (seen.output_count > 0 ? 1.0f : 0.0f);
    // An extreme penalty must not make a fault of a sound logit.
    value = std::min(value, std::numeric_limits<float>::max());
  }
  if (row.mask != nullptr) apply_mask(row.mask, vocab, l);
}

// ---- step 5: top-p ----

// Tokens sorted by before(): how many of them reach the mass p.
size_t prefix_of_mass(const std::vector<Candidate>& sorted, float p) {
  double total = 0.0;
  for (const Candidate& candidate : sorted) total += exp_of_negative(candidate.logit);
  double mass = 0.0;
  size_t count = 0;
  while (count < sorted.size() && (count == 0 || mass < p * total)) {
    mass += exp_of_negative(sorted[count++].logit);
  }
  return count;
}

// The same over a whole row s [n] with maximum 0, in any order. Buckets of equal width hold the
// mass; only the one in which p is reached is sorted.
void select_mass(const float* s, int32_t n, float p, std::vector<Candidate>* kept,
                 std::vector<Candidate>* boundary) {
  constexpr int32_t kBuckets = 512;
  constexpr float kPerUnit = 16.0f;  // the last bucket holds all below -32
  const auto bucket_of = [](float value) {
    const float scaled = value * -kPerUnit;
    return scaled < static_cast<float>(kBuckets - 1) ? static_cast<int32_t>(scaled) : kBuckets - 1;
  };
  double mass[kBuckets] = {};
  float e[kExpChunk];
  for (int32_t begin = 0; begin < n; begin += kExpChunk) {
    const int32_t size = std::min(n - begin, kExpChunk);
    exp_chunk(s + begin, size, 0.0f, e);
    for (int32_t i = 0; i < size; ++i) mass[bucket_of(s[begin + i])] += e[i];
  }
  double total = 0.0;
  for (const double m : mass) total += m;

  double above = 0.0;  // the mass of buckets before `last`
  int32_t last = 0;
  while (last < kBuckets - 1 && above + mass[last] < p * total) above += mass[last++];

  kept->clear();
  boundary->clear();
  // Where bucket `last` ends; buckets are monotonic in the value.
  const float least = last == kBuckets - 1 ? -kInfinity : -static_cast<float>(last + 1) / kPerUnit;
  for (int32_t i = 0; i < n; ++i) {
    if (s[i] < least) continue;
    const int32_t bucket = bucket_of(s[i]);
    if (bucket < last) kept->push_back({i, s[i]});
    if (bucket == last) boundary->push_back({i, s[i]});
  }
  std::sort(boundary->begin(), boundary->end(), before);
  for (const Candidate& candidate : *boundary) {
    if (!kept->empty() && above >= p * total) break;
    above += exp_of_negative(candidate.logit);
    kept->push_back(candidate);
  }
}

// ---- step 7: Gumbel-max ----

class GumbelMax {
 public:
  GumbelMax(uint64_t seed, int64_t position)
      : key_{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
        position_(static_cast<uint64_t>(position)) {}

  void offer(int32_t token, float logit) {
    if (logit <= least_) return;
    consider(token, logit, block(token / 4)[token % 4]);
  }

  // A whole row s [n]: blocks of four tokens share a draw.
  void offer_all(const float* s, int32_t n) {
    int32_t i = 0;
    for (; i + 4 <= n; i += 4) {
      const float max = std::max(std::max(s[i], s[i + 1]), std::max(s[i + 2], s[i + 3]));
      if (max <= least_) continue;
      const PhiloxBlock words = block(i / 4);
      for (int lane = 0; lane < 4; ++lane) consider(i + lane, s[i + lane], words[lane]);
    }
    for (; i < n; ++i) offer(i, s[i]);
  }

  int32_t token() const { return best_token_; }

 private:
  // -log(-log u) < 22.88 for the largest u, (2^32 - 0.5) * 2^-32.
  static constexpr float kMaxNoise = 22.9f;

  PhiloxBlock block(int32_t quarter) const {
    return philox4x32_10({static_cast<uint32_t>(quarter), static_cast<uint32_t>(position_),
                          static_cast<uint32_t>(position_ >> 32), 0},
                         key_);
  }

  void consider(int32_t token, float logit, uint32_t word) {
    // The noise is below -log(v) for v = 1 - u >= 2^-(zeros + 1), so most tokens need no logarithm.
    const auto zeros = static_cast<float>(std::countl_zero(~word));
    if (logit + (zeros + 1.0f) * 0.6931473f <= best_ - 1e-3f) return;
    const double u = (word + 0.5) * 0x1p-32;  // exact, and so is its distance from 1
    const auto value = static_cast<float>(logit + static_cast<float>(-std::log(-std::log(u))));
    if (value > best_ || (value == best_ && token < best_token_)) {
      best_ = value;
      best_token_ = token;
      least_ = best_ - kMaxNoise;
    }
  }

  const std::array<uint32_t, 2> key_;
  const uint64_t position_;
  float best_ = -kInfinity;
  float least_ = -kInfinity;  // nothing at or below can win any more
  int32_t best_token_ = -1;
};

// Steps 4 to 7 on s [vocab], the scaled logits; their maximum is 0, at `best`.
int32_t draw(const float* s, int32_t vocab, int32_t best, const SampleRow& row, Scratch& memory) {
  GumbelMax gumbel(row.seed, row.position);
  const bool limits_count = row.top_k > 0 && row.top_k < vocab;
  const bool limits_mass = row.top_p < 1.0f;
  // probability >= min_p * the largest, which is exp(0) here before it is normalised.
  const auto likely = [&](float logit) {
    return row.min_p == 0.0f || std::exp(logit) >= row.min_p;
  };
  if (!limits_count && !limits_mass && row.min_p == 0.0f) {
    gumbel.offer(best, s[best]);  // a high mark from the start spares most draws
    gumbel.offer_all(s, vocab);
    return gumbel.token();
  }
  std::vector<Candidate>& kept = memory.candidates;
  if (limits_count) {
    select_top(s, vocab, row.top_k, &kept);
    if (limits_mass) kept.resize(prefix_of_mass(kept, row.top_p));
  } else if (limits_mass) {
    select_mass(s, vocab, row.top_p, &kept, &memory.sorted);
  } else {
    const float least = std::log(row.min_p) - 1e-3f;
    kept.clear();
    for (int32_t i = 0; i < vocab; ++i) {
      if (s[i] >= least) kept.push_back({i, s[i]});
    }
  }
  gumbel.offer(best, s[best]);
  for (const Candidate& candidate : kept) {
    if (likely(candidate.logit)) gumbel.offer(candidate.token, candidate.logit);
  }
  return gumbel.token();
}

// Log-softmax of the raw logits: l[t] - max - log(sum exp(l - max)).
void report_logprobs(const float* logits, int32_t vocab, float max, int32_t num_top,
                     Scratch& memory, SampleResult* result) {
  const auto log_sum = static_cast<float>(std::log(sum_exp(logits, vocab, max)));
  result->logprob = (logits[result->token] - max) - log_sum;
  select_top(logits, vocab, std::min(num_top, vocab), &memory.candidates);
  for (const Candidate& candidate : memory.candidates) {
    result->top_tokens.push_back(candidate.token);
    result->top_logprobs.push_back((candidate.logit - max) - log_sum);
  }
}

}  // namespace

void sample_row(const float* logits, int32_t vocab, const SampleRow& row, SampleResult* result) {
  result->token = -1;
  result->logprob = 0.0f;
  result->top_tokens.clear();
  result->top_logprobs.clear();

  Scratch& memory = scratch();
  const Maximum raw = maximum_of(logits, vocab);
  if (!raw.usable) return;
  const float* l = logits;  // [vocab]
  Maximum max = raw;
  if (adjusts(row)) {
    memory.logits.assign(logits, logits + vocab);
    adjust(row, vocab, memory.logits.data());
    l = memory.logits.data();
    max = maximum_of(l, vocab);
    if (!max.usable) return;
  }
  result->token = first_equal(l, vocab, max.value);
  if (row.temperature > 0.0f) {
    memory.logits.resize(vocab);
    float* s = memory.logits.data();  // [vocab], may be l itself
    // The maximum stays 0 at any temperature: 0 / t = 0.
    for (int32_t i = 0; i < vocab; ++i) s[i] = (l[i] - max.value) / row.temperature;
    result->token = draw(s, vocab, result->token, row, memory);
  }
  if (row.num_logprobs >= 0) {
    report_logprobs(logits, vocab, raw.value, row.num_logprobs, memory, result);
  }
}

}  // namespace lorax::cpu
