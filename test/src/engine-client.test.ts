// The engine's client against a scripted worker: order, ends, aborts, death, disposal.
import { describe, expect, it, vi } from 'vitest';
import { createEngineOn } from '../../src/create-engine.js';
import { LoraxError } from '../../src/errors.js';
import type { EngineOptions, GenerateRequest, TokenEvent, Usage } from '../../src/types.js';
import { FakeWorker } from '../fakes/fake-worker.js';
import type { FakeWorkerScript } from '../fakes/fake-worker.js';

function setUp(script: FakeWorkerScript = {}, options: Partial<EngineOptions> = {}) {
  const worker = new FakeWorker(script);
  const engine = createEngineOn(worker.connect, { model: './models/any', ...options });
  return { worker, engine };
}

function ask(content = 'one two three', extra: Partial<GenerateRequest> = {}): GenerateRequest {
  return { messages: [{ role: 'user', content }], ...extra } as GenerateRequest;
}

async function read(events: AsyncIterable<TokenEvent>): Promise<{ text: string; types: string[] }> {
  let text = '';
  const types: string[] = [];
  for await (const event of events) {
    types.push(event.type);
    if (event.type === 'delta') text += event.text;
  }
  return { text, types };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));
const settled = async () => {
  for (let i = 0; i < 6; i++) await turn();
};

async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    if (LoraxError.isInstance(error)) return error.code;
    throw error;
  }
  throw new Error('it did not fail');
}

describe('createEngine', () => {
  it('connects at the first call, not before', async () => {
    const { worker, engine } = setUp();
    await settled();
    expect(worker.connections).toHaveLength(0);
    expect((await engine.ready()).architecture).toBe('LlamaForCausalLM');
    expect(worker.connections).toHaveLength(1);
    expect(worker.connection.options).toMatchObject({ maxQueued: 1024, maxBatchTokens: 512 });
  });

  it('streams start, deltas, finish', async () => {
    const { engine } = setUp();
    const events: TokenEvent[] = [];
    for await (const event of engine.generate(ask())) events.push(event);
    expect(events[0]).toMatchObject({ type: 'start', adapter: null, promptTokens: 3 });
    expect(events.at(-1)).toMatchObject({ type: 'finish', reason: 'stop', rawReason: 'eos' });
    expect(events.map((e) => (e.type === 'delta' ? e.text : '')).join('')).toBe('one two three');
  });

  it('sends twenty calls of one turn in one message', async () => {
    const { worker, engine } = setUp();
    const streams = Array.from({ length: 20 }, (_, i) => engine.generate(ask(`call ${i}`)));
    const answers = await Promise.all(streams.map(read));
    expect(answers.map(({ text }) => text)).toEqual(
      Array.from({ length: 20 }, (_, i) => `call ${i}`),
    );
    expect(worker.connection.messages[0]).toHaveLength(20);
  });

  it('keeps the process alive only while something is open', async () => {
    const { worker, engine } = setUp({ manual: true });
    const stream = engine.generate(ask())[Symbol.asyncIterator]();
    await settled();
    expect(worker.connection.referenced).toBe(true);
    worker.connection.finish(worker.connection.generateIds[0] ?? 0);
    await stream.next();
    expect(worker.connection.referenced).toBe(false);
    const stats = engine.stats();
    await turn();
    expect(worker.connection.referenced).toBe(true);
    await stats;
    expect(worker.connection.referenced).toBe(false);
  });

  it('joins the deltas of a reader that lags', async () => {
    const { engine } = setUp();
    const stream = engine.generate(ask('a b c d e f'));
    for (let i = 0; i < 20; i++) await turn();
    const events: TokenEvent[] = [];
    for await (const event of stream) events.push(event);
    expect(events.map((event) => event.type)).toEqual(['start', 'delta', 'finish']);
    expect(events[1]).toMatchObject({ text: 'a b c d e f', tokenIds: [1, 2, 2, 2, 2, 2] });
  });

  it('rejects requests of a wrong shape through the iterator, with usage', async () => {
    const { worker, engine } = setUp();
    const onUsage = vi.fn();
    const bad = ask('x', { sampling: { temperature: Number.NaN }, onUsage });
    expect(await codeOf(read(engine.generate(bad)))).toBe('INVALID_OPTIONS');
    expect(onUsage).toHaveBeenCalledTimes(1);
    expect(await codeOf(read(engine.generate({} as GenerateRequest)))).toBe('INVALID_OPTIONS');
    expect(await codeOf(read(engine.generate(undefined as never)))).toBe('INVALID_OPTIONS');
    expect(worker.connections).toHaveLength(0);
  });

  it('goes on when onUsage or onProgress throws', async () => {
    const { engine, worker } = setUp({}, { onProgress: () => raise('progress') });
    const uncaught: unknown[] = [];
    const listener = (error: unknown) => uncaught.push(error);
    const before = process.listeners('uncaughtException');
    process.removeAllListeners('uncaughtException');
    process.on('uncaughtException', listener);
    try {
      const first = read(engine.generate(ask('a', { onUsage: () => raise('usage') })));
      const second = read(engine.generate(ask('b')));
      await turn();
      const progress = { stage: 'model', name: 'm', loadedBytes: 1, totalBytes: 2 } as const;
      worker.connection.emit({ type: 'progress', progress });
      expect([(await first).text, (await second).text]).toEqual(['a', 'b']);
      await settled();
      expect(uncaught.map(String).sort()).toEqual(['Error: progress', 'Error: usage']);
    } finally {
      process.removeListener('uncaughtException', listener);
      for (const one of before) process.on('uncaughtException', one);
    }
  });
});

