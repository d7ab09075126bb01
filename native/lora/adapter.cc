// Names of the projections, for errors and logs.
#include "lora/adapter.h"

namespace lorax {

const char* module_name(int32_t module) {
  constexpr const char* kNames[kNumModules] = {"q_proj",    "k_proj",    "v_proj",
                                               "o_proj",    "gate_proj", "up_proj",
                                               "down_proj", "lm_head",   "embed_tokens"};
  return module >= 0 && module < kNumModules ? kNames[module] : "unknown module";
}

}  // namespace lorax
