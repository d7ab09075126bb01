// The dashboard's routes and feed on a fake engine: headers, who may read, one look a second for however
// many viewers, changes only, what is said while the engine is not there.
import { fileURLToPath, pathToFileURL } from 'node:url';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { LoraxError } from '../../src/errors.js';
import { createAccess, type AccessConfig } from '../../src/server/access/access.js';
import { createServer, type LoraxServer } from '../../src/server/create-server.js';
import { Lifecycle } from '../../src/server/process/lifecycle.js';
import { observeEngine } from '../../src/server/process/observed-engine.js';
import type { DashboardEvent } from '../../src/server/ui/dashboard-events.js';
import { Dashboard } from '../../src/server/ui/dashboard.js';
import { LatencyWindow } from '../../src/server/ui/latency-window.js';
import type { PageFiles } from '../../src/server/ui/page-files.js';
import { FakeEngine } from '../../src/testing/fake-engine.js';
import { readEvents } from '../../src/ui/event-stream.js';

const files = Object.fromEntries(
  Object.entries({ page: 'index.html', script: 'app.js', style: 'app.css', icon: 'icon.svg' }).map(
    ([key, name]) => [
      key,
      pathToFileURL(path.join(fileURLToPath(new URL('../../dist/ui/', import.meta.url)), name)),
    ],
  ),
) as PageFiles;
const KEYS = { admin: 'admin-key-0123456789', user: 'user-key-01234567890' };
const FILES = ['/ui/', '/ui/app.js', '/ui/app.css', '/ui/icon.svg'];
const INTERVAL_MS = 30;

function serverOf(config: AccessConfig = {}, engine = new FakeEngine({ answers: ANSWERS })) {
  const dashboard = new Dashboard(() => observed, {
    modelName: 'demo',
    intervalMs: INTERVAL_MS,
    files,
  });
  const observed = observeEngine(engine, [dashboard.observer]);
  const access = createAccess(observed, config);
  const lifecycle = new Lifecycle(observed, { maxQueued: 10, retryAfterSeconds: 1 });
  const server = createServer({
    ...{ engine: access.engine, modelName: 'demo' },
    middleware: [lifecycle.middleware, access.middleware],
  });
  if (config.ui !== 'off') dashboard.register(server.app, lifecycle);
  return { server, engine, observed, dashboard, lifecycle };
}

const ANSWERS = { base: 'plain words of the base', pirate: 'arr arr arr', team: 'x' };

const ask = (server: LoraxServer, at: string, headers: Record<string, string> = {}) =>
  Promise.resolve(server.fetch(new Request(`http://server${at}`, { headers })));

/** Reads events until it is closed. */
async function watchFeed(server: LoraxServer, headers: Record<string, string> = {}) {
  const response = await ask(server, '/ui/events', headers);
  expect(response.status).toBe(200);
  const events = readEvents(response.body as ReadableStream<Uint8Array>);
  return {
    response,
    next: async () => JSON.parse((await events.next()).value as string) as DashboardEvent,
    close: () => events.return(undefined),
  };
}

