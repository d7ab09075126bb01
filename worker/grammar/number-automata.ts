/**
 * Numbers as they are written in JSON, told apart by value: bounds and divisors as automata.
 *
 * They read decimal text without exponents ("-12.50"). A bound is compared digit by digit, exactly;
 * since reading a decimal as a double keeps order, what is at least a double's own shortest decimal
 * is at least that double. Used by number-rules.ts.
 */
import { DEAD, type Automaton } from './automaton.js';
import { CodePoints } from './code-points.js';

const SETS = [...'-.0123456789'].map((char) => CodePoints.ofText(char));
const MINUS = 0x2d;
const DOT = 0x2e;
const ZERO = 0x30;

/** Digits before and after the point; no zeros that say nothing ("0" before the point if none). */
interface Decimal {
  negative: boolean;
  whole: string;
  fraction: string;
}

/** The shortest decimal that reads as this double. */
export function decimalOf(value: number): Decimal {
  const [mantissa = '', exponent = '0'] = Math.abs(value).toString().split('e');
  const [whole = '', fraction = ''] = mantissa.split('.');
  const digits = whole + fraction;
  const point = whole.length + Number(exponent);
  const before = point > 0 ? digits.slice(0, point).padEnd(point, '0') : '0';
  const after = point > 0 ? digits.slice(point) : '0'.repeat(-point) + digits;
  return {
    negative: value < 0,
    whole: before.replace(/^0+(?=\d)/, ''),
    fraction: after.replace(/0+$/, ''),
  };
}

/** States as records of plain fields, numbered as they come up. */
abstract class RecordAutomaton<T extends object> implements Automaton {
  readonly sets = SETS;
  readonly start: number;
  private readonly states: T[] = [];
  private readonly index = new Map<string, number>();

  constructor(start: T) {
    this.start = this.intern(start);
  }

  next(state: number, codePoint: number): number {
    const next = this.step(this.states[state]!, codePoint);
    return next === null ? DEAD : this.intern(next);
  }

  accepts(state: number): boolean {
    return this.ends(this.states[state]!);
  }

  protected abstract step(state: T, codePoint: number): T | null;
  protected abstract ends(state: T): boolean;

  private intern(state: T): number {
    const key = Object.values(state).join();
    const known = this.index.get(key);
    if (known !== undefined) return known;
    const at = this.states.push(state) - 1;
    this.index.set(key, at);
    return at;
  }
}

interface Compared {
  negative: boolean;
  numWhole: number;
  /** null before the point. */
  numFraction: number | null;
  /** Of the digits so far, against as many of the bound's. */
  order: number;
}

/** Numbers at least (at most) the bound. */
export class NumberBound extends RecordAutomaton<Compared> {
  constructor(
    private readonly bound: Decimal,
    private readonly side: 'least' | 'most',
  ) {
    super({ negative: false, numWhole: 0, numFraction: null, order: 0 });
  }

  protected step(state: Compared, codePoint: number): Compared {
    const { whole, fraction } = this.bound;
    const { numWhole, numFraction, order } = state;
    if (codePoint === MINUS) return { ...state, negative: true };
    if (codePoint === DOT) return { ...state, numFraction: 0, order: this.orderOfWhole(state) };
    const compare = (to: string) => order || Math.sign(codePoint - to.charCodeAt(0));
    if (numFraction === null) {
      // One more than the bound has is longer, however many follow.
      if (numWhole >= whole.length) return { ...state, numWhole: whole.length + 1 };
      return { ...state, numWhole: numWhole + 1, order: compare(whole[numWhole]!) };
    }
    const next = Math.min(numFraction + 1, fraction.length);
    return { ...state, numFraction: next, order: compare(fraction[numFraction] ?? '0') };
  }

  protected ends(state: Compared): boolean {
    const { negative, whole, fraction } = this.bound;
    let size = state.numFraction === null ? this.orderOfWhole(state) : state.order;
    if (size === 0 && (state.numFraction ?? 0) < fraction.length) size = -1;
    let order: number;
    if (state.negative !== negative) order = state.negative ? -1 : 1;
    else order = negative ? -size : size;
    // Zero has no sign.
    if (whole === '0' && fraction === '' && size === 0) order = 0;
    return this.side === 'least' ? order >= 0 : order <= 0;
  }

  /** Without leading zeros the longer is the larger. */
  private orderOfWhole({ numWhole, order }: Compared): number {
    return Math.sign(numWhole - this.bound.whole.length) || order;
  }
}

interface Remainder {
  /** Of the digits so far, as an integer. */
  remainder: number;
  numFraction: number | null;
}

/** Multiples of a decimal, exactly. */
export class MultipleOf extends RecordAutomaton<Remainder> {
  /** The divisor as an integer; its point stands `numFraction` digits from the right. */
  private readonly divisor: number;
  private readonly numFraction: number;

  constructor({ whole, fraction }: Decimal) {
    super({ remainder: 0, numFraction: null });
    this.divisor = Number(whole + fraction);
    this.numFraction = fraction.length;
  }

  protected step(state: Remainder, codePoint: number): Remainder | null {
    const { remainder, numFraction } = state;
    if (codePoint === MINUS) return state;
    if (codePoint === DOT) return { remainder, numFraction: 0 };
    const digit = codePoint - ZERO;
    // Finer than the divisor: only zeros.
    if (numFraction === this.numFraction) return digit === 0 ? state : null;
    return {
      remainder: (remainder * 10 + digit) % this.divisor,
      numFraction: numFraction === null ? null : numFraction + 1,
    };
  }

  protected ends({ remainder, numFraction }: Remainder): boolean {
    let last = remainder;
    for (let i = numFraction ?? 0; i < this.numFraction; i++) last = (last * 10) % this.divisor;
    return last === 0;
  }
}
