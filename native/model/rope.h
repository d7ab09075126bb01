// Inverse frequencies of rotary embedding under every supported scaling.
//
// Equal to transformers' modeling_rope_utils, computed as it does: in float32, except where Python
// computes in double. Called once, when a decoder is made.
#pragma once

#include "backend/backend.h"
#include "model/decoder_config.h"

namespace lorax {

RopeConfig make_rope(const DecoderConfig& config);

}  // namespace lorax
