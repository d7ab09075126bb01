import { describe, expect, it } from 'vitest';
import { checkTokenIds, resolveSampling } from '../../worker/sampling-defaults.js';
import { sampling } from '../e2e/addon/tiny-model.mjs';

const VOCAB = 100;

describe('resolveSampling', () => {
  it('is greedy and unlimited when nobody says otherwise', () => {
    const { native, stop } = resolveSampling({ seed: 1 }, {}, [7, 9], VOCAB);
    // What the addon's own tests call plain: greedy, no limit, no penalty, no log-probabilities.
    expect(native).toEqual(sampling({ seed: [1, 0], stopTokenIds: Int32Array.of(7, 9) }));
    expect(stop).toEqual([]);
  });

  it("prefers the request's values to the model's, field by field", () => {
    const { native, stop } = resolveSampling(
      { temperature: 0, topK: 0, stop: ['x'] },
      { temperature: 0.7, topK: 20, topP: 0.8, repetitionPenalty: 1.1, stop: ['y'] },
      [],
      VOCAB,
    );
    expect(native).toMatchObject({ temperature: 0, topK: 0, topP: 0.8, repetitionPenalty: 1.1 });
    expect(stop).toEqual(['x']);
    expect(resolveSampling({}, { stop: ['y'] }, [], VOCAB).stop).toEqual(['y']);
  });

  it('splits a seed into halves and draws one where there is none', () => {
    const seedOf = (seed?: number) =>
      resolveSampling(seed === undefined ? {} : { seed }, {}, [], VOCAB).native.seed;
    expect(seedOf(0)).toEqual([0, 0]);
    expect(seedOf(2 ** 53 - 1)).toEqual([0xffffffff, 0x1fffff]);
    expect(seedOf(5 * 2 ** 32 + 3)).toEqual([3, 5]);
    expect(seedOf()).not.toEqual(seedOf());
  });

  it('stops at end-of-sequence tokens unless told to go on; own stop tokens count anyway', () => {
    const { native, eosTokenIds, stopTokenIds } = resolveSampling(
      { ignoreEos: true, stopTokenIds: [9, 9, 3] },
      {},
      [7, 9],
      VOCAB,
    );
    expect([...native.stopTokenIds]).toEqual([9, 3]);
    expect([...eosTokenIds]).toEqual([]);
    expect([...stopTokenIds]).toEqual([9, 3]);
  });

  it('passes logit biases as parallel arrays', () => {
    const { native } = resolveSampling({ logitBias: { 3: -100, 99: 0.5 } }, {}, [], VOCAB);
    expect([...native.logitBiasIds]).toEqual([3, 99]);
    expect([...native.logitBiasValues]).toEqual([-100, 0.5]);
  });

  it.each([
    ['sampling.logitBias', { logitBias: { 100: 1 } }, 100],
    ['sampling.stopTokenIds', { stopTokenIds: [5, 4096] }, 4096],
    ['sampling.stopTokenIds', { stopTokenIds: [-1] }, -1],
  ])('refuses ids that the model does not have: %s', (field, sampling, value) => {
    expect(() => resolveSampling(sampling, {}, [], VOCAB)).toThrow(
      expect.objectContaining({
        code: 'INVALID_OPTIONS',
        data: { field, value, vocabSize: VOCAB },
      }),
    );
  });
});

it('checkTokenIds refuses what is no integer', () => {
  for (const id of [1.5, NaN, Infinity]) {
    expect(() => checkTokenIds([0, id], 'promptTokens', VOCAB)).toThrow('promptTokens');
  }
  expect(() => checkTokenIds([0, 99], 'promptTokens', VOCAB)).not.toThrow();
});
