// e^x and 2^x on Vec, for silu and softmax. Included after one vec_*.h (kernels.h says why).
//
// x = n ln 2 + r: 2^n is made of bits, e^r is a polynomial whose constant is exactly 1, so that e^0
// and 2^n are exact. Exactly 0 where 2^n would be denormal (so e^-inf = 0). NaN stays NaN: max and
// min return their second argument where either is.
#pragma once

#include "cpu/kernels.h"

namespace lorax::cpu {
namespace {

// Added to y, |y| <= 127, it leaves y to the nearest integer, plus 127, in the low bits: no
// fraction bits are left above 2^23.
constexpr float kToLowBits = 12582912.0f + 127.0f;  // 1.5 * 2^23 + 127

// Within 2 ulp; exactly 0 below -87.7, e^88 above 88.
inline Vec exp(Vec x) {
  const Vec magic = Vec::set(kToLowBits);
  const Vec t = Vec::max(Vec::set(-88.0f), Vec::min(Vec::set(88.0f), x));
  const Vec bits = Vec::fma(t, Vec::set(1.44269504f), magic);
  const Vec n = bits - magic;
  Vec r = Vec::fma(n, Vec::set(-0.693359375f), t);  // ln 2 in two parts, the first exact times n
  r = Vec::fma(n, Vec::set(2.12194440e-4f), r);
  Vec p = Vec::set(1.38145399e-3f);  // minimax, relative error 3e-9
  p = Vec::fma(p, r, Vec::set(8.36874512e-3f));
  p = Vec::fma(p, r, Vec::set(4.16683908e-2f));
  p = Vec::fma(p, r, Vec::set(1.66665204e-1f));
  p = Vec::fma(p, r, Vec::set(0.499999934f));
  p = Vec::fma(p, r, Vec::set(1.0f));
  p = Vec::fma(p, r, Vec::set(1.0f));
  return p * Vec::power_of_low_bits(bits);
}

// 2^x for x <= 0, relative error 2e-7; exactly 0 below -126.5.
inline Vec exp2(Vec x) {
  const Vec magic = Vec::set(kToLowBits);
  const Vec t = Vec::max(Vec::set(-127.0f), x);
  const Vec bits = t + magic;
  const Vec r = t - (bits - magic);
  Vec p = Vec::set(1.32647270e-3f);  // minimax, relative error 9e-8
  p = Vec::fma(p, r, Vec::set(9.67151265e-3f));
  p = Vec::fma(p, r, Vec::set(5.55073374e-2f));
  p = Vec::fma(p, r, Vec::set(2.40222421e-1f));
  p = Vec::fma(p, r, Vec::set(6.93146978e-1f));
  p = Vec::fma(p, r, Vec::set(1.0f));
  return p * Vec::power_of_low_bits(bits);
}

}  // namespace
}  // namespace lorax::cpu
