// An adapter's modules as worker/files/pack-modules.ts packs them: numbers, and the names of
// tensors.
#pragma once

#include <napi.h>

#include <string>
#include <vector>

#include "model/weights.h"

namespace lorax {

// `numbers`: a Float64Array; `names`: a Uint8Array, UTF-8. Throws a Napi::TypeError that names the
// module and its field ("spec.modules[3].a.offset must be ...").
std::vector<AdapterModuleSpec> read_packed_modules(const Napi::Value& numbers,
                                                   const Napi::Value& names,
                                                   const std::string& name);

}  // namespace lorax
