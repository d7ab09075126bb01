/**
 * Embeddings on the real engine and the demo model: equal to alone whoever shares the batch, aborts
 * that give everything back, bad input that disturbs nobody, many in a pool too small for them.
 */
import { embed, embedMany } from 'ai';
import { createLorax } from 'lorax-js';
import { createEngine } from 'lorax-js/engine';
import type { EmbedRequest, Engine, EngineOptions, GenerateRequest } from 'lorax-js/engine';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { exactDevice, onGpu } from './suites/test-device.js';

const demo = fileURLToPath(new URL('../../models/demo', import.meta.url));
const ADAPTERS = ['pirate', 'french', 'json'];
const POOLINGS = ['mean', 'last', 'cls'] as const;

const engines: Engine[] = [];
async function start(options: Partial<EngineOptions> = {}): Promise<Engine> {
  const engine = createEngine({ model: demo, ...exactDevice, ...options });
  engines.push(engine);
  for (const name of ADAPTERS) await engine.adapters.add(name, `${demo}/adapters/${name}`);
  return engine;
}
afterAll(() => Promise.all(engines.map((engine) => engine.dispose())));

/** Deterministic numbers in [0, 1). */
function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

const WORDS = 'where is my order lamp backpack refund Köln 4821 ship please the a of to 📦'.split(
  ' ',
);
const textOf = (random: () => number, words: number): string =>
  Array.from({ length: words }, () => WORDS[Math.floor(random() * WORDS.length)]).join(' ');

/** The size of a pool of so many pages. */
async function memoryOf(pages: number): Promise<number> {
  const probe = createEngine({ model: demo, ...exactDevice });
  const { pageBytes } = await probe.ready();
  await probe.dispose();
  return pages * pageBytes;
}

async function untilIdle(engine: Engine): Promise<void> {
  for (let i = 0; i < 500; i++) {
    const { pages, requests } = await engine.stats();
    if (requests.running + requests.waiting === 0 && pages.kv + pages.retiring === 0) return;
    await sleep(10);
  }
  throw new Error(`still busy: ${JSON.stringify(await engine.stats())}`);
}

async function tokensOf(engine: Engine, request: GenerateRequest): Promise<number[]> {
  const tokens: number[] = [];
  for await (const event of engine.generate(request)) {
    if (event.type === 'delta') tokens.push(...event.tokenIds);
  }
  return tokens;
}

