// /metrics as routers read it, beside the engine's own truth, while requests run.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startServer, type RunningServer } from 'lorax-js/server';
import { demo, randomNumbers, writeAdapter } from '../suites/random-adapter.mjs';
import { testDevice } from '../suites/test-device.js';
import { parseMetrics, readEndpoint, scores, type Endpoint } from './model-server-protocol.js';
import { longRequest, readStream } from './serve-process.js';

const open: RunningServer[] = [];
afterAll(() => Promise.all(open.splice(0).map((server) => server.close(0))));

async function start(settings: object): Promise<RunningServer> {
  const { device, memoryBytes } = testDevice;
  const memory = memoryBytes === undefined ? {} : { memory: memoryBytes };
  const server = await startServer({
    ...{ model: demo, device, ...memory, port: 0, logLevel: 'silent', ...settings },
  } as Parameters<typeof startServer>[0]);
  open.push(server);
  await server.loaded;
  return server;
}

const scrape = async ({ url }: RunningServer) => (await fetch(`${url}/metrics`)).text();
const ask = ({ url }: RunningServer, body: object) =>
  fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });

/** What a page and these adapters take here: other devices pack them otherwise. */
async function measure(adapterFolder: string, names: string[]) {
  const server = await start({ adapterFolder });
  for (const model of names) {
    const answer = await ask(server, { model, prompt: 'Hello', max_tokens: 1 });
    expect(answer.status).toBe(200);
    await answer.arrayBuffer();
  }
  const { pageBytes, blockTokens } = await server.engine.ready();
  const { pages } = await server.engine.stats();
  await server.close(0);
  return { pageBytes, blockTokens, adapterPages: pages.adapter };
}

