// Overload at the door: the same answer as the route's, without what lies before the route.
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { createServer } from '../../../src/server/create-server.js';
import { WAITING_ROUTES } from '../../../src/server/door.js';
import { serveOnNode, type NodeServer } from '../../../src/server/serve-on-node.js';
import { FakeEngine } from '../../../src/testing/fake-engine.js';
import { TokenStream } from '../../../src/token-stream.js';

/** Nobody is ever admitted. */
const engine = new FakeEngine();
engine.generate = () => new TokenStream(() => undefined);

let seenByMiddleware = 0;
const server = createServer({
  engine,
  maxWaiting: 1,
  middleware: [
    async (_, next) => {
      seenByMiddleware++;
      await next();
    },
  ],
});
const post = (path: string, headers: Record<string, string> = {}) => ({
  ...{ url: new URL(path, 'http://server'), method: 'POST' },
  headers: { 'content-type': 'application/json', ...headers },
  body: JSON.stringify({ model: 'base', prompt: 'x', inputs: 'x', input: 'x', messages: [] }),
});
const routes = [...WAITING_ROUTES.keys()];
let node: NodeServer;

beforeAll(async () => {
  node = await serveOnNode(server, { port: 0 });
  expect(server.door('POST', '/v1/completions')).toBeUndefined();
  const { url, ...init } = post('/v1/completions');
  void server.fetch(new Request(url, init));
  await vi.waitUntil(() => server.door('POST', '/v1/completions') !== undefined);
});
afterAll(() => node.close());

describe('while as many wait as may', () => {
  it.each(routes)('POST %s hears at the door what its route would say', async (path) => {
    const { url, ...init } = post(path);
    const byRoute = await server.fetch(new Request(url, init));
    const before = seenByMiddleware;
    const atDoor = await fetch(`${node.url}${path}?x=1`, init);
    expect(seenByMiddleware).toBe(before);
    expect([atDoor.status, byRoute.status]).toEqual([429, 429]);
    expect(await atDoor.json()).toEqual(await byRoute.json());
    for (const name of ['content-type', 'retry-after', 'retry-after-ms']) {
      expect(atDoor.headers.get(name)).toBe(byRoute.headers.get(name));
    }
    expect(atDoor.headers.get('x-request-id')).toMatch(/^[\da-f-]{36}$/);
  });

  it('knows every route that waits', () => {
    const all = server.app.routes
      .filter(({ method }) => method === 'POST')
      .map((each) => each.path);
    // These need no place in the queue of generations.
    const others = /embeddings|lora_adapter|tokenize/;
    expect([...new Set(all)].filter((path) => !others.test(path)).sort()).toEqual(routes.sort());
  });

  it('keeps the caller’s request id', async () => {
    const init = post('/generate', { 'x-request-id': 'mine-1' });
    const answer = await fetch(`${node.url}/generate`, init);
    expect(answer.headers.get('x-request-id')).toBe('mine-1');
  });

  it('lets pass what does not wait, and what has an Origin, whose answer needs its headers', async () => {
    expect((await fetch(`${node.url}/v1/models`)).status).toBe(200);
    expect(server.door('GET', '/generate')).toBeUndefined();
    const before = seenByMiddleware;
    const { status } = await fetch(
      `${node.url}/generate`,
      post('/generate', { origin: 'http://x' }),
    );
    expect([status, seenByMiddleware]).toEqual([429, before + 1]);
  });

  it('answers the next on the same connection, whatever was not read', async () => {
    const big = { ...post('/generate'), body: JSON.stringify({ inputs: 'x'.repeat(1 << 20) }) };
    for (let i = 0; i < 3; i++) {
      const answer = await fetch(`${node.url}/generate`, big);
      expect(answer.status).toBe(429);
      expect(await answer.json()).toMatchObject({ error_type: 'overloaded' });
    }
  });
});
