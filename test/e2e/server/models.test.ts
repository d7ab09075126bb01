/** GET /v1/models, and what the server says to what it does not have. */
import { createServer, HttpError } from 'lorax-js/server';
import type { ErrorBody } from 'lorax-js/server';
import { connect } from 'node:net';
import { beforeAll, describe, expect, it } from 'vitest';
import { ADAPTERS, demo, startServer, type LiveServer } from './live-server.js';

let server: LiveServer;
beforeAll(async () => {
  server = await startServer();
});

interface ModelJson {
  id: string;
  parent: string | null;
  root: string;
  max_model_len: number;
}
const get = async (path: string) => {
  const response = await fetch(server.url + path);
  return { status: response.status, body: (await response.json()) as unknown };
};

describe('/v1/models', () => {
  it('lists the base model and its adapters', async () => {
    const { status, body } = await get('/v1/models');
    expect(status).toBe(200);
    const { object, data } = body as { object: string; data: ModelJson[] };
    expect(object).toBe('list');
    expect(data.map(({ id }) => id)).toEqual(['demo', ...[...ADAPTERS].sort()]);
    expect(data.map(({ parent }) => parent)).toEqual([null, 'demo', 'demo', 'demo']);
    expect(data[0]).toMatchObject({ root: demo, max_model_len: 4096, object: 'model' });
    expect(data[1]?.root).toBe(`${demo}/adapters/french`);
  });

  it('gives one of them, and 404 for any other', async () => {
    expect((await get('/v1/models/pirate')).body).toMatchObject({ id: 'pirate', parent: 'demo' });
    const { status, body } = await get('/v1/models/no/such');
    expect(status).toBe(404);
    expect((body as ErrorBody).error).toEqual({
      message: 'There is no model "no/such".',
      type: 'invalid_request_error',
      param: 'model',
      code: 'model_not_found',
    });
  });
});

describe('what is not there', () => {
  it('is 404, or 405 with the methods that are', async () => {
    expect((await get('/v2/nothing')).status).toBe(404);
    const response = await server.post('/v1/models', {});
    expect(response.status).toBe(405);
    expect(response.headers.get('allow')).toBe('GET');
    expect(((await response.json()) as ErrorBody).error.type).toBe('invalid_request_error');
  });

  it('bytes that are no HTTP get an answer in the same shape', async () => {
    const answer = await new Promise<string>((resolve, reject) => {
      const socket = connect(server.node.port, '127.0.0.1', () => socket.end('not http\r\n\r\n'));
      let text = '';
      socket.on('data', (chunk) => (text += chunk.toString()));
      socket.on('end', () => resolve(text)).on('error', reject);
    });
    const [head = '', body = ''] = answer.split('\r\n\r\n');
    expect(head).toMatch(/^HTTP\/1\.1 400 /);
    expect((JSON.parse(body) as ErrorBody).error.message).toBe('This is no HTTP request.');
  });
});

describe('middleware', () => {
  it('says whose view of the engine a request has, or refuses it', async () => {
    const { engine } = server;
    const mine = engine.tenant('mine');
    await mine.adapters.add('secret', `${demo}/adapters/brief`);
    const { fetch } = createServer({
      engine,
      middleware: [
        async (c, next) => {
          if (c.req.header('authorization') === undefined) throw new HttpError(401, 'No key.');
          c.set('engine', mine);
          await next();
        },
      ],
    });
    const refused = await fetch(new Request('http://server/v1/models'));
    expect(refused.status).toBe(401);
    expect(await refused.json()).toEqual({
      error: { message: 'No key.', type: 'authentication_error', param: null, code: null },
    });
    const headers = { authorization: 'Bearer x', 'x-request-id': 'mine-1' };
    const answer = await fetch(new Request('http://server/v1/models', { headers }));
    expect(answer.headers.get('x-request-id')).toBe('mine-1');
    const { data } = (await answer.json()) as { data: ModelJson[] };
    expect(data.map(({ id }) => id)).toEqual(['demo', ...[...ADAPTERS].sort(), 'secret']);
    const others = (await get('/v1/models')).body as { data: ModelJson[] };
    expect(others.data.map(({ id }) => id)).not.toContain('secret');
  });
});
