// Activated LoRA through the whole package: what comes before the invocation is the base's.
import { createEngine, type Engine } from 'lorax-js/engine';
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it } from 'vitest';
import { temporaryDirectory } from '../worker/sources/fixture.js';
import { exactDevice } from './suites/test-device.js';

const demo = fileURLToPath(new URL('../../models/demo', import.meta.url));
const INVOCATION = [301, 77, 302];
const engines: Engine[] = [];
afterEach(() => Promise.all(engines.splice(0).map((engine) => engine.dispose())));

function start(): Engine {
  const engine = createEngine({ model: demo, ...exactDevice });
  engines.push(engine);
  return engine;
}

function makeActivated(): string {
  const directory = path.join(temporaryDirectory(), 'activated');
  cpSync(path.join(demo, 'adapters', 'pirate'), directory, { recursive: true });
  const file = path.join(directory, 'adapter_config.json');
  const config = JSON.parse(readFileSync(file, 'utf8')) as object;
  writeFileSync(file, JSON.stringify({ ...config, alora_invocation_tokens: INVOCATION }));
  return directory;
}

async function ask(engine: Engine, tokens: number[], adapter?: string) {
  const answer: number[] = [];
  let cachedTokens = -1;
  const sampling = { maxOutputTokens: 16, ignoreEos: true };
  const named = adapter === undefined ? {} : { adapter };
  for await (const event of engine.generate({ promptTokens: tokens, ...named, sampling })) {
    if (event.type === 'delta') answer.push(...event.tokenIds);
    if (event.type === 'finish') ({ cachedTokens } = event.usage);
  }
  return { answer, cachedTokens };
}

const text = (length: number, salt: number) =>
  Array.from({ length }, (_, i) => 100 + ((i * 37 + salt * 11) % 180));

describe('an activated LoRA', () => {
  const before = text(70, 1);
  const invoked = [...before, ...INVOCATION, ...text(9, 2)];

  it('is the base without its invocation, and itself with it', async () => {
    const engine = start();
    await engine.adapters.add('activated', makeActivated());
    await engine.adapters.add('always', path.join(demo, 'adapters', 'pirate'));
    const base = await ask(engine, before);
    expect((await ask(engine, before, 'activated')).answer).toEqual(base.answer);
    expect((await ask(engine, invoked, 'activated')).answer).not.toEqual(
      (await ask(engine, invoked)).answer,
    );
    // From the first token on, it is as any other.
    const first = [...INVOCATION, ...before];
    expect((await ask(engine, first, 'activated')).answer).toEqual(
      (await ask(engine, first, 'always')).answer,
    );
  });

  it('begins with the KV that the base has computed, and the other way round', async () => {
    const [engine, alone] = [start(), start()];
    const directory = makeActivated();
    for (const each of [engine, alone]) await each.adapters.add('activated', directory);
    const { blockTokens } = await engine.ready();
    const shared = Math.floor(before.length / blockTokens) * blockTokens;
    await ask(engine, before);
    const got = await ask(engine, invoked, 'activated');
    expect(got.cachedTokens).toBe(shared);
    const expected = await ask(alone, invoked, 'activated');
    expect(expected.cachedTokens).toBe(0);
    expect(got.answer).toEqual(expected.answer);
    expect((await ask(alone, [...before, 5])).cachedTokens).toBe(shared);
  });
});
