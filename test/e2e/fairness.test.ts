// Adapters beside one another on the real engine and the demo model: a flood of requests for one delays
// those for another by no more than what runs already.
import { createEngine } from 'lorax-js/engine';
import type { Engine, GenerateRequest } from 'lorax-js/engine';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { exactDevice } from './suites/test-device.js';

const demo = fileURLToPath(new URL('../../models/demo', import.meta.url));
const FLOOD = 200;

let engine: Engine;
beforeAll(async () => {
  // A pool for some thirty of them: a turn for another waits for those that have theirs.
  const probe = createEngine({ model: demo, ...exactDevice });
  const { pageBytes } = await probe.ready();
  await probe.dispose();
  engine = createEngine({ model: demo, ...exactDevice, memoryBytes: 80 * pageBytes });
  for (const name of ['pirate', 'french']) {
    await engine.adapters.add(name, `${demo}/adapters/${name}`);
  }
});
afterAll(() => engine.dispose());

/** Ids in the order of their first tokens. */
const started: string[] = [];

async function run(id: string, more: Partial<GenerateRequest>): Promise<number[]> {
  const tokens: number[] = [];
  const sampling = { maxOutputTokens: 40, temperature: 0, ignoreEos: true };
  const prompt = `Where is my order ${id}? `;
  for await (const event of engine.generate({ prompt, sampling, ...more } as GenerateRequest)) {
    if (event.type !== 'delta') continue;
    if (tokens.length === 0) started.push(id);
    tokens.push(...event.tokenIds);
  }
  return tokens;
}

it('a flood for one adapter leaves the others their turns', async () => {
  const alone = await run('quiet 0', { adapter: 'french' });
  started.length = 0;
  const flood = Array.from({ length: FLOOD }, (_, i) => run(`flood ${i}`, { adapter: 'pirate' }));
  for (let i = 0; i < 2; i++) {
    const before = started.length;
    expect(before, 'most of the flood waits').toBeLessThan(FLOOD / 2);
    const tokens = await run('quiet 0', { adapter: i % 2 === 0 ? 'french' : 'base' });
    if (i % 2 === 0) expect(tokens).toEqual(alone);
    const since = started.slice(before, started.indexOf('quiet 0', before));
    expect(since.length, `those of the flood that went before number ${i}`).toBeLessThan(60);
  }
  await Promise.all(flood);
  expect(started.filter((id) => id.startsWith('flood'))).toHaveLength(FLOOD);
  expect((await engine.stats()).totals.failed).toBe(0);
});

it('higher priorities come first, of one adapter', async () => {
  started.length = 0;
  const all = Array.from({ length: 60 }, (_, i) => run(`plain ${i}`, { adapter: 'pirate' }));
  all.push(run('urgent', { adapter: 'pirate', priority: 10 }));
  await Promise.all(all);
  expect(started.indexOf('urgent')).toBeLessThan(30);
});
