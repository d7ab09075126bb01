// Which instruction sets this processor and operating system offer.
//
// The only place that asks cpuid. AMX needs three yeses: the processor's, the kernel's saved state
// (xcr0), and this process's permission to use it.
#include "cpu/cpu_backend.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace lorax {
namespace {

#if defined(__x86_64__)
struct Cpuid {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Cpuid cpuid(unsigned leaf, unsigned subleaf) {
  Cpuid r;
  if (!__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx)) return {};
  return r;
}

bool bit(unsigned word, int index) { return ((word >> index) & 1u) != 0; }

// The register state the operating system saves; 0 when xgetbv may not be used.
unsigned xcr0() {
  if (!bit(cpuid(1, 0).ecx, 27)) return 0;
  unsigned low = 0;
  unsigned high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

constexpr unsigned kYmmState = 0x6;
constexpr unsigned kZmmState = 0xe6;
constexpr unsigned kTileState = 0x60000;

bool has_avx2() {
  const Cpuid one = cpuid(1, 0);
  const Cpuid seven = cpuid(7, 0);
  return (xcr0() & kYmmState) == kYmmState && bit(one.ecx, 12) && bit(one.ecx, 29) &&
         bit(seven.ebx, 5);
}

bool has_avx512() {
  const Cpuid seven = cpuid(7, 0);
  return has_avx2() && (xcr0() & kZmmState) == kZmmState && bit(seven.ebx, 16) &&
         bit(seven.ebx, 17) && bit(seven.ebx, 30) && bit(seven.ebx, 31);
}

[[maybe_unused]] bool has_amx() {
#if defined(__linux__)
  const Cpuid seven = cpuid(7, 0);
  const bool bf16 = bit(cpuid(7, 1).eax, 5);  // AVX512_BF16, which rounds the tiles' inputs
  if (!has_avx512() || !bf16 || !bit(seven.edx, 22) || !bit(seven.edx, 24)) return false;
  if ((xcr0() & kTileState) != kTileState) return false;
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

}  // namespace

bool isa_available(Isa isa) {
  switch (isa) {
    case Isa::kAuto:
    case Isa::kPortable:
      return true;
    case Isa::kAvx2:
#if defined(LORAX_HAVE_AVX2)
      return has_avx2();
#else
      return false;
#endif
    case Isa::kAvx512:
#if defined(LORAX_HAVE_AVX512)
      return has_avx512();
#else
      return false;
#endif
    case Isa::kAmx:
#if defined(LORAX_HAVE_AMX) && defined(LORAX_HAVE_AVX512)
      return has_amx();
#else
      return false;
#endif
  }
  return false;
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kAuto:
      return "auto";
    case Isa::kPortable:
      return "portable";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAmx:
      return "amx";
  }
  return "unknown";
}

}  // namespace lorax