describe('abort', () => {
  it('rejects with the reason at once, cancels, and reports usage later', async () => {
    const { worker, engine } = setUp({ manual: true });
    const controller = new AbortController();
    const onUsage = vi.fn<(usage: Usage) => void>();
    const stream = engine.generate(ask('x', { signal: controller.signal, onUsage }));
    const iterator = stream[Symbol.asyncIterator]();
    await settled();
    const id = worker.connection.generateIds[0] ?? 0;
    worker.connection.start(id);
    worker.connection.token(id, 'unread');
    const reason = new Error('enough');
    controller.abort(reason);
    await expect(iterator.next()).rejects.toBe(reason);
    expect(await iterator.next()).toEqual({ done: true, value: undefined });
    expect(onUsage).not.toHaveBeenCalled();
    await settled();
    expect(worker.connection.commands.at(-1)).toEqual({ type: 'cancel', id });
    expect(onUsage).toHaveBeenCalledTimes(1);
    expect(onUsage.mock.calls[0]?.[0]).toMatchObject({ outputTokens: 1 });
    expect(worker.connection.referenced).toBe(false);
  });

  it('rejects a pending read', async () => {
    const { engine } = setUp({ manual: true });
    const controller = new AbortController();
    const stream = engine.generate(ask('x', { signal: controller.signal }));
    const iterator = stream[Symbol.asyncIterator]();
    const pending = iterator.next();
    await settled();
    controller.abort();
    await expect(pending).rejects.toMatchObject({ name: 'AbortError' });
  });

  it('sends nothing for a signal that is aborted already', async () => {
    const { worker, engine } = setUp();
    const onUsage = vi.fn();
    const signal = AbortSignal.abort('never mind');
    await expect(read(engine.generate(ask('x', { signal, onUsage })))).rejects.toBe('never mind');
    expect(worker.connections).toHaveLength(0);
    expect(onUsage).toHaveBeenCalledTimes(1);
  });

  it('sends nothing for a request that is aborted in its own turn', async () => {
    const { worker, engine } = setUp();
    const controller = new AbortController();
    const events = read(engine.generate(ask('x', { signal: controller.signal })));
    controller.abort('changed my mind');
    await expect(events).rejects.toBe('changed my mind');
    await settled();
    expect(worker.connections).toHaveLength(0);
  });

  it('leaves no listener on the signal, whatever the end', async () => {
    const { engine } = setUp({
      answer: ({ prompt }) =>
        prompt.kind === 'text'
          ? { code: 'POOL_EXHAUSTED', message: 'never fits', data: {} }
          : ['a', 'b'],
    });
    const { signal } = new AbortController();
    const add = vi.spyOn(signal, 'addEventListener');
    const remove = vi.spyOn(signal, 'removeEventListener');
    await read(engine.generate(ask('x', { signal })));
    expect(await codeOf(read(engine.generate({ prompt: 'x', signal })))).toBe('POOL_EXHAUSTED');
    for await (const event of engine.generate(ask('x', { signal }))) if (event) break;
    expect(add).toHaveBeenCalledTimes(3);
    expect(remove.mock.calls.map(([, listener]) => listener)).toEqual(
      add.mock.calls.map(([, listener]) => listener),
    );
  });

  it('aborts many requests by one signal, with one listener', async () => {
    const { worker, engine } = setUp({ manual: true });
    const controller = new AbortController();
    const { signal } = controller;
    const add = vi.spyOn(signal, 'addEventListener');
    const streams = Array.from({ length: 20 }, () => read(engine.generate(ask('x', { signal }))));
    await settled();
    worker.connection.start(worker.connection.generateIds[0] ?? 0);
    worker.connection.finish(worker.connection.generateIds[0] ?? 0);
    await streams[0];
    controller.abort('all of you');
    const ends = await Promise.allSettled(streams);
    expect(ends.map(({ status }) => status)).toEqual([
      'fulfilled',
      ...Array.from({ length: 19 }, () => 'rejected'),
    ]);
    expect(add).toHaveBeenCalledTimes(1);
    await settled();
    expect(worker.connection.open.size).toBe(0);
  });

  it('ignores an abort after the finish was received', async () => {
    const { engine } = setUp();
    const controller = new AbortController();
    const stream = engine.generate(ask('a b', { signal: controller.signal }));
    for (let i = 0; i < 20; i++) await turn();
    controller.abort();
    expect((await read(stream)).types.at(-1)).toBe('finish');
  });
});

