// Which providers share an engine, what stays theirs, and when an engine ends.
import { mkdtempSync, mkdirSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { createLoraxOn } from '../../src/ai-sdk/provider.js';
import type { LoraxOptions, LoraxProvider } from '../../src/ai-sdk/provider.js';
import { LoraxError } from '../../src/errors.js';
import type { Engine, TokenEvent } from '../../src/types.js';
import { FakeWorker } from '../fakes/fake-worker.js';
import type { FakeWorkerScript } from '../fakes/fake-worker.js';

let folder: string;
let model: string;
let worker: FakeWorker;
const made: LoraxProvider[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'lorax-shared-'));
  model = join(folder, 'model');
  mkdirSync(model);
  worker = new FakeWorker();
});

afterEach(async () => {
  vi.unstubAllEnvs();
  await Promise.all(made.splice(0).map((provider) => provider.dispose()));
  rmSync(folder, { recursive: true });
  expect(worker.alive).toHaveLength(0);
});

function provider(options: Partial<LoraxOptions> = {}, script?: FakeWorkerScript): LoraxProvider {
  if (script !== undefined) worker.script = script;
  const created = createLoraxOn(worker.connect, { model, ...options });
  made.push(created);
  return created;
}

async function text(engine: Engine, adapter?: string, signal?: AbortSignal): Promise<string> {
  let all = '';
  const messages = [{ role: 'user' as const, content: 'hello' }];
  const request = {
    messages,
    ...(adapter === undefined ? {} : { adapter }),
    ...(signal === undefined ? {} : { signal }),
  };
  for await (const event of engine.generate(request)) {
    if (event.type === 'delta') all += event.text;
  }
  return all;
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'no error',
    (error: unknown) => (LoraxError.isInstance(error) ? error.code : String(error)),
  );
}

const turns = async (count = 8) => {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
};

