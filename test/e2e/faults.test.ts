// A thousand loads that fail or are aborted, beside requests that go on: only who asked hears of it, with
// the reason, and everything is given back.
import { createEngine, type Engine } from 'lorax-js/engine';
import { cpSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, expect, it } from 'vitest';
import { litter, partials, startHub, temporaryDirectory } from '../worker/sources/fixture.js';
import { exactDevice } from './suites/test-device.js';

const demo = fileURLToPath(new URL('../../models/demo', import.meta.url));
const pirate = path.join(demo, 'adapters', 'pirate');
const engines: Engine[] = [];
afterEach(() => Promise.all(engines.splice(0).map((engine) => engine.dispose())));

async function answerOf(engine: Engine, adapter: string, signal?: AbortSignal) {
  const tokens: number[] = [];
  const sampling = { maxOutputTokens: 12, temperature: 0, ignoreEos: true };
  const request = { prompt: 'Where is my order?', adapter, sampling };
  for await (const event of engine.generate(signal ? { ...request, signal } : request)) {
    if (event.type === 'delta') tokens.push(...event.tokenIds);
  }
  return tokens;
}

/** A PEFT directory with something wrong, and what is then said of it. */
function brokenDirectories(): [string, string][] {
  const make = (name: string, damage: (directory: string) => void): string => {
    const directory = path.join(temporaryDirectory(), name);
    cpSync(pirate, directory, { recursive: true });
    damage(directory);
    return directory;
  };
  const weights = (directory: string) => path.join(directory, 'adapter_model.safetensors');
  const config = (directory: string) => path.join(directory, 'adapter_config.json');
  return [
    [make('cut', (to) => truncateSync(weights(to), 3000)), 'ADAPTER_INVALID'],
    [make('header', (to) => writeFileSync(weights(to), 'no header')), 'ADAPTER_INVALID'],
    [make('json', (to) => writeFileSync(config(to), '{')), 'ADAPTER_INVALID'],
    [make('kind', (to) => writeFileSync(config(to), '{"peft_type":"IA3"}')), 'ADAPTER_UNSUPPORTED'],
    [path.join(temporaryDirectory(), 'nowhere'), 'ADAPTER_INVALID'],
  ];
}

it('1,000 loads that fail or are aborted give all back, and nobody else hears of them', async () => {
  const server = await startHub();
  const files = readdirSync(pirate).map((file) => [file, readFileSync(path.join(pirate, file))]);
  server.add('acme/slow', Object.fromEntries(files) as Record<string, Buffer>);
  // Half of what is asked of the hub stops in the middle of the weights.
  server.fault = ({ host }) => (host === 'cdn' ? { hangAfter: 2_000 } : undefined);
  const broken = brokenDirectories();
  const cacheDirectory = temporaryDirectory();
  const engine = createEngine({
    ...{ model: demo, ...exactDevice, maxQueued: 2000 },
    hub: { endpoint: server.url, cacheDirectory, token: false },
    sources: [
      (name) =>
        name.startsWith('slow')
          ? 'hf://acme/slow'
          : { directory: broken[Number(name.split('-')[1]) % broken.length]![0] },
    ],
  });
  engines.push(engine);
  await engine.adapters.add('good', pirate);
  const expected = await answerOf(engine, 'good');
  const before = (await engine.stats()).pages;

  let failing = true;
  let numGood = 0;
  const goOn = async () => {
    while (failing) {
      expect(await answerOf(engine, 'good')).toEqual(expected);
      numGood++;
    }
  };
  const going = [goOn(), goOn()];
  const codes = new Map<string, number>();
  const count = (code: string) => codes.set(code, (codes.get(code) ?? 0) + 1);
  for (let round = 0; round < 10; round++) {
    const asked = Array.from({ length: 100 }, async (_, i) => {
      const number = round * 100 + i;
      if (i % 4 !== 0) {
        const code = broken[number % broken.length]![1];
        await expect(answerOf(engine, `broken-${number}`)).rejects.toMatchObject({ code });
        return count(code);
      }
      const abort = new AbortController();
      const reason = new Error(`enough of ${number}`);
      setTimeout(() => abort.abort(reason), number % 40);
      await expect(answerOf(engine, `slow-${number}`, abort.signal)).rejects.toBe(reason);
      count('aborted');
    });
    await Promise.all(asked);
  }
  failing = false;
  await Promise.all(going);
  expect(codes.get('aborted')).toBe(250);
  expect([...codes.values()].reduce((sum, each) => sum + each)).toBe(1000);
  expect(codes.size).toBe(3);
  expect(numGood).toBeGreaterThan(10);

  await expect
    .poll(async () => (await engine.adapters.list()).filter(({ bytes }) => bytes > 0).length)
    .toBe(1);
  expect((await engine.stats()).requests).toEqual({ running: 0, waiting: 0 });
  expect((await engine.stats()).pages.adapter).toBe(before.adapter);
  await expect.poll(() => litter(cacheDirectory)).toEqual([]);
  // Of each file one, however many began it.
  expect(partials(cacheDirectory).length).toBeLessThanOrEqual(files.length);
  // What was cut goes on when somebody wants it again.
  server.fault = () => undefined;
  expect(await answerOf(engine, 'slow')).toEqual(expected);
}, 120_000);