const precisions = onGpu ? (['bfloat16'] as const) : (['bfloat16', 'float32'] as const);
describe.each(precisions)('%s: embeddings do not depend on the batch', (precision) => {
  const random = randomNumbers(11);
  const adapterOf = (index: number) => ['base', ...ADAPTERS][index % 4]!;
  const calls: EmbedRequest[] = Array.from({ length: 24 }, (_, index) => ({
    input: Array.from({ length: 1 + (index % 3) }, () =>
      textOf(random, 1 + Math.floor(random() * 60)),
    ),
    adapter: adapterOf(index),
    pooling: POOLINGS[index % 3]!,
    normalize: index % 2 === 0,
  }));
  const streams: GenerateRequest[] = Array.from({ length: 32 }, (_, index) => ({
    prompt: textOf(random, 3 + (index % 20)),
    adapter: adapterOf(index),
    sampling: { maxOutputTokens: 60, ignoreEos: true, temperature: index % 2, seed: index },
  }));
  let alone: Float32Array[][];
  let tokensAlone: number[][];

  beforeAll(async () => {
    const engine = await start({ precision });
    alone = [];
    for (const { input, ...settings } of calls) {
      const embeddings: Float32Array[] = [];
      for (const text of input) {
        embeddings.push(...(await engine.embed({ input: [text], ...settings })).embeddings);
      }
      alone.push(embeddings);
    }
    tokensAlone = [];
    for (const request of streams) tokensAlone.push(await tokensOf(engine, request));
    await engine.dispose();
  }, 600_000);

  it('adapters, poolings and texts matter (or equality would show nothing)', () => {
    const all = alone.flat();
    // Texts that begin alike are alike to cls.
    const whole = alone.filter((_, index) => calls[index]!.pooling !== 'cls').flat();
    expect(new Set(whole.map(String)).size).toBe(whole.length);
    for (const embedding of all) {
      expect(embedding).toHaveLength(256);
      expect(embedding.every(Number.isFinite)).toBe(true);
    }
  });

  it('while 32 streams decode, in chunks', { timeout: 600_000 }, async () => {
    const engine = await start({ precision, maxBatchTokens: 96 });
    const decoding = streams.map((request) => tokensOf(engine, request));
    await sleep(50);
    const together = await Promise.all(
      calls.map(async (request, index) => {
        await sleep(index * 5);
        return (await engine.embed(request)).embeddings;
      }),
    );
    const tokens = await Promise.all(decoding);
    const { recentSteps } = await engine.stats();
    await untilIdle(engine);
    await engine.dispose();
    expect(together).toEqual(alone);
    expect(tokens).toEqual(tokensAlone);
    expect(recentSteps.some((step) => step.prefillTokens > 0 && step.decodeTokens > 8)).toBe(true);
    expect(Math.max(...recentSteps.map(({ adapters }) => adapters))).toBeGreaterThan(1);
  });

  it('in a pool too small for all: preempted, none lost', { timeout: 600_000 }, async () => {
    const probe = await start({ precision });
    const { pageBytes, blockTokens } = await probe.ready();
    const adapterPages = (await probe.adapters.list()).reduce(
      (sum, { bytes }) => sum + Math.ceil(bytes / pageBytes),
      0,
    );
    await probe.dispose();
    const memoryBytes = pageBytes * (adapterPages + Math.ceil((6 * 160) / blockTokens));
    const engine = await start({ precision, maxBatchTokens: 96, memoryBytes });
    const decoding = streams.map((request) => tokensOf(engine, request));
    const together = await Promise.all(
      calls.map(async (request) => (await engine.embed(request)).embeddings),
    );
    expect(together).toEqual(alone);
    expect(await Promise.all(decoding)).toEqual(tokensAlone);
    expect((await engine.stats()).totals.preemptions).toBeGreaterThan(0);
    await untilIdle(engine);
    await engine.dispose();
  });
});

