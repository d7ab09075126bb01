// What a LoRA adapter is before any backend packs it: where its tensors lie, or their values.
//
// worker/files/peft-adapter.ts makes the spec (worker/addon.ts, NativeAdapterSpec); model/ reads
// the tensors; a backend packs them into page images.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace lorax {

// Ids of the seven projections, then of what is there once, with layer 0; the order is MODULES in
// worker/addon.ts.
enum Module : int32_t {
  kQProj,
  kKProj,
  kVProj,
  kOProj,
  kGateProj,
  kUpProj,
  kDownProj,
  kNumProjections,
  kLmHead = kNumProjections,
  kEmbedTokens,
  kNumModules
};

const char* module_name(int32_t module);

// Where one tensor lies on disk: [rows, cols] row-major.
struct TensorRef {
  std::string name;  // in the file, for errors
  int32_t file = 0;  // into the spec's files
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t offset = 0;  // bytes from the start of the file
};

struct AdapterModuleSpec {
  int32_t layer = 0;
  int32_t module = 0;  // Module
  int32_t rank = 0;
  float scale = 0.0f;               // alpha / r or alpha / sqrt(r); never folded into the weights
  TensorRef a;                      // [rank, d_in]
  TensorRef b;                      // [d_out, rank]; rank 0: no a and b
  std::optional<TensorRef> b_bias;  // [1, d_out]
  std::optional<TensorRef> magnitude;  // [1, d_out]
  std::optional<TensorRef> whole;      // [vocab, hidden]: of the head and the embedding alone
};

// What changes when somebody writes to a file or puts another in its place.
struct FileStamp {
  uint64_t device = 0;
  uint64_t inode = 0;
  int64_t bytes = 0;
  int64_t modified_ns = 0;
  int64_t changed_ns = 0;
  bool operator==(const FileStamp&) const = default;
};

struct AdapterSpec {
  std::string hash;
  std::vector<std::string> files;
  std::vector<AdapterModuleSpec> modules;
  std::vector<FileStamp> stamps = {};  // [files], that they must have; empty: any
  bool is_cached = false;              // what is read is kept by us: not by the system, too
};

}  // namespace lorax