describe('the page', () => {
  const { server } = serverOf();

  test('/ui goes to what is below it, whatever a proxy puts before', async () => {
    const response = await ask(server, '/ui');
    expect([response.status, response.headers.get('location')]).toEqual([302, 'ui/']);
  });

  test.each(FILES)(
    '%s: the policy allows nothing inline and nothing from elsewhere',
    async (at) => {
      const response = await ask(server, at);
      expect(response.status).toBe(200);
      const policy = (response.headers.get('content-security-policy') ?? '').split('; ');
      expect(policy).toContain("default-src 'none'");
      for (const kind of ['script', 'style', 'connect'])
        expect(policy).toContain(`${kind}-src 'self'`);
      for (const kind of ['frame-ancestors', 'base-uri', 'form-action']) {
        expect(policy).toContain(`${kind} 'none'`);
      }
      expect(policy).toContain("require-trusted-types-for 'script'");
      expect(policy.join()).not.toMatch(/unsafe|\*|https?:|data:/);
      expect(response.headers.get('x-content-type-options')).toBe('nosniff');
      expect(response.headers.get('x-frame-options')).toBe('DENY');
      expect(response.headers.get('referrer-policy')).toBe('no-referrer');
    },
  );

  test('names nothing that is not its own', async () => {
    const page = await (await ask(server, '/ui/')).text();
    const named = [...page.matchAll(/(?:src|href)="([^"]*)"/g)].map(([, address]) => address);
    expect(named.sort()).toEqual(['#chat', 'app.css', 'app.js', 'icon.svg']);
    expect(page).not.toMatch(/<script(?! type="module" src)|<style|style=|\son\w+=/);
    const style = await (await ask(server, '/ui/app.css')).text();
    expect(style).not.toMatch(/@import|url\(/);
  });

  test('is not sent again while it is the same', async () => {
    const first = await ask(server, '/ui/app.js');
    const tag = first.headers.get('etag') ?? '';
    expect((await ask(server, '/ui/app.js', { 'if-none-match': tag })).status).toBe(304);
    expect((await ask(server, '/ui/app.js', { 'if-none-match': '"other"' })).status).toBe(200);
  });
});

describe('who may read', () => {
  const bearer = (key: string) => ({ authorization: `Bearer ${key}` });

  test('with keys the page is anybody’s, and what it shows the admin’s', async () => {
    const { server } = serverOf({ adminKey: KEYS.admin, apiKey: KEYS.user });
    for (const at of FILES) expect((await ask(server, at)).status, at).toBe(200);
    for (const [headers, status] of [
      [{}, 401],
      [bearer('nobody-key-0123456789'), 401],
      [bearer(KEYS.user), 403],
    ] as const) {
      const refused = await ask(server, '/ui/events', headers);
      expect(refused.status).toBe(status);
      expect(await refused.text()).not.toContain('pirate');
    }
    const admin = await watchFeed(server, bearer(KEYS.admin));
    expect((await admin.next()).adapters.rows.map(({ name }) => name)).toContain('pirate');
    expect(admin.response.headers.get('cache-control')).toBe('no-store');
    expect(admin.response.headers.get('content-security-policy')).toContain("default-src 'none'");
    await admin.close();
  });

  test('‘open’ opens it, ‘admin’ closes it, ‘off’ leaves nothing', async () => {
    const open = await watchFeed(serverOf({ apiKey: KEYS.user, ui: 'open' }).server);
    expect((await open.next()).state).toBe('ready');
    await open.close();
    const closed = serverOf({ ui: 'admin' }).server;
    expect((await ask(closed, '/ui/events')).status).toBe(401);
    const off = serverOf({ ui: 'off' }).server;
    for (const at of ['/ui', ...FILES, '/ui/events']) {
      expect((await ask(off, at)).status, at).toBe(404);
    }
    const offWithKeys = serverOf({ apiKey: KEYS.user, ui: 'off' }).server;
    for (const at of ['/ui/', '/ui/events']) {
      expect((await ask(offWithKeys, at)).status, at).toBe(401);
    }
  });
});

describe('the feed', () => {
  let made: ReturnType<typeof serverOf>;
  beforeEach(() => (made = serverOf()));
  afterEach(() => vi.restoreAllMocks());

  test('many viewers cost one look a second, none cost none', async () => {
    const stats = vi.spyOn(made.engine, 'stats');
    await sleep(3 * INTERVAL_MS);
    expect(stats).toHaveBeenCalledTimes(0);
    const viewers = await Promise.all(Array.from({ length: 40 }, () => watchFeed(made.server)));
    const begin = Date.now();
    for (let i = 0; i < 5; i++) await Promise.all(viewers.map((viewer) => viewer.next()));
    const looks = stats.mock.calls.length;
    expect(looks).toBeGreaterThanOrEqual(4);
    expect(looks).toBeLessThanOrEqual((Date.now() - begin) / INTERVAL_MS + 2);
    await Promise.all(viewers.map((viewer) => viewer.close()));
    await sleep(INTERVAL_MS);
    const before = stats.mock.calls.length;
    await sleep(4 * INTERVAL_MS);
    expect(stats).toHaveBeenCalledTimes(before);
  });

  test('first everything, then what has changed; who has missed one gets everything', async () => {
    const [fast, slow] = [await watchFeed(made.server), await watchFeed(made.server)];
    const first = await fast.next();
    expect(first.adapters.all).toBe(true);
    expect(first.adapters.rows.map(({ name }) => name)).toEqual(['pirate', 'team']);
    expect((await slow.next()).adapters.all).toBe(true);
    const second = await fast.next();
    expect(second.adapters).toEqual({ all: false, rows: [], gone: [] });
    expect(second.history).toBeUndefined();
    await made.engine.adapters.add('new', '/fake/new');
    await made.engine.adapters.remove('pirate');
    const events = [await fast.next(), await fast.next()];
    const changes = events.map(({ adapters }) => adapters).filter(({ rows }) => rows.length > 0);
    expect(changes).toEqual([
      { all: false, rows: [expect.objectContaining({ name: 'new' })], gone: [{ name: 'pirate' }] },
    ]);
    const late = await slow.next();
    expect(late.adapters.all).toBe(true);
    expect(late.adapters.rows.map(({ name }) => name)).toEqual(['team', 'new']);
    expect(late.history?.length).toBeGreaterThan(0);
    await Promise.all([fast.close(), slow.close()]);
  });

  test('a viewer who reads nothing holds up nobody', async () => {
    const [reads, stands] = [await watchFeed(made.server), await watchFeed(made.server)];
    const times = [];
    for (let i = 0; i < 6; i++) times.push((await reads.next()).at);
    expect(new Set(times).size).toBe(6);
    await Promise.all([reads.close(), stands.close()]);
  });

  test('who runs on what, how often, and how fast it goes', async () => {
    const slow = serverOf({}, new FakeEngine({ answers: ANSWERS, tokenMs: 40 }));
    const finished = slow.observed.generate({ prompt: 'x', adapter: 'pirate' });
    for await (const event of finished) expect(['start', 'delta', 'finish']).toContain(event.type);
    const running = slow.observed.tenant('red').generate({ prompt: 'x', adapter: 'pirate' });
    const iterator = running[Symbol.asyncIterator]();
    await iterator.next();
    const viewer = await watchFeed(slow.server);
    const { point, adapters } = await viewer.next();
    expect(point.firstTokenMs).toMatchObject({ count: 1 });
    expect(point.betweenTokensMs).toMatchObject({ count: 2 });
    expect(point.betweenTokensMs?.p50).toBeGreaterThan(30);
    expect(adapters.rows.find(({ name }) => name === 'pirate')).toMatchObject({
      ...{ running: 1, waiting: 0, requests: 2 },
    });
    await iterator.return?.();
    await expect
      .poll(async () => (await viewer.next()).adapters.rows)
      .toEqual([expect.objectContaining({ name: 'pirate', running: 0, requests: 2 })]);
    await viewer.close();
  });

  test('names that do not exist leave nothing', async () => {
    for (let i = 0; i < 20; i++) {
      const asked = made.observed.generate({ prompt: 'x', adapter: `nobody-${i}` });
      await expect(asked[Symbol.asyncIterator]().next()).rejects.toThrow('no adapter named');
    }
    const viewer = await watchFeed(made.server);
    const { adapters } = await viewer.next();
    expect(adapters.rows.some(({ name }) => name.startsWith('nobody'))).toBe(false);
    await viewer.close();
  });
});

describe('the state', () => {
  const until = async (viewer: Awaited<ReturnType<typeof watchFeed>>, state: string) => {
    for (let i = 0; i < 40; i++) {
      const event = await viewer.next();
      if (event.state === state) return event;
    }
    throw new Error(`it never was ${state}`);
  };

  test('an engine that does not load, answers nothing, is lost, comes back, drains', async () => {
    const { server, engine } = serverOf();
    const stats = vi.spyOn(engine, 'stats');
    stats.mockImplementation(() => new Promise(() => undefined));
    const viewer = await watchFeed(server);
    expect(await viewer.next()).toMatchObject({ state: 'loading', modelName: 'demo', losses: 0 });
    // It is asked once, however long that takes.
    await viewer.next();
    expect(stats).toHaveBeenCalledTimes(1);
    await viewer.close();

    const other = serverOf({}, engine);
    stats.mockRejectedValueOnce(new LoraxError('MODEL_INVALID', 'There is no model.'));
    stats.mockRestore();
    vi.spyOn(engine, 'ready').mockRejectedValueOnce(new LoraxError('MODEL_INVALID', 'No model.'));
    const second = await watchFeed(other.server);
    expect(await until(second, 'failed')).toMatchObject({ reason: 'No model.' });
    expect((await until(second, 'ready')).reason).toBeUndefined();
    other.dashboard.engineIsLost(new LoraxError('WORKER_DIED', 'It died.'));
    expect((await until(second, 'ready')).losses).toBe(1);
    void other.lifecycle.drain(200);
    expect((await until(second, 'draining')).losses).toBe(1);
    // While it drains, whoever watches may come; whoever generates may not.
    expect((await ask(other.server, '/ui/')).status).toBe(200);
    expect((await ask(other.server, '/v1/models')).status).toBe(503);
    await second.close();
  });
});

describe('quantiles of a window', () => {
  test('are within 4 % of those of the values, and forget', () => {
    let now = 1_000_000;
    const window = new LatencyWindow(30, () => now);
    expect(window.read()).toBeNull();
    for (let i = 1; i <= 1000; i++) window.record(i);
    const { count, p50, p99 } = window.read() as { count: number; p50: number; p99: number };
    expect(count).toBe(1000);
    expect(Math.abs(p50 / 500 - 1)).toBeLessThan(0.04);
    expect(Math.abs(p99 / 990 - 1)).toBeLessThan(0.04);
    now += 29_000;
    window.record(5, 3000);
    expect(window.read()?.count).toBe(4000);
    expect(Math.abs((window.read()?.p50 ?? 0) / 5 - 1)).toBeLessThan(0.04);
    now += 2_000;
    expect(window.read()?.count).toBe(3000);
    now += 60_000;
    expect(window.read()).toBeNull();
  });
});
