// Adapters from elsewhere, through the whole package: hub, folder, function; states; what hangs or fails.
import { streamText } from 'ai';
import { createLorax, type LoraxOptions, type LoraxProvider } from 'lorax-js';
import type { AdapterEvent } from 'lorax-js/engine';
import { readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it } from 'vitest';
import { litter, partials, startHub, temporaryDirectory } from '../worker/sources/fixture.js';
import type { HubServer } from '../worker/sources/hub-server.js';
import { exactDevice } from './suites/test-device.js';

const demo = fileURLToPath(new URL('../../models/demo', import.meta.url));
const question = 'Where is my order 4821?';
const made: LoraxProvider[] = [];
afterEach(() => Promise.all(made.splice(0).map((each) => each.dispose())));

const filesOf = (name: string) =>
  Object.fromEntries(
    readdirSync(path.join(demo, 'adapters', name)).map((file) => [
      file,
      readFileSync(path.join(demo, 'adapters', name, file)),
    ]),
  );

async function setUp(options: Partial<LoraxOptions> = {}) {
  const server = await startHub();
  for (const name of ['pirate', 'json', 'caps']) server.add(`acme/${name}`, filesOf(name));
  const cacheDirectory = temporaryDirectory();
  const hub = { endpoint: server.url, cacheDirectory, token: false as const };
  const lorax = createLorax({
    ...{ model: demo, ...exactDevice, hub, defaults: { maxOutputTokens: 24 } },
    ...options,
  });
  made.push(lorax);
  return { server, lorax, cacheDirectory, hub };
}

async function ask(model: ReturnType<LoraxProvider>, signal?: AbortSignal): Promise<string> {
  let text = '';
  let failure: unknown;
  const { textStream } = streamText({
    ...{ model, prompt: question, maxRetries: 0 },
    ...(signal === undefined ? {} : { abortSignal: signal }),
    onError: ({ error }) => {
      failure = error;
    },
  });
  for await (const delta of textStream) text += delta;
  if (failure !== undefined) throw failure;
  return text;
}

/** What the adapter of that name answers from its own directory. */
const expected = async (lorax: LoraxProvider, name: string) =>
  ask(lorax.fromDirectory(path.join(demo, 'adapters', name)));

const hangOn = (server: HubServer, name: string) => {
  server.fault = ({ path }) => (path.includes(`/acme/${name}/`) ? 'hang' : undefined);
};

describe('an adapter of the hub', () => {
  it('answers as its files in a directory do; its states are told', async () => {
    const events: AdapterEvent[] = [];
    const { lorax, server, cacheDirectory } = await setUp({
      adapters: { pirate: { hub: 'acme/pirate' }, other: 'hf://acme/none' },
      onAdapter: (event) => events.push(event),
    });
    expect(await lorax.adapters.list()).toMatchObject([
      { name: 'other', state: 'absent', source: 'hf://acme/none@main' },
      { name: 'pirate', state: 'absent', source: 'hf://acme/pirate@main', bytes: 0 },
    ]);
    expect(server.log).toEqual([]);
    const text = await ask(lorax('pirate'));
    expect(text).toBe(await expected(lorax, 'pirate'));
    await expect(ask(lorax('other'))).rejects.toMatchObject({
      code: 'ADAPTER_FETCH_FAILED',
      data: { source: 'hf://acme/none@main', reason: 'unauthorized', status: 401 },
    });
    const listed = await lorax.adapters.list();
    const [other, pirate] = ['other', 'pirate'].map((name) =>
      listed.find((info) => info.name === name),
    );
    expect(other).toMatchObject({ state: 'failed', error: { code: 'ADAPTER_FETCH_FAILED' } });
    expect(pirate).toMatchObject({ state: 'resident', hash: expect.any(String) as string });
    expect(pirate!.directory).toContain(cacheDirectory);
    const told = events.filter(({ name }) => name === 'pirate').map(({ state }) => state);
    expect(told).toEqual(['fetching', 'on-disk', 'host']);
  });

  it('is fetched ahead by prefetch, whose failure may be ignored', async () => {
    const { lorax, server } = await setUp({ sources: [{ hub: 'acme/*' }] });
    void lorax.prefetch('none');
    const { hash } = await lorax.prefetch('json');
    const requests = server.log.length;
    const listed = async () => (await lorax.adapters.list())[0]!;
    await expect.poll(async () => (await listed()).state).toBe('resident');
    expect((await listed()).hash).toBe(hash);
    await ask(lorax('json'));
    expect(server.log.length).toBe(requests);
    await expect(lorax.prefetch('none')).rejects.toMatchObject({ code: 'ADAPTER_NOT_FOUND' });
  });

  it('that hangs or fails delays no other, and is given up when nobody waits', async () => {
    const { lorax, server, cacheDirectory } = await setUp({ sources: [{ hub: 'acme/*' }] });
    hangOn(server, 'json');
    const abort = new AbortController();
    const hung = ask(lorax('json'), abort.signal).catch((error: unknown) => error);
    const failing = ask(lorax('none')).catch((error: unknown) => error);
    const startedAt = performance.now();
    expect(await ask(lorax('pirate'))).toBe(await expected(lorax, 'pirate'));
    expect(performance.now() - startedAt).toBeLessThan(10_000);
    expect(await failing).toMatchObject({ name: 'AI_NoSuchModelError' });
    const states = async () =>
      (await lorax.adapters.list()).map(({ name, state }) => `${path.basename(name)} ${state}`);
    expect(await states()).toContain('json fetching');
    abort.abort();
    await hung;
    await expect.poll(states).not.toContain('json fetching');
    expect([...litter(cacheDirectory), ...partials(cacheDirectory)]).toEqual([]);
    // The next request begins anew.
    server.fault = () => undefined;
    expect(await ask(lorax('json'))).toBe(await expected(lorax, 'json'));
  });
});