describe('beside engine.stats()', () => {
  const PROMPT_TOKENS = 842;
  let server: RunningServer;
  beforeAll(async () => {
    const adapterFolder = path.join(demo, 'adapters');
    const each = await measure(adapterFolder, ['pirate', 'french', 'json']);
    // Too few pages for the eight long prompts below: some of them wait.
    const numPages = each.adapterPages + 3 * Math.ceil(PROMPT_TOKENS / each.blockTokens) + 4;
    server = await start({ memory: numPages * each.pageBytes, adapterFolder });
  });

  it('nothing has happened: nothing is claimed', async () => {
    const endpoint = readEndpoint(await scrape(server));
    const { numPages, blockTokens } = await server.engine.ready();
    expect(endpoint).toMatchObject({
      ...{ waitingQueueSize: 0, runningRequests: 0, kvCacheUsage: 0 },
      ...{ blockSize: blockTokens, numBlocks: numPages },
      ...{ activeModels: new Set(), waitingModels: new Set() },
    });
    expect(endpoint.maxActiveModels).toBeGreaterThan(0);
  });

  it('requests, pages, adapters and counters are what the engine counts, under load', async () => {
    const models = ['demo', 'pirate', 'french', 'json'];
    const COUNT = 8;
    // Where a device is fast, the first requests would be over before the first adapter was read.
    for (const model of models) {
      expect((await ask(server, { model, prompt: 'Hello', max_tokens: 1 })).status).toBe(200);
    }
    const abort = new AbortController();
    const streams = Array.from({ length: COUNT }, (_, i) =>
      readStream(
        fetch(`${server.url}/v1/completions`, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({
            ...longRequest(2000, models[i % 4]),
            // Of their own: what they shared would be there once.
            prompt: `${i} ${'Where is my order? '.repeat(120)}`,
          }),
          signal: abort.signal,
        }),
      ),
    );
    // The first admissions and loads are over; nothing of this ends by itself.
    await expect
      .poll(
        async () => {
          const { requests, pages } = await server.engine.stats();
          const { running, waiting } = requests;
          // None of them waits outside for its adapter's files any more.
          const isLoaded = running + waiting === COUNT && pages.adapter > 0;
          return isLoaded && running > 1 && waiting > 0;
        },
        { timeout: 20_000 },
      )
      .toBe(true);
    const namesOf = async () =>
      (await server.engine.adapters.list())
        .filter(({ state }) => state === 'resident')
        .map(({ name }) => name)
        .sort();
    let numSteady = 0;
    for (let round = 0; round < 300 && numSteady < 4; round++) {
      const namesBefore = await namesOf();
      const before = await server.engine.stats();
      const text = await scrape(server);
      const after = await server.engine.stats();
      const resident = await namesOf();
      const endpoint = readEndpoint(text);
      const value = (name: string, labels: Record<string, string> = {}) => {
        const found = parseMetrics(text)
          .get(name)
          ?.series.filter((each) =>
            Object.entries(labels).every(([key, wanted]) => each.labels[key] === wanted),
          );
        expect(found, name).toHaveLength(1);
        return found?.[0]?.value as number;
      };
      const { requests, pages } = before;
      // What is counted since the start only grows.
      for (const [name, key] of [
        ['vllm:generation_tokens_total', 'outputTokens'],
        ['vllm:prompt_tokens_total', 'promptTokens'],
        ['vllm:num_preemptions_total', 'preemptions'],
        ['lorax:adapter_loads_total', 'adapterLoads'],
        ['lorax:engine_steps_total', 'steps'],
      ] as const) {
        expect(value(name)).toBeGreaterThanOrEqual(before.totals[key]);
        expect(value(name)).toBeLessThanOrEqual(after.totals[key]);
      }
      const kinds = ['free', 'kv', 'cold', 'adapter', 'retiring'];
      const all = kinds.map((kind) => value('lorax:pages', { kind }));
      expect(all.reduce((sum, each) => sum + each)).toBe(pages.total);
      // What goes up and down can be compared where it stood still meanwhile.
      const stateOf = (stats: typeof before, names: string[]) =>
        JSON.stringify([stats.pages, stats.requests, names]);
      if (stateOf(before, namesBefore) !== stateOf(after, resident)) continue;
      numSteady++;
      expect(endpoint.runningRequests).toBe(requests.running);
      expect(endpoint.waitingQueueSize).toBe(requests.waiting);
      expect(value('lorax:pages', { kind: 'kv' })).toBe(pages.kv);
      expect(value('lorax:pages', { kind: 'adapter' })).toBe(pages.adapter);
      // What adapters hold is not KV's to have, as far as it is in use.
      expect(endpoint.kvCacheUsage).toBeGreaterThanOrEqual(pages.kv / pages.total);
      expect(endpoint.kvCacheUsage).toBeLessThanOrEqual(pages.kv / (pages.total - pages.adapter));
      expect([...endpoint.activeModels].sort()).toEqual(resident);
      for (const name of resident) {
        const labels = { adapter_name: name, level: 'gpu', pinned: 'false' };
        expect(value('vllm:lora_adapter_loaded', labels)).toBe(1);
      }
      expect(value('lorax:adapters', { state: 'resident' })).toBe(resident.length);
      expect(value('vllm:num_gpu_loaded_lora_adapters')).toBe(resident.length);
      for (const name of endpoint.waitingModels) expect(resident).not.toContain(name);
    }
    expect(numSteady).toBeGreaterThan(2);
    abort.abort();
    await Promise.all(streams);
    await expect
      .poll(async () => (await server.engine.stats()).requests)
      .toEqual({ running: 0, waiting: 0 });
  });

  it('histograms count each request and each token once', async () => {
    const usage = { prompt: 0, output: 0 };
    const countOf = (text: string, name: string, suffix = 'count') =>
      parseMetrics(text)
        .get(name)
        ?.series.find((each) => each.name === `${name}_${suffix}`)?.value ?? 0;
    const before = await scrape(server);
    for (const model of ['demo', 'pirate', 'demo']) {
      const answer = await ask(server, { ...longRequest(7, model), stream: false });
      const { usage: used } = (await answer.json()) as {
        usage: { prompt_tokens: number; completion_tokens: number };
      };
      usage.prompt += used.prompt_tokens;
      usage.output += used.completion_tokens;
    }
    const text = await scrape(server);
    const added = (name: string, suffix?: string) =>
      countOf(text, name, suffix) - countOf(before, name, suffix);
    expect(added('vllm:time_to_first_token_seconds')).toBe(3);
    expect(added('vllm:request_queue_time_seconds')).toBe(3);
    expect(added('vllm:e2e_request_latency_seconds')).toBe(3);
    expect(added('vllm:inter_token_latency_seconds')).toBe(usage.output - 3);
    expect(added('vllm:request_prompt_tokens', 'sum')).toBe(usage.prompt);
    expect(added('vllm:request_generation_tokens', 'sum')).toBe(usage.output);
    const loads = parseMetrics(text).get('lorax:adapter_load_seconds')?.series;
    const numLoads = loads?.find(({ name }) => name === 'lorax:adapter_load_seconds_count');
    expect(numLoads?.labels.from).toBe('disk');
    expect(numLoads?.value).toBe(3);
  });
});

