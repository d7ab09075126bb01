/**
 * The dashboard of a server that works: beside the engine's own truth, with keys, behind a proxy's path,
 * and with everything that may be in a name. Run by scripts/test-browsers.mjs, which looks for Chromium.
 */
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { startServer, type RunningServer } from 'lorax-js/server';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { DashboardEvent } from '../../src/server/ui/dashboard-events.js';
import { demo } from '../e2e/suites/random-adapter.mjs';
import { childrenOf, startServe } from '../e2e/ops/serve-process.js';
import { launchChromium } from '../next/chat-page.js';
import { writeSlowModel } from '../next/slow-demo-model.js';
import { DashboardPage } from './dashboard-page.js';

const executable = process.env.LORAX_TEST_CHROMIUM;
const QUESTION = 'Where is my order 4821?';
const PIRATE =
  "Arr, yer order 4821 be sailin' to ye and drops anchor on Tuesday! Watch the horizon, matey.";
const BASE = /^Your order 4821 is on its way and arrives on Tuesday\./;
/** As a script's own page would have it. */
const HOSTILE = '<img src=x onerror="document.title=\'taken\'">';
const KEYS = { admin: 'admin-key-0123456789', user: 'user-key-01234567890' };
/** An answer takes seconds, however long a browser is put aside in the middle of it. */
const SLOW_LAYERS = 200;
const CHARTS = ['tokens', 'first', 'between', 'pool', 'rows', 'adapters', 'step'];

const work = mkdtempSync(path.join(tmpdir(), 'lorax-dashboard-'));
const open: RunningServer[] = [];
let browser: Browser;

async function start(settings: object): Promise<RunningServer> {
  const server = await startServer({
    ...{
      model: demo,
      device: 'cpu',
      port: 0,
      logLevel: 'silent',
      memory: 700 * 65536,
      ...settings,
    },
  } as Parameters<typeof startServer>[0]);
  open.push(server);
  await server.loaded;
  return server;
}

/** The demo's adapters, and one whose configuration is not fit to be shown as HTML. */
function writeAdapters(): string {
  const folder = path.join(work, 'adapters');
  cpSync(path.join(demo, 'adapters'), folder, { recursive: true });
  cpSync(path.join(folder, 'pirate'), path.join(folder, 'hostile'), { recursive: true });
  const config = { peft_type: HOSTILE, r: 8, target_modules: [HOSTILE] };
  writeFileSync(path.join(folder, 'hostile/adapter_config.json'), JSON.stringify(config));
  return folder;
}

const complete = (url: string, model: string, tokens: number, signal?: AbortSignal) =>
  fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      ...{ model, max_tokens: tokens, ignore_eos: true },
      prompt: `${Math.random()} ${'Where is my order? '.repeat(20)}`,
    }),
    ...(signal === undefined ? {} : { signal }),
  }).then((response) => response.text());

