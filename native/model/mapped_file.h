// A read-only mapping of one weight file, for as long as its tensors are being packed.
//
// Only regular files whose size covers every tensor are mapped (weights.cc checks first): a page
// past the end would be a SIGBUS. Used by weights.cc alone; adapters are never mapped.
#pragma once

#include <cstdint>
#include <string>

namespace lorax {

class MappedFile {
 public:
  // Throws MODEL_INVALID naming the file.
  explicit MappedFile(std::string path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  int64_t bytes() const { return bytes_; }

  // Maps on first use.
  const uint8_t* data();

  // These bytes were read for the last time: their pages leave this process's memory.
  void release(int64_t offset, int64_t length);

 private:
  std::string path_;
  int file_ = -1;
  int64_t bytes_ = 0;
  uint8_t* data_ = nullptr;
};

}  // namespace lorax
