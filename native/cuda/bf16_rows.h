// Conversion of adapter tensors to bf16 (round to nearest even) in the units of adapter_image.h.
//
// Every function returns whether all it read was finite. Sources need no alignment; destinations
// are aligned to 16 bytes. Chosen at run time for what the processor has.
#pragma once

#include <cstdint>

#include "backend/backend.h"

namespace lorax::cuda {

// to[i] = bf16(from[i]), i < count
bool to_bf16_row(const uint8_t* from, DType dtype, int32_t count, uint16_t* to);

// 16 rows of 32 values, row_bytes apart -> [16][32] bf16.
bool to_bf16_block(const uint8_t* from, DType dtype, int64_t row_bytes, uint8_t* to);

// 16 rows of 16 values, row_bytes apart -> [32 lanes][4][2] bf16 (a tile of B).
bool to_bf16_tile(const uint8_t* from, DType dtype, int64_t row_bytes, uint8_t* to);

// rows [16][16] bf16 -> [32 lanes][4][2].
void interleave_tile(const uint16_t* rows, uint8_t* to);

}  // namespace lorax::cuda
