// In apps that there are: OpenAI's client asks through Express, Fastify, hono and Next's route handlers.
import { createServer as createHttpServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { getRequestListener } from '@hono/node-server';
import express from 'express';
import fastify from 'fastify';
import { Hono } from 'hono';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createEngine, type Engine } from 'lorax-js/engine';
import { createServer, serveOnNode, toNodeHandler } from 'lorax-js/server';
import { testDevice } from '../suites/test-device.js';
import { demo } from './live-server.js';

let engine: Engine;
const closing: (() => unknown)[] = [];
beforeAll(async () => {
  engine = createEngine({ model: demo, ...testDevice });
  await engine.adapters.add('pirate', `${demo}/adapters/pirate`);
});
afterAll(async () => {
  for (const close of closing) await close();
  await engine.dispose();
});

async function listening(server: Server): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closing.push(() => server.close().closeAllConnections());
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Each has the server at /ai, and a route of its own. */
const APPS: Record<string, () => Promise<string>> = {
  Express: async () => {
    const app = express();
    app.get('/mine', (_, response) => void response.send('mine'));
    app.use('/ai', toNodeHandler(createServer({ engine })));
    return listening(createHttpServer(app));
  },
  'Express, where bodies are parsed for all routes': async () => {
    const app = express();
    app.use(express.json());
    app.get('/mine', (_, response) => void response.send('mine'));
    app.use('/ai', toNodeHandler(createServer({ engine })));
    return listening(createHttpServer(app));
  },
  Fastify: async () => {
    const app = fastify({ forceCloseConnections: true });
    const handler = toNodeHandler(createServer({ engine, basePath: '/ai' }));
    app.get('/mine', () => 'mine');
    app.all('/ai/*', (request, reply) => {
      reply.hijack();
      handler(Object.assign(request.raw, { body: request.body }), reply.raw);
    });
    closing.push(() => app.close());
    return app.listen({ port: 0, host: '127.0.0.1' });
  },
  hono: async () => {
    const app = new Hono();
    app.get('/mine', (c) => c.text('mine'));
    app.route('/ai', createServer({ engine }).app);
    return listening(createHttpServer(getRequestListener(app.fetch)));
  },
  // app/ai/[...path]/route.ts: export const GET = fetch, POST = fetch.
  'route handlers of Next.js': async () => {
    const { fetch } = createServer({ engine, basePath: '/ai' });
    const routes = (request: Request) =>
      new URL(request.url).pathname === '/mine' ? new Response('mine') : fetch(request);
    const node = await serveOnNode({ fetch: routes }, { port: 0 });
    closing.push(() => node.close());
    return node.url;
  },
};

describe.each(Object.entries(APPS))('%s', (_, start) => {
  let url: string;
  let client: OpenAI;
  beforeAll(async () => {
    url = await start();
    client = new OpenAI({ baseURL: `${url}/ai/v1`, apiKey: 'none', maxRetries: 0 });
  });
  const asked = {
    ...{ model: 'pirate', max_tokens: 12, temperature: 0 },
    messages: [{ role: 'user' as const, content: 'Where is my order 4821? Ærlig talt…' }],
  };

  it('streams what it answers whole, beside the app’s own routes', async () => {
    const whole = await client.chat.completions.create(asked);
    const text = whole.choices[0]?.message.content ?? '';
    expect(text).not.toBe('');
    let streamed = '';
    for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) {
      streamed += chunk.choices[0]?.delta.content ?? '';
    }
    expect(streamed).toBe(text);
    const models = await client.models.list();
    expect(models.data.map(({ id }) => id)).toEqual(['demo', 'pirate']);
    expect(await (await fetch(`${url}/mine`)).text()).toBe('mine');
  });

  it('says what is wrong in OpenAI’s shape', async () => {
    const wrong = client.chat.completions.create({ ...asked, model: 'nobody' });
    await expect(wrong).rejects.toMatchObject({ status: 404, code: 'model_not_found' });
    const range = client.chat.completions.create({ ...asked, temperature: -1 });
    await expect(range).rejects.toMatchObject({ status: 400, param: 'temperature' });
  });

  it('a client that leaves ends its answer', async () => {
    const gone = new AbortController();
    const endless = { ...asked, max_tokens: 3000, stream: true as const };
    // ignore_eos is vLLM's.
    const body = Object.assign(endless, { ignore_eos: true });
    const stream = await client.chat.completions.create(body, { signal: gone.signal });
    await stream[Symbol.asyncIterator]().next();
    expect((await engine.stats()).requests.running).toBe(1);
    gone.abort();
    await expect.poll(async () => (await engine.stats()).requests.running).toBe(0);
  });
});
