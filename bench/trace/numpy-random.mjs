// The random numbers of numpy's legacy RandomState, which S-LoRA draws its traces with: MT19937
// (Matsumoto & Nishimura 1998) and the transformations that RandomState has kept since numpy 1.
//
// Always holds: whatever is made of integers and of the 53 bits of a double is numpy's bit for bit. What
// goes through log, exp and pow is so up to the last place of the C library that numpy was built on,
// which differs between machines too; test/bench/numpy-random.test.ts says how near. Used by
// slora-trace.mjs.

const STATE = 624;
const SHIFT = 397;

export class NumpyRandomState {
  #key = new Uint32Array(STATE);
  #at = STATE;
  /** A normal number left over: they come in pairs. */
  #spareNormal;

  /** `seed`: 0 to 2^32 - 1, as RandomState takes it for one integer. */
  constructor(seed) {
    if (!Number.isInteger(seed) || seed < 0 || seed > 0xffffffff) {
      throw new Error(`seed must be an integer from 0 to 4294967295, not ${seed}`);
    }
    this.#key[0] = seed;
    for (let i = 1; i < STATE; i++) {
      const last = this.#key[i - 1];
      this.#key[i] = Math.imul(1812433253, last ^ (last >>> 30)) + i;
    }
  }

  uint32() {
    if (this.#at === STATE) this.#twist();
    let y = this.#key[this.#at++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  #twist() {
    const key = this.#key;
    for (let i = 0; i < STATE; i++) {
      const y = (key[i] & 0x80000000) | (key[(i + 1) % STATE] & 0x7fffffff);
      key[i] = key[(i + SHIFT) % STATE] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.#at = 0;
  }

  /** [0, 1), 53 bits: random_sample(). */
  double() {
    const high = this.uint32() >>> 5;
    return (high * 2 ** 26 + (this.uint32() >>> 6)) / 2 ** 53;
  }

  /** randint(low, high) for ranges of up to 32 bits: bits are masked, and drawn again if too large. */
  integer(low, high) {
    const most = high - 1 - low;
    if (!(Number.isInteger(low) && Number.isInteger(high)) || most < 0 || most >= 0xffffffff) {
      throw new Error(`integer(${low}, ${high}) needs low < high, less than 2^32 - 1 apart`);
    }
    if (most === 0) return low; // nothing is drawn
    const mask = 0xffffffff >>> Math.clz32(most);
    for (;;) {
      const value = (this.uint32() & mask) >>> 0;
      if (value <= most) return low + value;
    }
  }

  exponential() {
    return -Math.log(1 - this.double());
  }

  /** Density a x^(a-1) on [0, 1]. */
  power(a) {
    return Math.pow(1 - Math.exp(-this.exponential()), 1 / a);
  }

  /** Of mean 0 and deviation 1: the polar method (Marsaglia & Bray 1964). */
  normal() {
    if (this.#spareNormal !== undefined) {
      const spare = this.#spareNormal;
      this.#spareNormal = undefined;
      return spare;
    }
    for (;;) {
      const x = 2 * this.double() - 1;
      const y = 2 * this.double() - 1;
      const square = x * x + y * y;
      if (square >= 1 || square === 0) continue;
      const factor = Math.sqrt((-2 * Math.log(square)) / square);
      this.#spareNormal = factor * x;
      return factor * y;
    }
  }

  gamma(shape, scale) {
    return scale * this.#standardGamma(shape);
  }

  #standardGamma(shape) {
    if (shape === 1) return this.exponential();
    if (shape === 0) return 0;
    return shape < 1 ? this.#gammaBelowOne(shape) : this.#gammaAboveOne(shape);
  }

  /** Rejection (Ahrens & Dieter 1974), with an exponential in place of the second uniform. */
  #gammaBelowOne(shape) {
    for (;;) {
      const u = this.double();
      const limit = this.exponential();
      if (u <= 1 - shape) {
        const x = Math.pow(u, 1 / shape);
        if (x <= limit) return x;
      } else {
        const y = -Math.log((1 - u) / shape);
        const x = Math.pow(1 - shape + shape * y, 1 / shape);
        if (x <= limit + y) return x;
      }
    }
  }

  /** Marsaglia & Tsang 2000. */
  #gammaAboveOne(shape) {
    const b = shape - 1 / 3;
    const c = 1 / Math.sqrt(9 * b);
    for (;;) {
      const x = this.normal();
      const root = 1 + c * x;
      if (root <= 0) continue;
      const v = root * root * root;
      const u = this.double();
      if (u < 1 - 0.0331 * (x * x) * (x * x)) return b * v;
      if (Math.log(u) < 0.5 * x * x + b * (1 - v + Math.log(v))) return b * v;
    }
  }
}
