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
#include <new>
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

// What O_DIRECT asks of offsets, lengths and addresses; and what is read at once.
constexpr int64_t kBlockBytes = 4096;
constexpr int64_t kDirectBytes = int64_t{4} << 20;

int64_t round_up(int64_t bytes, int64_t to) { return (bytes + to - 1) / to * to; }

FileStamp stamp_of(const struct stat& status) {
  const auto ns = [](const timespec& time) { return time.tv_sec * 1'000'000'000 + time.tv_nsec; };
  return {status.st_dev, status.st_ino, status.st_size, ns(status.st_mtim), ns(status.st_ctim)};
}

class File {
 public:
  // `past_cache`: reads with O_DIRECT, where the file system has that.
  explicit File(const std::string& path, bool past_cache = false) : path_(path) {
    constexpr int kFlags = O_RDONLY | O_CLOEXEC;
    if (past_cache) file_ = ::open(path.c_str(), kFlags | O_DIRECT);
    is_direct_ = file_ >= 0;
    if (file_ < 0) file_ = ::open(path.c_str(), kFlags);
    if (file_ < 0) fail(std::string("cannot be opened: ") + std::strerror(errno));
    // A directory or a pipe opens too, and a pipe would block.
    struct stat status = {};
    if (::fstat(file_, &status) != 0 || !S_ISREG(status.st_mode)) {
      ::close(file_);
      fail("is not a regular file");
    }
    stamp_ = stamp_of(status);
  }
  ~File() { ::close(file_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  int64_t bytes() const { return stamp_.bytes; }
  const FileStamp& stamp() const { return stamp_; }
  bool is_direct() const { return is_direct_; }

  // It was not written to since.
  void check_stamp(const FileStamp& expected) const {
    struct stat status = {};
    if (::fstat(file_, &status) == 0 && stamp_of(status) == expected) return;
    fail("has changed since the adapter was loaded from it: load the adapter again");
  }

  // Bytes of the tensor, which lies inside the file.
  int64_t check(const TensorRef& tensor) const {
    const int64_t bytes = tensor.rows * tensor.cols * dtype_bytes(tensor.dtype);
    if (tensor.offset < 0 || bytes > stamp_.bytes || tensor.offset > stamp_.bytes - bytes) {
      fail(tensor, "takes " + std::to_string(bytes) + " bytes from byte " +
                       std::to_string(tensor.offset) + " of a file of " +
                       std::to_string(stamp_.bytes) + ": the file is cut off");
    }
    return bytes;
  }

  // [offset, offset + bytes); the file's last bytes when it is direct may be asked for in a whole
  // block. `tensor`: for errors; null when it is of many.
  void read(const TensorRef* tensor, int64_t offset, uint8_t* to, int64_t bytes) const {
    const int64_t wanted = std::min(bytes, stamp_.bytes - offset);
    for (int64_t done = 0; done < wanted;) {
      const ssize_t got =
          ::pread(file_, to + done, static_cast<size_t>(bytes - done), offset + done);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) fail(tensor, std::string("cannot be read: ") + std::strerror(errno));
      if (got == 0) fail(tensor, "ended while it was read: the file was cut off");
      done += got;
    }
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error("ADAPTER_INVALID", path_ + ": " + what, {{"file", path_}});
  }
  [[noreturn]] void fail(const TensorRef& tensor, const std::string& what) const {
    throw Error("ADAPTER_INVALID", path_ + ": tensor " + tensor.name + " " + what,
                {{"file", path_}, {"tensor", tensor.name}});
  }
  [[noreturn]] void fail(const TensorRef* tensor, const std::string& what) const {
    if (tensor != nullptr) fail(*tensor, what);
    fail(what);
  }

  const std::string& path_;
  int file_ = -1;
  bool is_direct_ = false;
  FileStamp stamp_;
};

// A stretch of a file, and where it goes.
struct Piece {
  const TensorRef* tensor = nullptr;  // that it is; null: a part of the whole file
  const File* file = nullptr;
  int64_t offset = 0;  // in the file
  int64_t begin = 0;   // in the storage
  int64_t bytes = 0;
};

// Shares the pieces out among threads; of several errors the one of the first piece is thrown.
// Threads that wait for a disk are many. Those that copy from the page cache keep a core busy each,
// which the engine's and JavaScript's must find idle.
void read_all(const std::vector<Piece>& pieces, int64_t total_bytes, uint8_t* to) {
  constexpr int64_t kWorthAThread = int64_t{4} << 20;
  const bool waits = !pieces.empty() && pieces.front().file->is_direct();
  const int64_t cores = std::thread::hardware_concurrency();
  const int64_t most = waits ? std::clamp<int64_t>(cores / 2, 1, 8)  //
                             : std::clamp<int64_t>(cores / 4, 1, 3);
  const int64_t num_threads = std::clamp<int64_t>(total_bytes / kWorthAThread, 1, most);
  std::atomic<size_t> next{0};
  std::mutex mutex;
  size_t failed = pieces.size();
  std::exception_ptr error;
  const auto work = [&] {
    for (size_t i; (i = next.fetch_add(1)) < pieces.size();) {
      try {
        const Piece& piece = pieces[i];
        piece.file->read(piece.tensor, piece.offset, to + piece.begin, piece.bytes);
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

void stamp_files(AdapterSpec* spec) {
  spec->stamps.clear();
  for (const std::string& path : spec->files) spec->stamps.push_back(File(path).stamp());
}

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
  for (const std::string& path : spec.files) {
    files.push_back(std::make_unique<File>(path, spec.is_cached));
  }
  const auto check_stamps = [&] {
    for (size_t i = 0; i < spec.stamps.size(); ++i) files.at(i)->check_stamp(spec.stamps[i]);
  };
  check_stamps();

  // Direct reads come in whole blocks, so those files are read from end to end.
  std::vector<Piece> pieces;
  std::vector<int64_t> file_begins;
  int64_t total_bytes = 0;
  for (const auto& file : files) {
    file_begins.push_back(total_bytes);
    if (!file->is_direct()) continue;
    for (int64_t at = 0; at < file->bytes(); at += kDirectBytes) {
      const int64_t bytes = round_up(std::min(kDirectBytes, file->bytes() - at), kBlockBytes);
      pieces.push_back({nullptr, file.get(), at, total_bytes, bytes});
      total_bytes += bytes;
    }
  }
  AdapterTensors out;
  out.modules.resize(spec.modules.size());
  // Where each tensor comes to lie, and the view that is told.
  struct Placed {
    const TensorRef* tensor;
    TensorView* view;
    int64_t begin;
  };
  std::vector<Placed> placed;
  const auto add = [&](const TensorRef& tensor, TensorView& view) {
    const File& file = *files[tensor.file];
    const int64_t bytes = file.check(tensor);
    if (file.is_direct()) {
      placed.push_back({&tensor, &view, file_begins[tensor.file] + tensor.offset});
      return;
    }
    placed.push_back({&tensor, &view, total_bytes});
    pieces.push_back({&tensor, &file, tensor.offset, total_bytes, bytes});
    total_bytes += round_up(bytes, 16);
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
  out.storage = HostBuffer(total_bytes);
  read_all(pieces, total_bytes, out.storage.as<uint8_t>());
  check_stamps();

  const auto view = [&](const TensorRef& tensor, int64_t begin) {
    TensorView view;
    view.data = out.storage.as<uint8_t>() + begin;
    view.dtype = tensor.dtype;
    view.rows = tensor.rows;
    view.cols = tensor.cols;
    view.name = tensor.name.c_str();
    view.file = spec.files[tensor.file].c_str();
    return view;
  };
  for (const Placed& each : placed) *each.view = view(*each.tensor, each.begin);
  return out;
}

}  // namespace lorax
