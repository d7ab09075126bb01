// The provider as users of ai 7 meet it, on a scripted worker.
import {
  createProviderRegistry,
  customProvider,
  generateText,
  jsonSchema,
  NoSuchModelError,
  streamText,
  tool,
} from 'ai';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { APICallError, LoadSettingError, UnsupportedFunctionalityError } from '@ai-sdk/provider';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { createLoraxOn } from '../../../src/ai-sdk/provider.js';
import type { LoraxOptions, LoraxProvider } from '../../../src/ai-sdk/provider.js';
import { createDefaultProvider } from '../../../src/default-provider.js';
import { LoraxError } from '../../../src/errors.js';
import { FakeWorker } from '../../fakes/fake-worker.js';
import type { FakeWorkerScript, Generate } from '../../fakes/fake-worker.js';

let model: string;
let worker: FakeWorker;
let lorax: LoraxProvider;

function setUp(script: FakeWorkerScript = {}, options: Partial<LoraxOptions> = {}) {
  worker = new FakeWorker(script);
  lorax = createLoraxOn(worker.connect, {
    model,
    adapters: { pirate: './adapters/pirate', 'v1/json@2': { directory: './adapters/json' } },
    ...options,
  });
}

beforeEach(() => {
  model = mkdtempSync(join(tmpdir(), 'lorax-provider-'));
  setUp();
});

afterEach(async () => {
  await lorax.dispose();
  rmSync(model, { recursive: true });
  vi.unstubAllEnvs();
});

const turns = async (count = 8) => {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
};

function sent(): Generate {
  const command = worker.connection.commands.findLast(({ type }) => type === 'generate');
  if (command?.type !== 'generate') throw new Error('no request was sent');
  return command;
}

