#include "binding/packed_modules.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string_view>

namespace lorax {
namespace {

constexpr double kMaxSafeInteger = 9007199254740991.0;
constexpr double kMaxInt32 = std::numeric_limits<int32_t>::max();

class PackedReader {
 public:
  PackedReader(Napi::Env env, std::span<const double> numbers, std::string_view names,
               std::string name)
      : env_(env), numbers_(numbers), names_(names), name_(std::move(name)) {}

  bool at_end() const { return at_ == numbers_.size(); }

  AdapterModuleSpec read_module() {
    part_ = nullptr;
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
    ++count_;
    return out;
  }

  void check_names() const {
    if (names_at_ != names_.size()) {
      throw Napi::TypeError::New(env_, name_ + ": names must be those of the tensors");
    }
  }

 private:
  TensorRef read_tensor(const char* part) {
    constexpr DType kTypes[] = {DType::kF32, DType::kF16, DType::kBF16};
    part_ = part;
    TensorRef out;
    out.file = int32("file", kMaxInt32);
    out.dtype = kTypes[int32("dtype", 2)];
    out.rows = integer("rows", kMaxSafeInteger);
    out.cols = integer("cols", kMaxSafeInteger);
    out.offset = integer("offset", kMaxSafeInteger);
    const auto length = static_cast<size_t>(integer("name", kMaxInt32));
    if (length > names_.size() - names_at_) fail("name", "within the names");
    out.name = names_.substr(names_at_, length);
    names_at_ += length;
    return out;
  }

  double next(const char* field) {
    if (at_end()) fail(field, "a number");
    const double number = numbers_[at_++];
    if (!std::isfinite(number)) fail(field, "a finite number");
    return number;
  }
  int64_t integer(const char* field, double high) {
    const double number = next(field);
    if (number != std::floor(number) || number < 0 || number > high) {
      fail(field, "an integer between 0 and " + std::to_string(static_cast<int64_t>(high)));
    }
    return static_cast<int64_t>(number);
  }
  int32_t int32(const char* field, double high) {
    return static_cast<int32_t>(integer(field, high));
  }
  [[noreturn]] void fail(const char* field, const std::string& wanted) const {
    const std::string module = name_ + "[" + std::to_string(count_) + "].";
    const std::string part = part_ == nullptr ? "" : std::string(part_) + ".";
    throw Napi::TypeError::New(env_, module + part + field + " must be " + wanted);
  }

  Napi::Env env_;
  std::span<const double> numbers_;
  std::string_view names_;
  std::string name_;
  const char* part_ = nullptr;  // the tensor of the module that is read; null: its own fields
  size_t at_ = 0;
  size_t names_at_ = 0;
  size_t count_ = 0;  // of modules read
};

}  // namespace

std::vector<AdapterModuleSpec> read_packed_modules(const Napi::Value& numbers,
                                                   const Napi::Value& names,
                                                   const std::string& name) {
  const Napi::Env env = numbers.Env();
  const auto is_array_of = [](const Napi::Value& value, napi_typedarray_type type) {
    return value.IsTypedArray() && value.As<Napi::TypedArray>().TypedArrayType() == type;
  };
  if (!is_array_of(numbers, napi_float64_array)) {
    throw Napi::TypeError::New(env, name + ".numbers must be a Float64Array");
  }
  if (!is_array_of(names, napi_uint8_array)) {
    throw Napi::TypeError::New(env, name + ".names must be a Uint8Array");
  }
  const auto array = numbers.As<Napi::Float64Array>();
  const auto text = names.As<Napi::Uint8Array>();
  PackedReader reader(env, {array.Data(), array.ElementLength()},
                      {reinterpret_cast<const char*>(text.Data()), text.ElementLength()}, name);
  std::vector<AdapterModuleSpec> out;
  while (!reader.at_end()) out.push_back(reader.read_module());
  reader.check_names();
  return out;
}

}  // namespace lorax