describe('two replicas behind a router', () => {
  const ADAPTERS = 200;
  const [WARM_UP, MEASURED, CONCURRENCY] = [200, 400, 12];
  const folder = mkdtempSync(path.join(tmpdir(), 'lorax-router-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  beforeAll(() => {
    for (let i = 0; i < ADAPTERS; i++) {
      writeAdapter(path.join(folder, `a${i}`), { rank: 4, seed: 2 * i });
    }
  });

  /** Popularity falls as 1/rank. */
  function zipf(random: () => number): () => string {
    const weights = Array.from({ length: ADAPTERS }, (_, i) => 1 / (i + 1));
    const sum = weights.reduce((a, b) => a + b);
    return () => {
      let left = random() * sum;
      const index = weights.findIndex((weight) => (left -= weight) <= 0);
      return `a${index < 0 ? ADAPTERS - 1 : index}`;
    };
  }

  type Route = (endpoints: Endpoint[], adapter: string, random: () => number) => number;

  /** The share of requests whose adapter was in the pool of the replica that they came to. */
  async function hitRate(route: Route): Promise<number> {
    // Each can hold all of them.
    const { pageBytes, adapterPages } = await measure(folder, ['a0']);
    const memory = (2 * ADAPTERS * adapterPages + 20) * pageBytes;
    const replicas = [
      await start({ memory, adapterFolder: folder }),
      await start({ memory, adapterFolder: folder }),
    ];
    const random = randomNumbers(7);
    const next = zipf(random);
    const totals = async () => {
      const all = await Promise.all(replicas.map(({ engine }) => engine.stats()));
      const sum = (key: 'adapterHits' | 'adapterLoads') =>
        all.reduce((count, stats) => count + stats.totals[key], 0);
      return { hits: sum('adapterHits'), loads: sum('adapterLoads') };
    };
    let endpoints: Endpoint[] = [];
    const look = async () => {
      endpoints = (await Promise.all(replicas.map(scrape))).map(readEndpoint);
    };
    const run = async (count: number, next: () => string) => {
      let left = count;
      const client = async () => {
        while (left-- > 0) {
          // As often as the endpoint picker does, for this many requests.
          if (left % 12 === 0) await look();
          const adapter = next();
          const replica = replicas[route(endpoints, adapter, random)] as RunningServer;
          const body = { model: adapter, prompt: 'Hello', max_tokens: 1, ignore_eos: true };
          const answer = await ask(replica, body);
          expect(answer.status).toBe(200);
          await answer.arrayBuffer();
        }
      };
      await look();
      await Promise.all(Array.from({ length: CONCURRENCY }, client));
    };
    // Each is new to its replica once, which is no router's fault.
    let first = 0;
    await run(ADAPTERS, () => `a${first++}`);
    await run(WARM_UP, next);
    const before = await totals();
    await run(MEASURED, next);
    const after = await totals();
    await Promise.all(replicas.map((replica) => replica.close(0)));
    const [hits, loads] = [after.hits - before.hits, after.loads - before.loads];
    return hits / (hits + loads);
  }

  it('by its metrics, 0.9 of the requests find their adapter; by chance fewer do', async () => {
    const byScore: Route = (endpoints, adapter, random) => {
      const all = scores(endpoints, adapter);
      const best = Math.max(...all);
      const candidates = all.flatMap((score, i) => (best - score < 1e-9 ? [i] : []));
      return candidates[Math.floor(random() * candidates.length)] as number;
    };
    const affine = await hitRate(byScore);
    const chance = await hitRate((endpoints, _, random) => Math.floor(random() * endpoints.length));
    console.log(`hit rate: ${affine.toFixed(3)} by score, ${chance.toFixed(3)} by chance`);
    expect(affine).toBeGreaterThanOrEqual(0.9);
    expect(affine).toBeGreaterThan(chance + 0.02);
  }, 120_000);
});

it('a scrape before the model is there says so', async () => {
  const server = await startServer({
    ...{ model: path.join(demo, 'nothing-here'), port: 0, logLevel: 'silent' },
  });
  open.push(server);
  await expect(server.loaded).rejects.toMatchObject({ code: 'MODEL_INVALID' });
  expect(await scrape(server)).toMatch(/^lorax:engine_up 0$/m);
  const ready = await fetch(`${server.url}/ready`);
  expect([ready.status, await ready.json()]).toEqual([
    ...[503, { ready: false, reason: 'MODEL_INVALID' }],
  ]);
});
