// Prompts that begin alike on the real engine and the demo model: what is found again, who shares with
// whom, and that no answer shows it: tokens and log-probabilities are those of the same request with
// nothing found, to the last bit.
import { createEngine } from 'lorax-js/engine';
import type { ChatMessage, Engine, EngineInfo, GenerateRequest } from 'lorax-js/engine';
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { exactDevice } from './suites/test-device.js';

const demo = fileURLToPath(new URL('../../models/demo', import.meta.url));
const names = readdirSync(`${demo}/adapters`).sort();
const directoryOf = (name: string) => `${demo}/adapters/${name}`;
const system =
  'You answer questions about orders of lamps and backpacks, in one or two sentences, and you never ' +
  'promise a refund before you have seen the order. Where a customer is angry you stay polite. ';

interface Answer {
  tokens: { tokenId: number; logprob: number }[];
  promptTokens: number;
  cachedTokens: number;
}

async function answerTo(
  engine: Pick<Engine, 'generate'>,
  request: GenerateRequest,
): Promise<Answer> {
  const answer: Answer = { tokens: [], promptTokens: -1, cachedTokens: -1 };
  for await (const event of engine.generate(request)) {
    if (event.type === 'start') {
      answer.promptTokens = event.promptTokens;
      answer.cachedTokens = event.cachedTokens;
    } else if (event.type === 'delta') {
      answer.tokens.push(...(event.logprobs ?? []));
    } else if (event.type === 'finish') {
      expect(event.usage.cachedTokens).toBe(answer.cachedTokens);
    }
  }
  return answer;
}

function question(text: string, more: Partial<GenerateRequest> = {}): GenerateRequest {
  const messages: ChatMessage[] = [
    { role: 'system', content: system },
    { role: 'user', content: text },
  ];
  const sampling = { maxOutputTokens: 12, temperature: 0, logprobs: 0, ignoreEos: true };
  return { ...({ messages, sampling } as GenerateRequest), ...more } as GenerateRequest;
}

let scopes = 0;
/** The same request, which finds nothing. */
async function uncached(engine: Engine, request: GenerateRequest): Promise<Answer> {
  const answer = await answerTo(engine, { ...request, cacheScope: `alone ${scopes++}` });
  expect(answer.cachedTokens).toBe(0);
  return answer;
}

async function withEngine(
  memoryBytes: number | undefined,
  use: (engine: Engine, info: EngineInfo) => Promise<void>,
): Promise<void> {
  const memory = memoryBytes === undefined ? {} : { memoryBytes };
  const engine = createEngine({ model: demo, ...exactDevice, ...memory });
  try {
    for (const name of names) await engine.adapters.add(name, directoryOf(name));
    await use(engine, await engine.ready());
  } finally {
    await engine.dispose();
  }
}