describe('disposing', () => {
  it('ends what is being fetched, and leaves nothing half done but what can go on', async () => {
    const { lorax, server, cacheDirectory } = await setUp({ sources: [{ hub: 'acme/*' }] });
    server.fault = ({ host }) => (host === 'cdn' ? { hangAfter: 10_000 } : undefined);
    const asked = ask(lorax('pirate')).catch((error: unknown) => error);
    await expect.poll(() => partials(cacheDirectory).length).toBe(1);
    const startedAt = performance.now();
    await lorax.dispose();
    expect(performance.now() - startedAt).toBeLessThan(3_000);
    expect(await asked).toMatchObject({ code: 'DISPOSED' });
    await expect.poll(() => litter(cacheDirectory)).toEqual([]);
  });
});

describe('sources of names', () => {
  it('are a folder, the hub and a function, in their order', async () => {
    const { lorax } = await setUp({
      sources: [
        { folder: path.join(demo, 'adapters') },
        (name) => (name === 'shout' ? { hub: 'acme/caps' } : undefined),
        { hub: 'acme/*' },
      ],
    });
    expect(await ask(lorax('german'))).toBe(await expected(lorax, 'german'));
    expect(await ask(lorax('shout'))).toBe(await expected(lorax, 'caps'));
    for (const name of ['nobody', '../pirate', 'german/..', '.', 'german/adapter_config.json']) {
      await expect(ask(lorax(name)), name).rejects.toMatchObject({ name: 'AI_NoSuchModelError' });
    }
  });

  it('are never guessed: without them an unregistered name is unknown', async () => {
    const { lorax, server } = await setUp();
    await expect(ask(lorax('acme/pirate'))).rejects.toMatchObject({ name: 'AI_NoSuchModelError' });
    expect(server.log).toEqual([]);
  });

  it(
    'fail a request as often as they fail, and give everything back',
    { timeout: 120_000 },
    async () => {
      const { lorax, cacheDirectory } = await setUp({ sources: [{ hub: 'acme/*' }] });
      await lorax.engine.ready();
      const before = (await lorax.stats()).pages;
      const outcomes = await Promise.all(
        Array.from({ length: 1000 }, (_, i) =>
          lorax.engine.adapters.add(`x${i}`, i % 2 === 0 ? `hf://acme/none-${i}` : '/nowhere').then(
            () => 'loaded',
            (error: { code: string }) => error.code,
          ),
        ),
      );
      expect(new Set(outcomes)).toEqual(new Set(['ADAPTER_FETCH_FAILED', 'ADAPTER_INVALID']));
      expect((await lorax.stats()).pages).toEqual(before);
      expect(await lorax.adapters.list()).toEqual([]);
      expect([...litter(cacheDirectory), ...partials(cacheDirectory)]).toEqual([]);
      expect(await ask(lorax('pirate'))).toBe(await expected(lorax, 'pirate'));
    },
  );
});
