/**
 * 10,000 requests that are wrong in some way, the same every time: each is answered with a 4xx in the
 * shape of its route, none with a 500; nothing crashes, nothing stays.
 */
import { createServer, serveOnNode } from 'lorax-js/server';
import { request, Agent } from 'node:http';
import { connect } from 'node:net';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { beforeAll, describe, expect, it } from 'vitest';
import { startServer, type LiveServer } from './live-server.js';
import { malformedRequest, type Malformed } from './malformed-requests.js';

let server: LiveServer;
beforeAll(async () => {
  server = await startServer(
    { maxBodyBytes: 64 << 10, adapterUpdates: { sources: ['/nowhere/*'] } },
    { maxQueued: 64 },
  );
});

interface Reply {
  status: number;
  body: string;
}

function send(agent: Agent, { method, path, headers, body }: Malformed): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const { port } = server.node;
    const options = { agent, port, host: '127.0.0.1', method, path, headers };
    const sent = request(options, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString() }),
      );
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

/** OpenAI's, or LoRAX's on its routes. */
function hasShape(body: string, lorax: boolean): boolean {
  const json = JSON.parse(body) as { error?: unknown; error_type?: unknown };
  if (lorax && typeof json.error === 'string') return typeof json.error_type === 'string';
  const { message, type, param, code } = json.error as Record<string, unknown>;
  return (
    [message, type].every((text) => typeof text === 'string' && text !== '') &&
    (param === null || typeof param === 'string') &&
    (code === null || ['string', 'number'].includes(typeof code))
  );
}

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

function heap(): number {
  collect();
  return process.memoryUsage().heapUsed;
}

describe('malformed requests', () => {
  it('10,000 of them: all refused, in shape, and nothing stays', { timeout: 120_000 }, async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 8 });
    const wrong: object[] = [];
    const statuses = new Map<number, number>();
    let next = 0;
    const run = async (until: number) => {
      const worker = async () => {
        while (next < until) {
          const seed = next++;
          const malformed = malformedRequest(seed);
          const { status, body } = await send(agent, malformed).catch((error: Error) => ({
            ...{ status: 0, body: String(error) },
          }));
          statuses.set(status, (statuses.get(status) ?? 0) + 1);
          const ok = status >= 400 && status < 500 && hasShape(body, malformed.lorax);
          if (!ok) wrong.push({ seed, kind: malformed.kind, status, body: body.slice(0, 300) });
        }
      };
      await Promise.all(Array.from({ length: 8 }, worker));
    };
    await run(4000);
    const before = heap();
    await run(10_000);
    const grown = heap() - before;
    agent.destroy();
    expect(wrong.slice(0, 5)).toEqual([]);
    expect([...statuses.values()].reduce((sum, count) => sum + count)).toBe(10_000);
    // Of several kinds: else the requests would be wrong in one way only.
    expect(statuses.size).toBeGreaterThan(4);
    expect(grown).toBeLessThan(4 << 20);
    const { requests, pages } = await server.engine.stats();
    expect([requests, pages.kv]).toEqual([{ running: 0, waiting: 0 }, 0]);
    const good = await server.post('/v1/completions', { prompt: 'Hello', max_tokens: 2 });
    expect(good.status).toBe(200);
  });

  it.each([
    ['no HTTP', 'garbage\r\n\r\n', 400],
    ['another protocol', '\x16\x03\x01\x02\x00\x01', 400],
    ['no host', 'GET /v1/models HTTP/1.1\r\n\r\n', 400],
    ['a host that is none', 'GET /v1/models HTTP/1.1\r\nhost: a b\r\n\r\n', 400],
    [
      'two lengths',
      'POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n',
      400,
    ],
    [
      'a length and chunks',
      'POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n',
      400,
    ],
    ['a NUL in a header', 'GET / HTTP/1.1\r\nhost: x\r\nx: a\0b\r\n\r\n', 400],
    ['a header without end', `GET / HTTP/1.1\r\nhost: x\r\nx: ${'y'.repeat(40_000)}\r\n\r\n`, 431],
    ['a path that is none', 'GET //\\x HTTP/1.1\r\nhost: x\r\n\r\n', 400],
    [
      'a chunk that is none',
      'POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n',
      400,
    ],
  ])('%s', async (_, bytes, status) => {
    const answer = await new Promise<string>((resolve, reject) => {
      const socket = connect(server.node.port, '127.0.0.1', () => socket.write(bytes, 'latin1'));
      let text = '';
      socket.on('data', (chunk: Buffer) => (text += chunk.toString()));
      socket.on('close', () => resolve(text)).on('error', reject);
      setTimeout(() => socket.end(), 300);
    });
    expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
    const json = answer.slice(answer.indexOf('{'), answer.lastIndexOf('}') + 1);
    expect(hasShape(json, true)).toBe(true);
  });

  it.each([
    ['headers', 'POST /v1/completions HTTP/1.1\r\nhost: x\r\n'],
    [
      'a body',
      'POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n' +
        'content-length: 100\r\n\r\n{"model',
    ],
  ])('%s that stop half way are given up', async (_, bytes) => {
    const { engine } = server;
    const node = await serveOnNode(createServer({ engine }), { port: 0, requestTimeoutMs: 100 });
    const answer = await new Promise<string>((resolve) => {
      const socket = connect(node.port, '127.0.0.1', () => socket.write(bytes));
      let text = '';
      socket.on('data', (chunk: Buffer) => (text += chunk.toString()));
      socket.on('close', () => resolve(text));
    });
    expect(answer).toMatch(/^HTTP\/1\.1 408 /);
    expect(hasShape(answer.slice(answer.indexOf('{')), false)).toBe(true);
    await node.close();
  });
});