describe('the iterator', () => {
  it('cancels silently on break', async () => {
    const { worker, engine } = setUp();
    const onUsage = vi.fn();
    for await (const event of engine.generate(ask('a b c d e f g h', { onUsage }))) {
      if (event.type === 'delta') break;
    }
    await settled();
    expect(worker.connection.commands.at(-1)?.type).toBe('cancel');
    expect(worker.connection.open.size).toBe(0);
    expect(onUsage).toHaveBeenCalledTimes(1);
  });

  it('takes return() before the first next()', async () => {
    const { engine } = setUp();
    const onUsage = vi.fn();
    const iterator = engine.generate(ask('a b', { onUsage }))[Symbol.asyncIterator]();
    expect(await iterator.return?.()).toEqual({ done: true, value: undefined });
    expect(await iterator.next()).toEqual({ done: true, value: undefined });
    await settled();
    expect(onUsage).toHaveBeenCalledTimes(1);
  });

  it('answers next() after the end, again and again', async () => {
    const { engine } = setUp();
    const iterator = engine.generate(ask('a'))[Symbol.asyncIterator]();
    while ((await iterator.next()).done !== true);
    for (let i = 0; i < 3; i++) {
      expect(await iterator.next()).toEqual({ done: true, value: undefined });
    }
  });

  it('answers concurrent next() calls in order', async () => {
    const { engine } = setUp();
    const iterator = engine.generate(ask('a b'))[Symbol.asyncIterator]();
    const results = await Promise.all(Array.from({ length: 6 }, () => iterator.next()));
    expect(results.map(({ value }) => (value as TokenEvent | undefined)?.type)).toEqual([
      ...['start', 'delta', 'delta', 'finish', undefined, undefined],
    ]);
  });

  it('resolves a pending next() on return()', async () => {
    const { engine } = setUp({ manual: true });
    const iterator = engine.generate(ask('a'))[Symbol.asyncIterator]();
    const pending = iterator.next();
    await iterator.return?.();
    expect(await pending).toEqual({ done: true, value: undefined });
  });

  it('gives what was received before a failure, then the failure once', async () => {
    const { worker, engine } = setUp({ manual: true });
    const iterator = engine.generate(ask('a'))[Symbol.asyncIterator]();
    await settled();
    const id = worker.connection.generateIds[0] ?? 0;
    worker.connection.start(id);
    worker.connection.token(id, 'half');
    worker.connection.fail(id, { code: 'ENGINE_LOST', message: 'broken', data: { step: 7 } });
    expect((await iterator.next()).value).toMatchObject({ type: 'start' });
    expect((await iterator.next()).value).toMatchObject({ type: 'delta', text: 'half' });
    await expect(iterator.next()).rejects.toMatchObject({ code: 'ENGINE_LOST', data: { step: 7 } });
    expect(await iterator.next()).toEqual({ done: true, value: undefined });
  });
});

