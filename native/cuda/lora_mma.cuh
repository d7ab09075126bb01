// Tensor core steps of the LoRA kernels, and how they name the lanes of a warp.
//
// Both operands of a step may order the summed index as they like if they agree: adapter_image.h
// orders k and ranks so that a lane reads whole words of 8 or 16 bytes. Compiles for sm_80 on.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace lorax::cuda {

// c [16, 8] += a [16, 16] b [16, 8]; lane (g, t) = (lane / 4, lane % 4) holds c of rows g (c[0..1])
// and g + 8 (c[2..3]), columns 2 t and 2 t + 1.
__device__ __forceinline__ void lora_mma(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                         uint32_t a3, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ __forceinline__ uint32_t bf16_pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// 16 bytes of an adapter's page: read by one block, so not kept in the first-level cache.
__device__ __forceinline__ uint4 load_streaming(const void* from) {
  uint4 out;
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(out.x), "=r"(out.y), "=r"(out.z), "=r"(out.w)
               : "l"(from));
  return out;
}

// Zeros where `exists` is false. Without a branch, so that several loads are under way at once.
__device__ __forceinline__ uint4 load_streaming_or_zero(const void* from, bool exists) {
  uint4 out = make_uint4(0, 0, 0, 0);
  asm volatile(
      "{\n .reg .pred exists;\n setp.ne.s32 exists, %5, 0;\n"
      " @exists ld.global.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];\n}"
      : "+r"(out.x), "+r"(out.y), "+r"(out.z), "+r"(out.w)
      : "l"(from), "r"(static_cast<int>(exists)));
  return out;
}

// Eight bf16 of a row from `column` on, zeros past `columns`. kAligned: columns and rows are
// multiples of 8.
template <bool kAligned>
__device__ __forceinline__ uint4 load_row_part(const __nv_bfloat16* row, int32_t column,
                                               int32_t columns) {
  uint4 out = make_uint4(0, 0, 0, 0);
  if (row == nullptr || column >= columns) return out;
  if constexpr (kAligned) {
    out = *reinterpret_cast<const uint4*>(row + column);
  } else {
    uint32_t words[4] = {};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (column + i < columns) {
        const uint32_t bits = __bfloat16_as_ushort(row[column + i]);
        words[i / 2] |= bits << (i % 2 * 16);
      }
    }
    out = make_uint4(words[0], words[1], words[2], words[3]);
  }
  return out;
}

}  // namespace lorax::cuda
