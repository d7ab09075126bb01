// What an adapter does to an output y of a linear once base and LoRA are added up:
//
//   y[c] = gain[c] * y[c] + weight * shift[c]
//
// A bias of B (PEFT's lora_bias) is shift = scale * bias. DoRA (Liu et al. 2024), with u = W x and
// b the base's own bias, which is not scaled:
//
//   magnitude / ||W + scale B A|| * (u + scale B A x) + b  =  gain * y + (1 - gain) * b
//
// The norms, of rows of W + scale B A or of a table's columns, do not depend on x: they are
// computed when the adapter is packed. Host only; used by every backend's pack_adapter.
#pragma once

#include <cmath>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/tensor_fault.h"

namespace lorax {

struct OutputAffine {
  std::vector<float> gain;   // [d_out]; empty: 1
  std::vector<float> shift;  // [d_out]; empty: 0
};

inline bool has_affine(const AdapterModule& m) {
  return m.b_bias.data != nullptr || m.magnitude.data != nullptr;
}

// `b_bias` and `magnitude` [d_out] are the module's as float32, empty where it has none, `norms` is
// empty without a magnitude and `base_bias` [d_out] where W has none. Throws ADAPTER_INVALID.
inline OutputAffine output_affine(const AdapterModule& m, std::span<const float> b_bias,
                                  std::span<const float> magnitude, std::span<const float> norms,
                                  std::span<const float> base_bias) {
  OutputAffine out;
  if (!b_bias.empty()) {
    for (const float bias : b_bias) out.shift.push_back(m.scale * bias);
  }
  if (magnitude.empty()) return out;
  // PEFT's order: the result is scaled, a bias of B with it, the base's bias is not.
  for (size_t i = 0; i < magnitude.size(); ++i) {
    const float gain = magnitude[i] / norms[i];
    if (!std::isfinite(gain)) {
      fail_tensor("ADAPTER_INVALID", m.magnitude,
                  "scales output " + std::to_string(i) + ", whose merged weights are all 0");
    }
    out.gain.push_back(gain);
  }
  if (out.shift.empty() && base_bias.empty()) return out;
  out.shift.resize(magnitude.size());
  for (size_t i = 0; i < magnitude.size(); ++i) {
    out.shift[i] *= out.gain[i];
    if (!base_bias.empty()) out.shift[i] += (1.0f - out.gain[i]) * base_bias[i];
  }
  return out;
}

}  // namespace lorax
