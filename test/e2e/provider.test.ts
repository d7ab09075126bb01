// The provider on the real engine and the demo model, as users have it: dist/, a thread, native code.
import { generateText, streamText } from 'ai';
import { createLorax, LoraxError } from 'lorax-js';
import type { LoraxProvider } from 'lorax-js';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { exactDevice, testDevice } from './suites/test-device.js';

const demo = fileURLToPath(new URL('../../models/demo', import.meta.url));
const names = readdirSync(join(demo, 'adapters')).sort().slice(0, 5);
const models = ['base', ...names];
const questions = ['Where is my order 4821?', 'Can I return my shoes?', 'Do you ship to Norway?'];

let lorax: LoraxProvider;

beforeAll(async () => {
  lorax = createLorax({
    model: demo,
    ...exactDevice,
    adapters: Object.fromEntries(names.map((name) => [name, join(demo, 'adapters', name)])),
    defaults: { maxOutputTokens: 48 },
  });
  await Promise.all(names.map((name) => lorax.prefetch(name)));
});

afterAll(() => lorax.dispose());

async function stream(name: string, prompt: string): Promise<string> {
  let text = '';
  for await (const delta of streamText({ model: lorax(name), prompt }).textStream) text += delta;
  return text;
}

function codeOf(error: unknown): string {
  if (LoraxError.isInstance(error)) return error.code;
  return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
}

/** Until the engine has heard of every cancel; pages in use for KV after that. */
async function pagesInUse(): Promise<number> {
  for (let i = 0; i < 200; i++) {
    const { requests, pages } = await lorax.stats();
    if (requests.running + requests.waiting === 0) return pages.kv;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error('requests are still running');
}

describe('twenty calls at once', () => {
  it('run in one batch and answer as each does alone', async () => {
    const calls = Array.from({ length: 20 }, (_, i) => ({
      name: models[i % models.length] ?? 'base',
      prompt: questions[i % questions.length] ?? '',
    }));
    const alone: string[] = [];
    for (const { name, prompt } of calls) alone.push(await stream(name, prompt));
    const together = await Promise.all(calls.map(({ name, prompt }) => stream(name, prompt)));
    expect(together).toEqual(alone);
    const { recentSteps } = await lorax.stats();
    expect(Math.max(...recentSteps.map(({ decodeTokens }) => decodeTokens))).toBeGreaterThan(9);
    expect(Math.max(...recentSteps.map(({ adapters }) => adapters))).toBe(names.length);
    for (const name of names) {
      const [base, adapted] = await Promise.all([
        stream('base', questions[0] ?? ''),
        stream(name, questions[0] ?? ''),
      ]);
      expect(adapted).not.toBe(base);
    }
  });

  it('tell which weights answered, and what it cost', async () => {
    const { providerMetadata, usage, finishReason, rawFinishReason } = await generateText({
      model: lorax(names[0]),
      prompt: questions[0] ?? '',
    });
    const info = (await lorax.adapters.list()).find(({ name }) => name === names[0]);
    expect(providerMetadata?.lorax).toMatchObject({ adapter: names[0], adapterHash: info?.hash });
    expect(usage.inputTokens).toBeGreaterThan(5);
    expect(usage.outputTokens).toBeGreaterThan(1);
    expect([finishReason, rawFinishReason]).toEqual(['stop', 'eos']);
  });
});

describe('leaving', () => {
  const endless = { lorax: { ignoreEos: true } };
  const maxOutputTokens = 3000;
  const bySignal = async (name: string) => {
    const controller = new AbortController();
    const result = streamText({
      ...{ model: lorax(name), prompt: questions[1] ?? '', providerOptions: endless },
      ...{ maxOutputTokens, abortSignal: controller.signal },
    });
    let deltas = 0;
    for await (const _ of result.textStream) if (++deltas === 3) controller.abort();
  };
  const byBreak = async (name: string) => {
    const messages = [{ role: 'user' as const, content: questions[1] ?? '' }];
    const sampling = { ignoreEos: true, maxOutputTokens };
    const request = { messages, adapter: name, sampling };
    let deltas = 0;
    for await (const event of lorax.engine.generate(request)) {
      if (event.type === 'delta' && ++deltas === 3) break;
    }
  };
  const byCancel = async (name: string) => {
    const { stream: parts } = await lorax(name).doStream({
      prompt: [{ role: 'user', content: [{ type: 'text', text: questions[1] ?? '' }] }],
      ...{ providerOptions: endless, maxOutputTokens },
    });
    const reader = parts.getReader();
    for (let i = 0; i < 5; i++) await reader.read();
    await reader.cancel();
  };

  it(
    'a thousand streams gives every page back and changes nobody',
    { timeout: 120_000 },
    async () => {
      const before = await pagesInUse();
      const expected = await Promise.all(models.map((name) => stream(name, questions[0] ?? '')));
      const ways = [bySignal, byBreak, byCancel];
      for (let round = 0; round < 25; round++) {
        const leaving = Array.from({ length: 40 }, (_, i) =>
          ways[i % ways.length]?.(models[(i + round) % models.length] ?? 'base'),
        );
        const staying =
          round % 5 === 0 ? models.map((name) => stream(name, questions[0] ?? '')) : [];
        await Promise.all(leaving);
        if (staying.length > 0) expect(await Promise.all(staying)).toEqual(expected);
      }
      expect(await pagesInUse()).toBe(before);
      const { totals } = await lorax.stats();
      expect(totals.aborted).toBeGreaterThanOrEqual(1000);
      expect(totals.failed).toBe(0);
    },
  );
});

describe('bad input is a typed error, and the engine goes on serving', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'lorax-bad-'));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  it('an adapter that is not there, or empty', async () => {
    for (const directory of [join(folder, 'nowhere'), folder]) {
      const error = await lorax.adapters.add('bad', directory).catch((e: unknown) => e);
      expect(codeOf(error)).toMatch(/^ADAPTER_/);
      expect((error as Error).message).toContain(folder);
      const direct = lorax.fromDirectory(directory);
      const called: unknown = await generateText({ model: direct, prompt: 'x' }).catch((e) => e);
      expect(codeOf(called)).toMatch(/^ADAPTER_/);
    }
    expect(await stream('base', questions[0] ?? '')).not.toBe('');
  });

  it('a model directory that is empty', async () => {
    const broken = createLorax({ model: folder, ...testDevice });
    const error: unknown = await generateText({ model: broken(), prompt: 'x' }).catch((e) => e);
    expect(codeOf(error)).toBe('MODEL_INVALID');
    await broken.dispose();
  });

  it('a prompt of 100 MB', { timeout: 120_000 }, async () => {
    const other = stream('base', questions[0] ?? '');
    const prompt = 'a long story. '.repeat(7_500_000);
    const error: unknown = await generateText({ model: lorax(), prompt }).catch((e) => e);
    expect(codeOf(error)).toBe('CONTEXT_TOO_LONG');
    expect(await other).toBe(await stream('base', questions[0] ?? ''));
  });
});