describe('embeddings', () => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await start({ maxBatchTokens: 64 });
  });
  afterAll(() => engine.dispose());

  it('say what computed them and what was read', async () => {
    const input = ['Where is my order 4821?', 'Hi'];
    const base = await engine.embed({ input });
    expect(base.adapter).toBeNull();
    const pirate = await engine.embed({ input, adapter: 'pirate' });
    expect(pirate.adapter).toMatchObject({
      name: 'pirate',
      hash: expect.stringMatching(/^\w{64}$/),
    });
    expect(pirate.usage).toEqual(base.usage);
    expect(base.usage.promptTokens).toBeGreaterThan(input.length);
    for (const embedding of base.embeddings) expect(Math.hypot(...embedding)).toBeCloseTo(1, 5);
    expect(pirate.embeddings).not.toEqual(base.embeddings);
  });

  it('aborted give their pages back', async () => {
    await untilIdle(engine);
    const before = (await engine.stats()).totals;
    const long = textOf(randomNumbers(1), 900);
    for (let round = 0; round < 5; round++) {
      const controller = new AbortController();
      const calls = Array.from({ length: 4 }, () =>
        engine.embed({ input: [long, long, long], adapter: 'json', signal: controller.signal }),
      );
      const kept = engine.embed({ input: ['short'] });
      // With at least 2 + round of them in native hands: four calls may be on their way there.
      for (let open = 0; open < 6 + round; await sleep(1)) {
        const { requests } = await engine.stats();
        open = requests.running + requests.waiting;
      }
      const reason = new Error(`round ${round}`);
      controller.abort(reason);
      for (const call of calls) await expect(call).rejects.toBe(reason);
      expect((await kept).embeddings).toHaveLength(1);
    }
    await untilIdle(engine);
    const { totals, pages } = await engine.stats();
    expect(totals.aborted - before.aborted).toBeGreaterThanOrEqual(15);
    expect(pages.free + pages.cold + pages.adapter).toBe(pages.total);
  });

  it('of bad input fail by name and disturb nobody', async () => {
    const { contextTokens } = await engine.ready();
    const stream = tokensOf(engine, {
      prompt: 'Where is my order?',
      sampling: { maxOutputTokens: 200, ignoreEos: true },
    });
    const tooLong = 'order '.repeat(contextTokens + 10);
    const fails = async (request: unknown, expected: object) =>
      expect(engine.embed(request as EmbedRequest)).rejects.toMatchObject(expected);
    await fails(
      { input: ['fine', 'fine', tooLong, 'fine'] },
      {
        code: 'CONTEXT_TOO_LONG',
        message: expect.stringMatching(/^input\[2\]: .* \d+ tokens; .* 4096/),
        data: { index: 2, contextTokens },
      },
    );
    await fails({ input: ['a', ''] }, { code: 'INVALID_OPTIONS', data: { index: 1 } });
    await fails({ input: [] }, { code: 'INVALID_OPTIONS', data: { field: 'request.input' } });
    await fails({ input: [3] }, { code: 'INVALID_OPTIONS', data: { index: 0 } });
    await fails({ input: ['a'], pooling: 'max' }, { code: 'INVALID_OPTIONS' });
    await fails({ input: ['a'], adapter: 'nobody' }, { code: 'ADAPTER_NOT_FOUND' });
    await fails({ input: ['a'], adapter: '../json' }, { code: 'ADAPTER_NOT_FOUND' });
    const odd = ['\u0000', '\ud800 lone', '<|im_end|>', ' ', '\n'.repeat(500), '👩‍👩‍👧'.repeat(50)];
    const { embeddings } = await engine.embed({ input: odd });
    for (const embedding of embeddings) expect(embedding.every(Number.isFinite)).toBe(true);
    expect(await stream).toHaveLength(200);
    await untilIdle(engine);
  });

  it('too long for the pool name their input and its numbers', async () => {
    const small = createEngine({ model: demo, ...exactDevice, memoryBytes: await memoryOf(4) });
    engines.push(small);
    const { blockTokens } = await small.ready();
    const long = textOf(randomNumbers(2), 5 * blockTokens);
    await expect(small.embed({ input: ['a', long] })).rejects.toMatchObject({
      code: 'POOL_EXHAUSTED',
      message: expect.stringMatching(/^input\[1\]: The input has \d+ tokens: \d+ pages/),
      data: { index: 1, poolPages: 4 },
    });
    expect((await small.embed({ input: ['a'] })).embeddings).toHaveLength(1);
    await small.dispose();
  });

  it('a thousand of random lengths in a small pool', { timeout: 600_000 }, async () => {
    const random = randomNumbers(5);
    const input = Array.from({ length: 1000 }, () =>
      textOf(random, 1 + Math.floor(random() ** 3 * 120)),
    );
    const small = await start({ memoryBytes: await memoryOf(24), maxBatchTokens: 128 });
    const { embeddings, usage } = await small.embed({ input });
    expect(embeddings).toHaveLength(1000);
    const { totals } = await small.stats();
    expect(totals.finished).toBe(1000);
    expect(totals.promptTokens).toBe(usage.promptTokens);
    await untilIdle(small);
    await small.dispose();
    for (let index = 0; index < 1000; index += 23) {
      const one = await engine.embed({ input: [input[index]!] });
      expect(embeddings[index], `text ${index}`).toEqual(one.embeddings[0]);
    }
  });
});

describe('the provider', () => {
  it('embeds, alone and many, with base and adapter', async () => {
    await using lorax = createLorax({
      ...{ model: demo, ...exactDevice },
      adapters: { pirate: `${demo}/adapters/pirate` },
    });
    const values = Array.from({ length: 70 }, (_, i) => `Where is my order ${4000 + i}?`);
    const model = lorax.embeddingModel('pirate');
    const many = await embedMany({ model, values });
    expect(many.embeddings).toHaveLength(70);
    const one = await embed({ model, value: values[33]! });
    expect(one.embedding).toEqual(many.embeddings[33]);
    expect(one.usage.tokens).toBeGreaterThan(4);
    expect(one.providerMetadata?.lorax).toMatchObject({ adapter: 'pirate' });
    const base = await embed({ model: lorax.embeddingModel(), value: values[33]! });
    expect(base.embedding).not.toEqual(one.embedding);
    expect(base.providerMetadata?.lorax).toEqual({ adapter: null, adapterHash: null });
  });
});
