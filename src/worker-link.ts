/**
 * The way to the worker: commands leave in one message a turn, over one connection at most.
 *
 * The connection is made at the first command and anew after it was lost; it keeps the process
 * alive only while it is held. Commands that nobody waits for any more make no connection. Used by
 * engine-client.ts.
 */
import type { ClientCommand, ServeOptions, WorkerMessage } from '../worker/protocol.js';
import type { LoraxError } from './errors.js';
import { workerDied } from './worker-connection.js';
import type { Connect, WorkerConnection } from './worker-connection.js';

export interface WorkerLinkHandlers {
  onMessage(message: WorkerMessage): void;
  /** The connection is gone by then. */
  onLost(error: LoraxError): void;
}

export class WorkerLink {
  readonly #options: ServeOptions;
  readonly #connect: Connect;
  readonly #gate: Promise<unknown> | undefined;
  readonly #handlers: WorkerLinkHandlers;
  #connection: WorkerConnection | undefined;
  #connecting = false;
  #held = false;
  #outbox: ClientCommand[] = [];
  #flushing = false;

  /** The first connection waits for `gate`. */
  constructor(
    options: ServeOptions,
    connect: Connect,
    gate: Promise<unknown> | undefined,
    handlers: WorkerLinkHandlers,
  ) {
    this.#options = options;
    this.#connect = connect;
    this.#gate = gate;
    this.#handlers = handlers;
  }

  get connection(): WorkerConnection | undefined {
    return this.#connection;
  }

  send(command: ClientCommand): void {
    this.#outbox.push(command);
    if (this.#flushing) return;
    this.#flushing = true;
    queueMicrotask(() => {
      this.#flushing = false;
      this.#flush();
    });
  }

  /** Takes request `id` back; false if it has left already. */
  withdraw(id: number): boolean {
    const unsent = this.#outbox.findIndex((c) => 'id' in c && c.type !== 'cancel' && c.id === id);
    if (unsent < 0) return false;
    this.#outbox.splice(unsent, 1);
    return true;
  }

  /** Forgets what has not left. */
  clear(): void {
    this.#outbox = [];
  }

  /** `held`: somebody waits for an answer. */
  hold(held: boolean): void {
    this.#held = held;
    if (held) this.#connection?.ref();
    else this.#connection?.unref();
  }

  /** Hands the connection over to be closed; the next command makes a new one. */
  disconnect(): WorkerConnection | undefined {
    const connection = this.#connection;
    this.#connection = undefined;
    return connection;
  }

  #flush(): void {
    if (this.#outbox.length === 0) return;
    if (this.#connection === undefined) {
      this.#startConnection();
      return;
    }
    const message = this.#outbox;
    this.#outbox = [];
    this.#connection.post(message);
  }

  #startConnection(): void {
    if (this.#connecting) return;
    this.#connecting = true;
    const start = () => {
      this.#connecting = false;
      // Disposed meanwhile, or everything was cancelled.
      if (!this.#held) this.clear();
      if (this.#outbox.length === 0) return;
      const connection = this.#connect(this.#options, {
        onMessage: (message) => this.#handlers.onMessage(message),
        onLost: (cause) => {
          if (this.#connection !== connection) return;
          this.#connection = undefined;
          this.#handlers.onLost(workerDied(cause));
        },
      });
      this.#connection = connection;
      connection.ref();
      this.#flush();
    };
    if (this.#gate === undefined) start();
    else this.#gate.then(start, start);
  }
}
