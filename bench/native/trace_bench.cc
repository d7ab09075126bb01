// S-LoRA's trace through the real engine on a virtual clock: everything that the engine decides,
// none of what a device computes. Deterministic: the same trace and costs give the same output.
//
//   c++ -std=c++20 -O2 -Inative bench/native/trace_bench.cc build/libcore.a -lpthread -o
//   trace_bench
//   ./trace_bench TRACE adapters=N pages=N page_bytes=N block_tokens=N adapter_pages=N ... (see
//   main)
//
// TRACE is what bench/trace/slora-trace.mjs writes. Prints `state`, `step`, `between` and `request`
// lines and the engine's counters, which bench/trace/virtual-clock.mjs reads. What the engine
// itself measures by the wall (queueMs, a step's ms) is left out: times here are the virtual
// clock's.
#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "virtual_model.h"

namespace lorax {
namespace {

struct TraceRequest {
  double due = 0;  // seconds
  int32_t adapter = 0, input = 0, output = 0;
  int32_t tokens = 0;
  double first = -1, last = -1;
  std::string failure;  // empty: all its tokens came
};

class Options {
 public:
  Options(int argc, char** argv) {
    for (int i = 0; i < argc; ++i) {
      const std::string text = argv[i];
      const size_t at = text.find('=');
      if (at == std::string::npos) throw std::runtime_error("expected name=value, not " + text);
      values_[text.substr(0, at)] = text.substr(at + 1);
    }
  }

  double number(const std::string& name) {
    const auto found = values_.find(name);
    if (found == values_.end()) throw std::runtime_error("missing: " + name + "=NUMBER");
    size_t used = 0;
    const double value = std::stod(found->second, &used);
    if (used != found->second.size()) throw std::runtime_error(name + ": not a number");
    values_.erase(found);
    return value;
  }
  int32_t integer(const std::string& name) { return static_cast<int32_t>(number(name)); }

  void expect_no_more() const {
    if (!values_.empty()) throw std::runtime_error("unknown: " + values_.begin()->first);
  }

 private:
  std::map<std::string, std::string> values_;
};

std::vector<TraceRequest> read_trace(const std::string& file) {
  std::ifstream in(file);
  if (!in) throw std::runtime_error("cannot read " + file);
  std::vector<TraceRequest> trace;
  std::string line;
  while (std::getline(in, line)) {
    TraceRequest request;
    std::istringstream words(line);
    if (!(words >> request.due >> request.adapter >> request.input >> request.output)) {
      throw std::runtime_error(file + ": not a request: " + line);
    }
    trace.push_back(request);
  }
  return trace;
}

// Ids as random as those of bench/trace/client.mjs: no two prompts begin alike.
std::vector<int32_t> prompt_of(int32_t length, int32_t salt, int32_t vocab) {
  uint32_t state = static_cast<uint32_t>(salt) * 2654435761u + 1;
  std::vector<int32_t> prompt(length);
  for (int32_t& token : prompt) {
    state = state * 1664525u + 1013904223u;
    token = static_cast<int32_t>((uint64_t{state} * static_cast<uint64_t>(vocab)) >> 32);
  }
  return prompt;
}

class Bench {
 public:
  Bench(std::vector<TraceRequest> trace, const ModelLimits& limits, const EngineLimits& engine,
        int32_t num_adapters, int32_t adapter_pages, const VirtualCosts& costs)
      : trace_(std::move(trace)), vocab_(limits.vocab_size) {
    auto model = std::make_unique<VirtualModel>(limits, adapter_pages, costs);
    model_ = model.get();
    engine_ = std::make_unique<Engine>(std::move(model), engine, [] {});
    for (int32_t i = 0; i < num_adapters; ++i) {
      AdapterSpec spec;
      spec.hash = std::to_string(i);
      handles_.push_back(engine_->add_adapter(spec));
    }
  }

  void run() {
    size_t next = 0;
    size_t ended = 0;
    int32_t idle_turns = 0;
    while (ended < trace_.size()) {
      while (next < trace_.size() && trace_[next].due <= model_->now()) submit(next++);
      const double before = model_->now();
      const bool worked = engine_->step();
      ended += read_events(engine_->take_events());
      note_states();
      if (!worked) rest(next);
      idle_turns = model_->now() > before ? 0 : idle_turns + 1;
      if (idle_turns > 1000) throw std::logic_error("the clock stands still");
    }
  }

