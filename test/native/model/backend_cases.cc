// One list, so that a new backend or instruction set joins every suite by one entry.
#include "backend_cases.h"

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

}  // namespace lorax