describe('sharing', () => {
  it('costs nothing until the first call', async () => {
    const lorax = provider({ model: join(folder, 'does-not-exist'), adapters: { a: './a' } });
    lorax('a');
    await turns();
    expect(worker.connections).toHaveLength(0);
    expect(await codeOf(text(lorax.engine))).toBe('MODEL_INVALID');
    expect(await codeOf(lorax.engine.ready())).toBe('MODEL_INVALID');
    expect(worker.connections).toHaveLength(0);
  });

  it('goes by the real path and the options', async () => {
    const link = join(folder, 'link');
    symlinkSync(model, link);
    const providers = [
      provider(),
      provider({ model: link, adapters: { a: './a' }, defaults: { temperature: 1 } }),
      provider({ device: 'auto', maxQueued: 1024 }),
    ];
    await Promise.all(providers.map(({ engine }) => text(engine)));
    expect(worker.connections).toHaveLength(1);
    await providers[0]?.dispose();
    await providers[1]?.dispose();
    expect(worker.alive).toHaveLength(1);
    expect(await text(providers[2]?.engine as Engine)).toBe('hello');
    await providers[2]?.dispose();
    expect(worker.alive).toHaveLength(0);
  });

  it('is one registry for all copies of the module', async () => {
    const here = provider();
    await text(here.engine);
    vi.resetModules();
    const copy = await import('../../src/ai-sdk/provider.js');
    expect(copy.createLoraxOn).not.toBe(createLoraxOn);
    const there = copy.createLoraxOn(worker.connect, { model, adapters: { a: './a' } });
    expect(await text(there.engine, 'a')).toBe('HELLO');
    expect(worker.connections).toHaveLength(1);
    await here.dispose();
    expect(await text(there.engine)).toBe('hello');
    await there.dispose();
    expect(worker.alive).toHaveLength(0);
  });

  it('gives one name different weights in two providers', async () => {
    const one = provider({ adapters: { voice: './one' } });
    const two = provider({ adapters: { voice: './two-longer' } });
    await Promise.all([text(one.engine, 'voice'), text(two.engine, 'voice')]);
    expect(worker.connections).toHaveLength(1);
    expect(new Set(worker.connection.adapters.values()).size).toBe(2);
    expect((await one.adapters.list()).map(({ name, directory }) => [name, directory])).toEqual([
      ['voice', expect.stringMatching(/\/one$/)],
    ]);
    const [first] = await readAll(two.engine, 'voice');
    expect(first).toMatchObject({ type: 'start', adapter: { name: 'voice' } });
    await one.dispose();
    expect([...worker.connection.adapters.values()]).toEqual([
      expect.stringMatching(/\/two-longer$/),
    ]);
  });

  it('tells which content a name stands for, and loads it once', async () => {
    const one = provider({ adapters: { voice: './one' } });
    const identity = await one.adapters.identify('voice');
    expect(identity).toEqual({ name: 'voice', hash: expect.stringMatching(/^hash-/) });
    await text(one.engine, 'voice');
    expect(await one.adapters.identify('voice')).toEqual(identity);
    const loads = worker.connection.commands.filter(({ type }) => type === 'addAdapter');
    expect(loads).toHaveLength(1);
    expect(await codeOf(one.adapters.identify('nobody'))).toBe('ADAPTER_NOT_FOUND');
    await one.dispose();
    expect(await codeOf(one.adapters.identify('voice'))).toBe('DISPOSED');
  });

  it('shows no scope in errors', async () => {
    const lorax = provider(
      { adapters: { bad: './bad' } },
      {
        addAdapter: (name) => ({
          code: 'ADAPTER_INVALID',
          message: `adapter ${name}: rank 0`,
          data: { adapter: name },
        }),
      },
    );
    const error: unknown = await text(lorax.engine, 'bad').catch((reason: unknown) => reason);
    expect(error).toMatchObject({ message: 'adapter bad: rank 0', data: { adapter: 'bad' } });
  });

  it('keeps the paths of opened directories from who asks for an unknown name', async () => {
    const lorax = provider({ adapters: { pirate: './pirate' } });
    lorax.fromDirectory(join(folder, 'private'));
    const error: unknown = await text(lorax.engine, 'nope').catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: 'ADAPTER_NOT_FOUND', data: { known: ['pirate'] } });
    expect((error as Error).message).not.toContain(folder);
  });

  it('lists what is known with its state, and loads nothing for that', async () => {
    const lorax = provider(
      { adapters: { bad: './bad', good: './good' } },
      {
        addAdapter: (name) =>
          name.endsWith('bad') ? { code: 'ADAPTER_INVALID', message: name, data: {} } : undefined,
      },
    );
    const states = async () =>
      Object.fromEntries((await lorax.adapters.list()).map(({ name, state }) => [name, state]));
    expect(await states()).toEqual({ bad: 'on-disk', good: 'on-disk' });
    await lorax.prefetch('good');
    expect(await codeOf(text(lorax.engine, 'bad'))).toBe('ADAPTER_INVALID');
    expect(await states()).toEqual({ bad: 'failed', good: 'resident' });
    const [bad] = await lorax.adapters.list();
    expect(bad).toMatchObject({ name: 'bad', error: { code: 'ADAPTER_INVALID', message: 'bad' } });
  });

  it('reports the progress of a provider to that provider', async () => {
    const seen: string[] = [];
    const one = provider({ onProgress: ({ name }) => seen.push(`one ${name}`) });
    const two = provider({ onProgress: ({ name }) => seen.push(`two ${name}`) });
    await Promise.all([text(one.engine), text(two.engine), two.adapters.add('a', './a')]);
    const [scoped] = [...worker.connection.adapters.keys()];
    const bytes = { loadedBytes: 1, totalBytes: 2 };
    worker.connection.emit(
      { type: 'progress', progress: { stage: 'model', name: 'm', ...bytes } },
      { type: 'progress', progress: { stage: 'adapter', name: scoped ?? '', ...bytes } },
    );
    await turns(1);
    expect(seen.sort()).toEqual(['one m', 'two a', 'two m']);
  });
});

describe('dispose', () => {
  it("ends this provider's requests only", async () => {
    const one = provider({}, { manual: true });
    const two = provider();
    const ended = codeOf(text(one.engine));
    const goesOn = text(two.engine);
    await turns();
    await one.dispose();
    expect(await ended).toBe('DISPOSED');
    await turns();
    const [id] = [...worker.connection.open.keys()];
    worker.connection.start(id ?? 0);
    worker.connection.token(id ?? 0, 'still here');
    worker.connection.finish(id ?? 0);
    expect(await goesOn).toBe('still here');
    expect(await codeOf(text(one.engine))).toBe('DISPOSED');
    expect(await codeOf(one.engine.stats())).toBe('DISPOSED');
    expect(await codeOf(one.adapters.list())).toBe('DISPOSED');
  });

  it('is idempotent, and harmless before the first call', async () => {
    const lorax = provider();
    await Promise.all([lorax.dispose(), lorax.dispose(), lorax[Symbol.asyncDispose]()]);
    expect(worker.connections).toHaveLength(0);
  });

  it('lets a later provider start a new engine', async () => {
    const first = provider();
    await text(first.engine);
    await first.dispose();
    expect(await text(provider().engine)).toBe('hello');
    expect(worker.connections).toHaveLength(2);
  });
});