describe("the worker's death", () => {
  it('ends every stream within a second; the next call starts a new one', async () => {
    const threads = new Set<Worker>();
    const postMessage = Worker.prototype.postMessage;
    const spy = vi.spyOn(Worker.prototype, 'postMessage').mockImplementation(function (
      this: Worker,
      ...args
    ) {
      threads.add(this);
      postMessage.apply(this, args);
    });
    const own = createLorax({
      ...{ model: demo, ...exactDevice },
      ...{ memoryBytes: 64 << 20, defaults: { seed: 1 } },
    });
    const adapter = names[0] ?? '';
    await own.adapters.add(adapter, join(demo, 'adapters', adapter));
    spy.mockRestore();
    expect(threads.size).toBe(1);
    const providerOptions = { lorax: { ignoreEos: true } };
    const begun: Promise<void>[] = [];
    const read = async (name: string) => {
      const result = streamText({
        ...{ model: own(name), prompt: 'x', providerOptions, maxRetries: 0 },
        onError: () => undefined,
      });
      let markBegun = () => {};
      begun.push(new Promise((resolve) => (markBegun = resolve)));
      for await (const _ of result.textStream) markBegun();
    };
    const streams = Array.from({ length: 8 }, (_, i) => read(i % 2 === 0 ? 'base' : adapter));
    const ended = Promise.allSettled(streams);
    await Promise.all(begun);
    const killed = performance.now();
    for (const thread of threads) void thread.terminate();
    const ends = await ended;
    expect(performance.now() - killed).toBeLessThan(1000);
    expect(ends.map((end) => (end.status === 'rejected' ? end.reason.statusCode : 0))).toEqual(
      Array.from({ length: 8 }, () => 503),
    );
    const { text } = await generateText({ model: own(adapter), prompt: questions[0] ?? '' });
    expect(text).toBe(await stream(adapter, questions[0] ?? ''));
    await own.dispose();
  });
});
