// What the process does about clients that mean it no good: slow ones, large ones, those of other pages.
import { readFileSync } from 'node:fs';
import { request } from 'node:https';
import { connect, type Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { startServer, type RunningServer, type ServerSettings } from 'lorax-js/server';
import { demo } from './serve-process.js';

const open: RunningServer[] = [];
const sockets: Socket[] = [];
afterAll(async () => {
  sockets.forEach((socket) => socket.destroy());
  await Promise.all(open.splice(0).map((server) => server.close(0)));
});

async function start(settings: Partial<ServerSettings>): Promise<RunningServer> {
  const server = await startServer({
    ...{ model: demo, device: 'cpu', port: 0, logLevel: 'silent', ...settings },
  });
  open.push(server);
  await server.loaded;
  return server;
}

/** A client that writes what it is given, and keeps what comes. */
function raw({ node }: RunningServer, text: string) {
  const socket = connect(node.port, '127.0.0.1', () => socket.write(text));
  sockets.push(socket);
  const got = { text: '', closed: false, socket };
  socket.on('data', (chunk: Buffer) => (got.text += chunk.toString()));
  socket.on('close', () => (got.closed = true));
  socket.on('error', () => undefined);
  return got;
}

const post = (path: string, body: string) =>
  `POST ${path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n` +
  `content-length: ${body.length}\r\n\r\n${body}`;

describe('slow clients', () => {
  it('headers that never end, and bodies that never come, are cut off', async () => {
    const server = await start({ requestTimeoutMs: 200 });
    const headers = raw(server, 'GET /v1/models HTTP/1.1\r\nhost: localhost\r\nx-slow: ');
    const body = raw(server, post('/v1/completions', '{"model":').replace(/: 9/, ': 900'));
    const drip = setInterval(() => headers.socket.write('x'), 50);
    await expect.poll(() => headers.closed && body.closed, { timeout: 5000 }).toBe(true);
    clearInterval(drip);
    expect(headers.text).toMatch(/^HTTP\/1\.1 408 /);
    expect(body.text).toMatch(/^HTTP\/1\.1 408 /);
    // Others are answered meanwhile and afterwards.
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
  });

  it('a reader that takes nothing is cut off, its requests end; a slow one is served', async () => {
    const server = await start({ stallTimeoutMs: 400 });
    const large = JSON.stringify({
      ...{ model: 'demo', max_tokens: 3500, ignore_eos: true, stream: true, n: 4 },
      ...{ messages: [{ role: 'user', content: 'a' }], logprobs: true, top_logprobs: 20 },
    });
    const stalled = raw(server, post('/v1/chat/completions', large));
    stalled.socket.pause();
    const running = async () => (await server.engine.stats()).requests.running;
    await expect.poll(running, { timeout: 10_000 }).toBeGreaterThan(0);
    await expect.poll(running, { timeout: 20_000 }).toBe(0);
    // It was not its own end: there was more to say than buffers hold.
    stalled.socket.resume();
    await expect.poll(() => stalled.closed, { timeout: 5000 }).toBe(true);
    expect(stalled.text).not.toContain('[DONE]');

    const small = { ...JSON.parse(large), n: 1, max_tokens: 60 } as object;
    const slow = raw(server, post('/v1/chat/completions', JSON.stringify(small)));
    // Takes some every now and then, for longer than the limit.
    for (let i = 0; i < 8; i++) {
      slow.socket.pause();
      await new Promise((resolve) => setTimeout(resolve, 80));
      slow.socket.resume();
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await expect.poll(() => slow.text.includes('[DONE]'), { timeout: 5000 }).toBe(true);
  });

  it('no more connections than there may be', async () => {
    const server = await start({ maxConnections: 3 });
    const held = Array.from({ length: 3 }, () => raw(server, 'GET /'));
    await expect
      .poll(
        () =>
          new Promise<number>((resolve) => server.node.server.getConnections((_, n) => resolve(n))),
      )
      .toBe(3);
    const extra = raw(server, 'GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n');
    await expect.poll(() => extra.closed).toBe(true);
    expect(extra.text).toBe('');
    held.forEach(({ socket }) => socket.destroy());
    await expect.poll(async () => (await fetch(`${server.url}/health`)).status).toBe(200);
  });
});

describe('more than can be served', () => {
  it('is told at once when to come again; what was taken is served', async () => {
    const server = await start({ maxQueued: 1 });
    const COUNT = 60;
    const ask = async () => {
      const answer = await fetch(`${server.url}/v1/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ model: 'demo', prompt: 'x '.repeat(200), max_tokens: 100 }),
      });
      await answer.text();
      return { status: answer.status, retryAfter: answer.headers.get('retry-after') };
    };
    const answers = await Promise.all(Array.from({ length: COUNT }, ask));
    const refused = answers.filter(({ status }) => status === 429);
    expect(refused.length).toBeGreaterThan(0);
    expect(refused.every(({ retryAfter }) => Number(retryAfter) > 0)).toBe(true);
    expect(answers.filter(({ status }) => status === 200).length).toBe(COUNT - refused.length);
    expect(COUNT - refused.length).toBeGreaterThan(0);
  });
});

describe('large ones', () => {
  it('bodies and headers beyond the limits are refused by status', async () => {
    const server = await start({ maxBody: 1000, maxHeader: 2000 });
    const answer = await fetch(`${server.url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'demo', prompt: 'x'.repeat(1000) }),
    });
    expect(answer.status).toBe(413);
    const headers = raw(server, `GET /health HTTP/1.1\r\nx: ${'y'.repeat(3000)}\r\n\r\n`);
    await expect.poll(() => headers.closed).toBe(true);
    expect(headers.text).toMatch(/^HTTP\/1\.1 431 /);
  });
});

describe('pages of other origins', () => {
  const preflight = ({ url }: RunningServer, origin: string) =>
    fetch(`${url}/v1/chat/completions`, {
      method: 'OPTIONS',
      headers: { origin, 'access-control-request-method': 'POST' },
    });

  it('may not ask, unless the configuration names them', async () => {
    const closed = await start({});
    const refused = await preflight(closed, 'https://evil.example');
    expect(refused.headers.get('access-control-allow-origin')).toBeNull();
    const answer = await fetch(`${closed.url}/v1/models`, {
      headers: { origin: 'https://evil.example' },
    });
    expect(answer.headers.get('access-control-allow-origin')).toBeNull();

    const named = await start({
      ...{ corsOrigins: ['https://app.example'], apiKey: 'a-key-of-the-test-0123' },
    });
    const ours = await preflight(named, 'https://app.example');
    expect(ours.headers.get('access-control-allow-origin')).toBe('https://app.example');
    const theirs = await preflight(named, 'https://evil.example');
    expect(theirs.headers.get('access-control-allow-origin')).toBeNull();
  });
});

describe('TLS', () => {
  const file = (name: string) => fileURLToPath(new URL(`./tls/${name}`, import.meta.url));

  it('is spoken with a key and a certificate, and then nothing else', async () => {
    const server = await start({ tlsKey: file('key.pem'), tlsCert: file('cert.pem') });
    expect(server.url).toMatch(/^https:/);
    const ca = readFileSync(file('cert.pem'));
    const status = await new Promise((resolve, reject) => {
      const sent = request(`${server.url}/health`, { ca }, (response) => {
        response.resume();
        resolve(response.statusCode);
      });
      sent.on('error', reject).end();
    });
    expect(status).toBe(200);
    const plain = raw(server, 'GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n');
    await expect.poll(() => plain.closed).toBe(true);
    expect(plain.text).not.toContain('"status"');
  });

  it('half of it, or files that are not there, are refused', async () => {
    const settings = { model: demo, device: 'cpu', port: 0, logLevel: 'silent' } as const;
    await expect(startServer({ ...settings, tlsKey: file('key.pem') })).rejects.toThrow('both');
    await expect(
      startServer({ ...settings, tlsKey: file('none.pem'), tlsCert: file('cert.pem') }),
    ).rejects.toThrow('cannot be read');
  });
});