describe('the worker dies', () => {
  it('fails everything open and starts anew at the next call', async () => {
    const { worker, engine } = setUp({ manual: true });
    await engine.adapters.add('pirate', './pirate');
    const onUsage = vi.fn<(usage: Usage) => void>();
    const streams = [1, 2, 3].map(() => read(engine.generate(ask('x', { onUsage }))));
    worker.script = { manual: true, deafTo: ['stats'] };
    const stats = codeOf(engine.stats());
    await settled();
    worker.connection.die(new Error('segmentation fault'));
    for (const stream of streams) expect(await codeOf(stream)).toBe('WORKER_DIED');
    expect(await stats).toBe('WORKER_DIED');
    expect(onUsage).toHaveBeenCalledTimes(3);
    worker.script = {};
    expect((await read(engine.generate(ask('hello', { adapter: 'pirate' })))).text).toBe('HELLO');
    expect(worker.connections).toHaveLength(2);
    expect((await engine.adapters.list()).map(({ name }) => name)).toEqual(['pirate']);
  });

  it('names the cause', async () => {
    const { worker, engine } = setUp({ manual: true });
    const stream = read(engine.generate(ask()));
    await settled();
    worker.connection.die(new Error('out of memory'));
    await expect(stream).rejects.toThrow(/out of memory/);
  });

  it('tries a model that did not load again at the next call', async () => {
    const loadError = { code: 'MODEL_INVALID', message: 'no config.json', data: {} };
    const { worker, engine } = setUp({ loadError });
    const [first, second] = [read(engine.generate(ask())), engine.ready()];
    expect(await codeOf(first)).toBe('MODEL_INVALID');
    expect(await codeOf(second)).toBe('MODEL_INVALID');
    expect(worker.alive).toHaveLength(0);
    worker.script = {};
    expect((await read(engine.generate(ask('fixed')))).text).toBe('fixed');
  });

  it('replaces an engine that was lost, and tells every open request', async () => {
    const { worker, engine } = setUp({ manual: true });
    const streams = [read(engine.generate(ask())), read(engine.generate(ask()))];
    await settled();
    const id = worker.connection.generateIds[0] ?? 0;
    worker.connection.fail(id, { code: 'ENGINE_LOST', message: 'invariant', data: {} });
    for (const stream of streams) expect(await codeOf(stream)).toBe('ENGINE_LOST');
    expect(worker.alive).toHaveLength(0);
    worker.script = {};
    expect((await read(engine.generate(ask('again')))).text).toBe('again');
  });
});

describe('adapters', () => {
  it('holds requests until their adapter is there', async () => {
    const { worker, engine } = setUp();
    const added = engine.adapters.add('shout', { directory: './shout' });
    const answer = read(engine.generate(ask('hello', { adapter: 'shout' })));
    const base = read(engine.generate(ask('hello', { adapter: 'base' })));
    expect(await added).toMatchObject({ name: 'shout' });
    expect((await answer).text).toBe('HELLO');
    expect((await base).text).toBe('hello');
    expect(worker.connection.commands.map(({ type }) => type)).toEqual([
      ...['addAdapter', 'generate', 'generate'],
    ]);
  });

  it('fails held requests with the reason of the load', async () => {
    const refusal = { code: 'ADAPTER_INVALID', message: 'rank 0', data: { field: 'r' } };
    const { engine } = setUp({ addAdapter: () => refusal });
    const added = codeOf(engine.adapters.add('bad', './bad'));
    const answer = codeOf(read(engine.generate(ask('x', { adapter: 'bad' }))));
    expect(await added).toBe('ADAPTER_INVALID');
    expect(await answer).toBe('ADAPTER_INVALID');
    expect(await codeOf(read(engine.generate(ask('x', { adapter: 'bad' }))))).toBe(
      'ADAPTER_NOT_FOUND',
    );
  });

  it('keeps what was there when a second add under its name fails', async () => {
    const { worker, engine } = setUp();
    await engine.adapters.add('a', './good');
    worker.script = {
      addAdapter: () => ({ code: 'ADAPTER_INVALID', message: 'no', data: {} }),
    };
    expect(await codeOf(engine.adapters.add('a', './bad'))).toBe('ADAPTER_INVALID');
    expect((await read(engine.generate(ask('still', { adapter: 'a' })))).text).toBe('STILL');
  });

  it('lets a held request be aborted', async () => {
    const { worker, engine } = setUp({ deafTo: ['addAdapter'] });
    const controller = new AbortController();
    engine.adapters.add('slow', './slow').catch(() => undefined);
    const held = read(engine.generate(ask('x', { adapter: 'slow', signal: controller.signal })));
    await settled();
    controller.abort('too slow');
    await expect(held).rejects.toBe('too slow');
    worker.connection.die();
  });

  it('knows only what is registered', async () => {
    const { engine } = setUp();
    await engine.adapters.add('known', './known');
    await expect(read(engine.generate(ask('x', { adapter: 'unknown' })))).rejects.toMatchObject({
      code: 'ADAPTER_NOT_FOUND',
      data: { adapter: 'unknown', known: ['known'] },
    });
    expect(await codeOf(engine.adapters.remove('unknown'))).toBe('ADAPTER_NOT_FOUND');
    await engine.adapters.remove('known');
    expect(await engine.adapters.list()).toEqual([]);
  });

  it.each(['../up', 'a/../b', '/abs', '', 'base', 'sp ace', '.hidden', 'a\u0000b'])(
    'refuses the name %j',
    async (name) => {
      const { engine } = setUp();
      expect(await codeOf(engine.adapters.add(name, './x'))).toBe('INVALID_OPTIONS');
    },
  );
});

