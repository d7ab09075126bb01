import { describe, expect, it } from 'vitest';
import { loadFixture } from './fixtures.js';
import { start } from './port-client.js';

const CONTEXT = 64;

describe('tokenize and detokenize over the port', () => {
  it('give the ids of a prompt, and the text and bytes of ids', async () => {
    const tokenizer = await loadFixture('chatml');
    const client = start();
    const text = 'hello wörld';
    const { tokenIds } = (await client.call({
      ...{ type: 'tokenize', prompt: { kind: 'text', text }, addSpecialTokens: true },
    })) as { tokenIds: number[] };
    expect(tokenIds).toEqual(await tokenizer.encodeText(text, CONTEXT));
    const spelled = (await client.call({ type: 'detokenize', tokenIds })) as {
      text: string;
      pieces: Uint8Array[];
    };
    expect(spelled.text).toBe(text);
    expect(Buffer.concat(spelled.pieces).toString()).toBe(text);
    expect(spelled.pieces).toHaveLength(tokenIds.length);
  });

  it('count what a chat template adds', async () => {
    const tokenizer = await loadFixture('chatml');
    const messages = [{ role: 'user' as const, content: 'hello' }];
    const { tokenIds } = (await start().call({
      ...{ type: 'tokenize', prompt: { kind: 'messages', messages }, addSpecialTokens: true },
    })) as { tokenIds: number[] };
    expect(tokenIds).toEqual((await tokenizer.encodeChat({ messages }, CONTEXT)).ids);
    const eos = tokenizer.eosTokenId as number;
    const { text, pieces } = (await start().call({ type: 'detokenize', tokenIds: [eos] })) as {
      text: string;
      pieces: Uint8Array[];
    };
    expect(text).toBe('');
    expect(Buffer.from(pieces[0] ?? []).toString()).toBe('<|im_end|>');
  });

  it('leave out what the tokenizer begins texts with, where asked to', async () => {
    const tokenizer = await loadFixture('llama3');
    const whole = await tokenizer.encodeText('hello', CONTEXT);
    const bare = await tokenizer.encodeText('hello', CONTEXT, false);
    expect(whole).toEqual([whole[0], ...bare]);
    const { tokenIds } = (await start().call({
      ...{ type: 'tokenize', prompt: { kind: 'text', text: '' }, addSpecialTokens: true },
    })) as { tokenIds: number[] };
    expect(tokenIds).toEqual([]);
  });

  it('refuse ids that the model has not, and a prompt beyond the context', async () => {
    const client = start();
    await expect(client.call({ type: 'detokenize', tokenIds: [1e9] })).rejects.toMatchObject({
      code: 'INVALID_OPTIONS',
      data: { field: 'tokenIds' },
    });
    const text = 'word '.repeat(100_000);
    const long = { type: 'tokenize', prompt: { kind: 'text', text }, addSpecialTokens: true };
    await expect(client.call(long)).rejects.toMatchObject({ code: 'CONTEXT_TOO_LONG' });
  });
});