describe('prompts that begin alike', () => {
  let engine: Engine;
  let blockTokens: number;
  beforeAll(async () => {
    engine = createEngine({ model: demo, ...exactDevice });
    for (const name of names) await engine.adapters.add(name, directoryOf(name));
    await engine.adapters.add('again', directoryOf('pirate'));
    ({ blockTokens } = await engine.ready());
  });
  afterAll(() => engine.dispose());

  it('are not shared between tenants, nor by a scope that looks like one', async () => {
    const messages: ChatMessage[] = [{ role: 'user', content: `Do tenants share? ${system}` }];
    const request = question('', { messages });
    const [acme, globex] = [engine.tenant('acme'), engine.tenant('globex')];
    const ask = (view: Pick<Engine, 'generate'>, cacheScope?: string) =>
      answerTo(view, cacheScope === undefined ? request : { ...request, cacheScope });
    await ask(engine);
    expect((await ask(acme)).cachedTokens).toBe(0);
    expect((await ask(globex)).cachedTokens).toBe(0);
    expect((await ask(acme)).cachedTokens).toBeGreaterThan(0);
    expect((await ask(engine, 'acme')).cachedTokens).toBe(0);
    expect((await ask(globex, 'acme')).cachedTokens).toBe(0);
    expect((await ask(engine, JSON.stringify(['acme', null]))).cachedTokens).toBe(0);
  });

  it.each(['base', 'pirate', { pirate: 0.7, json: 0.3 }])(
    'share it on %j, and answer as if they did not',
    async (adapter) => {
      const before = (await engine.stats()).totals;
      const first = await answerTo(engine, question('Where is my order 4821?', { adapter }));
      expect(first.cachedTokens).toBe(0);
      const request = question('Do you sell lamps?', { adapter });
      const second = await answerTo(engine, request);
      expect(second.cachedTokens % blockTokens).toBe(0);
      expect(second.cachedTokens).toBeGreaterThanOrEqual(2 * blockTokens);
      expect(second.promptTokens - second.cachedTokens).toBeLessThan(30 + blockTokens);
      expect(second.tokens).toEqual((await uncached(engine, request)).tokens);
      const after = (await engine.stats()).totals;
      expect(after.cachedTokens - before.cachedTokens).toBe(second.cachedTokens);
      expect(after.prefixHits - before.prefixHits).toBe(1);
      expect(after.prefixMisses - before.prefixMisses).toBe(2);
    },
  );

  it('do not share across adapters, weights and scopes', async () => {
    const request = question('What do backpacks cost?');
    const all: Partial<GenerateRequest>[] = [
      ...[{}, ...names.map((adapter) => ({ adapter }))],
      ...[{ adapter: { pirate: 0.4, json: 0.6 } }, { adapter: { pirate: 0.6, json: 0.4 } }],
      ...[{ cacheScope: 'one' }, { adapter: 'pirate', cacheScope: 'one' }],
    ];
    const fresh = createEngine({ model: demo, ...exactDevice });
    try {
      for (const name of names) await fresh.adapters.add(name, directoryOf(name));
      for (const more of all) {
        const { cachedTokens } = await answerTo(fresh, { ...request, ...more } as GenerateRequest);
        expect(cachedTokens, JSON.stringify(more)).toBe(0);
      }
      for (const more of all) {
        const { cachedTokens } = await answerTo(fresh, { ...request, ...more } as GenerateRequest);
        expect(cachedTokens, JSON.stringify(more)).toBeGreaterThan(0);
      }
    } finally {
      await fresh.dispose();
    }
  });

  it('share it by content: another name of the same weights finds it', async () => {
    const request = question('Is there a lamp with two arms?');
    const { tokens } = await answerTo(engine, { ...request, adapter: 'pirate' });
    const again = await answerTo(engine, { ...request, adapter: 'again' });
    expect(again.cachedTokens).toBeGreaterThan(0);
    expect(again.tokens).toEqual(tokens);
  });

  it('never by name: new weights under a name find nothing of the old', async () => {
    const request = question('May I return a lamp?', { adapter: 'changing' });
    await engine.adapters.add('changing', directoryOf('pirate'));
    await answerTo(engine, request);
    await engine.adapters.add('changing', directoryOf('french'));
    const french = await answerTo(engine, request);
    expect(french.tokens).toEqual(
      (await answerTo(engine, { ...request, adapter: 'french' })).tokens,
    );
    expect(french.tokens).toEqual((await uncached(engine, request)).tokens);
  });

  it('a chat goes on where it was', async () => {
    const { messages } = question('Where is my order 77?') as { messages: ChatMessage[] };
    const sampling = { maxOutputTokens: 40, temperature: 0 };
    let text = '';
    for await (const event of engine.generate({ messages, sampling })) {
      if (event.type === 'delta') text += event.text;
    }
    const next: ChatMessage[] = [
      ...messages,
      { role: 'assistant', content: text },
      { role: 'user', content: 'And when will it arrive?' },
    ];
    const request: GenerateRequest = { messages: next, sampling: { ...sampling, logprobs: 0 } };
    const first = await answerTo(engine, { messages, sampling });
    const second = await answerTo(engine, request);
    expect(second.cachedTokens).toBeGreaterThanOrEqual(first.cachedTokens);
    expect(second.tokens).toEqual((await uncached(engine, request)).tokens);
  });

  it('an answer is found by whoever goes on with its tokens', async () => {
    const prompt = Array.from({ length: 3 * blockTokens + 1 }, (_, i) => 300 + i);
    const sampling = {
      maxOutputTokens: 4 * blockTokens,
      temperature: 0,
      ignoreEos: true,
      logprobs: 0,
    };
    const { tokens } = await answerTo(engine, { promptTokens: prompt, sampling });
    const whole = [...prompt, ...tokens.map(({ tokenId }) => tokenId)];
    const request: GenerateRequest = { promptTokens: [...whole, 400], sampling };
    const next = await answerTo(engine, request);
    expect(next.cachedTokens).toBeGreaterThanOrEqual(6 * blockTokens);
    expect(next.tokens).toEqual((await uncached(engine, request)).tokens);
  });

  it('a scope has to be a string', async () => {
    const request = { ...question('?'), cacheScope: 7 } as unknown as GenerateRequest;
    await expect(answerTo(engine, request)).rejects.toMatchObject({
      code: 'INVALID_OPTIONS',
      data: { field: 'request.cacheScope' },
    });
  });
});

