// POSIX mapping with errors that name the file.
#include "model/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "backend/error.h"

namespace lorax {
namespace {

[[noreturn]] void fail(const std::string& path, const std::string& what) {
  throw Error("MODEL_INVALID", path + ": " + what, {{"file", path}});
}

}  // namespace

MappedFile::MappedFile(std::string path) : path_(std::move(path)) {
  file_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (file_ < 0) fail(path_, std::string("cannot be opened: ") + std::strerror(errno));
  struct stat status = {};
  const bool regular = ::fstat(file_, &status) == 0 && S_ISREG(status.st_mode);
  if (!regular) {
    ::close(file_);
    fail(path_, "is not a regular file");
  }
  bytes_ = status.st_size;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(data_, static_cast<size_t>(bytes_));
  ::close(file_);
}

const uint8_t* MappedFile::data() {
  if (data_ == nullptr) {
    void* mapping = ::mmap(nullptr, static_cast<size_t>(bytes_), PROT_READ, MAP_PRIVATE, file_, 0);
    if (mapping == MAP_FAILED) {
      fail(path_, std::string("cannot be mapped: ") + std::strerror(errno));
    }
    data_ = static_cast<uint8_t*>(mapping);
  }
  return data_;
}

void MappedFile::release(int64_t offset, int64_t length) {
  if (data_ == nullptr) return;
  // Whole pages inside the range only: the first and last may hold a neighbour's bytes. Advice that
  // is refused costs memory, nothing else.
  const int64_t page = ::sysconf(_SC_PAGESIZE);
  const int64_t begin = (offset + page - 1) / page * page;
  const int64_t end = (offset + length) / page * page;
  if (end > begin) ::madvise(data_ + begin, static_cast<size_t>(end - begin), MADV_DONTNEED);
}

}  // namespace lorax