describe('generateText', () => {
  it('answers with text, usage, finish reason and metadata', async () => {
    const result = await generateText({
      model: lorax('pirate'),
      instructions: 'Be brief.',
      prompt: 'where is my order',
    });
    expect(result.text).toBe('WHERE IS MY ORDER');
    expect(result.finishReason).toBe('stop');
    expect(result.rawFinishReason).toBe('eos');
    expect(result.usage).toMatchObject({ inputTokens: 3, outputTokens: 4, totalTokens: 7 });
    expect(result.usage.inputTokenDetails).toMatchObject({ cacheReadTokens: 1, noCacheTokens: 2 });
    expect(result.response.modelId).toBe('pirate');
    expect(result.response.id).toMatch(/^lorax-/);
    expect(result.providerMetadata?.lorax).toEqual({
      ...{ adapter: 'pirate', adapterHash: expect.stringMatching(/^hash-/) },
      ...{ queueMs: 1, timeToFirstTokenMs: 2 },
    });
    expect(sent().prompt).toEqual({
      kind: 'messages',
      messages: [
        { role: 'system', content: 'Be brief.' },
        { role: 'user', content: 'where is my order' },
      ],
    });
  });

  it('passes every setting on, under the defaults', async () => {
    setUp({}, { defaults: { temperature: 0.9, minP: 0.1, maxOutputTokens: 99 } });
    await generateText({
      model: lorax(),
      prompt: 'x',
      maxOutputTokens: 7,
      topK: 40,
      topP: 0.9,
      presencePenalty: 0.5,
      frequencyPenalty: -0.5,
      stopSequences: ['END'],
      seed: 42,
      providerOptions: {
        lorax: {
          ...{ repetitionPenalty: 1.1, logitBias: { 5: -100 }, logprobs: 2 },
          ...{ stopTokenIds: [9], ignoreEos: true },
        },
      },
    });
    expect(sent().sampling).toEqual({
      ...{ temperature: 0.9, minP: 0.1, maxOutputTokens: 7, topK: 40, topP: 0.9 },
      ...{ presencePenalty: 0.5, frequencyPenalty: -0.5, stop: ['END'], seed: 42 },
      ...{ repetitionPenalty: 1.1, logitBias: { 5: -100 }, logprobs: 2, stopTokenIds: [9] },
      ignoreEos: true,
    });
    expect(sent().adapters).toEqual([]);
  });

  it('gives logprobs in the metadata', async () => {
    setUp({ manual: true });
    const result = generateText({ model: lorax(), prompt: 'x' });
    await turns();
    const { id } = sent();
    const logprobs = [{ tokenId: 4, logprob: -0.5, top: [{ tokenId: 4, logprob: -0.5 }] }];
    worker.connection.start(id);
    worker.connection.emit({ type: 'delta', id, text: 'a', tokenIds: [4], logprobs });
    worker.connection.emit({ type: 'delta', id, text: '', tokenIds: [4], logprobs });
    worker.connection.finish(id);
    const metadata = (await result).providerMetadata?.lorax as { logprobs: unknown[] };
    expect(metadata.logprobs).toEqual([...logprobs, ...logprobs]);
  });

  it('serves twenty calls at once in one message', async () => {
    await lorax.engine.ready();
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, i) =>
        generateText({ model: lorax(i % 2 === 0 ? 'base' : 'pirate'), prompt: `call ${i}` }),
      ),
    );
    expect(answers.map(({ text }) => text)).toEqual(
      Array.from({ length: 20 }, (_, i) => (i % 2 === 0 ? `call ${i}` : `CALL ${i}`)),
    );
  });

  it('passes tools, choice and reasoning on', async () => {
    const city = jsonSchema<{ city: string }>({
      ...{ type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
    });
    const weather = tool({ description: 'Weather', inputSchema: city });
    const call = (options: object) =>
      generateText({ model: lorax(), prompt: 'x', tools: { weather }, ...options });
    const definition = {
      ...{ name: 'weather', description: 'Weather' },
      parameters: expect.objectContaining({ properties: { city: { type: 'string' } } }),
    };
    await call({});
    expect(sent().tools).toEqual({ definitions: [definition], choice: 'auto', parallel: true });
    expect(sent()).not.toHaveProperty('reasoning');
    const named = { type: 'tool', toolName: 'weather' };
    const own = { lorax: { parallelToolCalls: false, reasoning: false } };
    // The scripted answer calls nothing, which the AI SDK holds against a required tool.
    await expect(
      call({ toolChoice: named, reasoning: 'high', providerOptions: own }),
    ).rejects.toThrow(/did not contain a call/);
    expect(sent().tools).toMatchObject({ choice: { name: 'weather' }, parallel: false });
    expect(sent().reasoning).toBe(false);
    await call({ toolChoice: 'none', reasoning: 'none' });
    expect(sent()).not.toHaveProperty('tools');
    expect(sent().reasoning).toBe(false);
    const { warnings } = await call({ reasoning: 'high' });
    expect(sent().reasoning).toBe(true);
    expect(warnings).toEqual([
      { type: 'compatibility', feature: 'reasoning', details: expect.stringContaining('high') },
    ]);
  });

  it('refuses images by name, before anything is asked', async () => {
    const error: unknown = await generateText({
      model: lorax(),
      messages: [
        {
          role: 'user',
          content: [{ type: 'file', data: new Uint8Array([1]), mediaType: 'image/png' }],
        },
      ],
    }).catch((reason: unknown) => reason);
    expect(UnsupportedFunctionalityError.isInstance(error)).toBe(true);
    expect((error as Error).message).toContain('image/png');
    expect(lorax().capabilities.input.images).toBe(false);
    expect(worker.connections).toHaveLength(0);
  });

  it('refuses unknown provider options and values out of range', async () => {
    const call = (lorax_: Record<string, never>) =>
      generateText({ model: lorax(), prompt: 'x', providerOptions: { lorax: lorax_ } });
    await expect(call({ min_p: 0.1 } as never)).rejects.toThrow(/Did you mean "minP"/);
    await expect(call({ minP: Number.NaN } as never)).rejects.toMatchObject({
      code: 'INVALID_OPTIONS',
    });
    await expect(generateText({ model: lorax(), prompt: 'x', topP: 1.5 })).rejects.toThrow(
      /settings\.topP/,
    );
    await expect(
      generateText({ model: lorax(), prompt: 'x', stopSequences: ['END', ''] }),
    ).rejects.toMatchObject({
      code: 'INVALID_OPTIONS',
      message: 'settings.stopSequences[1] must be a non-empty string.',
      data: { field: 'settings.stopSequences[1]' },
    });
  });
});