describe('in a pool that is too small', () => {
  // Each on one of the adapters, with one of the two system prompts.
  const requests = Array.from({ length: 48 }, (_, i) => {
    const adapter = i % 4 === 0 ? 'base' : (names[i % names.length] as string);
    const request = question(`Where is my order ${i}?`, { adapter }) as GenerateRequest & {
      messages: ChatMessage[];
    };
    if (i % 3 === 0) request.messages[0] = { role: 'system', content: `Be brief. ${system}` };
    const sampling = { maxOutputTokens: 10 + ((i * 7) % 60), ignoreEos: true, logprobs: 0 };
    return { ...request, sampling: { ...sampling, temperature: i % 2, seed: i } };
  });

  it('everything gives way to everything, and no answer shows it', async () => {
    const expected: Answer[] = [];
    let [pageBytes, adapterPages] = [0, 0];
    await withEngine(undefined, async (engine, info) => {
      for (const request of requests) expected.push(await uncached(engine, request));
      pageBytes = info.pageBytes;
      const { pages } = await engine.stats();
      adapterPages = pages.adapter;
    });
    // About half of the adapters, and what some requests need.
    const numPages = Math.ceil(adapterPages / 2) + 40;
    await withEngine(numPages * pageBytes, async (engine) => {
      for (let round = 0; round < 2; round++) {
        const answers = await Promise.all(requests.map((request) => answerTo(engine, request)));
        for (const [i, answer] of answers.entries()) {
          expect(answer.tokens, `request ${i}`).toEqual(expected[i]!.tokens);
        }
      }
      const { pages, totals } = await engine.stats();
      expect(pages.kv).toBe(0);
      expect(pages.free + pages.cold + pages.adapter + pages.retiring).toBe(pages.total);
      expect(totals.prefixHits).toBeGreaterThan(10);
      expect(totals.prefixEvictions).toBeGreaterThan(0);
      expect(totals.adapterEvictions).toBeGreaterThan(0);
      expect(totals.adapterHits).toBeGreaterThan(0);
    });
  });

  // Prompts that have nothing in common, and answers that outgrow the pool.
  it('preempted requests come back to their own blocks, and answer as alone', async () => {
    const outgrowing: GenerateRequest[] = Array.from({ length: 12 }, (_, i) => ({
      promptTokens: Array.from({ length: 20 }, (_, j) => 300 + 20 * i + j),
      sampling: { maxOutputTokens: 150, temperature: 0, ignoreEos: true, logprobs: 0 },
      ...(i % 2 === 0 ? {} : { cacheScope: 'odd' }),
    }));
    const expected: Answer[] = [];
    let pageBytes = 0;
    await withEngine(undefined, async (engine, info) => {
      for (const request of outgrowing) expected.push(await uncached(engine, request));
      ({ pageBytes } = info);
    });
    await withEngine(40 * pageBytes, async (engine) => {
      const answers = await Promise.all(outgrowing.map((request) => answerTo(engine, request)));
      for (const [i, answer] of answers.entries()) {
        expect(answer.tokens, `request ${i}`).toEqual(expected[i]!.tokens);
        expect(answer.cachedTokens, 'it had nothing when it started').toBe(0);
      }
      const { totals } = await engine.stats();
      expect(totals.preemptions).toBeGreaterThan(0);
      expect(totals.prefixEvictions).toBeGreaterThan(0);
    });
  });
});