  void print() const {
    for (const auto& [second, stats] : states_) {
      const EngineStats::Pages& pages = stats.pages;
      std::printf("state %d %d %d %d %d %d %d %d %" PRId64 "\n", second, stats.running,
                  stats.waiting, pages.free, pages.kv, pages.cold, pages.adapter, pages.retiring,
                  stats.adapter_loads);
    }
    for (const VirtualModel::Step& step : model_->steps()) {
      std::printf("step %d %d %d %.9g\n", step.prefill_rows, step.decode_rows, step.adapters,
                  step.seconds);
    }
    for (const double gap : between_) std::printf("between %.9g\n", gap);
    for (const TraceRequest& request : trace_) {
      std::printf("request %d %.9f %.9f %s\n", request.tokens, request.first, request.last,
                  request.failure.c_str());
    }
    const EngineStats stats = engine_->stats();
    const std::pair<const char*, int64_t> totals[] = {
        {"steps", stats.steps},
        {"promptTokens", stats.prompt_tokens},
        {"cachedTokens", stats.cached_tokens},
        {"outputTokens", stats.output_tokens},
        {"preemptions", stats.preemptions},
        {"prefixEvictions", stats.prefix_evictions},
        {"adapterHits", stats.adapter_hits},
        {"adapterLoads", stats.adapter_loads},
        {"adapterEvictions", stats.adapter_evictions},
        {"finished", stats.finished},
        {"failed", stats.failed},
    };
    for (const auto& [name, value] : totals) std::printf("total %s %" PRId64 "\n", name, value);
    std::printf("device busy %.9g\ndevice waited %.9g\ndevice copying %.9g\n",
                model_->busy_seconds(), model_->waited_seconds(), model_->copying_seconds());
  }

 private:
  // Until something happens: a copy ends, the next request comes.
  void rest(size_t next) {
    double until = next < trace_.size() ? trace_[next].due : -1;
    const double copied = model_->copies_end();
    if (copied > model_->now() && (until < 0 || copied < until)) until = copied;
    model_->wait_until(until);
  }

  void submit(size_t index) {
    const TraceRequest& request = trace_[index];
    Request out;
    out.id = static_cast<int32_t>(index) + 1;
    out.prompt = prompt_of(request.input, static_cast<int32_t>(index), vocab_);
    out.adapters = {{handles_.at(request.adapter), 1.0f}};
    out.sampling.max_output_tokens = request.output;
    out.sampling.seed = index;
    engine_->submit(std::move(out));
  }

  // How many requests ended. The records are those of worker/addon.ts.
  size_t read_events(const StepEvents& events) {
    size_t ended = 0;
    for (size_t i = 0; i < events.ints.size();) {
      const int32_t* words = events.ints.data() + i;
      TraceRequest& request = trace_.at(words[1] - 1);
      if (words[0] == 2) {
        for (int32_t t = 0; t < words[2]; ++t) token(request);
        i += 4 + static_cast<size_t>(words[2]);
      } else if (words[0] == 1) {
        i += 4;
      } else if (words[0] == 3 || words[0] == 5) {
        if (words[0] == 5) {
          request.failure = events.failures.at(words[2]).code;
        } else if (request.tokens != request.output) {
          request.failure = "reason-" + std::to_string(words[2]);
        }
        ++ended;
        i += 4;
      } else {
        throw std::logic_error("an event that no request here has: " + std::to_string(words[0]));
      }
    }
    return ended;
  }

  void token(TraceRequest& request) {
    if (request.tokens == 0) {
      request.first = model_->now();
    } else {
      between_.push_back(model_->now() - request.last);
    }
    ++request.tokens;
    request.last = model_->now();
  }

  void note_states() {
    const auto second = static_cast<int32_t>(model_->now());
    if (!states_.empty() && states_.back().first == second) return;
    states_.emplace_back(second, engine_->stats());
  }

  std::vector<TraceRequest> trace_;
  const int32_t vocab_;
  VirtualModel* model_ = nullptr;  // the engine's
  std::unique_ptr<Engine> engine_;
  std::vector<int32_t> handles_;
  std::vector<double> between_;
  std::vector<std::pair<int32_t, EngineStats>> states_;
};

int bench_main(int argc, char** argv) {
  if (argc < 2) throw std::runtime_error("usage: trace_bench TRACE name=value ...");
  Options options(argc - 2, argv + 2);
  std::vector<TraceRequest> trace = read_trace(argv[1]);
  ModelLimits limits;
  limits.vocab_size = options.integer("vocab");
  limits.context_tokens = options.integer("context_tokens");
  limits.num_pages = options.integer("pages");
  limits.page_bytes = static_cast<int64_t>(options.number("page_bytes"));
  limits.block_tokens = options.integer("block_tokens");
  limits.max_batch_tokens = options.integer("batch_tokens");
  limits.hidden_size = options.integer("hidden");
  EngineLimits engine;
  engine.max_batch_tokens = limits.max_batch_tokens;
  engine.max_queued = static_cast<int32_t>(trace.size()) + 1;
  engine.max_sequences = options.integer("rows");
  VirtualCosts costs;
  costs.weight_bytes = options.number("weight_bytes");
  costs.parameters = options.number("parameters");
  costs.attention_flops = options.number("attention_flops");
  costs.kv_token_bytes = options.number("kv_token_bytes");
  costs.adapter_bytes = options.number("adapter_bytes");
  costs.memory_rate = options.number("memory_rate");
  costs.peak_rate = options.number("peak_rate");
  costs.copy_rate = options.number("copy_rate");
  costs.step_seconds = options.number("step_seconds");
  const int32_t num_adapters = options.integer("adapters");
  const int32_t adapter_pages = options.integer("adapter_pages");
  options.expect_no_more();
  Bench bench(std::move(trace), limits, engine, num_adapters, adapter_pages, costs);
  bench.run();
  bench.print();
  return 0;
}

}  // namespace
}  // namespace lorax

int main(int argc, char** argv) {
  try {
    return lorax::bench_main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "trace_bench: %s\n", error.what());
    return 1;
  }
}
