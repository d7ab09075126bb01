// Which cuBLASLt algorithm was found fastest, per rows bucket and shape; and the file that keeps
// it.
//
// A file belongs to one device model and one version of the library: an algorithm's bytes mean
// nothing to another. What cannot be read, is cut off, altered or foreign counts as no file; what
// cannot be written is no error, as it only costs time. Used by cublaslt.cc and its tuning.
#pragma once

#include <cublasLt.h>

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "cuda/cublaslt.h"

namespace lorax::cuda {

// Row counts are rounded up to one of these; beyond the last, the last.
inline constexpr int32_t kRowBuckets[] = {16,   32,   64,   128,  256,  384,  512,  768,
                                          1024, 1280, 1536, 1792, 2048, 3072, 4096, 8192};
int32_t row_bucket(int32_t rows);

using GemmChoices = std::map<std::pair<GemmShape, int32_t>, cublasLtMatmulAlgo_t>;

// Names the file's owner: device model and library version.
struct ChoicesOwner {
  std::string device;
  int64_t version = 0;
};

// Empty `directory`: nothing is kept.
GemmChoices read_choices(const std::string& directory, const ChoicesOwner& owner);
void write_choices(const std::string& directory, const ChoicesOwner& owner,
                   const GemmChoices& choices);
std::string choices_path(const std::string& directory, const ChoicesOwner& owner);

}  // namespace lorax::cuda
