/**
 * One worker thread and the port to it.
 *
 * Piscina owns the thread: one thread, and a task that wires the port and returns. The connection
 * keeps the process alive only while it is ref()ed. `onLost` fires at most once, when the thread
 * has died, and never after close(). Used by the engine client, which starts a new connection then.
 */
import { fileURLToPath } from 'node:url';
import { MessageChannel, receiveMessageOnPort } from 'node:worker_threads';
import { Piscina } from 'piscina';
import type { ClientMessage, ServeOptions, WorkerMessage } from '../worker/protocol.js';
import { LoraxError } from './errors.js';
import { mergeDeltas } from './merge-deltas.js';

export interface WorkerConnection {
  post(message: ClientMessage): void;
  ref(): void;
  unref(): void;
  /** Ends the thread, wherever it is. Idempotent. */
  close(): Promise<void>;
}

export interface ConnectionHandlers {
  onMessage(message: WorkerMessage): void;
  /** `cause`: what is known about the thread's end. */
  onLost(cause: unknown): void;
}

export type Connect = (options: ServeOptions, handlers: ConnectionHandlers) => WorkerConnection;

export const connectWorker: Connect = (options, handlers) => {
  const pool = new Piscina({
    filename: fileURLToPath(new URL('./worker.mjs', import.meta.url)),
    name: 'serve',
    minThreads: 1,
    maxThreads: 1,
    idleTimeout: Number.POSITIVE_INFINITY,
    // With 'sync' the thread would hear nothing from its own ports between two tasks.
    atomics: 'disabled',
    recordTiming: false,
  });
  const { port1: port, port2 } = new MessageChannel();
  let ended = false;
  let destroyed: Promise<void> | undefined;

  const destroy = () => (destroyed ??= pool.destroy());
  const lose = (cause: unknown) => {
    if (ended) return;
    ended = true;
    port.close();
    // Piscina replaces a dead thread at once; the next call makes a pool of its own instead.
    void destroy();
    handlers.onLost(cause);
  };

  port.on('message', (first: WorkerMessage) => {
    const messages = [first];
    for (let next; (next = receiveMessageOnPort(port)) !== undefined;) {
      messages.push((next as { message: WorkerMessage }).message);
    }
    if (!ended) handlers.onMessage(mergeDeltas(messages));
  });
  port.on('messageerror', lose);
  // An uncaught exception's report may be just behind the port's close: it makes the better cause.
  port.on('close', () => setImmediate(() => lose(undefined)));
  pool.on('error', lose);
  pool.run({ port: port2, options }, { transferList: [port2] }).catch(lose);

  return {
    post: (message) => port.postMessage(message),
    ref: () => port.ref(),
    unref: () => port.unref(),
    async close() {
      ended = true;
      port.close();
      await destroy();
    },
  };
};

export function workerDied(cause: unknown): LoraxError {
  const detail = cause instanceof Error ? ` (${cause.message})` : '';
  return new LoraxError(
    'WORKER_DIED',
    `The engine's worker thread ended unexpectedly${detail}. The next call starts a new one.`,
    cause === undefined ? {} : { cause },
  );
}
