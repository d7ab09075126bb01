import { describe, expect, it, vi } from 'vitest';
import type { Sampling } from '../../src/types.js';
import type { WirePrompt } from '../../worker/protocol.js';
import { loadFixture } from './fixtures.js';
import { VOCAB, CONTEXT, start, submissions, pause, saying } from './port-client.js';

describe('a request', () => {
  it('starts, streams and finishes, with usage and timing', async () => {
    const { ids, nextToken } = await saying('hello world; naïve 😀');
    const client = start({ nextToken });
    const id = client.generate('Where is my order?');
    const finish = await client.end(id);
    expect(client.of('start', id)).toEqual([
      {
        type: 'start',
        id,
        adapter: null,
        promptTokens: expect.any(Number) as number,
        cachedTokens: expect.any(Number) as number,
        queueMs: expect.any(Number) as number,
      },
    ]);
    expect(client.textOf(id)).toBe('hello world; naïve 😀');
    expect(client.tokensOf(id)).toEqual(ids);
    const { promptTokens, cachedTokens, queueMs } = client.of('start', id)[0]!;
    expect(finish).toMatchObject({
      type: 'finish',
      reason: 'stop',
      rawReason: 'eos',
      usage: { promptTokens, cachedTokens, outputTokens: ids.length },
    });
    const { timing } = client.of('finish', id)[0]!;
    expect(queueMs).toBe(timing.queueMs);
    expect(timing.queueMs).toBeGreaterThanOrEqual(0.25);
    expect(timing.timeToFirstTokenMs).toBeGreaterThan(0);
    expect(timing.totalMs).toBeGreaterThanOrEqual(timing.timeToFirstTokenMs as number);
  });

  it('takes messages through the chat template, and tokens as they are', async () => {
    const client = start();
    const sampling = { maxOutputTokens: 2 };
    const prompt = {
      kind: 'messages' as const,
      messages: [{ role: 'user' as const, content: 'hi' }],
    };
    await client.end(client.generate(prompt, sampling));
    await client.end(client.generate({ kind: 'tokens', tokens: [5, 6, 7] }, sampling));
    const tokenizer = await loadFixture('chatml');
    const [engine] = client.addon.engines;
    expect([...engine!.submissions[0]!.prompt]).toEqual(
      (await tokenizer.encodeChat(prompt, CONTEXT)).ids,
    );
    expect([...engine!.submissions[1]!.prompt]).toEqual([5, 6, 7]);
  });

  it('says why it ended', async () => {
    const { ids, eos, nextToken } = await saying('hello world');
    const client = start({ nextToken });
    const rawReason = async (sampling: Sampling, tokens = [1, 2]) => {
      const id = client.generate({ kind: 'tokens', tokens }, sampling);
      await client.end(id);
      const [finish] = client.of('finish', id);
      return [finish?.reason, finish?.rawReason, client.textOf(id), finish?.usage.outputTokens];
    };
    const second = ids[1] as number;
    const first = (await loadFixture('chatml')).table.text(ids[0] as number);
    expect(await rawReason({})).toEqual(['stop', 'eos', 'hello world', ids.length]);
    expect(await rawReason({ maxOutputTokens: 1 })).toEqual([
      'length',
      'max-output-tokens',
      first,
      1,
    ]);
    const nearlyFull = Array(CONTEXT - 3).fill(3) as number[];
    expect(await rawReason({ ignoreEos: true }, nearlyFull)).toEqual([
      'length',
      'context',
      expect.any(String),
      3,
    ]);
    expect(await rawReason({ stopTokenIds: [second] })).toEqual([
      'stop',
      `stop-token:${second}`,
      first,
      2,
    ]);
    expect(await rawReason({ ignoreEos: true, stopTokenIds: [eos] })).toEqual([
      'stop',
      `stop-token:${eos}`,
      'hello world',
      ids.length,
    ]);
  });

  it('ends at a stop string, leaks none of it and counts nothing after it', async () => {
    const { nextToken } = await saying('one two END three four five six seven eight');
    const client = start({ nextToken, tokensPerStep: 3 });
    const id = client.generate('x', { stop: ['nothing', 'o END t'] });
    expect(await client.end(id)).toMatchObject({
      reason: 'stop',
      rawReason: 'stop-string:o END t',
      usage: { outputTokens: client.tokensOf(id).length },
    });
    expect(client.textOf(id)).toBe('one tw');
    const tokenizer = await loadFixture('chatml');
    const bytes = client.tokensOf(id).map((token) => Buffer.from(tokenizer.table.bytes(token)));
    expect(Buffer.concat(bytes).toString()).toMatch(/^one two END t\w?$/);
    const stats = async () =>
      (await client.call({ type: 'stats' })) as { totals: { aborted: number } };
    await pause();
    expect((await stats()).totals.aborted).toBe(1);
    expect(client.terminalsOf(id).length).toBe(1);
  });

  it('brings logprobs with their tokens', async () => {
    const client = start({ nextToken: ({ output }) => 100 + output.length, tokensPerStep: 2 });
    const id = client.generate('x', { logprobs: 1, maxOutputTokens: 3 });
    const plain = client.generate('x', { maxOutputTokens: 3 });
    await Promise.all([client.end(id), client.end(plain)]);
    const entries = client.of('delta', id).flatMap((e) => e.logprobs ?? []);
    expect(entries.map((entry) => entry.tokenId)).toEqual([100, 101, 102]);
    for (const { tokenId, logprob, top } of entries) {
      expect(logprob).toBeCloseTo(-tokenId / 1000);
      expect(top).toEqual([
        { tokenId: tokenId + 1, logprob: expect.closeTo(-(tokenId + 1) / 1000) },
      ]);
    }
    expect(client.of('delta', plain).every((e) => e.logprobs === undefined)).toBe(true);
  });

  it.each<[string, WirePrompt, Sampling, string | null, object]>([
    ['no tokens', { kind: 'tokens', tokens: [] }, {}, null, { field: 'promptTokens' }],
    ['an unknown id', { kind: 'tokens', tokens: [1, VOCAB] }, {}, null, { field: 'promptTokens' }],
    ['an unknown stop', { kind: 'text', text: 'a' }, { stopTokenIds: [VOCAB] }, null, {}],
    ['an empty text', { kind: 'text', text: '' }, {}, null, { field: 'prompt' }],
  ])('is refused for %s, and the engine goes on', async (_, prompt, sampling, adapter, data) => {
    const client = start();
    const bad = client.generate(prompt, sampling, adapter);
    const good = client.generate('fine', { maxOutputTokens: 3 });
    expect(await client.end(bad)).toMatchObject({
      type: 'failed',
      error: { code: 'INVALID_OPTIONS', data },
      usage: { promptTokens: 0, cachedTokens: 0, outputTokens: 0 },
    });
    expect((await client.end(good)).type).toBe('finish');
  });

  it('is refused when it cannot fit or too many wait, with the numbers', async () => {
    const client = start({ manual: true, maxRunning: 1 }, { maxQueued: 1 });
    await client.call({ type: 'ready' });
    const [engine] = client.addon.engines;
    const tooLong = client.generate({ kind: 'text', text: 'a b '.repeat(1e6) });
    const tooManyTokens = client.generate({
      kind: 'tokens',
      tokens: Array(CONTEXT + 1).fill(1) as number[],
    });
    const withMaximum = client.generate('a', { maxOutputTokens: CONTEXT });
    for (const id of [tooLong, tooManyTokens]) {
      expect(await client.end(id)).toMatchObject({ error: { code: 'CONTEXT_TOO_LONG' } });
    }
    const queued = client.generate('a', { maxOutputTokens: 1 });
    await submissions(client, 2);
    const refused = client.generate('a', { maxOutputTokens: 1 });
    await submissions(client, 3);
    engine!.step();
    expect(await client.end(withMaximum)).toMatchObject({ error: { code: 'CONTEXT_TOO_LONG' } });
    expect(await client.end(refused)).toMatchObject({
      error: { code: 'QUEUE_FULL', data: { maxQueued: 1 } },
    });
    expect((await client.end(queued)).type).toBe('finish');
  });
});