describe.skipIf(!executable)('in Chromium', { timeout: 60_000 }, () => {
  beforeAll(async () => {
    browser = await launchChromium(executable as string);
  }, 30_000);
  afterAll(async () => {
    await browser?.close();
    await Promise.all(open.splice(0).map((server) => server.close(0)));
    rmSync(work, { recursive: true, force: true });
  });

  describe('a server under load', () => {
    let server: RunningServer;
    let dashboard: DashboardPage;
    const load = new AbortController();
    const clients: Promise<void>[] = [];

    beforeAll(async () => {
      server = await start({ adapterFolder: writeAdapters() });
      await complete(server.url, 'hostile', 1);
      // What it leaves in the pool is a cold prefix.
      await complete(server.url, 'demo', 1);
      // Each runs nearly always.
      for (const model of ['demo', 'pirate', 'french']) {
        const client = async () => {
          while (!load.signal.aborted) {
            await complete(server.url, model, 3000, load.signal).catch(() => undefined);
          }
        };
        clients.push(client());
      }
      dashboard = await DashboardPage.open(browser, `${server.url}/ui`);
    }, 60_000);
    afterAll(async () => {
      load.abort();
      await Promise.all(clients);
      await dashboard?.page.close();
    });

    test('says what it is and that it is ready', async () => {
      await dashboard.is('ready');
      const { deviceDescription } = await server.engine.ready();
      expect(await dashboard.page.locator('#device').textContent()).toContain(deviceDescription);
      expect(await dashboard.page.title()).toBe('demo · lorax-js');
    });

    test('the map’s cells add up to the pool, whatever runs', async () => {
      const { pages } = await server.engine.stats();
      const kinds = new Set<string>();
      for (let i = 0; i < 6; i++) {
        const shown = await dashboard.pagesOnMap();
        expect(Object.values(shown).reduce((sum, each) => sum + each)).toBe(pages.total);
        for (const kind of Object.keys(shown)) kinds.add(kind);
        await dashboard.page.waitForTimeout(250);
      }
      expect([...kinds]).toEqual(expect.arrayContaining(['kv', 'cold', 'used']));
      const title = await dashboard.page.locator('#pool-map > [data-kind=used]').first();
      expect(await title.getAttribute('title')).toMatch(
        /^1 page, adapters in use: (french|pirate) 1$/,
      );
    });

    test('tiers and rows are what the engine and /v1/models say', async () => {
      const list = await server.engine.adapters.list();
      const { data } = (await (await fetch(`${server.url}/v1/models`)).json()) as {
        data: { id: string; parent: string | null }[];
      };
      const count = (state: string) => String(list.filter((each) => each.state === state).length);
      await expect
        .poll(() => dashboard.tiers())
        .toMatchObject({ all: String(list.length), failed: '1', resident: count('resident') });
      expect((await dashboard.names()).sort()).toEqual(
        data
          .filter(({ parent }) => parent !== null)
          .map(({ id }) => id)
          .sort(),
      );
      const pirate = dashboard.page.locator('tr[data-name=pirate] td');
      expect(await pirate.nth(1).textContent()).toBe(
        list.find(({ name }) => name === 'pirate')?.hash?.slice(0, 8),
      );
      await expect.poll(() => pirate.nth(3).textContent()).toBe('1');
    });

    test('a filter leaves what fits it', async () => {
      await dashboard.page.getByLabel('Filter adapters').fill('RAT');
      await expect.poll(() => dashboard.names()).toEqual(['pirate']);
      await dashboard.page.getByLabel('Filter adapters').fill('');
      await dashboard.page.getByRole('button', { name: /^failed/ }).click();
      await expect.poll(() => dashboard.names()).toEqual(['hostile']);
    });

    test('one that failed says why, and its words stay words', async () => {
      await dashboard.page.getByRole('button', { name: 'hostile', exact: true }).click();
      const detail = dashboard.page.locator('#adapter-detail');
      expect(await detail.textContent()).toContain('<img src=x onerror=');
      await dashboard.page.getByRole('button', { name: /^all/ }).click();
      expect(await dashboard.page.locator('img').count()).toBe(0);
      expect(await dashboard.page.title()).toBe('demo · lorax-js');
    });

    test('every chart gets points, of time and of steps', async () => {
      for (const chart of CHARTS) {
        await expect.poll(() => dashboard.pointsOf(chart)).toBeGreaterThan(3);
      }
      await dashboard.page.getByRole('button', { name: 'newest steps' }).click();
      for (const chart of ['rows', 'adapters', 'step']) {
        await expect.poll(() => dashboard.pointsOf(chart)).toBeGreaterThan(100);
      }
    });

    test('the chat gets an answer of an adapter, and says how fast it came', async () => {
      await dashboard.ask(QUESTION, { model: 'pirate' });
      const { text, facts } = await dashboard.answer();
      expect(text).toBe(PIRATE);
      expect(facts).toMatch(/^pirate · 27 tokens · first after [\d.]+ m?s · [\d.,k]+ tokens\/s$/);
    });

    test('two answer side by side', async () => {
      await dashboard.page.getByLabel('compare two').check();
      await dashboard.page.getByRole('button', { name: 'Clear' }).click();
      await dashboard.page.getByRole('combobox', { name: 'Second model' }).fill('pirate');
      await dashboard.ask(QUESTION);
      await dashboard.page.locator('article[aria-busy=false]').nth(1).waitFor();
      const answers = await dashboard.page.locator('.answer').allTextContents();
      expect(answers).toEqual([expect.stringMatching(BASE), PIRATE]);
      await dashboard.page.getByLabel('compare two').uncheck();
    });

    test('nothing was wrong, and nothing was asked of anybody else', () => {
      expect(dashboard.errors).toEqual([]);
      expect(dashboard.requests.length).toBeGreaterThan(5);
      expect(dashboard.requests.filter((each) => !each.startsWith(`${server.url}/`))).toEqual([]);
    });

    test('what cannot be answered is said in words', async () => {
      await dashboard.ask(QUESTION, { model: HOSTILE });
      expect((await dashboard.answer()).text).toContain('<img');
      expect(await dashboard.page.locator('img').count()).toBe(0);
    });

    test('behind a proxy’s path everything is found', async () => {
      const { port } = new URL(server.url);
      const proxy = http.createServer((request, response) => {
        const at = (request.url ?? '').replace(/^\/behind\/a/, '');
        const { method, headers } = request;
        const through = http.request({ port, path: at, method, headers }, (answer) => {
          response.writeHead(answer.statusCode ?? 502, answer.headers);
          answer.pipe(response);
        });
        through.on('error', () => response.destroy());
        response.on('close', () => through.destroy());
        request.pipe(through);
      });
      await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
      const origin = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
      const behind = await DashboardPage.open(browser, `${origin}/behind/a/ui`);
      await behind.is('ready');
      await behind.ask(QUESTION, { model: 'pirate' });
      expect((await behind.answer()).text).toBe(PIRATE);
      expect(behind.errors).toEqual([]);
      const outside = behind.requests.filter((each) => !each.startsWith(`${origin}/behind/a/`));
      expect(outside).toEqual([]);
      await behind.page.close();
      proxy.closeAllConnections();
      proxy.close();
    });
  });

  describe('a server with keys, its engine in a process of its own', () => {
    let server: RunningServer;
    let dashboard: DashboardPage;
    beforeAll(async () => {
      const model = path.join(work, 'slow');
      mkdirSync(model, { recursive: true });
      writeSlowModel(demo, model, SLOW_LAYERS);
      server = await start({
        ...{ model, modelName: 'slow', isolate: true, adminKey: KEYS.admin },
        adapterFolder: path.join(model, 'adapters'),
        tenants: [{ id: 'red', keys: [KEYS.user] }],
      });
      dashboard = await DashboardPage.open(browser, `${server.url}/ui/`, {
        viewport: { width: 390, height: 844 },
      });
    }, 60_000);
    afterAll(() => dashboard?.page.close());

    test('shows nothing before it has the admin’s key', async () => {
      await dashboard.page.getByRole('dialog', { name: 'Keys' }).waitFor();
      expect(await dashboard.names()).toEqual([]);
      expect(await dashboard.page.locator('body').textContent()).not.toContain('pirate');
      await dashboard.page.getByLabel('Admin key, to see what runs').fill('nobody-key-0123456789');
      await dashboard.page.getByRole('button', { name: 'Use' }).click();
      await expect
        .poll(() => dashboard.page.locator('#keys-why').textContent())
        .toBe('This key is not known here.');
      await dashboard.page.getByLabel('Admin key, to see what runs').fill(KEYS.admin);
      await dashboard.page.getByRole('button', { name: 'Use' }).click();
      await dashboard.is('ready');
      await expect.poll(() => dashboard.names()).toContain('pirate');
    });

    test('the chat asks for its own, and the stop button stops the engine', async () => {
      await dashboard.ask(QUESTION);
      expect((await dashboard.answer()).text).toMatch(/^A key is needed/);
      await dashboard.page.getByRole('button', { name: 'Enter a key' }).click();
      await dashboard.page.getByLabel('API key, to chat').fill(KEYS.user);
      await dashboard.page.keyboard.press('Enter');
      await dashboard.ask(QUESTION, { model: 'pirate' });
      await dashboard.page.locator('.answer').last().filter({ hasText: 'Arr' }).waitFor();
      expect((await server.engine.stats()).requests.running).toBe(1);
      await dashboard.page.getByRole('button', { name: 'Stop' }).click();
      const { text, facts } = await dashboard.answer();
      expect(facts).toMatch(/^pirate · \d+ tokens · .*stopped$/);
      expect(text.length).toBeLessThan(PIRATE.length);
      await expect
        .poll(async () => (await server.engine.stats()).totals)
        .toMatchObject({ aborted: 1, finished: 0 });
    });

    test('keys are in no address, and go when they are forgotten', async () => {
      const secret = (text: string) => text.includes(KEYS.admin) || text.includes(KEYS.user);
      expect(dashboard.requests.filter(secret)).toEqual([]);
      await dashboard.page.getByRole('button', { name: 'Keys' }).click();
      await dashboard.page.getByRole('button', { name: 'Forget both' }).click();
      await dashboard.is('down');
      // Refusals alone, which the browser counts as errors.
      expect(dashboard.errors.filter((each) => !/status of 40[13]/.test(each))).toEqual([]);
    });
  });

  test('an engine that is killed is seen to be gone and back, and its answer says why it ended', async () => {
    const slow = path.join(work, 'slow-killed');
    writeSlowModel(demo, slow, SLOW_LAYERS);
    const adapters = ['--adapter-folder', path.join(slow, 'adapters')];
    const server = await startServe(['--isolate', ...adapters], { model: slow });
    const dashboard = await DashboardPage.open(browser, `${server.url}/ui`);
    await dashboard.is('ready');
    await dashboard.ask(QUESTION, { model: 'pirate' });
    await dashboard.page.locator('.answer').last().filter({ hasText: 'Arr' }).waitFor();
    const [engine] = childrenOf(server) as [number];
    process.kill(engine, 'SIGKILL');
    // What was said until then stays, with the reason below it.
    expect((await dashboard.answer()).text).toMatch(/engine/);
    expect(await dashboard.page.locator('.answer').last().textContent()).toContain('Arr');
    await dashboard.page.locator('#uptime').filter({ hasText: 'engine lost once' }).waitFor();
    await dashboard.is('ready');
    await dashboard.ask(QUESTION, { model: 'pirate' });
    expect((await dashboard.answer()).facts).toMatch(/^pirate · \d+ tokens/);
    await dashboard.page.close();
  });

  test('2,000 adapters with names of all kinds: drawn as text, and only those in sight', async () => {
    const server = open[0] as RunningServer;
    const event: DashboardEvent = hostileEvent();
    const before = async (page: Page) => {
      await page.route('**/ui/events', (route) =>
        route.fulfill({
          contentType: 'text/event-stream',
          body: `data: ${JSON.stringify(event)}\n\n`,
        }),
      );
    };
    const dashboard = await DashboardPage.open(browser, `${server.url}/ui/`, { before });
    await expect.poll(async () => (await dashboard.tiers()).all).toBe('2,000');
    expect((await dashboard.names()).length).toBeLessThan(60);
    expect(await dashboard.names()).toContain(HOSTILE);
    await dashboard.page.getByRole('button', { name: HOSTILE, exact: true }).first().click();
    expect(await dashboard.page.locator('#adapter-detail h3').textContent()).toBe(HOSTILE);
    await dashboard.page.locator('#adapters-scroll').evaluate((node) => (node.scrollTop = 1e6));
    await expect.poll(() => dashboard.names()).toContain('customer-1999');
    for (const [text, first] of [
      ['customer-19', 'customer-1900'],
      ['', HOSTILE],
    ] as const) {
      await dashboard.page.getByLabel('Filter adapters').fill(text);
      await expect.poll(() => dashboard.names()).toContain(first);
      expect((await dashboard.names()).length).toBeLessThan(60);
    }
    expect(await dashboard.page.locator('img').count()).toBe(0);
    expect(await dashboard.page.title()).toBe(`${HOSTILE} · lorax-js`);
    expect(dashboard.errors).toEqual([]);
    await dashboard.page.close();
  });
});

