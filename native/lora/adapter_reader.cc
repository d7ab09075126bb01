// Checks first, then reads: nothing is allocated from a number that was not compared with the base.
#include "lora/adapter_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "backend/error.h"

namespace lorax {
namespace {

// No rank is useful above the smaller side of the largest projections.
constexpr int32_t kMaxRank = 1 << 16;

class File {
 public:
  explicit File(const std::string& path) : path_(path) {
    file_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file_ < 0) {
      throw Error("ADAPTER_INVALID", path + ": cannot be opened: " + std::strerror(errno),
                  {{"file", path}});
    }
    // A directory or a pipe opens too, and a pipe would block.
    struct stat status = {};
    if (::fstat(file_, &status) != 0 || !S_ISREG(status.st_mode)) {
      ::close(file_);
      throw Error("ADAPTER_INVALID", path + ": is not a regular file", {{"file", path}});
    }
    bytes_ = status.st_size;
  }
  ~File() { ::close(file_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  // Bytes of the tensor, which lies inside the file.
  int64_t check(const TensorRef& tensor) const {
    const int64_t bytes = tensor.rows * tensor.cols * dtype_bytes(tensor.dtype);
    if (tensor.offset < 0 || bytes > bytes_ || tensor.offset > bytes_ - bytes) {
      fail(tensor, "takes " + std::to_string(bytes) + " bytes from byte " +
                       std::to_string(tensor.offset) + " of a file of " + std::to_string(bytes_) +
                       ": the file is cut off");
    }
    return bytes;
  }

  void read(const TensorRef& tensor, uint8_t* to, int64_t bytes) const {
    int64_t done = 0;
    while (done < bytes) {
      const ssize_t got =
          ::pread(file_, to + done, static_cast<size_t>(bytes - done), tensor.offset + done);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) fail(tensor, std::string("cannot be read: ") + std::strerror(errno));
      if (got == 0) fail(tensor, "ended while it was read: the file was cut off");
      done += got;
    }
  }

 private:
  [[noreturn]] void fail(const TensorRef& tensor, const std::string& what) const {
    throw Error("ADAPTER_INVALID", path_ + ": tensor " + tensor.name + " " + what,
                {{"file", path_}, {"tensor", tensor.name}});
  }

  const std::string& path_;
  int file_ = -1;
  int64_t bytes_ = 0;
};

// One tensor, and where it goes.
struct Piece {
  const TensorRef* tensor = nullptr;
  const File* file = nullptr;
  int64_t begin = 0;
  int64_t bytes = 0;
};

// Shares the pieces out among threads; of several errors the one of the first piece is thrown.
void read_all(const std::vector<Piece>& pieces, int64_t total_bytes, uint8_t* to) {
  constexpr int64_t kWorthAThread = int64_t{4} << 20;
  const int64_t most = std::max<int64_t>(1, std::thread::hardware_concurrency() / 2);
  const int64_t num_threads =
      std::clamp<int64_t>(total_bytes / kWorthAThread, 1, std::min<int64_t>(most, 8));
  std::atomic<size_t> next{0};
  std::mutex mutex;
  size_t failed = pieces.size();
  std::exception_ptr error;
  const auto work = [&] {
    for (size_t i; (i = next.fetch_add(1)) < pieces.size();) {
      try {
        pieces[i].file->read(*pieces[i].tensor, to + pieces[i].begin, pieces[i].bytes);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (i < failed) {
          failed = i;
          error = std::current_exception();
        }
        return;
      }
    }
  };
  std::vector<std::thread> threads;
  try {
    while (static_cast<int64_t>(threads.size()) + 1 < num_threads) threads.emplace_back(work);
  } catch (const std::system_error&) {
    // The system gives no more threads: those that run do the work.
  }
  work();
  for (std::thread& thread : threads) thread.join();
  if (error) std::rethrow_exception(error);
}

[[noreturn]] void fail(const AdapterSpec& spec, const TensorRef& tensor, const std::string& what) {
  const bool known = tensor.file >= 0 && static_cast<size_t>(tensor.file) < spec.files.size();
  const std::string file = known ? spec.files[tensor.file] : "";
  throw Error("ADAPTER_INVALID", (known ? file + ": " : "") + "tensor " + tensor.name + " " + what,
              {{"file", file}, {"tensor", tensor.name}});
}

void check_tensor(const AdapterSpec& spec, const TensorRef& tensor, int64_t rows, int64_t cols) {
  if (tensor.file < 0 || static_cast<size_t>(tensor.file) >= spec.files.size()) {
    fail(spec, tensor, "is in file " + std::to_string(tensor.file) + ", which is not listed");
  }
  if (tensor.rows != rows || tensor.cols != cols) {
    fail(spec, tensor,
         "has shape [" + std::to_string(tensor.rows) + ", " + std::to_string(tensor.cols) +
             "], the base model and its rank ask for [" + std::to_string(rows) + ", " +
             std::to_string(cols) + "]");
  }
}

// The tensor that errors about all of the module name.
const TensorRef& first_tensor(const AdapterModuleSpec& module) {
  return module.rank == 0 && module.whole ? *module.whole : module.a;
}

void check_module(const AdapterSpec& spec, const AdapterShapes& shapes,
                  const AdapterModuleSpec& module) {
  const TensorRef& first = first_tensor(module);
  if (module.module < 0 || module.module >= kNumModules) {
    fail(spec, first, "belongs to unknown module " + std::to_string(module.module));
  }
  const bool once = module.module >= kNumProjections;
  if (once && module.layer != 0) {
    fail(spec, first, "belongs to layer " + std::to_string(module.layer) + ", which has none");
  }
  if (module.layer < 0 || module.layer >= shapes.num_layers) {
    fail(spec, first,
         "belongs to layer " + std::to_string(module.layer) + " of a base model with " +
             std::to_string(shapes.num_layers));
  }
  if (module.rank < (module.whole ? 0 : 1) || module.rank > kMaxRank) {
    fail(spec, first, "has rank " + std::to_string(module.rank));
  }
  if (!std::isfinite(module.scale)) fail(spec, first, "has a scale that is not finite");
  const int64_t d_in = shapes.d_in[module.module];
  const int64_t d_out = shapes.d_out[module.module];
  if (module.rank > 0) {
    check_tensor(spec, module.a, module.rank, d_in);
    check_tensor(spec, module.b, d_out, module.rank);
  }
  for (const auto& vector : {module.b_bias, module.magnitude}) {
    if (!vector) continue;
    if (module.rank == 0) fail(spec, *vector, "is for a LoRA that is not there");
    check_tensor(spec, *vector, 1, d_out);
  }
  if (!module.whole) return;
  if (!once) fail(spec, *module.whole, "replaces a projection");
  const bool is_table = module.module == kEmbedTokens;
  check_tensor(spec, *module.whole, is_table ? d_in : d_out, is_table ? d_out : d_in);
}

}  // namespace

AdapterTensors read_adapter_tensors(const AdapterSpec& spec, const AdapterShapes& shapes) {
  std::set<std::pair<int32_t, int32_t>> seen;
  for (const AdapterModuleSpec& module : spec.modules) {
    check_module(spec, shapes, module);
    if (!seen.emplace(module.layer, module.module).second) {
      fail(spec, first_tensor(module),
           std::string("is the second for ") + module_name(module.module) + " of layer " +
               std::to_string(module.layer));
    }
  }
  std::vector<std::unique_ptr<File>> files;
  for (const std::string& path : spec.files) files.push_back(std::make_unique<File>(path));

  std::vector<Piece> pieces;
  int64_t total_bytes = 0;
  AdapterTensors out;
  out.modules.resize(spec.modules.size());
  std::vector<TensorView*> views;  // [pieces]
  const auto add = [&](const TensorRef& tensor, TensorView& view) {
    const int64_t bytes = files[tensor.file]->check(tensor);
    pieces.push_back({&tensor, files[tensor.file].get(), total_bytes, bytes});
    views.push_back(&view);
    total_bytes += (bytes + 15) / 16 * 16;
  };
  for (size_t i = 0; i < spec.modules.size(); ++i) {
    const AdapterModuleSpec& from = spec.modules[i];
    AdapterModule& to = out.modules[i];
    to.layer = from.layer;
    to.module = from.module;
    to.rank = from.rank;
    to.scale = from.scale;
    to.is_table = from.module == kEmbedTokens;
    to.sampled_rows = from.module == kLmHead;
    if (from.rank > 0) {
      add(from.a, to.a);
      add(from.b, to.b);
    }
    if (from.b_bias) add(*from.b_bias, to.b_bias);
    if (from.magnitude) add(*from.magnitude, to.magnitude);
    if (from.whole) add(*from.whole, to.whole);
  }
  out.storage = std::make_unique_for_overwrite<uint8_t[]>(static_cast<size_t>(total_bytes));
  read_all(pieces, total_bytes, out.storage.get());

  const auto view = [&](const Piece& piece) {
    TensorView view;
    view.data = out.storage.get() + piece.begin;
    view.dtype = piece.tensor->dtype;
    view.rows = piece.tensor->rows;
    view.cols = piece.tensor->cols;
    view.name = piece.tensor->name.c_str();
    view.file = spec.files[piece.tensor->file].c_str();
    return view;
  };
  for (size_t i = 0; i < pieces.size(); ++i) *views[i] = view(pieces[i]);
  return out;
}

}  // namespace lorax
