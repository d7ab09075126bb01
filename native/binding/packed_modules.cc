#include "binding/packed_modules.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>

namespace lorax {
namespace {

constexpr double kMaxSafeInteger = 9007199254740991.0;
constexpr double kMaxInt32 = std::numeric_limits<int32_t>::max();

// UTF-16, where a lone surrogate is U+FFFD.
std::string to_utf8(std::u16string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    uint32_t code = text[i];
    const bool is_high = code >= 0xd800 && code < 0xdc00;
    if (is_high && i + 1 < text.size() && text[i + 1] >= 0xdc00 && text[i + 1] < 0xe000) {
      code = 0x10000 + ((code - 0xd800) << 10) + (text[++i] - 0xdc00);
    } else if (code >= 0xd800 && code < 0xe000) {
      code = 0xfffd;
    }
    const auto put = [&](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
    if (code < 0x80) {
      put(code);
    } else if (code < 0x800) {
      put(0xc0 | code >> 6), put(0x80 | (code & 0x3f));
    } else if (code < 0x10000) {
      put(0xe0 | code >> 12), put(0x80 | (code >> 6 & 0x3f)), put(0x80 | (code & 0x3f));
    } else {
      put(0xf0 | code >> 18), put(0x80 | (code >> 12 & 0x3f));
      put(0x80 | (code >> 6 & 0x3f)), put(0x80 | (code & 0x3f));
    }
  }
  return out;
}

class PackedReader {
 public:
  PackedReader(Napi::Env env, std::span<const double> numbers, std::u16string_view names,
               std::string name)
      : env_(env), numbers_(numbers), names_(names), name_(std::move(name)) {}

  bool at_end() const { return at_ == numbers_.size(); }

  AdapterModuleSpec read_module() {
    module_ = name_ + "[" + std::to_string(count_++) + "].";
    AdapterModuleSpec out;
    out.layer = int32("layer", kMaxInt32);
    out.module = int32("module", kNumModules - 1);
    out.rank = int32("rank", kMaxInt32);
    out.scale = static_cast<float>(next("scale"));
    const int32_t has = int32("has", 31);
    if (out.rank > 0 || (has & 16) == 0) {
      if ((has & 3) != 3) fail("has", "A and B, or whole weights instead");
    }
    const auto tensor = [&](int bit, const char* part) {
      return (has & bit) != 0 ? std::optional(read_tensor(part)) : std::nullopt;
    };
    if (auto a = tensor(1, "a")) out.a = std::move(*a);
    if (auto b = tensor(2, "b")) out.b = std::move(*b);
    out.b_bias = tensor(4, "bBias");
    out.magnitude = tensor(8, "magnitude");
    out.whole = tensor(16, "whole");
    return out;
  }

  void check_names() const {
    if (names_at_ != names_.size()) {
      throw Napi::TypeError::New(env_, name_ + ": names must be those of the tensors");
    }
  }

 private:
  TensorRef read_tensor(const std::string& part) {
    constexpr DType kTypes[] = {DType::kF32, DType::kF16, DType::kBF16};
    TensorRef out;
    out.file = int32(part + ".file", kMaxInt32);
    out.dtype = kTypes[int32(part + ".dtype", 2)];
    out.rows = integer(part + ".rows", kMaxSafeInteger);
    out.cols = integer(part + ".cols", kMaxSafeInteger);
    out.offset = integer(part + ".offset", kMaxSafeInteger);
    const auto length = static_cast<size_t>(integer(part + ".name", kMaxInt32));
    if (length > names_.size() - names_at_) fail(part + ".name", "within the names");
    out.name = to_utf8(names_.substr(names_at_, length));
    names_at_ += length;
    return out;
  }

  double next(const std::string& field) {
    if (at_end()) fail(field, "a number");
    const double number = numbers_[at_++];
    if (!std::isfinite(number)) fail(field, "a finite number");
    return number;
  }
  int64_t integer(const std::string& field, double high) {
    const double number = next(field);
    if (number != std::floor(number) || number < 0 || number > high) {
      fail(field, "an integer between 0 and " + std::to_string(static_cast<int64_t>(high)));
    }
    return static_cast<int64_t>(number);
  }
  int32_t int32(const std::string& field, double high) {
    return static_cast<int32_t>(integer(field, high));
  }
  [[noreturn]] void fail(const std::string& field, const std::string& wanted) const {
    throw Napi::TypeError::New(env_, module_ + field + " must be " + wanted);
  }

  Napi::Env env_;
  std::span<const double> numbers_;
  std::u16string_view names_;
  std::string name_;
  std::string module_;
  size_t at_ = 0;
  size_t names_at_ = 0;
  size_t count_ = 0;
};

}  // namespace

std::vector<AdapterModuleSpec> read_packed_modules(const Napi::Value& numbers,
                                                   const Napi::Value& names,
                                                   const std::string& name) {
  const Napi::Env env = numbers.Env();
  if (!numbers.IsTypedArray() ||
      numbers.As<Napi::TypedArray>().TypedArrayType() != napi_float64_array) {
    throw Napi::TypeError::New(env, name + ".numbers must be a Float64Array");
  }
  if (!names.IsString()) throw Napi::TypeError::New(env, name + ".names must be a string");
  const auto array = numbers.As<Napi::Float64Array>();
  const std::u16string text = names.As<Napi::String>().Utf16Value();
  PackedReader reader(env, {array.Data(), array.ElementLength()}, text, name);
  std::vector<AdapterModuleSpec> out;
  while (!reader.at_end()) out.push_back(reader.read_module());
  reader.check_names();
  return out;
}

}  // namespace lorax
