import { describe, expect, it } from 'vitest';
import { activeUses } from '../../worker/activation.js';

const prompt = Int32Array.from([7, 1, 2, 3, 1, 2, 9, 1]);
const use = (invocationTokens: number[] | undefined) => [
  { handle: 4, weight: 0.5, invocationTokens },
];

describe('activeUses', () => {
  it('leaves other adapters alone', () => {
    expect(activeUses(use(undefined), prompt)).toEqual([{ handle: 4, weight: 0.5 }]);
  });

  it.each([
    { tokens: [1, 2], at: 4, what: 'the last occurrence' },
    { tokens: [1, 2, 3], at: 1, what: 'a whole one' },
    { tokens: [7], at: 0, what: 'the first token' },
    { tokens: [9, 1], at: 6, what: 'the end' },
    { tokens: [...prompt], at: 0, what: 'all of it' },
  ])('begins where the invocation does: $what', ({ tokens, at }) => {
    const [active] = activeUses(use(tokens), prompt);
    expect(active).toEqual({ handle: 4, weight: 0.5, firstPosition: at });
  });

  it.each([[[2, 1]], [[1, 2, 4]], [[...prompt, 5]]])('is on the base without: %j', (tokens) => {
    expect(activeUses(use(tokens), prompt)).toEqual([]);
  });
});
