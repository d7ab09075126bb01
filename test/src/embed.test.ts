// engine.embed against a scripted worker: what is sent, what comes back, how it fails.
import { directorySource } from '../../src/adapter-source.js';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { ScopedEngine } from '../../src/shared-engines.js';
import { pickEngineOptions } from '../../src/engine-options.js';
import { createFakeEngine, LoraxError } from '../../src/test.js';
import type { Engine } from '../../src/types.js';
import { FakeWorker } from '../fakes/fake-worker.js';
import type { Embed, FakeWorkerScript } from '../fakes/fake-worker.js';
import { codeOf, setUp, settled } from './client-under-test.js';

const sent = (worker: FakeWorker): Embed[] =>
  worker.connection.commands.filter((command) => command.type === 'embed');

describe('engine.embed', () => {
  it('sends the texts and gives their embeddings', async () => {
    const { worker, engine } = setUp();
    await engine.adapters.add('pirate', './adapters/pirate');
    const result = await engine.embed({ input: ['one', 'three'], adapter: 'pirate' });
    expect(result).toEqual({
      embeddings: [Float32Array.of(3, 1), Float32Array.of(5, 1)],
      usage: { promptTokens: 4 },
      adapter: { name: 'pirate', hash: 'hash-6' },
    });
    expect(sent(worker)).toEqual([
      {
        ...{ type: 'embed', id: expect.any(Number), input: ['one', 'three'] },
        ...{ adapters: [{ name: 'pirate', weight: 1 }] },
        ...{ pooling: 'mean', normalize: true },
      },
    ]);
  });

  it('sends pooling and normalize, and base as no adapter', async () => {
    const { worker, engine } = setUp();
    const request = { pooling: 'last', normalize: false, adapter: 'base' } as const;
    const { adapter } = await engine.embed({ input: ['x'], ...request });
    expect(adapter).toBeNull();
    expect(sent(worker)[0]).toMatchObject({ pooling: 'last', normalize: false, adapters: [] });
  });

  it('keeps the process alive only while it is open', async () => {
    const { worker, engine } = setUp({ manual: true });
    const result = engine.embed({ input: ['x'] });
    await settled();
    expect(worker.connection.referenced).toBe(true);
    worker.connection.embedded(sent(worker)[0]!.id, [Float32Array.of(1)]);
    await result;
    expect(worker.connection.referenced).toBe(false);
  });

  it.each([
    [{ input: [] }, 'request.input', undefined],
    [{ input: 'text' }, 'request.input', undefined],
    [{}, 'request.input', undefined],
    [{ input: ['a', ''] }, 'request.input[1]', 1],
    [{ input: ['a', 'b', 7] }, 'request.input[2]', 2],
    [{ input: ['a'], pooling: 'max' }, 'request.pooling', undefined],
    [{ input: ['a'], normalize: 1 }, 'request.normalize', undefined],
    [{ input: ['a'], adapter: 7 }, 'request.adapter', undefined],
    [{ input: ['a'], signal: {} }, 'request.signal', undefined],
    [{ input: ['a'], inputs: [] }, 'request.inputs', undefined],
  ])('refuses %j', async (request, field, index) => {
    const { worker, engine } = setUp();
    await expect(engine.embed(request as never)).rejects.toMatchObject({
      code: 'INVALID_OPTIONS',
      data: { field, ...(index === undefined ? {} : { index }) },
    });
    expect(worker.connections).toHaveLength(0);
  });

  it('refuses an unknown adapter without asking', async () => {
    const { worker, engine } = setUp();
    await expect(engine.embed({ input: ['x'], adapter: 'nobody' })).rejects.toMatchObject({
      code: 'ADAPTER_NOT_FOUND',
      data: { adapter: 'nobody' },
    });
    expect(worker.connections).toHaveLength(0);
  });

  it('fails as the worker says', async () => {
    const data = { index: 3, promptTokens: 900, contextTokens: 512 };
    const error = { code: 'CONTEXT_TOO_LONG', message: 'too long', data };
    const { engine } = setUp({ embed: () => error });
    await expect(engine.embed({ input: ['x'] })).rejects.toMatchObject(error);
  });

  it('aborts: at once for the caller, then in the worker', async () => {
    const { worker, engine } = setUp({ manual: true });
    const controller = new AbortController();
    const reason = new Error('enough');
    const result = engine.embed({ input: ['x'], signal: controller.signal });
    await settled();
    controller.abort(reason);
    await expect(result).rejects.toBe(reason);
    await settled();
    const [{ id }] = sent(worker) as [Embed];
    expect(worker.connection.commands.at(-1)).toEqual({ type: 'cancel', id });
    expect(worker.connection.openEmbeddings.size).toBe(0);
    expect(worker.connection.referenced).toBe(false);
  });

  it('is not sent when it is aborted before', async () => {
    const { worker, engine } = setUp();
    const reason = new Error('before');
    const signal = AbortSignal.abort(reason);
    await expect(engine.embed({ input: ['x'], signal })).rejects.toBe(reason);
    const controller = new AbortController();
    const result = engine.embed({ input: ['x'], signal: controller.signal });
    controller.abort(reason); // in the same turn: taken back
    await expect(result).rejects.toBe(reason);
    await settled();
    expect(worker.connections).toHaveLength(0);
  });

  it('ends with the worker, and with the engine', async () => {
    const { worker, engine } = setUp({ manual: true });
    const lost = codeOf(engine.embed({ input: ['x'] }));
    await settled();
    worker.connection.die();
    expect(await lost).toBe('WORKER_DIED');
    const disposed = codeOf(engine.embed({ input: ['x'] }));
    await settled();
    await engine.dispose();
    expect(await disposed).toBe('DISPOSED');
    expect(await codeOf(engine.embed({ input: ['x'] }))).toBe('DISPOSED');
  });
});

