// How an engine client ends: the worker dies, dispose, random schedules; and its adapters.
import { describe, expect, it, vi } from 'vitest';
import type { Usage } from '../../src/types.js';

import { setUp, ask, read, turn, settled, codeOf, mulberry32 } from './client-under-test.js';

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

  it('holds a mix until all of its adapters are there', async () => {
    const { worker, engine } = setUp();
    await engine.adapters.add('a', './a');
    const added = engine.adapters.add('b', './b');
    const adapter = { b: 0.5, a: 2 };
    const answer = read(engine.generate(ask('hello', { adapter })));
    const embedded = engine.embed({ input: ['x'], adapter });
    await added;
    expect((await answer).text).toBe('HELLO');
    expect((await embedded).adapter).toMatchObject({ name: '0.5*b + 2*a', mix: { length: 2 } });
    const sent = worker.connection.commands;
    expect(sent.map(({ type }) => type)).toEqual([
      ...['addAdapter', 'addAdapter', 'generate', 'embed'],
    ]);
    const adapters = [
      { name: 'b', weight: 0.5 },
      { name: 'a', weight: 2 },
    ];
    expect(sent.slice(2)).toMatchObject([{ adapters }, { adapters }]);
  });

  it('fails a mix with what is wrong with one of its adapters', async () => {
    const refusal = { code: 'ADAPTER_INVALID', message: 'rank 0', data: { field: 'r' } };
    const { worker, engine } = setUp();
    await engine.adapters.add('good', './good');
    worker.script = { addAdapter: () => refusal };
    const added = codeOf(engine.adapters.add('bad', './bad'));
    const adapter = { good: 1, bad: 1 };
    expect(await codeOf(read(engine.generate(ask('x', { adapter }))))).toBe('ADAPTER_INVALID');
    expect(await added).toBe('ADAPTER_INVALID');
    await expect(read(engine.generate(ask('x', { adapter })))).rejects.toMatchObject({
      code: 'ADAPTER_NOT_FOUND',
      data: { adapter: 'bad', known: ['good'] },
    });
    expect(worker.connection.generateIds).toHaveLength(0);
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
