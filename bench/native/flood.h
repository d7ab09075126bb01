// One tenant's flood beside light tenants, played through the real engine on a virtual clock, and
// what each of the light tenants' first tokens was spent on.
//
// Deterministic: the same scenario and seed give the same figures. Used by flood_bench.cc, which
// prints tables, and by test/native/engine/flood_test.cc, which states the bars.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "virtual_model.h"

namespace lorax::flood {

// A machine and what it is asked. Times are in milliseconds.
struct Scenario {
  std::string name;
  double step_ms = 0;  // of a step, whatever its rows
  double row_ms = 0;   // of each row more
  int32_t steps_ahead = 0;
  int32_t max_batch_tokens = 512;
  int32_t prompt_min = 0, prompt_max = 0;  // tokens, uniform
  int32_t output_min = 0, output_max = 0;
  int32_t num_tenants = 4;  // that are light
  double times = 50;        // as many requests in the flood as of all of them
  int32_t row_tile = 1;     // rows are computed by so many
  int32_t num_layers = 0;   // between which a step may be set aside; 0: it may not
};

struct Arrival {
  double at = 0;
  int32_t prompt = 0, output = 0;
  bool is_flood = false;
  int32_t tenant = 0;  // of the light
};

// Where the time from a request's arrival to its first token went.
struct Cause {
  double in_flight = 0;  // steps that were under way, or planned, when it came
  double turn = 0;       // steps after those in which it had no row
  double fixed = 0;      // its own steps: what they take without rows,
  double own = 0;        // its rows,
  double light = 0;      // rows of other light requests,
  double flood = 0;      // and of the flood
  double total() const { return in_flight + turn + fixed + own + light + flood; }
};

enum class Names { kTenants, kOne };  // kOne: the flood and the others are one tenant

struct Outcome {
  std::vector<Cause> first_tokens;  // of the light, in the order in which they came
  int32_t num_lost = 0;             // of the light
  double rows_per_ms = 0;
  double requests_per_ms = 0;  // finished
  double rows_per_step = 0;
};

inline double quantile(std::vector<double> values, double q) {
  if (values.empty()) throw std::logic_error("flood: a quantile of nothing");
  std::ranges::sort(values);
  return values[std::min(values.size() - 1, static_cast<size_t>(q * values.size()))];
}

inline double first_token(const Outcome& outcome, double q) {
  std::vector<double> totals;
  for (const Cause& cause : outcome.first_tokens) totals.push_back(cause.total());
  return quantile(std::move(totals), q);
}

// Poisson arrivals of `count` requests, `per_ms` of them.
inline std::vector<Arrival> arrivals_of(const Scenario& scenario, double per_ms, double until,
                                        bool is_flood, uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto uniform = [&] { return static_cast<double>(random() >> 11) * 0x1p-53; };
  const auto between = [&](int32_t min, int32_t max) {
    return min + static_cast<int32_t>(uniform() * (max - min + 1));
  };
  std::vector<Arrival> arrivals;
  for (double at = 0;;) {
    at -= std::log(1 - uniform()) / per_ms;
    if (at > until) return arrivals;
    arrivals.push_back({at, between(scenario.prompt_min, scenario.prompt_max),
                        between(scenario.output_min, scenario.output_max), is_flood,
                        between(0, scenario.num_tenants - 1)});
  }
}

class Play {
 public:
  // What comes in the first fifth of the time is played, and not counted: in it the flood fills the
  // engine.
  Play(const Scenario& scenario, std::vector<Arrival> arrivals, double until, Names names)
      : scenario_(scenario), names_(names), arrivals_(std::move(arrivals)), until_(until) {
    std::ranges::stable_sort(arrivals_, {}, &Arrival::at);
    open_.resize(arrivals_.size());
    ModelLimits limits;
    limits.vocab_size = 1 << 24;
    limits.context_tokens = 4096;
    limits.num_pages = 1 << 15;
    limits.block_tokens = 16;
    limits.max_batch_tokens = scenario.max_batch_tokens;
    limits.row_tile = scenario.row_tile;
    VirtualCosts costs;
    costs.parameters = 0.5;  // a row: one unit of work
    costs.peak_rate = 1 / scenario.row_ms;
    costs.memory_rate = 1;
    costs.copy_rate = 1;
    costs.step_seconds = scenario.step_ms;
    costs.steps_ahead = scenario.steps_ahead;
    costs.row_tile = scenario.row_tile;
    costs.num_layers = scenario.num_layers;
    auto model = std::make_unique<VirtualModel>(limits, 1, costs);
    model_ = model.get();
    model->on_step = [this](const StepPlan& plan, double begin, double end) {
      note(plan, begin, end);
    };
    model->on_awaited = [this] { submit_due(); };
    model->on_layer = [this] { submit_due(); };
    engine_ = std::make_unique<Engine>(
        std::move(model),
        EngineLimits{.max_batch_tokens = scenario.max_batch_tokens, .checks_itself = false},
        [this] { read_events(engine_->take_events()); });
  }

