// The file: a line that names the owner, a line per choice, a last line with a checksum.
#include "cuda/cublaslt_choices.h"

#include <unistd.h>

#include <cctype>
#include <cinttypes>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>

namespace lorax::cuda {
namespace {

constexpr int64_t kLargestFile = 4 << 20;

std::string owner_line(const ChoicesOwner& owner) {
  return "lorax-js cublaslt choices 1 | " + owner.device + " | " + std::to_string(owner.version) +
         "\n";
}

// FNV-1a
uint64_t checksum(const std::string& text) {
  uint64_t hash = 0xCBF29CE484222325u;
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001B3u;
  return hash;
}

std::string end_line(const std::string& text) {
  char line[32];
  std::snprintf(line, sizeof(line), "end %016" PRIx64 "\n", checksum(text));
  return line;
}

}  // namespace

int32_t row_bucket(int32_t rows) {
  for (const int32_t bucket : kRowBuckets) {
    if (rows <= bucket) return bucket;
  }
  return kRowBuckets[std::size(kRowBuckets) - 1];
}

std::string choices_path(const std::string& directory, const ChoicesOwner& owner) {
  std::string name;
  for (const char c : owner.device) {
    name += std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '-';
  }
  return directory + "/cublaslt-" + name + "-" + std::to_string(owner.version) + ".txt";
}

GemmChoices read_choices(const std::string& directory, const ChoicesOwner& owner) {
  if (directory.empty()) return {};
  const std::string path = choices_path(directory, owner);
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  if (error || size > kLargestFile) return {};
  std::ifstream file(path, std::ios::binary);
  std::stringstream read;
  read << file.rdbuf();
  const std::string text = read.str();

  const std::string first = owner_line(owner);
  const size_t end = text.rfind("end ");
  if (!text.starts_with(first) || end == std::string::npos) return {};
  const std::string content = text.substr(0, end);
  if (text.substr(end) != end_line(content)) return {};

  GemmChoices choices;
  std::istringstream lines(content.substr(first.size()));
  std::string line;
  while (std::getline(lines, line)) {
    std::istringstream fields(line);
    GemmShape shape;
    int32_t rows = 0;
    cublasLtMatmulAlgo_t algo;
    fields >> shape.n >> shape.k >> shape.float_output >> shape.has_bias >> rows >> std::hex;
    for (uint64_t& word : algo.data) fields >> word;
    if (fields.fail()) return {};
    choices[{shape, rows}] = algo;
  }
  return choices;
}

void write_choices(const std::string& directory, const ChoicesOwner& owner,
                   const GemmChoices& choices) {
  if (directory.empty()) return;
  std::ostringstream out;
  out << owner_line(owner);
  for (const auto& [key, algo] : choices) {
    const auto& [shape, rows] = key;
    out << std::dec << shape.n << ' ' << shape.k << ' ' << shape.float_output << ' '
        << shape.has_bias << ' ' << rows << std::hex;
    for (const uint64_t word : algo.data) out << ' ' << word;
    out << '\n';
  }
  const std::string content = out.str();
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  // Written aside and renamed: two processes may start at once.
  const std::string path = choices_path(directory, owner);
  const std::string aside = path + "." + std::to_string(getpid());
  {
    std::ofstream file(aside, std::ios::binary | std::ios::trunc);
    file << content << end_line(content);
    if (!file.flush()) {
      file.close();
      std::filesystem::remove(aside, error);
      return;
    }
  }
  std::filesystem::rename(aside, path, error);
  if (error) std::filesystem::remove(aside, error);
}

}  // namespace lorax::cuda
