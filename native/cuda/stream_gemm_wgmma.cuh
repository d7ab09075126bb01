// wgmma: D[64, N] += A[64, 16] B[N, 16]^T, bf16 in shared memory, float32 in registers.
//
// Both operands are K-major tiles of 64 k (128 bytes a row) in the copy engine's 128-byte swizzle,
// 1024-byte aligned. A thread's d[4 j .. 4 j + 3] are rows g and g + 8 (g = 16 * (warp % 4) +
// lane / 4) at columns 8 j + 2 * (lane % 4) and the next: per 8 columns the layout of mma's C.
// Needs sm_90a.
#pragma once

#include <cstdint>

namespace lorax::cuda {

// Of a tile at a shared-memory address. Rows are 128 bytes, groups of 8 rows 1024 bytes apart; a
// step of 16 k adds 32 bytes, which is 2 here.
__device__ __forceinline__ uint64_t wgmma_descriptor(uint32_t address) {
  constexpr uint64_t kSwizzle128 = 1ull << 62;
  constexpr uint64_t kEightRows = 1024 >> 4;
  return kSwizzle128 | (kEightRows << 32) | (1ull << 16) | ((address & 0x3FFFF) >> 4);
}

// Before the first wgmma after the accumulators were touched.
__device__ __forceinline__ void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// All but the newest `kPending` committed groups are complete.
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// Keeps the compiler from moving reads or writes of the accumulators across.
template <int kCount>
__device__ __forceinline__ void wgmma_hold(float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// D = A B^T + (accumulate ? D : 0). One specialisation per number of columns.
template <int kColumns>
struct Wgmma;

// clang-format off
#define LORAX_D8(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), \
                    "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define LORAX_D32(i) LORAX_D8(i), LORAX_D8(i + 8), LORAX_D8(i + 16), LORAX_D8(i + 24)
#define LORAX_WGMMA(columns, registers, a, b, p, ...)                                           \
  template <>                                                                                  \
  struct Wgmma<columns> {                                                                      \
    static __device__ __forceinline__ void multiply(float (&d)[columns / 2], uint64_t a_tile,   \
                                                    uint64_t b_tile, uint32_t accumulate) {    \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " p ", 0;\n"                              \
                   "wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32.bf16.bf16 {"          \
                   registers "}, " a ", " b ", p, 1, 1, 0, 0;\n}\n"                            \
                   : __VA_ARGS__                                                               \
                   : "l"(a_tile), "l"(b_tile), "r"(accumulate));                               \
    }                                                                                          \
  };
#define LORAX_R0 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define LORAX_R1 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define LORAX_R2 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define LORAX_R3 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

LORAX_WGMMA(8, "%0, %1, %2, %3", "%4", "%5", "%6",
            "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]))
LORAX_WGMMA(16, "%0, %1, %2, %3, %4, %5, %6, %7", "%8", "%9", "%10",
            LORAX_D8(0))
LORAX_WGMMA(32, LORAX_R0, "%16", "%17", "%18",
            LORAX_D8(0), LORAX_D8(8))
LORAX_WGMMA(64, LORAX_R0 ", " LORAX_R1, "%32", "%33", "%34",
            LORAX_D32(0))
LORAX_WGMMA(128, LORAX_R0 ", " LORAX_R1 ", " LORAX_R2 ", " LORAX_R3, "%64", "%65", "%66",
            LORAX_D32(0), LORAX_D32(32))

#undef LORAX_R0
#undef LORAX_R1
#undef LORAX_R2
#undef LORAX_R3
#undef LORAX_WGMMA
#undef LORAX_D32
#undef LORAX_D8
// clang-format on

}  // namespace lorax::cuda