describe('streamText', () => {
  it('streams text and ends with usage and metadata', async () => {
    const result = streamText({ model: lorax('v1/json@2'), prompt: 'a b c' });
    const deltas: string[] = [];
    for await (const delta of result.textStream) deltas.push(delta);
    expect(deltas.join('')).toBe('A B C');
    expect(await result.finishReason).toBe('stop');
    expect(await result.usage).toMatchObject({ inputTokens: 3, outputTokens: 3 });
    expect((await result.providerMetadata)?.lorax).toMatchObject({ adapter: 'v1/json@2' });
  });

  it('skips deltas without text', async () => {
    setUp({ answer: () => ['', 'a', '', 'b', ''] });
    const types: string[] = [];
    const { stream } = await lorax().doStream({ prompt: [{ role: 'user', content: [] }] });
    for await (const part of stream) {
      types.push(part.type === 'text-delta' ? `text-delta ${part.delta}` : part.type);
    }
    expect(types).toEqual([
      ...['stream-start', 'response-metadata', 'text-start'],
      ...['text-delta a', 'text-delta b', 'text-end', 'finish'],
    ]);
  });

  it('aborts by signal', async () => {
    setUp({ answer: () => Array.from({ length: 10_000 }, (_, i) => ` ${i}`) });
    const controller = new AbortController();
    const onAbort = vi.fn();
    const abortSignal = controller.signal;
    const result = streamText({ model: lorax(), prompt: 'x', abortSignal, onAbort });
    let seen = 0;
    for await (const _ of result.textStream) if (++seen === 5) controller.abort();
    expect(onAbort).toHaveBeenCalledTimes(1);
    await turns();
    expect(worker.connection.open.size).toBe(0);
    expect(worker.connection.referenced).toBe(false);
  });

  it('aborts when the stream is cancelled', async () => {
    setUp({ answer: () => Array.from({ length: 10_000 }, (_, i) => ` ${i}`) });
    const { stream } = await lorax().doStream({
      prompt: [{ role: 'user', content: [{ type: 'text', text: 'x' }] }],
    });
    const reader = stream.getReader();
    for (let i = 0; i < 6; i++) await reader.read();
    await reader.cancel('gone');
    await turns();
    expect(worker.connection.open.size).toBe(0);
  });

  it('throws in the stream when the worker dies, within a second', async () => {
    setUp({ manual: true });
    const onError = vi.fn();
    const result = streamText({ model: lorax(), prompt: 'x', onError, maxRetries: 0 });
    const read = (async () => {
      let text = '';
      for await (const delta of result.textStream) text += delta;
      return text;
    })();
    const ended = read.then(
      () => 'ended',
      () => 'threw',
    );
    await turns();
    worker.connection.start(sent().id);
    worker.connection.token(sent().id, 'half');
    await turns();
    const before = performance.now();
    worker.connection.die(new Error('killed'));
    expect(await ended).toBe('threw');
    expect(performance.now() - before).toBeLessThan(1000);
    await expect(read).rejects.toMatchObject({ statusCode: 503, isRetryable: true });
    await expect(result.text).rejects.toBeDefined();
    expect(onError).toHaveBeenCalledTimes(1);
  });

  it('retries a full queue', async () => {
    let calls = 0;
    setUp({
      answer: () =>
        ++calls === 1
          ? { code: 'QUEUE_FULL', message: '1024 requests wait', data: { maxQueued: 1024 } }
          : ['ok'],
    });
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      const result = streamText({ model: lorax(), prompt: 'x' });
      const text = result.text;
      await turns();
      await vi.advanceTimersByTimeAsync(10_000);
      expect(await text).toBe('ok');
      expect(calls).toBe(2);
    } finally {
      vi.useRealTimers();
    }
  });
});

describe('errors', () => {
  it.each([
    ['QUEUE_FULL', 429],
    ['WORKER_DIED', 503],
  ])('%s is a retryable APICallError %i', async (code, statusCode) => {
    setUp({ answer: () => ({ code, message: 'later', data: { waiting: 3 } }) });
    const error: unknown = await generateText({
      ...{ model: lorax(), prompt: 'x', maxRetries: 0 },
    }).catch((reason: unknown) => reason);
    expect(APICallError.isInstance(error)).toBe(true);
    expect(error).toMatchObject({ statusCode, isRetryable: true, data: { code, waiting: 3 } });
    expect((error as APICallError).cause).toMatchObject({ code });
  });

  it('leaves other errors what they are', async () => {
    setUp({ answer: () => ({ code: 'CONTEXT_TOO_LONG', message: '600 > 512', data: {} }) });
    const error: unknown = await generateText({ model: lorax(), prompt: 'x' }).catch(
      (reason: unknown) => reason,
    );
    expect(LoraxError.isInstance(error) && error.code).toBe('CONTEXT_TOO_LONG');
  });
});

