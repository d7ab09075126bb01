// Whole weights in an adapter that are the base's own: PEFT saves these with every LoRA on head or
// embedding. They are not worth their pages. Used by pack_adapter of every backend.
#pragma once

#include <span>
#include <vector>

#include "backend/backend.h"

namespace lorax {

// The modules without those; `is_base(m)` tells whether m.whole is m.base, as it serves.
template <typename IsBase>
std::vector<AdapterModule> without_base_copies(std::span<const AdapterModule> modules,
                                               const IsBase& is_base) {
  std::vector<AdapterModule> out;
  for (const AdapterModule& module : modules) {
    AdapterModule kept = module;
    if (kept.whole.data != nullptr && kept.base != nullptr && is_base(kept)) kept.whole = {};
    if (kept.rank > 0 || kept.whole.data != nullptr) out.push_back(kept);
  }
  // One that has nothing else stays as it is: an adapter takes a page at least.
  if (out.empty()) out.assign(modules.begin(), modules.end());
  return out;
}

}  // namespace lorax
