// LangChain's models on the real engine: one engine for all, one batch, and pages that come back.
import type { AIMessageChunk } from '@langchain/core/messages';
import { generateText } from 'ai';
import { createLorax, lorax } from 'lorax-js';
import { createEngine, type Engine } from 'lorax-js/engine';
import { ChatLorax, LoraxLLM } from 'lorax-js/langchain';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { exactDevice } from './suites/test-device.js';

const demo = fileURLToPath(new URL('../../models/demo', import.meta.url));
const options = {
  ...{ model: demo, ...exactDevice },
  adapters: { pirate: `${demo}/adapters/pirate`, french: `${demo}/adapters/french` },
};
const question = 'Where is my order 4821?';
const disposables: { dispose(): Promise<void> }[] = [];
const using = <T extends { dispose(): Promise<void> }>(disposable: T): T => {
  disposables.push(disposable);
  return disposable;
};

afterAll(() => Promise.all(disposables.map((each) => each.dispose())));

/** The model's engine is one of its own, so its stats are the whole engine's. */
const statsOf = (model: ChatLorax) => (model.engine as Engine).stats();

/** Once nobody is asking any more. */
async function pagesInUse(model: ChatLorax): Promise<number> {
  for (let i = 0; i < 200; i++) {
    const { requests, pages } = await statsOf(model);
    if (requests.running + requests.waiting === 0) return pages.kv;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error('requests are still running');
}

describe('one engine', () => {
  it('serves models, providers and both module systems that ask for the same options', async () => {
    const require = createRequire(import.meta.url);
    const cjs = require('lorax-js/langchain') as { ChatLorax: typeof ChatLorax };
    expect(cjs.ChatLorax).not.toBe(ChatLorax);
    const provider = using(createLorax(options));
    const own = using(new ChatLorax({ ...options, adapter: 'pirate' }));
    const other = using(new cjs.ChatLorax({ ...options, adapter: 'french' }));
    const plain = using(new LoraxLLM(options));
    const before = (await provider.stats()).totals.finished;
    const { text } = await generateText({ model: provider('pirate'), prompt: question });
    expect((await own.invoke(question)).text).toBe(text);
    expect((await other.invoke(question)).text).not.toBe(text);
    await plain.invoke('Once', { maxTokens: 3 });
    expect((await provider.stats()).totals.finished).toBe(before + 4);
  });

  it('may be given: of createEngine(), or of a provider', async () => {
    const engine = using(createEngine({ model: demo, ...exactDevice, memoryBytes: 64 << 20 }));
    await engine.adapters.add('pirate', options.adapters.pirate);
    const model = new ChatLorax({ engine, adapter: 'pirate' });
    expect((await model.invoke(question)).text).toMatch(/^Arr/);
    await model.dispose();
    expect((await engine.stats()).totals.finished).toBe(1);
    const { engine: theirs } = using(createLorax(options));
    const shared = new ChatLorax({ engine: theirs, adapter: 'pirate' });
    expect((await shared.invoke(question)).text).toMatch(/^Arr/);
  });
});

describe('no engine at all', () => {
  it('is the ready-made one, as the environment names it', async () => {
    vi.stubEnv('NODE_ENV', 'production'); // where engines with other options run side by side
    vi.stubEnv('LORAX_MODEL', demo);
    vi.stubEnv('LORAX_ADAPTERS', `${demo}/adapters`);
    const model = new ChatLorax({ adapter: 'pirate' });
    expect((await model.invoke(question)).text).toMatch(/^Arr/);
    expect((await model.ready()).model).toBe(demo);
    vi.unstubAllEnvs();
    await lorax.dispose();
  });
});

describe('one batch', () => {
  it('holds the calls of batch(), and answers as each does alone', async () => {
    const model = using(new ChatLorax(options));
    const calls = Array.from({ length: 12 }, (_, i) => ({
      input: `Where is my order ${1000 + i}?`,
      // Long enough that they meet, however fast the machine.
      options: {
        ...{ adapter: ['base', 'pirate', 'french'][i % 3] ?? 'base' },
        ...{ ignoreEos: true, maxTokens: 100 },
      },
    }));
    const alone: string[] = [];
    for (const { input, options } of calls) alone.push((await model.invoke(input, options)).text);
    const together = await model.batch(
      calls.map(({ input }) => input),
      calls.map(({ options }) => options),
    );
    expect(together.map(({ text }) => text)).toEqual(alone);
    const { recentSteps } = await statsOf(model);
    expect(Math.max(...recentSteps.map(({ decodeTokens }) => decodeTokens))).toBeGreaterThan(8);
    expect(Math.max(...recentSteps.map(({ adapters }) => adapters))).toBe(2);
  });
});

describe('leaving', () => {
  const endless = { ignoreEos: true, maxTokens: 3000 };

  it('ends the call that is left and no other, and gives its pages back', async () => {
    const model = using(new ChatLorax(options));
    const before = await pagesInUse(model);
    const expected = (await model.invoke(question)).text;
    const controller = new AbortController();
    const invoked = model.invoke(question, { ...endless, signal: controller.signal });
    const broken = async () => {
      let seen = 0;
      for await (const _ of await model.stream(question, endless)) if (++seen === 5) break;
      return seen;
    };
    const aborted = async () => {
      const own = new AbortController();
      const chunks: AIMessageChunk[] = [];
      const stream = await model.stream(question, { ...endless, signal: own.signal });
      for await (const chunk of stream) if (chunks.push(chunk) === 5) own.abort();
    };
    const late = using(new ChatLorax({ ...options, timeout: 50 })).invoke(question, endless);
    const ends = Promise.allSettled([invoked, broken(), aborted(), late]);
    expect((await model.invoke(question)).text).toBe(expected);
    controller.abort();
    expect((await ends).map(({ status }) => status)).toEqual([
      ...['rejected', 'fulfilled', 'rejected', 'rejected'],
    ]);
    expect(await pagesInUse(model)).toBe(before);
    expect((await model.engine.stats()).totals.failed).toBe(0);
  });
});

describe('bad input', () => {
  it('is a typed error of that call', async () => {
    const model = using(new ChatLorax(options));
    const other = model.invoke(question);
    await expect(model.invoke('x', { adapter: 'nobody' })).rejects.toMatchObject({
      code: 'ADAPTER_NOT_FOUND',
    });
    await expect(model.invoke('long '.repeat(20_000))).rejects.toMatchObject({
      name: 'ContextOverflowError',
      cause: { code: 'CONTEXT_TOO_LONG' },
    });
    await expect(new ChatLorax({ model: '/nowhere' }).invoke('x')).rejects.toMatchObject({
      code: 'MODEL_INVALID',
    });
    expect((await other).text).toMatch(/4821/);
  });
});
