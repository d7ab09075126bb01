// One list, so that a new backend or instruction set joins every suite by one entry.
#include "backend_cases.h"

#include <cmath>
#include <stdexcept>

#include "../reference/reference_backend.h"
#include "cpu/cpu_backend.h"

namespace lorax {

std::vector<BackendCase> all_backends() {
  std::vector<BackendCase> out = {
      {"reference", [] { return std::make_unique<ReferenceBackend>(); }, Precision::kFloat32}};
  for (const Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
    if (!isa_available(isa)) continue;
    for (const Precision precision : {Precision::kFloat32, Precision::kBFloat16}) {
      const char* suffix = precision == Precision::kFloat32 ? "_float32" : "_bfloat16";
      out.push_back({isa_name(isa) + std::string(suffix),
                     [=] { return make_cpu_backend({precision, 3, isa}); }, precision});
    }
  }
  return out;
}

double relative_error(const std::vector<float>& x, const std::vector<float>& y) {
  if (x.size() != y.size()) throw std::logic_error("relative_error: sizes differ");
  double difference = 0, norm = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    difference += (double{x[i]} - y[i]) * (double{x[i]} - y[i]);
    norm += double{y[i]} * y[i];
  }
  return std::sqrt(difference / norm);
}

}  // namespace lorax