  // Until all have come and the light have their first tokens.
  Outcome run() {
    for (int32_t idle = 0; next_ < arrivals_.size() || num_light_open_ > 0;) {
      submit_due();
      const double before = model_->now();
      const bool worked = engine_->step();
      if (!worked && next_ < arrivals_.size()) model_->wait_until(arrivals_[next_].at);
      idle = model_->now() > before ? 0 : idle + 1;
      if (idle > 1000) throw std::logic_error("flood: the clock stands still");
    }
    const double counted_ms = until_ - from();
    outcome_.rows_per_step = static_cast<double>(rows_) / std::max<int64_t>(1, steps_);
    outcome_.rows_per_ms = static_cast<double>(rows_) / counted_ms;
    outcome_.requests_per_ms = finished_ / counted_ms;
    return std::move(outcome_);
  }

 private:
  struct Open {
    Cause cause;
    double planned = -1;  // the first step that was planned since it came began then
    double seen = -1;     // until then its time is accounted for
    bool has_first = false;
  };

  double from() const { return until_ / 5; }
  bool is_light(size_t index) const { return !arrivals_[index].is_flood; }

  void submit_due() {
    for (; next_ < arrivals_.size() && arrivals_[next_].at <= model_->now(); ++next_) submit();
  }

  void submit() {
    const Arrival& arrival = arrivals_[next_];
    const auto id = static_cast<int32_t>(next_) + 1;
    Request request;
    request.id = id;
    request.prompt.assign(arrival.prompt, id);  // nothing that another begins with; see note()
    request.sampling.max_output_tokens = arrival.output;
    request.sampling.seed = static_cast<uint64_t>(id);
    request.tenant = names_ == Names::kOne ? "all"
                     : arrival.is_flood    ? "flood"
                                           : "light " + std::to_string(arrival.tenant);
    engine_->submit(std::move(request));
    if (arrival.is_flood) return;
    open_[next_].seen = arrival.at;
    waiting_.push_back(next_);
    ++num_light_open_;
  }

  // A step: whose rows it has, and what that is to those who wait for their first token.
  void note(const StepPlan& plan, double begin, double end) {
    std::map<size_t, int32_t> of_waiting;
    int32_t num_light = 0;
    size_t sample = 0;
    for (const SequenceSpan& span : plan.spans) {
      const int32_t last = span.first_row + span.num_rows - 1;
      const bool is_sampled = sample < plan.logits_rows.size() && plan.logits_rows[sample] == last;
      const size_t index =
          static_cast<size_t>((is_sampled ? static_cast<int64_t>(plan.samples[sample].seed)
                                          : plan.token_ids[span.first_row]) -
                              1);
      sample += is_sampled;
      if (!is_light(index)) continue;
      num_light += span.num_rows;
      if (!open_[index].has_first) of_waiting[index] = span.num_rows;
    }
    for (const size_t index : waiting_) {
      Open& open = open_[index];
      if (open.planned < 0) {
        open.planned = begin;
        open.cause.in_flight += begin - open.seen;
        open.seen = begin;
      }
      const auto own = of_waiting.find(index);
      if (own == of_waiting.end()) {
        open.cause.turn += end - open.seen;
      } else {
        open.cause.fixed += begin - open.seen + scenario_.step_ms;
        open.cause.own += own->second * scenario_.row_ms;
        open.cause.light += (num_light - own->second) * scenario_.row_ms;
        open.cause.flood += end - begin - scenario_.step_ms - num_light * scenario_.row_ms;
        open.has_first = is_last_chunk(plan, index);
      }
      open.seen = end;
    }
    std::erase_if(waiting_, [this](size_t index) { return open_[index].has_first; });
    if (begin < from() || end > until_) return;
    rows_ += plan.num_rows();
    ++steps_;
  }

