// See streams.h.
#include "common/streams.h"

#include <stdexcept>
#include <utility>

namespace lorax::bench {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

Streams::Streams(const std::string& folder, std::unique_ptr<Backend> backend,
                 const DecoderOptions& options)
    : folder_(folder) {
  const ModelSpec spec = bench_model(folder);
  config_ = spec.config;
  auto model = std::make_unique<Decoder>(std::move(backend), spec, options);
  const EngineLimits limits{model->limits().max_batch_tokens, 1024, 256};
  engine_ = std::make_unique<Engine>(std::move(model), limits, [this] { wake(); });
  engine_->start();
}

int32_t Streams::add_adapter(int32_t rank, bool all_projections) {
  AdapterSpec spec = dummy_adapter(config_, rank, folder_);
  if (!all_projections) {
    std::erase_if(spec.modules, [](const AdapterModuleSpec& m) {
      return m.module != kQProj && m.module != kVProj;
    });
  }
  return engine_->add_adapter(spec);
}

double Streams::run(int32_t tokens, const std::vector<int32_t>& prompt_lengths,
                    const std::vector<int32_t>& adapters) {
  const int64_t goal = engine_->stats().finished + static_cast<int64_t>(prompt_lengths.size());
  const auto begin = Clock::now();
  for (size_t i = 0; i < prompt_lengths.size(); ++i) {
    Request request;
    request.id = next_id_++;
    if (!adapters.empty()) request.adapters = {{adapters[i % adapters.size()], 1.0f}};
    for (int32_t t = 0; t < prompt_lengths[i]; ++t) {
      request.prompt.push_back((static_cast<int32_t>(i) * 7919 + t * 7) % config_.vocab_size);
    }
    request.sampling.max_output_tokens = tokens;
    engine_->submit(std::move(request));
  }
  while (true) {
    engine_->take_events();
    const EngineStats stats = engine_->stats();
    if (stats.failed > 0) throw std::runtime_error("a request failed");
    if (stats.finished >= goal) return seconds_since(begin);
    std::unique_lock lock(mutex_);
    news_.wait_for(lock, std::chrono::milliseconds(20), [this] { return told_; });
    told_ = false;
  }
}

double Streams::step_ms(int32_t shorter, int32_t longer, const std::vector<int32_t>& prompt_lengths,
                        const std::vector<int32_t>& adapters) {
  const double t1 = run(shorter, prompt_lengths, adapters);
  const double t2 = run(longer, prompt_lengths, adapters);
  return (t2 - t1) / (longer - shorter) * 1e3;
}

void Streams::wake() {
  const std::lock_guard lock(mutex_);
  told_ = true;
  news_.notify_one();
}

}  // namespace lorax::bench
