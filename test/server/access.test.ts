// Who may do what: every route of the server without a key, with a wrong one and with one of another
// scope; tenants and their adapters; and that comparing keys takes one way whatever they are.
import * as crypto from 'node:crypto';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { createAccess, type AccessConfig } from '../../src/server/access/access.js';
import { KeyRing } from '../../src/server/access/key-ring.js';
import { createServer, type LoraxServer } from '../../src/server/create-server.js';
import { ServerMetrics } from '../../src/server/metrics/server-metrics.js';
import { Lifecycle } from '../../src/server/process/lifecycle.js';
import { FakeEngine } from '../../src/testing/fake-engine.js';

vi.mock('node:crypto', async (original) => {
  const actual = await original<typeof crypto>();
  return { ...actual, timingSafeEqual: vi.fn(actual.timingSafeEqual) };
});

const KEYS = {
  red: 'red-key-0123456789',
  blue: 'blue-key-0123456789',
  admin: 'admin-key-0123456789',
  nobody: 'nobody-key-0123456789',
};
const CONFIG: AccessConfig = {
  adminKey: KEYS.admin,
  adapterUpdates: true,
  adapterSources: ['hf://acme/*'],
  tenants: [
    { id: 'red', keys: [KEYS.red], adapters: ['pirate', 'team-*'] },
    { id: 'blue', keys: [`sha256:${sha256(KEYS.blue)}`], adapters: ['french'], base: false },
  ],
};

function sha256(text: string): string {
  return crypto.createHash('sha256').update(text).digest('hex');
}

function serverOf(config: AccessConfig, answers: Record<string, string> = {}) {
  const engine = new FakeEngine({
    answers: { base: 'plain', pirate: 'arr', french: 'oui', 'team-a': 'go', ...answers },
  });
  const access = createAccess(engine, config);
  const lifecycle = new Lifecycle(engine, { maxQueued: 10, retryAfterSeconds: 1 });
  const server = createServer({
    ...{ engine: access.engine, modelName: 'demo' },
    ...(config.adapterUpdates === true
      ? { adapterUpdates: { sources: config.adapterSources ?? [] } }
      : {}),
    middleware: [lifecycle.middleware, access.middleware],
  });
  new ServerMetrics(() => engine, 'demo').register(server.app);
  return { server, engine };
}

/** Any one of a route's paths. */
const ADMIN = ['/v1/load_lora_adapter', '/v1/unload_lora_adapter', '/metrics'];
const PROBES = ['/health'];

function routesOf({ app }: LoraxServer): { method: string; path: string }[] {
  const routes = app.routes
    .filter(({ method }) => method !== 'ALL')
    .map(({ method, path }) => ({ method, path: path.replace(/:\w+(\{.*\})?/g, 'pirate') }));
  return [...new Map(routes.map((route) => [`${route.method} ${route.path}`, route])).values()];
}

async function ask(
  server: LoraxServer,
  path: string,
  { key, method = 'GET', body }: { key?: string; method?: string; body?: unknown } = {},
) {
  const response = await server.fetch(
    new Request(`http://server${path}`, {
      method,
      headers: {
        'content-type': 'application/json',
        ...(key === undefined ? {} : { authorization: `Bearer ${key}` }),
      },
      ...(method === 'POST' ? { body: JSON.stringify(body ?? {}) } : {}),
    }),
  );
  const text = await response.text();
  return { status: response.status, headers: response.headers, text };
}

const complete = (server: LoraxServer, key: string | undefined, model: string) =>
  ask(server, '/v1/completions', {
    ...(key === undefined ? {} : { key }),
    ...{ method: 'POST', body: { model, prompt: 'hello' } },
  });

