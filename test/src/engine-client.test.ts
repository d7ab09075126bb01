// The engine's client against a scripted worker: order, abort, the iterator protocol.
import { describe, expect, it, vi } from 'vitest';
import type { GenerateRequest, TokenEvent, Usage } from '../../src/types.js';

import { setUp, ask, read, turn, settled, codeOf, raise } from './client-under-test.js';

describe('createEngine', () => {
  it('connects at the first call, not before', async () => {
    const { worker, engine } = setUp();
    await settled();
    expect(worker.connections).toHaveLength(0);
    expect((await engine.ready()).architecture).toBe('LlamaForCausalLM');
    expect(worker.connections).toHaveLength(1);
    expect(worker.connection.options).toMatchObject({ maxQueued: 1024, maxBatchTokens: 0 });
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

  it.each([
    [false, 1],
    [true, 2],
  ])('after a loss with recoverable %s, has made %i connections', async (recoverable, made) => {
    const { worker, engine } = setUp({ manual: true });
    const first = engine.generate(ask('a'))[Symbol.asyncIterator]();
    await settled();
    const id = worker.connection.generateIds[0] ?? 0;
    const lost = { code: 'ENGINE_LOST', message: 'illegal address', data: { recoverable } };
    worker.connection.fail(id, lost);
    await expect(first.next()).rejects.toMatchObject({ code: 'ENGINE_LOST' });
    const second = engine.generate(ask('b'))[Symbol.asyncIterator]();
    const answer = second.next().then(
      () => 'answered',
      (error: Error) => error.message,
    );
    await settled();
    expect(worker.connections).toHaveLength(made);
    if (recoverable) {
      await second.return?.();
      return;
    }
    expect(await answer).toBe('illegal address');
    await expect(engine.ready()).rejects.toMatchObject({ data: { recoverable: false } });
  });
});
