/**
 * Whether the process takes requests: /health (it lives), /ready (it would generate), and the drain.
 *
 * While it drains, what is under way goes on, /ready and every new request get 503 with retry-after.
 * Open requests are counted at the sockets, so nothing that was accepted is forgotten, whatever route
 * it takes. Made by start-server.ts.
 */
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Engine } from '../../types.js';
import { LoraxError } from '../../errors.js';
import type { ServerContext, ServerMiddleware } from '../environment.js';
import { HttpError } from '../http-error.js';
import { isUiPath, UI_DATA } from '../ui/paths.js';

export interface LifecycleOptions {
  maxQueued: number;
  /** What a client that is refused while draining should wait: another replica, or the restart. */
  retryAfterSeconds: number;
}

/** A worker that says nothing for so long would not generate either. */
const READY_TIMEOUT_MS = 2_000;

export class Lifecycle {
  #draining = false;
  readonly #open = new Set<ServerResponse>();

  constructor(
    private readonly engine: Pick<Engine, 'ready' | 'stats'>,
    private readonly options: LifecycleOptions,
  ) {}

  get isDraining(): boolean {
    return this.#draining;
  }

  get numOpen(): number {
    return this.#open.size;
  }

  /** Before every other one; answers the probes itself, whatever the state and whoever asks. */
  readonly middleware: ServerMiddleware = async (c, next) => {
    const { method, path } = c.req;
    if (method === 'GET' && path === '/health') return c.json({ status: 'ok' });
    if (method === 'GET' && path === '/ready') return this.answerReady(c);
    if (this.#draining && !isWatching(method, path)) throw this.refusal();
    await next();
    if (this.#draining) c.header('connection', 'close');
  };

  /** Before the first request. */
  watch(server: Server): void {
    server.prependListener('request', (request: IncomingMessage, response: ServerResponse) => {
      // Whoever watches watches to the end: that would never be one.
      if (request.method === 'GET' && request.url?.split('?', 1)[0] === UI_DATA) return;
      this.#open.add(response);
      response.once('close', () => this.#open.delete(response));
    });
  }

  /** Resolves to whether everything that was under way has ended within the time. */
  async drain(graceMs: number): Promise<boolean> {
    this.#draining = true;
    const until = Date.now() + graceMs;
    while (this.#open.size > 0 && Date.now() < until) await sleep(20);
    return this.#open.size === 0;
  }

  private async answerReady(c: ServerContext): Promise<Response> {
    const reason = await this.notReady();
    if (reason === undefined) return c.json({ ready: true });
    const headers = { 'retry-after': String(this.options.retryAfterSeconds) };
    return c.json({ ready: false, reason }, 503, headers);
  }

  /** undefined: it would generate. */
  private async notReady(): Promise<string | undefined> {
    if (this.#draining) return 'shutting down';
    const timeout = sleep(READY_TIMEOUT_MS, 'loading' as const, { ref: false });
    try {
      // Of a worker that has died this starts the next one.
      const loaded = this.engine.ready().then(() => this.engine.stats());
      const stats = await Promise.race([loaded, timeout]);
      if (stats === 'loading') return 'the model is being loaded';
      const { waiting } = stats.requests;
      return waiting >= this.options.maxQueued ? 'the queue is full' : undefined;
    } catch (error) {
      return LoraxError.isInstance(error) ? error.code : 'the engine failed';
    }
  }

  private refusal(): HttpError {
    return new HttpError(503, 'The server is shutting down; ask again.', {
      code: 'shutting_down',
      headers: { 'retry-after': String(this.options.retryAfterSeconds), connection: 'close' },
    });
  }
}

/** It shows the server, the drain too. */
function isWatching(method: string, path: string): boolean {
  return method === 'GET' && (path === '/metrics' || isUiPath(path));
}