describe('messages', () => {
  it('are one per engine step, however many stream', async () => {
    const client = start({ manual: true, maxRunning: 32 });
    await client.call({ type: 'ready' });
    const ids = Array.from({ length: 32 }, () => client.generate('hello', { maxOutputTokens: 5 }));
    await submissions(client, 32);
    const before = client.messages.length;
    for (let step = 0; step < 5; step++) client.addon.engines[0]!.step();
    await Promise.all(ids.map((id) => client.end(id)));
    expect(client.messages.length - before).toBe(5);
  });

  it('with first tokens leave before the others of their step are read', async () => {
    const client = start({ manual: true, maxRunning: 32 });
    await client.call({ type: 'ready' });
    const early = [client.generate('hello'), client.generate('hello')];
    await submissions(client, 2);
    client.addon.engines[0]!.step();
    const late = client.generate('hello');
    await submissions(client, 3);
    const before = client.messages.length;
    client.addon.engines[0]!.step();
    client.addon.engines[0]!.step();
    await vi.waitFor(() => expect(client.messages.length - before).toBe(3));
    const deltas = client.messages
      .slice(before)
      .map((events) => events.flatMap((event) => (event.type === 'delta' ? [event.id] : [])));
    expect(deltas).toEqual([[late], early, [...early, late]]);
  });
});
