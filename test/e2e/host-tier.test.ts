// More adapters than fit in host memory: those that were dropped are read from disk again.
import { createEngine, type Engine } from 'lorax-js/engine';
import { cpSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it } from 'vitest';
import { temporaryDirectory } from '../worker/sources/fixture.js';
import { exactDevice } from './suites/test-device.js';

const demo = fileURLToPath(new URL('../../models/demo', import.meta.url));
const engines: Engine[] = [];
afterEach(() => Promise.all(engines.splice(0).map((engine) => engine.dispose())));

function start(hostMemoryBytes?: number): Engine {
  const memory = hostMemoryBytes === undefined ? {} : { hostMemoryBytes };
  const engine = createEngine({ model: demo, ...exactDevice, ...memory });
  engines.push(engine);
  return engine;
}

async function answerOf(engine: Engine, adapter: string): Promise<number[]> {
  const tokens: number[] = [];
  const events = engine.generate({
    messages: [{ role: 'user', content: 'Where is my order 4821?' }],
    adapter,
    sampling: { maxOutputTokens: 20, ignoreEos: true },
  });
  for await (const event of events) if (event.type === 'delta') tokens.push(...event.tokenIds);
  return tokens;
}

/** Copies of one of the demo's adapters, each with another scale: each is another content. */
function makeAdapters(count: number): string[] {
  const directory = temporaryDirectory();
  return Array.from({ length: count }, (_, i) => {
    const copy = path.join(directory, `a${i}`);
    cpSync(path.join(demo, 'adapters', 'pirate'), copy, { recursive: true });
    const file = path.join(copy, 'adapter_config.json');
    const config = JSON.parse(readFileSync(file, 'utf8')) as { lora_alpha: number };
    config.lora_alpha *= 1 - i / count;
    writeFileSync(file, JSON.stringify(config));
    return copy;
  });
}

async function bytesOfOne(directory: string): Promise<number> {
  const engine = start();
  await engine.adapters.add('one', directory);
  return (await engine.adapters.list())[0]!.bytes;
}

describe('host memory for adapters', () => {
  it('holds some of many; each answers as it does with room for all', async () => {
    const directories = makeAdapters(12);
    const budget = 4 * (await bytesOfOne(directories[0]!));
    const [small, large] = [start(budget), start()];
    for (const [i, directory] of directories.entries()) {
      await small.adapters.add(`a${i}`, directory);
      await large.adapters.add(`a${i}`, directory);
    }
    const states = (await small.adapters.list()).map(({ state }) => state);
    expect(states.filter((state) => state === 'host')).toHaveLength(4);
    expect(states.filter((state) => state === 'on-disk')).toHaveLength(8);

    const names = directories.map((_, i) => `a${i}`);
    const wanted = await Promise.all(names.map((name) => answerOf(large, name)));
    const got = await Promise.all(names.map((name) => answerOf(small, name)));
    expect(got).toEqual(wanted);
    const { host, totals } = await small.stats();
    expect(host).toMatchObject({ budgetBytes: budget, images: 4 });
    expect(host.bytes).toBeLessThanOrEqual(budget);
    expect(totals.hostReads).toBeGreaterThanOrEqual(8);
    expect(totals.hostDrops).toBeGreaterThanOrEqual(16);
    expect((await large.stats()).totals).toMatchObject({ hostReads: 0, hostDrops: 0 });
  });

  it('is brought what a hint names, up to the page pool', async () => {
    const directories = makeAdapters(3);
    const engine = start(await bytesOfOne(directories[0]!));
    for (const [i, directory] of directories.entries()) {
      await engine.adapters.add(`a${i}`, directory);
    }
    await engine.adapters.prefetch('a0');
    await expect
      .poll(async () => (await engine.adapters.list()).find(({ name }) => name === 'a0')?.state)
      .toBe('resident');
    await answerOf(engine, 'a0');
    expect((await engine.stats()).totals).toMatchObject({ adapterLoads: 1, adapterHits: 1 });
  });

  it('does not take other bytes for those that were dropped', async () => {
    const directories = makeAdapters(3);
    const engine = start(await bytesOfOne(directories[0]!));
    for (const [i, directory] of directories.entries()) {
      await engine.adapters.add(`a${i}`, directory);
    }
    const file = path.join(directories[0]!, 'adapter_model.safetensors');
    truncateSync(file, statSync(file).size - 1);
    const [broken, other] = await Promise.allSettled([
      answerOf(engine, 'a0'),
      answerOf(engine, 'a1'),
    ]);
    expect(broken).toMatchObject({
      reason: {
        code: 'ADAPTER_INVALID',
        data: { file },
        message: expect.stringContaining(
          'has changed since the adapter was loaded from it',
        ) as unknown,
      },
    });
    expect(other.status).toBe('fulfilled');
    cpSync(path.join(demo, 'adapters', 'pirate'), directories[0]!, { recursive: true });
    await engine.adapters.add('a0', directories[0]!);
    expect(await answerOf(engine, 'a0')).toHaveLength(20);
  });

  it('refuses an adapter that is larger than all of it', async () => {
    const [directory] = makeAdapters(1);
    const engine = start(1000);
    await expect(engine.adapters.add('a0', directory!)).rejects.toMatchObject({
      code: 'HOST_MEMORY_EXHAUSTED',
      data: { hostMemoryBytes: 1000 },
    });
    expect((await engine.stats()).host).toMatchObject({ bytes: 0, images: 0 });
  });
});
