// The fake engine that apps test with: the same events, usage, abort and errors as the real one.
import { generateText, NoSuchModelError, streamText } from 'ai';
import { describe, expect, it, vi } from 'vitest';
import { createFakeEngine, createFakeLorax, LoraxError } from '../../src/test.js';
import type { AdapterMix, TokenEvent } from '../../src/types.js';

async function read(events: AsyncIterable<TokenEvent>): Promise<TokenEvent[]> {
  const all: TokenEvent[] = [];
  for await (const event of events) all.push(event);
  return all;
}

describe('createFakeLorax', () => {
  it('answers by adapter', async () => {
    const lorax = createFakeLorax({ answers: { base: 'yes', pirate: 'aye' } });
    expect((await generateText({ model: lorax(), prompt: 'x' })).text).toBe('yes');
    expect((await generateText({ model: lorax('pirate'), prompt: 'x' })).text).toBe('aye');
    await expect(generateText({ model: lorax('other'), prompt: 'x' })).rejects.toSatisfy(
      NoSuchModelError.isInstance,
    );
  });

  it('streams a token at a time and aborts', async () => {
    const lorax = createFakeLorax({ answers: { base: 'one two three four' }, tokenMs: 5 });
    const controller = new AbortController();
    const onAbort = vi.fn();
    const abortSignal = controller.signal;
    const result = streamText({ model: lorax(), prompt: 'x', abortSignal, onAbort });
    const deltas: string[] = [];
    for await (const delta of result.textStream) {
      deltas.push(delta);
      if (deltas.length === 2) controller.abort();
    }
    expect(deltas).toEqual(['one', ' two']);
    expect(onAbort).toHaveBeenCalledTimes(1);
    expect((await lorax.stats()).totals).toMatchObject({ aborted: 1, finished: 0 });
  });

  it('has adapters that are fetched ahead, come, go and belong to tenants', async () => {
    const lorax = createFakeLorax({ answers: { pirate: 'aye' } });
    const { hash } = await lorax.prefetch('pirate');
    expect(await lorax.adapters.identify('pirate')).toEqual({ name: 'pirate', hash });
    void lorax.prefetch('nobody');
    const acme = lorax.tenant('acme');
    await acme.adapters.add('own', 'hf://acme/own');
    expect(await acme.adapters.list()).toMatchObject([
      { name: 'own', source: 'hf://acme/own@main', state: 'resident' },
    ]);
    expect((await generateText({ model: acme('pirate'), prompt: 'x' })).text).toBe('aye');
    await generateText({ model: acme('own'), prompt: 'x' });
    for (const other of [lorax, lorax.tenant('globex')]) {
      await expect(generateText({ model: other('own'), prompt: 'x' })).rejects.toSatisfy(
        NoSuchModelError.isInstance,
      );
    }
    expect((await lorax.tenant('acme').stats()).totals.finished).toBe(2);
    expect((await lorax.stats()).totals.finished).toBe(0);
    expect(await acme.adapters.remove('own')).toMatchObject({ name: 'own', freedBytes: 0 });
    await expect(acme.adapters.remove('pirate')).rejects.toMatchObject({
      code: 'ADAPTER_NOT_FOUND',
    });
  });

  it('checks options as the real one does', () => {
    expect(() => createFakeLorax({ answers: { '../x': 'a' } })).toThrow(/must be a name/);
    expect(() => createFakeLorax({ answer: {} } as never)).toThrow(/Did you mean "answers"/);
    expect(() => createFakeEngine({ tokenMs: -1 })).toThrow(LoraxError);
  });
});

