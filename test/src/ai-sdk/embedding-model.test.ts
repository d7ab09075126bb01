// Embedding models as users of ai 7 meet them, on a scripted worker.
import {
  APICallError,
  createProviderRegistry,
  customProvider,
  embed,
  embedMany,
  NoSuchModelError,
  UnsupportedFunctionalityError,
} from 'ai';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { createLoraxOn } from '../../../src/ai-sdk/provider.js';
import type { LoraxProvider } from '../../../src/ai-sdk/provider.js';
import { LoraxError } from '../../../src/errors.js';
import { FakeWorker } from '../../fakes/fake-worker.js';
import type { Embed, FakeWorkerScript } from '../../fakes/fake-worker.js';

let model: string;
let worker: FakeWorker;
let lorax: LoraxProvider;

function setUp(script: FakeWorkerScript = {}) {
  worker = new FakeWorker(script);
  lorax = createLoraxOn<string>(worker.connect, {
    model,
    adapters: { pirate: './adapters/pirate' },
  });
}

beforeEach(() => {
  model = mkdtempSync(join(tmpdir(), 'lorax-embedding-'));
  setUp();
});

afterEach(async () => {
  await lorax.dispose();
  rmSync(model, { recursive: true });
});

const turns = async (count = 8) => {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
};

const sent = (): Embed[] =>
  worker.connection.commands.filter((command) => command.type === 'embed');

const thrown = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );

describe('embed', () => {
  it('gives the embedding, usage and metadata', async () => {
    const result = await embed({ model: lorax.embeddingModel('pirate'), value: 'where is it' });
    expect(result.embedding).toEqual([11, 1]);
    expect(Array.isArray(result.embedding)).toBe(true);
    expect(result.usage).toEqual({ tokens: 2 });
    expect(result.warnings).toEqual([]);
    expect(result.providerMetadata?.lorax).toEqual({
      ...{ adapter: 'pirate', adapterHash: expect.stringMatching(/^hash-/) },
    });
    expect(sent()).toHaveLength(1);
    expect(sent()[0]).toMatchObject({ pooling: 'mean', normalize: true });
  });

  it('passes pooling and normalize on', async () => {
    const providerOptions = { lorax: { pooling: 'cls', normalize: false } };
    await embed({ model: lorax.embeddingModel(), value: 'x', providerOptions });
    expect(sent()[0]).toMatchObject({ pooling: 'cls', normalize: false, adapters: [] });
  });

  it('refuses what it does not know or cannot do, before anything is asked', async () => {
    const call = (options: Record<string, string>) =>
      embed({
        model: lorax.embeddingModel(),
        value: 'x',
        providerOptions: { lorax: options },
      });
    await expect(call({ poling: 'mean' })).rejects.toThrow(/Did you mean "pooling"/);
    await expect(call({ pooling: 'max' })).rejects.toMatchObject({
      data: { field: 'providerOptions.lorax.pooling' },
    });
    await expect(
      embed({ model: lorax.embeddingModel(), value: 'x', dimensions: 64 }),
    ).rejects.toSatisfy(UnsupportedFunctionalityError.isInstance);
    await expect(embed({ model: lorax.embeddingModel(), value: '' })).rejects.toMatchObject({
      code: 'INVALID_OPTIONS',
      data: { index: 0 },
    });
    expect(worker.connections).toHaveLength(0);
  });

  it('aborts', async () => {
    setUp({ manual: true });
    const controller = new AbortController();
    const result = thrown(
      embed({
        ...{ model: lorax.embeddingModel(), value: 'x', abortSignal: controller.signal },
      }),
    );
    await turns();
    const reason = new Error('enough');
    controller.abort(reason);
    expect(await result).toBe(reason);
    await turns();
    expect(worker.connection.openEmbeddings.size).toBe(0);
    expect(worker.connection.referenced).toBe(false);
  });
});

