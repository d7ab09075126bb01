/**
 * What a schema asks of numbers -> the text of those numbers.
 *
 * A number has at most 15 digits before and 15 after its point (more where its bounds need them), so
 * that it ends and reads as what it says; one without bounds may have an exponent of two digits.
 * Called by shape-rules.ts.
 */
import { TextSet } from './automaton.js';
import { CodePoints } from './code-points.js';
import { conjunction, type Dfa, type Part } from './dfa.js';
import { dfaRules } from './dfa-rules.js';
import { NOTHING, alternatives, optional, repeat, sequence, set, text } from './expression.js';
import type { Expression } from './expression.js';
import { unsupported, type Place } from './faults.js';
import type { Grammar } from './gbnf.js';
import { MultipleOf, NumberBound, decimalOf } from './number-automata.js';
import { wholeMatch } from './regex-automaton.js';
import type { Work } from './work.js';

export interface NumberShape {
  integer: boolean;
  /** Both inclusive. */
  min: number;
  max: number;
  multiplesOf: number[];
  /** Of the newest bound or divisor. */
  place: Place;
}

const NUM_DIGITS = 15;
const MAX_DIVISOR = 20_000;

export class NumberRules {
  private readonly expressions = new Map<string, Promise<Expression>>();
  private readonly dfas = new Map<string, Promise<Dfa>>();

  constructor(
    private readonly grammar: Grammar,
    private readonly work: Work,
  ) {}

  expression(shape: NumberShape): Promise<Expression> {
    const key = keyOf(shape);
    let expression = this.expressions.get(key);
    if (expression === undefined) {
      expression = this.make(shape);
      this.expressions.set(key, expression);
    }
    return expression;
  }

  async isEmpty(shape: NumberShape): Promise<boolean> {
    return !isFree(shape) && (await this.dfa(shape)).isEmpty;
  }

  async matches(shape: NumberShape, value: number): Promise<boolean> {
    const { integer, min, max, multiplesOf, place } = shape;
    if (value < min || value > max || (integer && !Number.isInteger(value))) return false;
    const { negative, whole, fraction } = decimalOf(value);
    const written = `${negative ? '-' : ''}${whole}${fraction === '' ? '' : `.${fraction}`}`;
    const divisors = multiplesOf.map((each) => ({ automaton: this.divisor(each, place) }));
    return (await conjunction(divisors, this.work, place)).matches(written);
  }

  private async make(shape: NumberShape): Promise<Expression> {
    const stem = shape.integer ? 'integer' : 'number';
    const name = this.grammar.fresh(stem);
    if (isFree(shape)) return this.grammar.define(name, freeNumber(shape.integer));
    const dfa = await this.dfa(shape);
    const writing = { character: set, end: NOTHING };
    return this.grammar.define(name, dfaRules(this.grammar, dfa, name, writing));
  }

  private dfa(shape: NumberShape): Promise<Dfa> {
    const key = keyOf(shape);
    let dfa = this.dfas.get(key);
    if (dfa === undefined) {
      dfa = this.build(shape);
      this.dfas.set(key, dfa);
    }
    return dfa;
  }

  private build(shape: NumberShape): Promise<Dfa> {
    const { min, max, multiplesOf, place } = shape;
    // Also above the largest double, or below the smallest.
    const isVoid = min > max || min === Infinity || max === -Infinity;
    if (isVoid) return conjunction([{ automaton: new TextSet([]) }], this.work, place);
    const parts: Part[] = [{ automaton: wholeMatch(digitsOf(shape), this.work, place) }];
    if (Number.isFinite(min)) parts.push({ automaton: new NumberBound(decimalOf(min), 'least') });
    if (Number.isFinite(max)) parts.push({ automaton: new NumberBound(decimalOf(max), 'most') });
    for (const each of multiplesOf) parts.push({ automaton: this.divisor(each, place) });
    return conjunction(parts, this.work, place);
  }

  private divisor(value: number, place: Place): MultipleOf {
    const divisor = decimalOf(value);
    if (Number(divisor.whole + divisor.fraction) > MAX_DIVISOR) {
      const limit = `its digits, without the point, make at most ${MAX_DIVISOR}`;
      throw unsupported(place, `has a divisor that is too fine or too large: ${limit}.`);
    }
    return new MultipleOf(divisor);
  }
}

function keyOf({ integer, min, max, multiplesOf }: NumberShape): string {
  return `${integer}:${min}:${max}:${multiplesOf.join()}`;
}

function isFree({ min, max, multiplesOf }: NumberShape): boolean {
  return min === -Infinity && max === Infinity && multiplesOf.length === 0;
}

/** A pattern of the numbers with as many digits as bounds and divisors need; without "-0". */
function digitsOf({ integer, min, max, multiplesOf }: NumberShape): string {
  // "Above zero" says nothing of how near: it needs no digits of its own.
  const bounds = [min, max].filter((it) => Number.isFinite(it) && Math.abs(it) > Number.MIN_VALUE);
  const decimals = bounds.map(decimalOf);
  const isFine = multiplesOf.length === 0;
  const numFraction = isFine
    ? Math.max(NUM_DIGITS, ...decimals.map((it) => it.fraction.length + 2))
    : Math.min(...multiplesOf.map((each) => decimalOf(each).fraction.length));
  // A double keeps so many digits: with more, a multiple would be read as another number.
  const free = isFine ? NUM_DIGITS : Math.max(1, NUM_DIGITS - numFraction);
  const leastWhole = Number.isFinite(min) && Number.isFinite(max) ? 1 : free;
  const numWhole = Math.max(leastWhole, ...decimals.map((it) => it.whole.length));
  const whole = `[1-9][0-9]{0,${numWhole - 1}}`;
  if (integer) return `0|-?${whole}`;
  const fraction = numFraction === 0 ? '' : `(?:\\.[0-9]{1,${numFraction}})?`;
  return `(?!-0(?:\\.0*)?$)-?(?:0|${whole})${fraction}`;
}

function freeNumber(integer: boolean): Expression {
  const digit = set(CodePoints.ofText('0123456789'));
  const whole = sequence(set(CodePoints.ofText('123456789')), repeat(digit, 0, NUM_DIGITS - 1));
  const minus = optional(text('-'));
  if (integer) return alternatives(text('0'), sequence(minus, whole));
  const fraction = sequence(text('.'), repeat(digit, 1, NUM_DIGITS));
  const sign = optional(set(CodePoints.ofText('+-')));
  const exponent = sequence(set(CodePoints.ofText('eE')), sign, repeat(digit, 1, 2));
  const start = alternatives(text('0'), whole);
  return sequence(minus, start, optional(fraction), optional(exponent));
}