  static bool is_last_chunk(const StepPlan& plan, size_t index) {
    return std::ranges::any_of(plan.samples, [&](const SampleRow& row) {
      return row.seed == static_cast<uint64_t>(index) + 1;
    });
  }

  // The records are those of worker/addon.ts.
  void read_events(const StepEvents& events) {
    for (size_t i = 0; i < events.ints.size();) {
      const int32_t* words = events.ints.data() + i;
      const auto index = static_cast<size_t>(words[1]) - 1;
      i += 4 + (words[0] == 2 ? static_cast<size_t>(words[2]) : 0);
      if (words[0] == 5) lose(index);
      if (words[0] == 3 && model_->now() >= from() && model_->now() <= until_) ++finished_;
      if (words[0] == 2 && is_light(index)) told(index);
    }
  }

  void lose(size_t index) {
    if (!is_light(index)) return;
    ++outcome_.num_lost;
    --num_light_open_;
    std::erase(waiting_, index);
  }

  // What was accounted for has to be what the clock says.
  void told(size_t index) {
    Open& open = open_[index];
    if (open.planned < 0 || open.seen < 0) return;
    const double waited = model_->now() - arrivals_[index].at;
    if (std::abs(open.cause.total() - waited) > 1e-6 * (1 + model_->now())) {
      throw std::logic_error("flood: a first token's time is not what its causes add up to");
    }
    if (arrivals_[index].at >= from()) outcome_.first_tokens.push_back(open.cause);
    open.seen = -1;
    --num_light_open_;
  }

  const Scenario scenario_;
  const Names names_;
  std::vector<Arrival> arrivals_;
  const double until_;
  VirtualModel* model_ = nullptr;  // the engine's
  std::unique_ptr<Engine> engine_;
  size_t next_ = 0;
  std::vector<Open> open_;       // [arrivals]
  std::vector<size_t> waiting_;  // light, for the steps that give them their first tokens
  int32_t num_light_open_ = 0;   // whose first token was not told
  Outcome outcome_;
  int64_t rows_ = 0, steps_ = 0;
  double finished_ = 0;
};

// Requests a millisecond when there are always more, in one line.
inline double capacity_of(const Scenario& scenario) {
  const double row = scenario.row_ms + scenario.step_ms / scenario.max_batch_tokens;
  const double tokens =
      (scenario.prompt_min + scenario.prompt_max + scenario.output_min + scenario.output_max) / 2.0;
  const double bound = 1 / (row * tokens);  // with every step full
  const double ms = 4000 / bound;
  return Play(scenario, arrivals_of(scenario, 1.5 * bound, ms, true, 99), ms, Names::kOne)
      .run()
      .requests_per_ms;
}

struct Comparison {
  Outcome alone, flooded, one_name;
  double p99_ratio() const { return first_token(flooded, 0.99) / first_token(alone, 0.99); }
  double throughput_ratio() const { return flooded.rows_per_ms / one_name.rows_per_ms; }
};

// The others send `load` of the capacity, about `count` requests.
inline Comparison compare(const Scenario& scenario, double capacity, double load, int32_t count,
                          uint64_t seed) {
  const double per_ms = load * capacity;
  const double until = count / per_ms;
  const std::vector<Arrival> light = arrivals_of(scenario, per_ms, until, false, 2 * seed);
  std::vector<Arrival> all =
      arrivals_of(scenario, scenario.times * per_ms, until, true, 2 * seed + 1);
  all.insert(all.end(), light.begin(), light.end());
  return {Play(scenario, light, until, Names::kTenants).run(),
          Play(scenario, all, until, Names::kTenants).run(),
          Play(scenario, all, until, Names::kOne).run()};
}

}  // namespace lorax::flood