describe('every route', () => {
  const { server } = serverOf(CONFIG);
  const routes = routesOf(server);

  test('there are some, of every kind', () => {
    const paths = routes.map(({ path }) => path);
    for (const path of ['/v1/chat/completions', '/v1/models', '/generate', '/info', ...ADMIN]) {
      expect(paths).toContain(path);
    }
  });

  describe.each(routes.filter(({ path }) => !PROBES.includes(path)))('$method $path', (route) => {
    const { path, method } = route;
    const isAdmin = ADMIN.includes(path);

    test.each([
      ['without a key', undefined],
      ['with nobody’s', KEYS.nobody],
      ['with a beginning of one', KEYS.red.slice(0, -1)],
      ['with an empty one', ''],
    ])('%s: 401, and nothing of what is there', async (_, key) => {
      const answer = await ask(server, path, { method, ...(key === undefined ? {} : { key }) });
      expect(answer.status).toBe(401);
      expect(answer.headers.get('www-authenticate')).toBe('Bearer');
      expect(JSON.parse(answer.text).error).toMatchObject({
        ...{ type: 'authentication_error', code: 'invalid_api_key' },
      });
      for (const name of ['pirate', 'french', 'team-a', 'red', 'blue']) {
        expect(answer.text).not.toContain(name);
      }
    });

    test('with a key of the other scope: 403', async () => {
      const key = isAdmin ? KEYS.red : KEYS.admin;
      expect((await ask(server, path, { method, key })).status).toBe(403);
    });

    test('with its own: anything but that', async () => {
      const key = isAdmin ? KEYS.admin : KEYS.red;
      expect([401, 403]).not.toContain((await ask(server, path, { method, key })).status);
    });
  });

  test('probes are open and tell nothing', async () => {
    expect(await ask(server, '/health')).toMatchObject({ status: 200, text: '{"status":"ok"}' });
    expect(await ask(server, '/ready')).toMatchObject({ status: 200, text: '{"ready":true}' });
  });

  test('what comes past the keys finds the engine locked', async () => {
    const engine = new FakeEngine({ answers: { pirate: 'arr' } });
    const forgetful = createServer({ engine: createAccess(engine, CONFIG).engine });
    const answer = await complete(forgetful, undefined, 'pirate');
    expect(answer.status).toBe(401);
    const { data } = JSON.parse((await ask(forgetful, '/v1/models')).text) as { data: unknown[] };
    expect(data).toHaveLength(1);
  });
});

describe('tenants', () => {
  let server: LoraxServer;
  let engine: FakeEngine;
  beforeEach(() => ({ server, engine } = serverOf(CONFIG)));

  test.each([
    ['red', 'pirate', 200],
    ['red', 'team-a', 200],
    ['red', 'demo', 200],
    ['red', 'demo:pirate', 200],
    ['red', 'french', 404],
    ['blue', 'french', 200],
    ['blue', 'pirate', 404],
    ['blue', 'demo', 404],
  ] as const)('%s asks for %s: %i', async (tenant, model, status) => {
    const answer = await complete(server, KEYS[tenant], model);
    expect(answer.status).toBe(status);
    if (status === 200) return;
    // As if it were not there; and no name of what is.
    const { error } = JSON.parse(answer.text) as { error: { code: string; message: string } };
    expect(error.code).toBe('model_not_found');
    const others = ['pirate', 'french', 'team-a'].filter((name) => name !== model);
    for (const name of others) expect(error.message).not.toContain(name);
  });

  test('a name that is nobody’s is answered as one that is another’s', async () => {
    const [nobodys, anothers] = await Promise.all(
      ['spanish', 'french'].map((model) => complete(server, KEYS.red, model)),
    );
    expect(nobodys?.status).toBe(404);
    expect(nobodys?.text.replaceAll('spanish', 'french')).toBe(anothers?.text);
  });

  test('lists show what one may use', async () => {
    const names = async (key: string) => {
      const { text } = await ask(server, '/v1/models', { key });
      return (JSON.parse(text) as { data: { id: string }[] }).data.map(({ id }) => id);
    };
    expect(await names(KEYS.red)).toEqual(['demo', 'pirate', 'team-a']);
    expect(await names(KEYS.blue)).toEqual(['demo', 'french']);
  });

  test('a mix counts as all its adapters', async () => {
    const mixed = (adapters: string[], key: string) =>
      ask(server, '/generate', {
        ...{ key, method: 'POST' },
        body: {
          inputs: 'hello',
          parameters: { merged_adapters: { ids: adapters, weights: adapters.map(() => 0.5) } },
        },
      });
    expect((await mixed(['pirate', 'team-a'], KEYS.red)).status).not.toBe(404);
    expect((await mixed(['pirate', 'french'], KEYS.red)).status).toBe(404);
  });

  test('what each asks for is counted as its own', async () => {
    await complete(server, KEYS.red, 'pirate');
    const [red, blue] = await Promise.all(['red', 'blue'].map((id) => engine.tenant(id).stats()));
    expect([red?.totals.finished, blue?.totals.finished]).toEqual([1, 0]);
  });

  test('the admin scope loads adapters from where it may alone', async () => {
    const load = (lora_path: string) =>
      ask(server, '/v1/load_lora_adapter', {
        ...{ key: KEYS.admin, method: 'POST', body: { lora_name: 'new', lora_path } },
      });
    expect((await load('hf://acme/lora')).status).toBe(200);
    for (const place of ['hf://evil/lora', 'hf://acme-evil/lora', '/etc', 'https://10.0.0.1/x']) {
      expect((await load(place)).status, place).toBe(400);
    }
    expect((await engine.adapters.list()).map(({ name }) => name)).toContain('new');
  });
});

