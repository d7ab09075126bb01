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

// A block of A: 8 or 16 rows (ranks) of 32 values, row_bytes apart -> [ranks][32] bf16.
bool to_bf16_block(const uint8_t* from, DType dtype, int64_t row_bytes, int32_t ranks, uint8_t* to);

// A tile of B: 16 rows of 8 or 16 values (ranks), row_bytes apart -> [2 ranks lanes][4][2] bf16.
bool to_bf16_tile(const uint8_t* from, DType dtype, int64_t row_bytes, int32_t ranks, uint8_t* to);

// rows [16][ranks] bf16 -> [2 ranks lanes][4][2].
void interleave_tile(const uint16_t* rows, int32_t ranks, uint8_t* to);

}  // namespace lorax::cuda
