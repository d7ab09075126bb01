import { describe, expect, it } from 'vitest';
import type { AnswerPart } from '../../../worker/output/answer-parser.js';
import { TextOutput, type TokenBatch } from '../../../worker/output/text-output.js';
import type { Tokenizer } from '../../../worker/tokenizer/tokenizer.js';
import { loadFixture } from '../fixtures.js';

const batch = (ids: number[], numTop = -1): TokenBatch => ({
  tokenIds: Int32Array.from(ids),
  numTop,
  topIds: Int32Array.from(
    ids.flatMap((id) => Array.from({ length: numTop }, (_, k) => id + k + 1)),
  ),
  logprobs: Float32Array.from(
    ids.flatMap((id) => Array.from({ length: numTop + 1 }, (_, k) => -(id + k))),
  ),
});

const textOf = ({ parts }: { parts: AnswerPart[] }) =>
  parts.map((part) => (part.type === 'text' ? part.text : '')).join('');

const idsOf = (tokenizer: Tokenizer, text: string) => tokenizer.encodeText(text, 1000);

describe('TextOutput', () => {
  it('reports ids at once, text when it is whole', async () => {
    const tokenizer = await loadFixture('chatml');
    const output = new TextOutput(tokenizer.table, [], new Set());
    const ids = await idsOf(tokenizer, '\u{10FFFF}'); // nothing like it in the corpus
    expect(ids.length).toBe(4);
    const deltas = ids.map((id) => output.push(batch([id])));
    expect(deltas.map(textOf)).toEqual(['', '', '', '\u{10FFFF}']);
    expect(deltas.map((delta) => delta.tokenIds)).toEqual(ids.map((id) => [id]));
    expect(output.outputTokens).toBe(4);
  });

  it('discards and does not count what follows a stop string', async () => {
    const tokenizer = await loadFixture('chatml');
    const output = new TextOutput(tokenizer.table, ['ld;'], new Set());
    const ids = await idsOf(tokenizer, 'hello world; more text');
    const delta = output.push(batch(ids, 2));
    expect(textOf(delta)).toBe('hello wor');
    expect(delta.stop).toBe('ld;');
    const used = delta.tokenIds.length;
    expect(delta.tokenIds).toEqual(ids.slice(0, used));
    expect(used).toBeLessThan(ids.length);
    expect(output.outputTokens).toBe(used);
    expect(delta.logprobs?.map((entry) => entry.tokenId)).toEqual(delta.tokenIds);
  });

  it('gives each token its own logprobs and alternatives', async () => {
    const tokenizer = await loadFixture('chatml');
    const output = new TextOutput(tokenizer.table, [], new Set());
    expect(output.push(batch([5, 9], 2)).logprobs).toEqual([
      {
        tokenId: 5,
        logprob: -5,
        top: [
          { tokenId: 6, logprob: -6 },
          { tokenId: 7, logprob: -7 },
        ],
      },
      {
        tokenId: 9,
        logprob: -9,
        top: [
          { tokenId: 10, logprob: -10 },
          { tokenId: 11, logprob: -11 },
        ],
      },
    ]);
    expect(output.push(batch([5], 0)).logprobs).toEqual([{ tokenId: 5, logprob: -5, top: [] }]);
    expect(output.push(batch([5])).logprobs).toBeUndefined();
  });

  it('counts a stop token and gives it no text', async () => {
    const tokenizer = await loadFixture('chatml');
    const [word] = await idsOf(tokenizer, 'hello');
    const output = new TextOutput(tokenizer.table, [], new Set([word as number]));
    expect(output.push(batch([word as number]))).toEqual({
      parts: [],
      tokenIds: [word],
      stop: null,
    });
    expect(output.outputTokens).toBe(1);
    expect(output.lastTokenId).toBe(word);
  });

  it('flushes an incomplete character and a stop string that only began', async () => {
    const tokenizer = await loadFixture('chatml');
    const output = new TextOutput(tokenizer.table, ['hello!'], new Set());
    const ids = [...(await idsOf(tokenizer, 'a hello')), ...(await idsOf(tokenizer, '\u{10FFFF}'))];
    expect(textOf(output.push(batch(ids.slice(0, -1))))).toBe('a ');
    expect(output.flush()).toEqual({
      parts: [{ type: 'text', text: 'hello\uFFFD' }],
      stop: null,
    });
  });
});