describe('engine.embed of a shared engine', () => {
  const folders: string[] = [];
  afterEach(() => folders.splice(0).forEach((folder) => rmSync(folder, { recursive: true })));

  function scoped(worker: FakeWorker): ScopedEngine {
    const model = mkdtempSync(join(tmpdir(), 'lorax-embed-'));
    folders.push(model);
    const engine = new ScopedEngine(() => pickEngineOptions({ model }), worker.connect);
    engine.declareAdapter('pirate', directorySource('/adapters/pirate'));
    return engine;
  }

  it('knows its own names alone, and shows no scope', async () => {
    const script: FakeWorkerScript = {};
    const worker = new FakeWorker(script);
    const engine = scoped(worker);
    const { adapter } = await engine.embed({ input: ['x'], adapter: 'pirate' });
    expect(adapter?.name).toBe('pirate');
    const wireName = sent(worker)[0]?.adapters[0]?.name ?? '';
    expect(wireName).toMatch(/^\d+\0pirate$/);
    worker.script = {
      embed: () => ({ code: 'ADAPTER_INVALID', message: `bad ${wireName}`, data: { n: wireName } }),
    };
    await expect(engine.embed({ input: ['x'], adapter: 'pirate' })).rejects.toMatchObject({
      message: 'bad pirate',
      data: { n: 'pirate' },
    });
    await engine.dispose();
    expect(await codeOf(engine.embed({ input: ['x'] }))).toBe('DISPOSED');
  });
});

describe('the fake engine', () => {
  const cosine = (a: Float32Array, b: Float32Array) =>
    a.reduce((sum, value, i) => sum + value * (b[i] ?? 0), 0);

  const embed = async (engine: Engine, text: string, extra: object = {}) => {
    const { embeddings } = await engine.embed({ input: [text], ...extra });
    return embeddings[0]!;
  };

  it('gives texts that share words vectors near each other', async () => {
    const engine = createFakeEngine({ answers: { other: 'x' } });
    const { embeddings, usage, adapter } = await engine.embed({
      input: ['where is my order', 'where is the order', 'good morning'],
    });
    const [a, b, c] = embeddings as [Float32Array, Float32Array, Float32Array];
    expect(cosine(a, a)).toBeCloseTo(1, 5);
    expect(cosine(a, b)).toBeGreaterThan(cosine(a, c) + 0.3);
    expect(usage).toEqual({ promptTokens: 10 });
    expect(adapter).toBeNull();
    expect(await embed(engine, 'where is my order')).toEqual(a);
    expect(await embed(engine, 'where is my order', { adapter: 'other' })).not.toEqual(a);
  });

  it('pools and normalizes as asked', async () => {
    const engine = createFakeEngine();
    const [one, two] = [await embed(engine, 'one'), await embed(engine, 'two')];
    expect(await embed(engine, 'one two', { pooling: 'cls' })).toEqual(one);
    expect(await embed(engine, 'one two', { pooling: 'last' })).toEqual(two);
    const raw = await embed(engine, 'one two', { normalize: false });
    expect(Math.hypot(...raw)).not.toBeCloseTo(1, 2);
  });

  it('fails, aborts and is disposed as the real one', async () => {
    const full = new LoraxError('QUEUE_FULL', 'full');
    const engine = createFakeEngine({ answers: { full }, tokenMs: 1000 });
    await expect(embed(engine, 'x', { adapter: 'full' })).rejects.toBe(full);
    expect(await codeOf(embed(engine, ''))).toBe('INVALID_OPTIONS');
    expect(await codeOf(embed(engine, 'x', { adapter: 'nobody' }))).toBe('ADAPTER_NOT_FOUND');
    const controller = new AbortController();
    const aborted = embed(engine, 'x', { signal: controller.signal });
    const reason = new Error('enough');
    controller.abort(reason);
    await expect(aborted).rejects.toBe(reason);
    const open = codeOf(embed(engine, 'x'));
    expect((await engine.stats()).totals).toMatchObject({ aborted: 1, finished: 0 });
    await engine.dispose();
    expect(await open).toBe('DISPOSED');
  });
});