describe('embedMany', () => {
  it('embeds all values in one call, in order', async () => {
    const values = Array.from({ length: 100 }, (_, i) => 'x'.repeat(i + 1));
    const result = await embedMany({ model: lorax.embeddingModel(), values });
    expect(result.embeddings).toEqual(values.map((_, i) => [i + 1, 0]));
    expect(result.usage.tokens).toBe(200);
    expect(sent()).toHaveLength(1);
  });

  it('splits what is more than a call takes, and adds up the usage', async () => {
    const values = Array.from({ length: 5000 }, (_, i) => 'y'.repeat(1 + (i % 7)));
    const result = await embedMany({ model: lorax.embeddingModel('pirate'), values });
    expect(result.embeddings).toEqual(values.map(({ length }) => [length, 1]));
    expect(result.usage.tokens).toBe(10_000);
    expect(sent().map(({ input }) => input.length)).toEqual([2048, 2048, 904]);
  });

  it('of nothing is nothing', async () => {
    const result = await embedMany({ model: lorax.embeddingModel(), values: [] });
    expect(result.embeddings).toEqual([]);
  });
});

describe('errors', () => {
  it.each([
    ['QUEUE_FULL', 429],
    ['WORKER_DIED', 503],
  ])('%s is a retryable APICallError %i', async (code, statusCode) => {
    setUp({ embed: () => ({ code, message: 'later', data: {} }) });
    const call = embed({ model: lorax.embeddingModel(), value: 'x', maxRetries: 0 });
    const error = await thrown(call);
    expect(APICallError.isInstance(error)).toBe(true);
    expect(error).toMatchObject({ statusCode, isRetryable: true, data: { code } });
  });

  it('retries a full queue', async () => {
    let calls = 0;
    setUp({
      embed: () =>
        ++calls === 1 ? { code: 'QUEUE_FULL', message: 'full', data: {} } : [Float32Array.of(0.5)],
    });
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      const result = embed({ model: lorax.embeddingModel(), value: 'x' });
      await turns();
      await vi.advanceTimersByTimeAsync(10_000);
      expect((await result).embedding).toEqual([0.5]);
      expect(calls).toBe(2);
    } finally {
      vi.useRealTimers();
    }
  });

  it('leaves other errors what they are', async () => {
    const data = { index: 3, promptTokens: 600, contextTokens: 512 };
    setUp({ embed: () => ({ code: 'CONTEXT_TOO_LONG', message: 'input[3]: long', data }) });
    const error = await thrown(embed({ model: lorax.embeddingModel(), value: 'x' }));
    expect(LoraxError.isInstance(error) && error.data).toEqual(data);
  });

  it.each(['unknown', '../pirate', '', 'a/../../b'])(
    'embeddingModel(%j) rejects at the call, not before',
    async (name) => {
      const unknown = lorax.embeddingModel(name);
      const error = await thrown(embed({ model: unknown, value: 'x' }));
      expect(NoSuchModelError.isInstance(error)).toBe(true);
      expect(error).toMatchObject({ modelId: unknown.modelId, modelType: 'embeddingModel' });
      expect((error as Error).cause).toMatchObject({ code: 'ADAPTER_NOT_FOUND' });
    },
  );

  it('refuses what is no string at once', () => {
    expect(() => lorax.embeddingModel(7 as never)).toThrow(LoraxError);
  });
});

describe('registries', () => {
  it('know embedding models by name', async () => {
    const registry = createProviderRegistry({ lorax });
    const base = registry.embeddingModel('lorax:base');
    expect(base.specificationVersion).toBe('v4');
    expect((await embed({ model: base, value: 'abc' })).embedding).toEqual([3, 0]);
    const custom = customProvider({
      embeddingModels: { search: lorax.embeddingModel('pirate') },
      fallbackProvider: lorax,
    });
    const search = custom.embeddingModel('search');
    expect((await embed({ model: search, value: 'abc' })).embedding).toEqual([3, 1]);
    const fallback = custom.embeddingModel('pirate');
    expect((await embed({ model: fallback, value: 'ab' })).embedding).toEqual([2, 1]);
  });
});