describe('without keys', () => {
  test('anybody generates, and nobody changes adapters or reads another’s', async () => {
    const { server } = serverOf({});
    expect((await complete(server, undefined, 'pirate')).status).toBe(200);
    expect((await ask(server, '/metrics')).status).toBe(200);
    const body = { lora_name: 'new', lora_path: 'hf://acme/lora' };
    const load = await ask(server, '/v1/load_lora_adapter', { method: 'POST', body });
    expect(load.status).toBe(401);
  });

  test('one key is one tenant', async () => {
    const { server } = serverOf({ apiKey: KEYS.red });
    expect((await complete(server, undefined, 'pirate')).status).toBe(401);
    expect((await complete(server, KEYS.red, 'pirate')).status).toBe(200);
  });
});

describe('configuration that is refused', () => {
  const engine = new FakeEngine();
  test.each<[object, string]>([
    [{ apiKey: 'short' }, 'at least 16 characters'],
    [{ apiKey: 'sha256:abc' }, '64 hexadecimal digits'],
    [{ apiKey: 'env:LORAX_TEST_NO_SUCH' }, 'LORAX_TEST_NO_SUCH'],
    [{ apiKey: KEYS.red, tenants: [] }, 'give it to one of them'],
    [{ adminKey: KEYS.red, apiKey: KEYS.red }, 'is another one'],
    [{ adapterUpdates: true, adapterSources: ['hf://a/*'] }, 'needs an adminKey'],
    [{ adapterUpdates: true, adminKey: KEYS.admin }, 'needs adapterSources'],
    [{ tenants: [{ id: 'a', keys: [] }] }, 'tenants[0].keys'],
    [{ tenants: [{ id: 'a', keys: [KEYS.red], rps: 3 }] }, 'has no option "rps"'],
    [{ tenants: [KEYS.red, KEYS.blue].map((key) => ({ id: 'a', keys: [key] })) }, 'two called a'],
  ])('%j: %s', (config, message) => {
    expect(() => createAccess(engine, config as AccessConfig)).toThrow(message);
    // Whatever is wrong, the key is not in what is said.
    try {
      createAccess(engine, config as AccessConfig);
    } catch (error) {
      expect(JSON.stringify(error) + String(error)).not.toContain('short');
    }
  });
});

test('keys are compared in constant time, each with every one', () => {
  const compare = vi.mocked(crypto.timingSafeEqual);
  const ring = new KeyRing<string>();
  const keys = Array.from({ length: 5 }, (_, i) => `key-number-${i}-0123456789`);
  keys.forEach((key) => ring.add(key, key, 'keys'));
  for (const asked of [...keys, 'x', '', `${keys[0]}x`]) {
    compare.mockClear();
    const found = ring.find(asked);
    expect(found).toBe(keys.includes(asked) ? asked : undefined);
    expect(compare).toHaveBeenCalledTimes(keys.length);
    // Digests: of one length, whatever the key's.
    for (const [a, b] of compare.mock.calls) expect([a.byteLength, b.byteLength]).toEqual([32, 32]);
  }
});
