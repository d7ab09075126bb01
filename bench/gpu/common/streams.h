// The native engine with streams of given lengths: what the JavaScript side does, without it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "common/dummy_model.h"
#include "engine/engine.h"
#include "model/decoder.h"

namespace lorax::bench {

double seconds_since(std::chrono::steady_clock::time_point begin);

class Streams {
 public:
  // The model in `folder`, or random numbers of Llama-3.1-8B's shape. `options.memory_bytes` and
  // `options.progress` are the caller's.
  Streams(const std::string& folder, std::unique_ptr<Backend> backend,
          const DecoderOptions& options);

  // Every layer's seven projections, or q and v alone.
  int32_t add_adapter(int32_t rank, bool all_projections);

  // Seconds until `tokens` of every stream are there, one for each prompt length; stream i is on
  // adapters[i % size], without any on the base.
  double run(int32_t tokens, const std::vector<int32_t>& prompt_lengths,
             const std::vector<int32_t>& adapters = {});

  // Milliseconds of a step in which all of `prompt_lengths` decode: the difference of two runs over
  // that of their lengths.
  double step_ms(int32_t shorter, int32_t longer, const std::vector<int32_t>& prompt_lengths,
                 const std::vector<int32_t>& adapters = {});

  Engine& engine() { return *engine_; }

 private:
  void wake();

  const std::string folder_;
  DecoderConfig config_;
  std::mutex mutex_;
  std::condition_variable news_;
  bool told_ = false;
  int32_t next_id_ = 1;
  std::unique_ptr<Engine> engine_;  // dropped first: its thread calls wake()
};

}  // namespace lorax::bench
