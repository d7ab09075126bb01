// bench/trace/ against numpy itself: numpy-golden.json, made by make-numpy-golden.py.
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';

import { NumpyRandomState } from '../../bench/trace/numpy-random.mjs';
import { formatTrace, makeTrace } from '../../bench/trace/slora-trace.mjs';

interface Golden {
  draws: {
    seed: number;
    double: number[];
    integer: number[];
    wide: number[];
    single: number[];
    exponential: number[];
    normal: number[];
    power: number[];
    gamma: Record<string, number[]>;
  }[];
  traces: {
    options: Parameters<typeof makeTrace>[0];
    ids: number[];
    inputs: number[];
    outputs: number[];
    times: number[];
  }[];
}

const golden = JSON.parse(
  readFileSync(new URL('numpy-golden.json', import.meta.url), 'utf8'),
) as Golden;

/** The C library's log, exp and pow, and V8's, may each be off by one in the last place. */
function expectNear(actual: number[], expected: number[], relative: number): void {
  expect(actual).toHaveLength(expected.length);
  actual.forEach((value, i) => {
    const wanted = expected[i] as number;
    expect(Math.abs(value - wanted) / Math.abs(wanted)).toBeLessThanOrEqual(relative);
  });
}

describe.each(golden.draws)('RandomState($seed)', (wanted) => {
  it('draws what numpy draws, in its order', () => {
    const random = new NumpyRandomState(wanted.seed);
    const draw = (count: number, one: () => number) => Array.from({ length: count }, one);
    expect(draw(40, () => random.double())).toEqual(wanted.double);
    expect(draw(40, () => random.integer(8, 512))).toEqual(wanted.integer);
    expect(draw(40, () => random.integer(0, 4_000_000_000))).toEqual(wanted.wide);
    expect(draw(40, () => random.integer(7, 8))).toEqual(wanted.single);
    expectNear(
      draw(40, () => random.exponential()),
      wanted.exponential,
      4e-16,
    );
    // One of a pair is left over for the gammas that follow.
    expectNear(
      draw(39, () => random.normal()),
      wanted.normal,
      1e-15,
    );
    expectNear(
      draw(40, () => random.power(0.3)),
      wanted.power,
      4e-15,
    );
    for (const shape of ['0.0625', '0.25', '1', '1.7', '9']) {
      const gammas = draw(40, () => random.gamma(Number(shape), 2.5));
      expectNear(gammas, wanted.gamma[shape] as number[], 4e-15);
    }
  });
});

describe.each(golden.traces)("S-LoRA's trace of $options", (wanted) => {
  const trace = makeTrace(wanted.options);

  it('has the same adapters and lengths', () => {
    expect(trace.map((request) => request.adapter)).toEqual(wanted.ids);
    expect(trace.map((request) => request.inputTokens)).toEqual(wanted.inputs);
    expect(trace.map((request) => request.outputTokens)).toEqual(wanted.outputs);
  });

  it('has the same times', () => {
    expectNear(
      trace.map((request) => request.atSeconds),
      wanted.times,
      1e-14,
    );
  });
});

it('gives the same lengths and times for any number of adapters', () => {
  const [few, many] = golden.traces.map(({ options }) => makeTrace(options)) as [
    ReturnType<typeof makeTrace>,
    ReturnType<typeof makeTrace>,
  ];
  const withoutAdapter = (trace: typeof few) =>
    trace.map((request) => ({ ...request, adapter: 0 }));
  expect(withoutAdapter(few)).toEqual(withoutAdapter(many));
  expect(few).not.toEqual(many);
});

it('refuses a seed that RandomState refuses', () => {
  expect(() => new NumpyRandomState(-1)).toThrow('seed');
  expect(() => new NumpyRandomState(2 ** 32)).toThrow('seed');
  expect(() => new NumpyRandomState(0).integer(5, 5)).toThrow('low < high');
});

it('writes a trace as lines of time, adapter, prompt and output', () => {
  const one = { atSeconds: 0.25, adapter: 3, inputTokens: 8, outputTokens: 9 };
  expect(formatTrace([one, one])).toBe('0.250000000 3 8 9\n0.250000000 3 8 9\n');
});