describe('other options for the same model', () => {
  it('replace the old engine once its streams end, in development', async () => {
    const old = provider({ adapters: { a: './a' } }, { manual: true });
    const oldAnswer = text(old.engine, 'a');
    await turns();
    const edited = provider({ memoryBytes: 1 << 20 });
    const newAnswer = text(edited.engine);
    await turns();
    expect(worker.connections).toHaveLength(1);
    const [id] = [...worker.connection.open.keys()];
    worker.connection.start(id ?? 0);
    worker.connection.token(id ?? 0, 'the old one ends in peace');
    worker.script = {};
    worker.connection.finish(id ?? 0);
    expect(await oldAnswer).toBe('the old one ends in peace');
    expect(await newAnswer).toBe('hello');
    expect(worker.connections).toHaveLength(2);
    expect(worker.alive).toHaveLength(1);
    expect(worker.connection.options.memoryBytes).toBe(1 << 20);
    // The old provider still works: its engine comes back, with its adapters.
    expect(await text(old.engine, 'a')).toBe('HELLO');
    expect(worker.connections).toHaveLength(3);
  });

  it('replace the old engine once its calls are answered', async () => {
    const old = provider();
    const edited = provider({ memoryBytes: 1 << 20 });
    const answers = [codeOf(old.engine.ready()), codeOf(edited.engine.ready())];
    expect(await Promise.all(answers)).toEqual(['no error', 'no error']);
    expect(worker.alive).toHaveLength(1);
  });

  it('replace the old engine when its worker dies under a call', async () => {
    const old = provider({}, { deafTo: ['ready'] });
    const lost = codeOf(old.engine.ready());
    await turns();
    const edited = provider({ memoryBytes: 1 << 20 });
    const waiting = codeOf(edited.stats());
    await turns();
    worker.connection.die();
    expect(await lost).toBe('WORKER_DIED');
    expect(await waiting).toBe('no error');
    expect(worker.alive).toHaveLength(1);
  });

  it('run side by side in production', async () => {
    vi.stubEnv('NODE_ENV', 'production');
    const one = provider();
    const two = provider({ precision: 'float32' });
    await Promise.all([text(one.engine), text(two.engine)]);
    expect(worker.alive).toHaveLength(2);
  });

  it("end with their provider, also while they finish a replaced engine's streams", async () => {
    const old = provider({}, { manual: true });
    const open = codeOf(text(old.engine));
    await turns();
    const edited = provider({ memoryBytes: 1 << 20 });
    const waiting = codeOf(text(edited.engine));
    await turns();
    await old.dispose();
    expect(await open).toBe('DISPOSED');
    await turns();
    expect(worker.connections).toHaveLength(2);
    await edited.dispose();
    expect(await waiting).toBe('DISPOSED');
  });
});

describe('providers that are dropped', () => {
  it('are kept while a call is under way', async () => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    worker.script = { deafTo: ['ready'] };
    // In a function of its own: this one's frame would keep the provider.
    const begin = () => createLoraxOn(worker.connect, { model }).engine.ready();
    const ended = codeOf(begin());
    for (let i = 0; i < 10; i++) {
      await new Promise((resolve) => setTimeout(resolve, 5));
      collect();
    }
    expect(worker.alive).toHaveLength(1);
    worker.connection.die();
    expect(await ended).toBe('WORKER_DIED');
    for (let i = 0; i < 20; i++) {
      collect();
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  });

  it('leave no engines behind when their module runs again', async () => {
    // In a function of its own: this one's frame would keep the last provider.
    const evaluateModule = async () => {
      const dropped = createLoraxOn(worker.connect, { model, adapters: { a: './a' } });
      expect(await text(dropped.engine, 'a')).toBe('HELLO');
    };
    for (let i = 0; i < 5; i++) await evaluateModule();
    expect(worker.connections).toHaveLength(1);
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    for (let i = 0; i < 50 && worker.alive.length > 0; i++) {
      collect();
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    expect(worker.alive).toHaveLength(0);
  });
});

async function readAll(engine: Engine, adapter: string): Promise<TokenEvent[]> {
  const events: TokenEvent[] = [];
  for await (const event of engine.generate({ prompt: 'x', adapter })) events.push(event);
  return events;
}
