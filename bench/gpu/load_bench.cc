// How long things take to be there: an adapter, and an engine.
//
//   load_bench FOLDER [--rank 16] [--repeats 21] [--starts 3] [--csv FILE] [--device cuda]
//
// FOLDER holds what bench/gpu/make-model.mjs wrote (else all weights lie over one another in 1 GB,
// and it says so). An adapter: from its packed image in pinned host memory into pages, and from its
// file in the page cache; medians. An engine: processes of their own, from their start to the first
// token of a prompt, the weights in the page cache; the first has no measured choices of GEMMs on
// disk, as on a new machine.
#include <cuda_runtime_api.h>
#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "common/bench_options.h"
#include "common/dummy_model.h"
#include "common/streams.h"
#include "cuda/check.h"
#include "model/decoder.h"

namespace lorax::bench {
namespace {

using Clock = std::chrono::steady_clock;

const Clock::time_point process_begin = Clock::now();

struct Options {
  std::string folder, device, cache, csv_path;
  int32_t rank = 16, repeats = 21, starts = 3;
  bool start = false;

  std::unique_ptr<Backend> backend() const {
    CudaOptions cuda;
    cuda.cache_directory = cache;
    return bench_backend(device, cuda);
  }
};

// Name, milliseconds, and the bar if there is one.
struct Figure {
  std::string name;
  double ms = 0.0;
  double bar_ms = 0.0;
};

// ---- an engine: one process, then what starts it ----

// Prints milliseconds since the process began: the device is open, the weights are on it, the
// engine is ready (GEMMs chosen, graphs recorded), the first token is there.
int start(const Options& options) {
  const auto now_ms = [] { return seconds_since(process_begin) * 1e3; };
  auto backend = options.backend();
  const double opened = now_ms();
  double loaded = 0.0;
  DecoderOptions decoder;
  decoder.progress = [&](int64_t done, int64_t total) {
    if (done == total) loaded = now_ms();
  };
  Streams streams(options.folder, std::move(backend), decoder);
  const double ready = now_ms();
  streams.run(1, {128});
  std::printf("%.1f %.1f %.1f %.1f\n", opened, loaded, ready, now_ms());
  std::fflush(stdout);
  return 0;
}

// Reads every byte, so that it is in the page cache; GB and GB/s.
void read_weights(const ModelSpec& spec) {
  const auto begin = Clock::now();
  std::vector<std::thread> threads;
  double total = 0;
  for (const std::string& file : spec.files) {
    total += static_cast<double>(std::filesystem::file_size(file));
    threads.emplace_back([&file] {
      std::vector<char> buffer(4 << 20);
      const int in = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
      while (in >= 0 && ::read(in, buffer.data(), buffer.size()) > 0) {
      }
      ::close(in);
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::printf("weights: %.2f GB in %zu files, read at %.1f GB/s\n", total / 1e9, spec.files.size(),
              total / 1e9 / seconds_since(begin));
}

std::vector<Figure> measure_starts(const Options& options) {
  const std::string cache =
      (std::filesystem::temp_directory_path() / ("load-bench-" + std::to_string(::getpid())))
          .string();
  std::filesystem::create_directories(cache);
  const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
  const std::string command = "'" + self + "' '" + options.folder + "' --start --device " +
                              options.device + " --cache '" + cache + "'";
  double first = 0.0;
  std::vector<double> others;
  for (int32_t i = 0; i < options.starts; ++i) {
    const auto begin = Clock::now();
    std::FILE* child = ::popen(command.c_str(), "r");
    double opened = 0, loaded = 0, ready = 0, token = 0;
    const bool told = child != nullptr &&
                      std::fscanf(child, "%lf %lf %lf %lf", &opened, &loaded, &ready, &token) == 4;
    // From before the process was there.
    const double total = seconds_since(begin) * 1e3;
    if (child == nullptr || ::pclose(child) != 0 || !told) {
      throw std::runtime_error("the process that starts an engine failed");
    }
    std::printf(
        "start %d: device %.0f ms, weights +%.0f, ready +%.0f, first token +%.0f; in all "
        "%.0f ms\n",
        i, opened, loaded - opened, ready - loaded, token - ready, total);
    std::fflush(stdout);
    if (i == 0) {
      first = total;
    } else {
      others.push_back(total);
    }
  }
  std::filesystem::remove_all(cache);
  std::vector<Figure> out = {{"start to first token, nothing cached", first, 15000.0}};
  if (!others.empty()) out.push_back({"start to first token", median(others), 15000.0});
  return out;
}

// ---- an adapter ----

std::vector<Figure> measure_adapter(const Options& options) {
  const ModelSpec spec = bench_model(options.folder);
  DecoderOptions decoder_options;
  decoder_options.memory_bytes = int64_t{4} << 30;
  Decoder decoder(options.backend(), spec, decoder_options);
  const AdapterSpec adapter = dummy_adapter(spec.config, options.rank, options.folder);
  // Of a process's first adapter: host memory is pinned for it and those to come.
  auto begin = Clock::now();
  std::unique_ptr<AdapterImage> image = decoder.read_adapter(adapter);
  const double first = seconds_since(begin) * 1e3;

  std::vector<int32_t> pages;
  for (int32_t i = 0; i < image->num_pages; ++i) pages.push_back(i);
  const auto wait = [&] {
    if (options.device == "cuda") LORAX_CUDA(cudaDeviceSynchronize());
  };
  const auto place = [&] {
    const std::unique_ptr<ResidentAdapter> placed = decoder.place_adapter(*image, pages);
    wait();
  };
  place();
  std::vector<double> from_memory, from_file;
  for (int32_t i = 0; i < options.repeats; ++i) {
    wait();
    begin = Clock::now();
    place();
    from_memory.push_back(seconds_since(begin) * 1e3);
    image.reset();
    begin = Clock::now();
    image = decoder.read_adapter(adapter);
    place();
    from_file.push_back(seconds_since(begin) * 1e3);
  }
  std::printf("adapter: rank %d, %.1f MB, %d pages\n", options.rank,
              static_cast<double>(image->bytes) / 1e6, image->num_pages);
  return {{"adapter, pinned memory to pages", median(from_memory), 2.5},
          {"adapter, file to pages", median(from_file), 25.0},
          {"adapter, first of a process: file to pinned memory", first, 0.0}};
}

int run(int argc, char** argv) {
  Arguments arguments(argc, argv);
  Options options;
  options.folder = arguments.positional("/tmp");
  options.device = arguments.value("--device", "cuda");
  options.cache = arguments.value("--cache", options.folder);
  options.csv_path = arguments.value("--csv", "");
  options.rank = static_cast<int32_t>(arguments.number("--rank", options.rank));
  options.repeats = static_cast<int32_t>(arguments.number("--repeats", options.repeats));
  options.starts = static_cast<int32_t>(arguments.number("--starts", options.starts));
  options.start = arguments.flag("--start");
  arguments.finish();
  if (options.start) return start(options);

  if (!stored_model(options.folder)) {
    std::printf("%s holds no model of make-model.mjs: starts read the same 1 GB again and again\n",
                options.folder.c_str());
  }
  read_weights(bench_model(options.folder));
  std::vector<Figure> figures;
  if (options.starts > 0) figures = measure_starts(options);
  for (Figure& figure : measure_adapter(options)) figures.push_back(std::move(figure));
  std::ofstream csv;
  if (!options.csv_path.empty()) csv.open(options.csv_path);
  if (csv.is_open()) csv << "what,median_ms,bar_ms\n";
  for (const Figure& f : figures) {
    const std::string bar =
        f.bar_ms > 0 ? " (bar " + std::to_string(f.bar_ms).substr(0, 5) + ")" : "";
    std::printf("LOAD %-52s %10.2f ms%s\n", f.name.c_str(), f.ms, bar.c_str());
    if (csv.is_open()) csv << '"' << f.name << "\"," << f.ms << ',' << f.bar_ms << '\n';
  }
  return 0;
}

}  // namespace
}  // namespace lorax::bench

int main(int argc, char** argv) {
  try {
    return lorax::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "load_bench: %s\n", error.what());
    return 1;
  }
}