/** As a server's that has been taken over: every text in it is HTML. */
function hostileEvent(): DashboardEvent {
  const pages = { total: 100, free: 50, kv: 20, cold: 10, adapter: 20, retiring: 0 };
  const row = (name: string) => ({
    ...{ name, tenant: HOSTILE, state: 'resident', hash: '<b>hash</b>', source: HOSTILE },
    ...{ bytes: 65536, pages: 1, rank: 8, running: 1, waiting: 0, holding: 1, requests: 3 },
    error: HOSTILE,
  });
  const at = Date.now();
  return {
    ...{ at, modelName: HOSTILE, state: 'failed', reason: HOSTILE, uptimeMs: 5000, losses: 2 },
    windowSeconds: 30,
    engine: {
      ...{ architecture: HOSTILE, device: HOSTILE, deviceDescription: HOSTILE, precision: 'x' },
      ...{ contextTokens: 4096, pageBytes: 65536, blockTokens: 32 },
    },
    now: {
      ...{ pages, host: { bytes: 0, budgetBytes: 0, images: 0 } },
      ...{ requests: { running: 0, waiting: 0 }, totals: {}, steps: [[1, 2, 1, 3]] },
    },
    point: {
      ...{ at, promptPerSecond: 1, outputPerSecond: 1, step: null, pages },
      ...{ firstTokenMs: null, betweenTokensMs: null },
    },
    adapters: {
      ...{ all: true, gone: [] },
      rows: [
        row(HOSTILE),
        ...Array.from({ length: 1999 }, (_, i) =>
          row(`customer-${String(i + 1).padStart(4, '0')}`),
        ),
      ],
    },
  };
}