describe('dispose', () => {
  it('ends open requests with DISPOSED and rejects later calls', async () => {
    const { worker, engine } = setUp({ manual: true });
    const onUsage = vi.fn();
    const open = codeOf(read(engine.generate(ask('x', { onUsage }))));
    await settled();
    await Promise.all([engine.dispose(), engine.dispose(), engine[Symbol.asyncDispose]()]);
    expect(await open).toBe('DISPOSED');
    expect(onUsage).toHaveBeenCalledTimes(1);
    expect(worker.alive).toHaveLength(0);
    expect(await codeOf(read(engine.generate(ask())))).toBe('DISPOSED');
    for (const call of [engine.ready(), engine.stats(), engine.adapters.list()]) {
      expect(await codeOf(call)).toBe('DISPOSED');
    }
    expect(await codeOf(engine.adapters.add('a', './a'))).toBe('DISPOSED');
    expect(await codeOf(engine.adapters.remove('a'))).toBe('DISPOSED');
    expect(worker.connections).toHaveLength(1);
  });

  it('costs nothing for an engine that was never used', async () => {
    const { worker, engine } = setUp();
    await engine.dispose();
    expect(worker.connections).toHaveLength(0);
  });

  it('ends a request of the same turn', async () => {
    const { engine } = setUp();
    const open = codeOf(read(engine.generate(ask())));
    await engine.dispose();
    expect(await open).toBe('DISPOSED');
  });

  it('does not wait for a worker that does not answer', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      const { worker, engine } = setUp({ manual: true, deafTo: ['dispose'] });
      const open = codeOf(read(engine.generate(ask())));
      await settled();
      const disposed = engine.dispose();
      await settled();
      await vi.advanceTimersByTimeAsync(10_000);
      await disposed;
      expect(await open).toBe('DISPOSED');
      expect(worker.alive).toHaveLength(0);
    } finally {
      vi.useRealTimers();
    }
  });
});

describe('random schedules', () => {
  it.each([1, 2, 3, 4, 5])('every request ends exactly once (seed %i)', async (seed) => {
    const random = mulberry32(seed);
    const { worker, engine } = setUp({
      answer: () =>
        random() < 0.15
          ? { code: 'QUEUE_FULL', message: 'full', data: {} }
          : Array.from({ length: Math.floor(random() * 12) }, (_, i) => ` ${i}`),
    });
    await engine.adapters.add('a', './a');
    const ends = { finish: 0, failed: 0, aborted: 0, left: 0 };
    let usages = 0;
    const one = async () => {
      const controller = new AbortController();
      const wait = Math.floor(random() * 20);
      if (random() < 0.3) {
        void (async () => {
          for (let i = 0; i < wait; i++) await turn();
          controller.abort('stop');
        })();
      }
      const leaveAt = random() < 0.2 ? Math.floor(random() * 8) : Number.POSITIVE_INFINITY;
      let seen = 0;
      let finished = false;
      try {
        const request = ask('x', {
          ...(random() < 0.5 ? { adapter: 'a' } : {}),
          signal: controller.signal,
          onUsage: () => (usages += 1),
        });
        for await (const event of engine.generate(request)) {
          expect(finished).toBe(false);
          if (event.type === 'finish') finished = true;
          if (random() < 0.2) await turn();
          if (++seen > leaveAt) break;
        }
        ends[finished ? 'finish' : 'left'] += 1;
      } catch (error) {
        ends[error === 'stop' ? 'aborted' : 'failed'] += 1;
      }
    };
    const all: Promise<void>[] = [];
    for (let i = 0; i < 300; i++) {
      all.push(one());
      if (random() < 0.5) await turn();
      if (random() < 0.01) worker.alive.at(-1)?.die();
    }
    await Promise.all(all);
    for (let i = 0; i < 30; i++) await turn();
    expect(ends.finish + ends.failed + ends.aborted + ends.left).toBe(300);
    expect(Math.min(ends.finish, ends.failed, ends.aborted, ends.left)).toBeGreaterThan(0);
    expect(usages).toBe(300);
    expect(worker.connection.open.size).toBe(0);
    expect(worker.connection.referenced).toBe(false);
    await engine.dispose();
  });
});

function raise(message: string): never {
  throw new Error(message);
}

/** A small seeded generator, so that a failing schedule can be run again. */
function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