describe('names', () => {
  it('are never empty, and base in three ways', () => {
    expect(lorax().modelId).toBe('base');
    expect(lorax('base').modelId).toBe('base');
    expect(lorax.languageModel('base').modelId).toBe('base');
    expect(lorax('').modelId).not.toBe('');
    expect(lorax('pirate').provider).toBe('lorax');
  });

  it.each(['unknown', '../pirate', '', '/etc', 'a/../../b', 'x'.repeat(1000), 'pirate\u0000'])(
    'lorax(%j) rejects at the call, not before',
    async (name) => {
      const unknown = lorax(name);
      const error: unknown = await generateText({ model: unknown, prompt: 'x' }).catch(
        (reason: unknown) => reason,
      );
      expect(NoSuchModelError.isInstance(error)).toBe(true);
      expect((error as NoSuchModelError).modelId).toBe(unknown.modelId);
      expect((error as Error).cause).toMatchObject({ code: 'ADAPTER_NOT_FOUND' });
      await expect(unknown.doStream({ prompt: [{ role: 'user', content: [] }] })).rejects.toSatisfy(
        NoSuchModelError.isInstance,
      );
    },
  );

  it('refuses what is no string at once', () => {
    expect(() => lorax(7 as never)).toThrow(LoraxError);
    expect(() => lorax.fromDirectory('')).toThrow(LoraxError);
    expect(() => lorax.fromDirectory(undefined as never)).toThrow(LoraxError);
  });

  it('opens directories only by fromDirectory', async () => {
    const direct = lorax.fromDirectory('./some/where');
    expect(direct.modelId).toBe('./some/where');
    const result = await generateText({ model: direct, prompt: 'hey' });
    expect(result.text).toBe('HEY');
    expect([...worker.connection.adapters.values()]).toEqual([
      expect.stringMatching(/^\/.*\/some\/where$/),
    ]);
  });

  it('has no image models', () => {
    expect(() => lorax.imageModel('x')).toThrow(NoSuchModelError);
  });

  it('takes adapters while it runs', async () => {
    await lorax.adapters.add('late', './late');
    expect((await generateText({ model: lorax('late'), prompt: 'hi' })).text).toBe('HI');
    await lorax.adapters.remove('late');
    await expect(generateText({ model: lorax('late'), prompt: 'hi' })).rejects.toSatisfy(
      NoSuchModelError.isInstance,
    );
    expect((await lorax.adapters.list()).map(({ name }) => name).sort()).toEqual([
      ...['pirate', 'v1/json@2'],
    ]);
    expect((await lorax.stats()).pages.total).toBe(8);
  });
});

describe('registries', () => {
  it('work without a downgrade, and without a warning', async () => {
    const warnings: unknown[] = [];
    const warn = vi.spyOn(console, 'warn').mockImplementation((...args) => {
      warnings.push(args);
    });
    const onWarning = (warning: Error) => warnings.push(warning);
    process.on('warning', onWarning);
    try {
      const registry = createProviderRegistry({ lorax });
      const base = registry.languageModel('lorax:base');
      expect(base.specificationVersion).toBe('v4');
      expect((await generateText({ model: base, prompt: 'hi' })).text).toBe('hi');
      const pirate = registry.languageModel('lorax:pirate');
      expect((await generateText({ model: pirate, prompt: 'hi' })).text).toBe('HI');
      const custom = customProvider({
        languageModels: { support: lorax('pirate') },
        fallbackProvider: lorax,
      });
      const { text } = await generateText({ model: custom.languageModel('support'), prompt: 'a' });
      expect(text).toBe('A');
      const fallback = custom.languageModel('v1/json@2');
      expect((await generateText({ model: fallback, prompt: 'b' })).text).toBe('B');
      await turns();
      expect(warnings).toEqual([]);
    } finally {
      process.off('warning', onWarning);
      warn.mockRestore();
    }
  });
});

describe('the ready-made lorax', () => {
  it('reads the environment at the first call', async () => {
    const provider = createDefaultProvider(worker.connect);
    vi.stubEnv('LORAX_MODEL', model);
    expect((await generateText({ model: provider(), prompt: 'hi' })).text).toBe('hi');
    expect(worker.connection.options.model).toBe(model);
    await provider.dispose();
  });

  it('refuses to serve the demo in production', async () => {
    vi.stubEnv('LORAX_MODEL', '');
    vi.stubEnv('NODE_ENV', 'production');
    const provider = createDefaultProvider(worker.connect);
    const model_ = provider('anything');
    await expect(generateText({ model: model_, prompt: 'hi' })).rejects.toSatisfy(
      LoadSettingError.isInstance,
    );
    await expect(provider.engine.ready()).rejects.toThrow(/LORAX_MODEL/);
  });

  it('names a folder of adapters that is not there', async () => {
    vi.stubEnv('LORAX_MODEL', model);
    vi.stubEnv('LORAX_ADAPTERS', join(model, 'nowhere'));
    const provider = createDefaultProvider(worker.connect);
    await expect(generateText({ model: provider(), prompt: 'hi' })).rejects.toThrow(/nowhere/);
  });
});
