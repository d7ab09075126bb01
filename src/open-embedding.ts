/**
 * One embed call from open to settled: what the client remembers of it and the promise its caller
 * holds.
 *
 * The promise settles exactly once; the abort listener is gone by then. States as in
 * open-request.ts. Used by engine-client.ts.
 */
import type { ClientCommand, WorkerEvent } from '../worker/protocol.js';
import { onAbort as listenForAbort } from './abort-listeners.js';
import type { WeightedAdapter } from './adapter-mix.js';
import { tenantOf, type AdapterScope } from './adapter-scope.js';
import { checkEmbedRequest } from './embed-request.js';
import type { CheckedEmbedRequest } from './embed-request.js';
import type { EmbedRequest, EmbedResult } from './types.js';

export class OpenEmbedding {
  state: 'held' | 'sent' | 'ended' = 'held';
  signal: AbortSignal | undefined;
  /** Nobody waits for its adapters any more. */
  onEnd: (() => void) | undefined;
  stopDeadline: (() => void) | undefined;
  readonly result: Promise<EmbedResult>;
  #request: CheckedEmbedRequest | undefined;
  #stopListening: (() => void) | undefined;
  #resolve!: (result: EmbedResult) => void;
  #reject!: (error: unknown) => void;

  constructor(
    readonly id: number,
    readonly scope: AdapterScope,
  ) {
    this.result = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  /** Throws INVALID_OPTIONS. */
  start(request: EmbedRequest, onAbort: () => void): void {
    this.#request = checkEmbedRequest(request);
    this.signal = request.signal;
    if (this.signal !== undefined) this.#stopListening = listenForAbort(this.signal, onAbort);
  }

  get running(): boolean {
    return this.state === 'sent';
  }

  /** As Date.now() counts. */
  get deadlineAt(): number | undefined {
    return this.#request?.deadlineAt;
  }

  /** As the caller named them; empty = base. */
  get adapters(): readonly WeightedAdapter[] {
    return this.#request?.adapters ?? [];
  }

  /** `adapters`: as the worker knows them. */
  command(adapters: WeightedAdapter[]): ClientCommand {
    if (this.#request === undefined) throw new Error('command() before start()');
    return {
      ...{ type: 'embed', id: this.id, ...this.#request, adapters },
      ...tenantOf(this.scope),
    };
  }

  embedded({ embeddings, promptTokens, adapter }: WorkerEvent & { type: 'embedded' }): void {
    this.#resolve({ embeddings, usage: { promptTokens }, adapter });
  }

  fail(error: unknown): void {
    this.#reject(error);
  }

  /** An end without the worker's word; undefined = the caller knows already. */
  failLocally(error: unknown): void {
    this.#reject(error);
    this.settle();
  }

  /** Nobody listens any more. */
  detach(): void {
    this.#stopListening?.();
    this.#stopListening = undefined;
  }

  settle(): void {
    this.state = 'ended';
    this.detach();
  }
}
