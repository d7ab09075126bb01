// The figures of bench/trace.mjs and what it predicts, on runs small enough to work out by hand.
import { describe, expect, it } from 'vitest';

import { capacityFrom, figuresOf, spread } from '../../bench/trace/measures.mjs';
import { fastestStep, fitSteps, predict } from '../../bench/trace/prediction.mjs';

interface Step {
  prefillTokens: number;
  decodeTokens: number;
  adapters: number;
  ms: number;
}

/** Steps of all sizes, as `ms` has them. */
function steps(ms: (step: Omit<Step, 'ms'>) => number): Step[] {
  return Array.from({ length: 200 }, (_, i) => {
    const step = { prefillTokens: (i * 37) % 101, decodeTokens: (i * 7) % 64, adapters: i % 5 };
    return { ...step, ms: ms(step) };
  });
}

describe('fitSteps', () => {
  it('finds what steps are made of, adapters at their price', () => {
    const fitted = fitSteps(
      steps((s) => 3 + 0.02 * s.prefillTokens + 0.1 * s.decodeTokens + 0.5 * s.adapters),
      0.5,
    );
    expect(fitted.fixed).toBeCloseTo(3, 6);
    expect(fitted.prefill).toBeCloseTo(0.02, 6);
    expect(fitted.decode).toBeCloseTo(0.1, 6);
  });

  it('finds no time that something gives back', () => {
    const fitted = fitSteps(
      steps((s) => 9 - 0.03 * s.prefillTokens + 0.1 * s.decodeTokens),
      0,
    );
    expect(fitted.prefill).toBe(0);
    expect(fitted.decode).toBeGreaterThan(0);
  });

  it('is not misled by one slow step in a hundred', () => {
    const some = steps((s) => 3 + 0.1 * s.decodeTokens);
    const fitted = fitSteps([...some, { ...(some[0] as Step), ms: 5000 }], 0);
    expect(fitted.fixed).toBeCloseTo(3, 6);
  });

  it('takes the fastest decode for what reads the weights', () => {
    const some = steps((s) => 3 + s.decodeTokens).map((s) => ({ ...s, prefillTokens: 0 }));
    const prefill = { prefillTokens: 5, decodeTokens: 0, adapters: 0, ms: 1 };
    expect(fastestStep([prefill, ...some])).toBe(4); // of one row
    expect(() => fastestStep([prefill])).toThrow('decodes alone');
  });

  it('refuses to guess from a few', () => {
    expect(() => fitSteps(steps(() => 1).slice(0, 5), 0)).toThrow('5 steps');
  });
});

describe('predict', () => {
  const trace = Array.from({ length: 100 }, (_, i) => ({
    ...{ atSeconds: (i + 1) / 100, inputTokens: 32, outputTokens: 64, adapter: 0 },
  }));
  const inputs = {
    workload: { trace, adapters: 1, alpha: 1 },
    // A row has (32 + 64 / 2) / 16 = 4 pages and one in reserve.
    pool: { pages: 100, blockTokens: 16, maxRows: 256 },
    adapter: { bytes: 1000, pages: 10 },
    step: { fixed: 10, prefill: 0, decode: 0 },
    rates: { memory: 1e12, copy: 1e12 },
    loadsStopSteps: false,
  };

  it('lets as many rows run as have room beside their adapters', () => {
    const one = predict(inputs);
    expect(one.mostRows).toBe(18); // 18 * 5 + 10 = 100
    expect(one.capacityPerSecond).toBeCloseTo(18 / (64 * 0.01), 6);
    // 100 requests at that, and an answer's time behind them.
    expect(one.requestsPerSecond).toBeCloseTo(100 / (100 / one.capacityPerSecond + 0.64), 4);
  });

  it('takes the room of every adapter in use, and the time to read it', () => {
    const many = predict({ ...inputs, workload: { ...inputs.workload, adapters: 20_000 } });
    expect(many.mostRows).toBe(6); // 6 * 5 + 6 * 10 < 100 < 7 * 5 + 7 * 10
    expect(many.distinctAdapters).toBeCloseTo(6, 2);
    expect(many.missRate).toBeCloseTo(1, 3);
    const slow = predict({ ...inputs, rates: { memory: 100, copy: 1e12 } });
    expect(slow.stepMs).toBeCloseTo(10 + 1000 / 100, 6);
  });

  it('is held up by the copies where all have to come', () => {
    const rates = { memory: 1e12, copy: 10 }; // 100 ms each
    const workload = { ...inputs.workload, adapters: 20_000 };
    const beside = predict({ ...inputs, workload, rates });
    expect(beside.capacityPerSecond).toBeLessThan(10.1);
    const inSteps = predict({ ...inputs, workload, rates, loadsStopSteps: true });
    expect(inSteps.stepMs).toBeGreaterThan(beside.stepMs);
  });

  it('is no faster than requests come', () => {
    const late = trace.map((request) => ({ ...request, atSeconds: request.atSeconds * 1000 }));
    const idle = predict({ ...inputs, workload: { ...inputs.workload, trace: late } });
    expect(idle.rows).toBe(1);
    expect(idle.requestsPerSecond).toBeCloseTo(100 / 1000.64, 4);
  });
});

describe('figuresOf', () => {
  const request = (atSeconds: number, firstSeconds: number, lastSeconds: number, failure = '') => ({
    ...{ atSeconds, firstSeconds, lastSeconds, failure, tokens: 10 },
  });
  const run = {
    requests: [request(0, 1, 2), request(1, 9, 10), request(1, NaN, NaN, 'QUEUE_FULL')],
    between: spread([0.1, 0.3]),
    states: [
      { second: 1, running: 2, waiting: 0, kv: 4, adapter: 1 },
      { second: 8, running: 9, waiting: 7, kv: 9, adapter: 9 },
    ],
    totals: {
      ...{ adapterHits: 1, adapterLoads: 4, adapterEvictions: 2, preemptions: 0, cachedTokens: 0 },
      ...{ hostReads: 1, hostDrops: 1 },
    },
  };

  it('counts what was answered, and what was in time of all', () => {
    const figures = figuresOf(run, { sloSeconds: 6 });
    expect(figures).toMatchObject({
      requests: 3,
      finished: 2,
      seconds: 10,
      requestsPerSecond: 0.2,
    });
    expect(figures.outputTokensPerSecond).toBe(2);
    expect(figures.toFirst.mean).toBe(4.5);
    expect(figures.sloAttainment).toBeCloseTo(1 / 3);
    expect(figures.poolHitRate).toBe(0.2);
    expect(figures.hostHitRate).toBe(0.75);
  });

  it('averages the engine over the time in which requests came', () => {
    const figures = figuresOf(run, { sloSeconds: 6 });
    expect(figures.runningMean).toBe(2);
    expect(figures.waitingMax).toBe(7);
  });
});

it('takes the capacity of the middle of a run', () => {
  const requests = [9, 1, 5, 2, 3, 4, 6, 7].map((lastSeconds) => ({ lastSeconds, failure: '' }));
  // Sorted 1 2 3 4 5 6 7 9: from the third to the seventh, four in four seconds.
  expect(capacityFrom({ requests })).toBe(1);
  expect(() => capacityFrom({ requests: [{ lastSeconds: 1, failure: 'POOL' }] })).toThrow('POOL');
});

it('spreads numbers in any order', () => {
  expect(spread([3, 1, 2])).toEqual({ count: 3, mean: 2, p50: 2, p99: 3, max: 3 });
  expect(spread([]).p99).toBeNaN();
});
