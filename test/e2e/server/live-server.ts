/**
 * A server on the demo model that listens on a port of its own, with a few of its adapters; and what
 * tests of its APIs ask it with. Ends with the test file.
 */
import { createEngine, type Engine, type EngineOptions } from 'lorax-js/engine';
import { createServer, serveOnNode } from 'lorax-js/server';
import type { NodeServer, ServerOptions } from 'lorax-js/server';
import type { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { afterAll } from 'vitest';
import { testDevice } from '../suites/test-device.js';

export const demo = fileURLToPath(new URL('../../../models/demo', import.meta.url));
export const ADAPTERS = ['pirate', 'french', 'json'] as const;

export interface LiveServer {
  url: string;
  engine: Engine;
  node: NodeServer;
  /** Its clients' connections. */
  open: Set<Socket>;
  post(path: string, body: unknown, init?: RequestInit): Promise<Response>;
}

/** Called at the top of a test file or a describe block, within beforeAll. */
export async function startServer(
  options: Partial<ServerOptions> = {},
  engineOptions: Partial<EngineOptions> = {},
): Promise<LiveServer> {
  const engine = createEngine({ model: demo, ...testDevice, ...engineOptions });
  for (const name of ADAPTERS) await engine.adapters.add(name, `${demo}/adapters/${name}`);
  const server = createServer({ engine, ...options });
  const node = await serveOnNode(server, { port: 0 });
  const sockets = new Set<Socket>();
  node.server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  running.push(async () => {
    await node.close();
    await engine.dispose();
  });
  return {
    url: node.url,
    engine,
    node,
    open: sockets,
    post: (path, body, init = {}) =>
      fetch(node.url + path, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: typeof body === 'string' ? body : JSON.stringify(body),
        ...init,
      }),
  };
}

const running: (() => Promise<void>)[] = [];
afterAll(() => Promise.all(running.splice(0).map((close) => close())));
