/** Bounds and divisors of numbers, exhaustively where that is possible. */
import { describe, expect, it } from 'vitest';
import { constraintGrammar } from '../../../worker/grammar/constraint-grammar.js';
import { Random } from '../random.js';
import { GbnfMachine } from './gbnf-machine.js';

const machineOf = async (schema: object) =>
  new GbnfMachine(await constraintGrammar({ type: 'json', schema: JSON.stringify(schema) }));

describe('integers', () => {
  it('between any two bounds from -12 to 12, and none besides', async () => {
    for (let minimum = -12; minimum <= 12; minimum++) {
      for (let maximum = minimum; maximum <= 12; maximum += 3) {
        const machine = await machineOf({ type: 'integer', minimum, maximum });
        for (let value = -25; value <= 25; value++) {
          const inside = value >= minimum && value <= maximum;
          expect(machine.matches(`${value}`), `${value} in ${minimum}..${maximum}`).toBe(inside);
        }
      }
    }
  });

  it('at every change of length', async () => {
    const edges = [-1001, -1000, -999, -101, -100, -99, -11, -10, -9, -1, 0, 1, 9, 10, 11, 99, 100];
    for (const minimum of edges) {
      for (const size of [0, 1, 90, 901]) {
        const maximum = minimum + size;
        const machine = await machineOf({ type: 'integer', minimum, maximum });
        for (let value = minimum - 3; value <= maximum + 3; value++) {
          expect(machine.matches(`${value}`)).toBe(value >= minimum && value <= maximum);
        }
      }
    }
  });

  it('multiples of every divisor to 30, within bounds', async () => {
    for (let multipleOf = 1; multipleOf <= 30; multipleOf += multipleOf < 8 ? 1 : 3) {
      const machine = await machineOf({ type: 'integer', multipleOf, minimum: -99, maximum: 999 });
      for (let value = -120; value <= 1020; value++) {
        const fits = value % multipleOf === 0 && value >= -99 && value <= 999;
        expect(machine.matches(`${value}`), `${value} of ${multipleOf}`).toBe(fits);
      }
    }
  });
});

describe('decimals', () => {
  const digits = (random: Random, count: number) =>
    Array.from({ length: count }, () => random.below(10)).join('');

  it('are compared exactly', async () => {
    const random = new Random(7);
    const some = () => {
      const whole = `${random.below(random.pick([2, 30, 200]))}`;
      const fraction = random.next() < 0.3 ? '' : `.${digits(random, 1 + random.below(3))}`;
      return `${random.next() < 0.4 ? '-' : ''}${whole}${fraction}`;
    };
    for (let i = 0; i < 50; i++) {
      const [minimum = 0, maximum = 0] = [Number(some()), Number(some())].sort((a, b) => a - b);
      const exclusive = random.next() < 0.5 && minimum < maximum;
      const bounds = exclusive
        ? { exclusiveMinimum: minimum, exclusiveMaximum: maximum }
        : { minimum, maximum };
      const machine = await machineOf({ type: 'number', ...bounds });
      const texts = Array.from({ length: 80 }, some);
      for (const text of [...texts, `${minimum}`, `${maximum}`]) {
        if (/^-0(\.0*)?$/.test(text)) continue;
        const value = Number(text);
        const inside = exclusive
          ? value > minimum && value < maximum
          : value >= minimum && value <= maximum;
        expect(machine.matches(text), `${text} in ${JSON.stringify(bounds)}`).toBe(inside);
      }
    }
  });

  it('that are written lie within their bounds as doubles, near them too', async () => {
    const random = new Random(3);
    const awkward = [0.1, 0.30000000000000004, 1e-7, 123456.789, 2 ** 53, 1e21, 5e-324];
    for (const bound of [...awkward, ...awkward.map((value) => -value)]) {
      for (const [schema, holds] of [
        [{ minimum: bound }, (value: number) => value >= bound],
        [{ maximum: bound }, (value: number) => value <= bound],
        [{ exclusiveMinimum: bound }, (value: number) => value > bound],
        [{ exclusiveMaximum: bound }, (value: number) => value < bound],
      ] as const) {
        const machine = await machineOf({ type: 'number', ...schema });
        for (let i = 0; i < 20; i++) {
          const text = machine.sample(() => random.next(), random.below(40));
          const value = JSON.parse(text) as number;
          expect(Number.isFinite(value) && holds(value), `${text} ${JSON.stringify(schema)}`).toBe(
            true,
          );
        }
      }
    }
  });

  it('multiples of a decimal are told without rounding', async () => {
    const random = new Random(11);
    for (const multipleOf of [0.01, 0.05, 0.25, 1.5, 0.003]) {
      const machine = await machineOf({ type: 'number', multipleOf });
      for (let i = 0; i < 200; i++) {
        const written = `${random.below(50)}.${digits(random, 1 + random.below(4))}`;
        const text = written.replace(/\.?0+$/, '');
        const inTenThousandths = (value: string) => {
          const [whole, fraction = ''] = value.split('.');
          return Number(whole + fraction.padEnd(4, '0'));
        };
        const fits = inTenThousandths(text) % inTenThousandths(`${multipleOf}`) === 0;
        expect(machine.matches(text), `${text} of ${multipleOf}`).toBe(fits);
      }
    }
  });

  it('without bounds are finite and end', async () => {
    const machine = await machineOf({ type: 'number' });
    const random = new Random(5);
    for (let i = 0; i < 300; i++) {
      const text = machine.sample(() => random.next(), 60);
      expect(Number.isFinite(JSON.parse(text)), text).toBe(true);
      expect(text.length).toBeLessThan(40);
    }
  });
});