describe('createFakeEngine', () => {
  it('gives the same events as the real engine', async () => {
    const engine = createFakeEngine({ answers: { a: 'hello big world' } });
    const onUsage = vi.fn();
    const events = await read(engine.generate({ prompt: 'p q', adapter: 'a', onUsage }));
    expect(events.map(({ type }) => type)).toEqual([
      ...['start', 'delta', 'delta', 'delta', 'finish'],
    ]);
    expect(events[0]).toMatchObject({ adapter: { name: 'a' }, promptTokens: 2 });
    expect(events.at(-1)).toMatchObject({
      ...{ reason: 'stop', rawReason: 'eos' },
      usage: { promptTokens: 2, cachedTokens: 0, outputTokens: 3 },
    });
    expect(onUsage).toHaveBeenCalledTimes(1);
  });

  it('honours stop strings and maximum length', async () => {
    const engine = createFakeEngine({ answers: { base: 'a b c STOP d' } });
    const stop = await read(engine.generate({ prompt: 'x', sampling: { stop: ['STOP'] } }));
    expect(stop.at(-1)).toMatchObject({ reason: 'stop', rawReason: 'stop-string:STOP' });
    const text = stop.map((event) => (event.type === 'delta' ? event.text : '')).join('');
    expect(text).toBe('a b c ');
    const short = await read(engine.generate({ prompt: 'x', sampling: { maxOutputTokens: 2 } }));
    expect(short.at(-1)).toMatchObject({ reason: 'length', rawReason: 'max-output-tokens' });
  });

  it('fails as scripted, before or after some text', async () => {
    const full = new LoraxError('QUEUE_FULL', 'full');
    const died = new LoraxError('WORKER_DIED', 'died');
    const engine = createFakeEngine({
      answers: { full, dies: () => ({ text: 'so far', thenFail: died }) },
    });
    await expect(read(engine.generate({ prompt: 'x', adapter: 'full' }))).rejects.toBe(full);
    const seen: string[] = [];
    await expect(
      (async () => {
        for await (const event of engine.generate({ prompt: 'x', adapter: 'dies' })) {
          if (event.type === 'delta') seen.push(event.text);
        }
      })(),
    ).rejects.toBe(died);
    expect(seen.join('')).toBe('so far');
  });

  it('plays reasoning, text and calls, a token at a time', async () => {
    const asked = vi.fn();
    const engine = createFakeEngine({
      answers: {
        base: (request) => {
          asked(request);
          return {
            reasoning: 'hm, well',
            text: 'I ask.',
            toolCalls: [
              { name: 'weather', arguments: { city: 'New York' } },
              { name: 'time', arguments: {} },
            ],
          };
        },
      },
    });
    const messages = [{ role: 'user' as const, content: 'x' }];
    const tools = ['weather', 'time'].map((name) => ({ name, parameters: { type: 'object' } }));
    const events = await read(engine.generate({ messages, tools, toolChoice: 'required' }));
    expect(asked).toHaveBeenCalledWith(
      expect.objectContaining({ tools, toolChoice: 'required', parallelToolCalls: true }),
    );
    const reasoning = events.map((e) => (e.type === 'reasoning-delta' ? e.text : '')).join('');
    expect(reasoning).toBe('hm, well');
    const ends = events.filter((event) => event.type === 'tool-call-end');
    expect(ends.map(({ name, input }) => [name, input])).toEqual([
      ['weather', '{"city":"New York"}'],
      ['time', '{}'],
    ]);
    expect(new Set(ends.map(({ callId }) => callId)).size).toBe(2);
    for (const { callId, input } of ends) {
      expect(callId).toMatch(/^[a-z0-9]{9}$/);
      const deltas = events.filter((e) => e.type === 'tool-call-delta' && e.callId === callId);
      expect(deltas.map((e) => (e.type === 'tool-call-delta' ? e.delta : '')).join('')).toBe(input);
    }
    expect(events.at(-1)).toMatchObject({
      ...{ reason: 'tool-calls', rawReason: 'eos' },
      usage: { outputTokens: 9, reasoningTokens: 2 },
    });
    const ids = events.flatMap((event) => (event.type === 'delta' ? event.tokenIds : []));
    expect(ids).toHaveLength(9);
  });

  it('identifies its adapters as its answers do', async () => {
    const engine = createFakeEngine({ answers: { pirate: 'Arr' } });
    const identity = await engine.adapters.identify('pirate');
    const start = engine.generate({ prompt: 'x', adapter: 'pirate' })[Symbol.asyncIterator]();
    expect((await start.next()).value).toMatchObject({ type: 'start', adapter: identity });
    await expect(engine.adapters.identify('nobody')).rejects.toMatchObject({
      code: 'ADAPTER_NOT_FOUND',
    });
  });

  it('answers mixes by the name they are shown by', async () => {
    const answers = { '0.7*pirate + 0.3*json': 'both', pirate: 'Arr' };
    const lorax = createFakeLorax({ answers });
    const ask = (weights: AdapterMix) => generateText({ model: lorax.mix(weights), prompt: 'x' });
    const { text, providerMetadata } = await ask({ pirate: 0.7, json: 0.3 });
    expect(text).toBe('both');
    expect(providerMetadata?.lorax).toMatchObject({ adapter: '0.7*pirate + 0.3*json' });
    const other = await ask({ pirate: 0.7, json: 0.4 });
    expect(other.text).toBe('This is the fake answer of 0.7*pirate + 0.4*json.');
    const hashes = [providerMetadata, other.providerMetadata].map(
      (each) => each?.lorax?.adapterHash,
    );
    expect(new Set(hashes).size).toBe(2);
    expect((await ask({ pirate: 1 })).text).toBe('Arr');
    await expect(ask({ pirate: 0.5, nobody: 0.5 })).rejects.toSatisfy(NoSuchModelError.isInstance);
    const embed = async (adapter: AdapterMix) =>
      (await lorax.engine.embed({ input: ['x'], adapter })).embeddings;
    expect(await embed({ pirate: 0.7, json: 0.3 })).not.toEqual(await embed({ pirate: 0.7 }));
    expect(() => createFakeLorax({ answers: { '1*../x': 'a' } })).toThrow(/must be a name/);
  });

  it('can be disposed', async () => {
    const engine = createFakeEngine({ tokenMs: 1000 });
    const open = read(engine.generate({ prompt: 'x' }));
    await engine.dispose();
    await expect(open).rejects.toMatchObject({ code: 'DISPOSED' });
    await expect(engine.ready()).rejects.toMatchObject({ code: 'DISPOSED' });
    await expect(read(engine.generate({ prompt: 'x' }))).rejects.toMatchObject({
      code: 'DISPOSED',
    });
  });
});
