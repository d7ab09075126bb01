// The engine without Node: streams of one length through native/engine on the CUDA backend, for
// comparison with bench/gpu/provider.mjs, which asks for the same through the AI SDK provider.
//
//   engine_bench FOLDER [STREAMS] [SHORT] [LONG]
//
// Two runs whose answers differ in length: the difference of their times over the difference of
// their lengths is the time of a step in which all streams decode.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>

#include "common/dummy_model.h"
#include "cuda/cuda_backend.h"
#include "engine/engine.h"
#include "model/decoder.h"

namespace lorax::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int32_t kPrompt = 130;  // about what provider.mjs asks for

// Seconds from the first submission to the last token.
double run(Engine& engine, int32_t streams, int32_t tokens, int32_t* next_id) {
  const int64_t before = engine.stats().finished;
  const auto begin = Clock::now();
  for (int32_t i = 0; i < streams; ++i) {
    Request request;
    request.id = (*next_id)++;
    for (int32_t t = 0; t < kPrompt; ++t)
      request.prompt.push_back((i * 7919 + t * 104729) % 128256);
    request.sampling.max_output_tokens = tokens;
    engine.submit(std::move(request));
  }
  while (engine.stats().finished + engine.stats().failed < before + streams) {
    std::this_thread::sleep_for(std::chrono::microseconds(500));
    engine.take_events();
  }
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

int main(int argc, char** argv) {
  const std::string folder = argc > 1 ? argv[1] : "/tmp";
  const int32_t streams = argc > 2 ? std::atoi(argv[2]) : 64;
  const int32_t shorter = argc > 3 ? std::atoi(argv[3]) : 64;
  const int32_t longer = argc > 4 ? std::atoi(argv[4]) : 192;
  CudaOptions cuda;
  cuda.cache_directory = folder;
  DecoderOptions options;
  auto model = std::make_unique<Decoder>(make_cuda_backend(cuda),
                                         dummy_model(llama_8b_config(), folder), options);
  const EngineLimits limits{model->limits().max_batch_tokens, 1024, 256};
  Engine engine(std::move(model), limits, [] {});
  engine.start();
  int32_t next_id = 1;
  run(engine, streams, 16, &next_id);
  for (int round = 0; round < 3; ++round) {
    const double t1 = run(engine, streams, shorter, &next_id);
    const double t2 = run(engine, streams, longer, &next_id);
    const double step = (t2 - t1) / (longer - shorter);
    std::printf("engine: %d streams, %.3f ms a step, %.0f tokens/s\n", streams, step * 1e3,
                streams / step);
    std::fflush(stdout);
  }
  if (engine.stats().failed > 0) {
    std::fprintf(stderr, "engine_bench: requests failed\n");
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace lorax::bench

int main(int argc, char** argv) {
  try {
    return lorax::bench::main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "engine_bench: %s\n", error.what());
    return 1;
  }
}
