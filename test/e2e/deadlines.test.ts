// Deadlines and weights on the real engine and the demo model.
import { createEngine } from 'lorax-js/engine';
import type { Engine, EngineView, FinishEvent, GenerateRequest } from 'lorax-js/engine';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { exactDevice } from './suites/test-device.js';

const demo = fileURLToPath(new URL('../../models/demo', import.meta.url));

let engine: Engine;
beforeAll(async () => {
  // A pool for a few of them: the others wait.
  const probe = createEngine({ model: demo, ...exactDevice });
  const { pageBytes } = await probe.ready();
  await probe.dispose();
  engine = createEngine({
    model: demo,
    ...exactDevice,
    memoryBytes: 40 * pageBytes,
    maxQueued: 60,
  });
  await engine.ready();
});
afterAll(() => engine.dispose());

async function run(
  more: Partial<GenerateRequest>,
  maxOutputTokens = 40,
  view: EngineView<unknown> = engine,
) {
  const tokens: number[] = [];
  let finish: FinishEvent | undefined;
  const sampling = { maxOutputTokens, temperature: 0, ignoreEos: true };
  const request = { prompt: 'Where is my order?', sampling, ...more } as GenerateRequest;
  for await (const event of view.generate(request)) {
    if (event.type === 'delta') tokens.push(...event.tokenIds);
    if (event.type === 'finish') finish = event;
  }
  return { tokens, finish: finish! };
}

interface Refusal {
  code: string;
  data: { retryAfterMs?: number; deadlineMs?: number; estimatedMs?: number };
}
const refusalOf = (promise: Promise<unknown>) =>
  promise.then(
    () => undefined,
    (error: Refusal) => error,
  );

it('an answer that is under way ends at its deadline, with what there is', async () => {
  const whole = await run({}, 480);
  const cut = await run({ deadline: 30 }, 480);
  expect(cut.finish).toMatchObject({ reason: 'length', rawReason: 'deadline' });
  expect(cut.tokens.length).toBeGreaterThan(0);
  expect(cut.tokens.length).toBeLessThan(480);
  expect(cut.tokens).toEqual(whole.tokens.slice(0, cut.tokens.length));
  expect(cut.finish.usage.outputTokens).toBe(cut.tokens.length);
  const { finish } = await run({ deadline: new Date(Date.now() + 600_000) });
  expect(finish.rawReason).toBe('max-output-tokens');
});

it('one that must be whole fails instead', async () => {
  const constraint = { type: 'regex', pattern: '[a-z]{400}' } as const;
  const refusal = await refusalOf(run({ deadline: 30, constraint }, 480));
  expect(refusal?.code).toBe('DEADLINE_EXCEEDED');
});

it('who cannot be in time is told at once and when to try again; the others are served', async () => {
  const flood = Array.from({ length: 50 }, (_, i) => run({ prompt: `Flood ${i}` }, 60));
  // Some of the flood has been admitted since others waited: the pace is known.
  await Promise.all(flood.slice(0, 15));
  const before = performance.now();
  const refusal = await refusalOf(run({ deadline: 40 }));
  const waited = performance.now() - before;
  const full = await Promise.all(
    Array.from({ length: 80 }, (_, i) => refusalOf(run({ prompt: `More ${i}` }, 4))),
  );
  const answers = await Promise.all(flood);
  expect(refusal).toMatchObject({ code: 'DEADLINE_EXCEEDED' });
  expect(refusal!.data.retryAfterMs ?? waited).toBeGreaterThan(0);
  const refused = full.filter((error) => error !== undefined);
  expect(refused.length).toBeGreaterThan(10);
  for (const { code, data } of refused) {
    expect(code).toBe('QUEUE_FULL');
    expect(data.retryAfterMs).toBeGreaterThan(0);
  }
  for (const { tokens } of answers) expect(tokens).toHaveLength(60);
});

it('embeddings have deadlines, too', async () => {
  const input = Array.from({ length: 400 }, (_, i) => `A text that is not so short, number ${i}`);
  const refusal = await refusalOf(engine.embed({ input, deadline: 20 }));
  expect(refusal?.code).toBe('DEADLINE_EXCEEDED');
  expect((await engine.embed({ input: ['x'], deadline: 60_000 })).embeddings).toHaveLength(1);
  await expect
    .poll(async () => (await engine.stats()).requests)
    .toEqual({ running: 0, waiting: 0 });
});

it('weights of tenants share what is served', async () => {
  const ended: string[] = [];
  const ask = async (id: string, weight: number, i: number) => {
    const view = engine.tenant(id, { weight });
    await run({ prompt: `Question ${i} of ${id}` }, 30, view);
    ended.push(id);
  };
  const all = Array.from({ length: 28 }, (_, i) => [ask('heavy', 4, i), ask('light', 1, i)]);
  await Promise.all(all.flat());
  // Turns are of several at a time, so the one ahead changes; but the heavy ones come first by far: of 56 ends
  // theirs are at 21 on the mean, those of the light at 35, and at 28 both if weights made no difference.
  const meanPlace = (id: string) =>
    ended.reduce((sum, each, place) => sum + (each === id ? place : 0), 0) / 28;
  expect(ended.length).toBe(56);
  expect(meanPlace('light') - meanPlace('heavy')).toBeGreaterThan(5);
});
