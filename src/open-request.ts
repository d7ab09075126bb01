/**
 * One request from open to settled: what the client remembers of it and what its reader is told.
 *
 * onUsage fires exactly once, whatever the end; the abort listener is gone by then. `held` = not
 * yet sent (its adapter is loading); `sent` = the worker will end it; `ended` = settled. Used by engine-client.ts.
 */
import { performance } from 'node:perf_hooks';
import type { ClientCommand, WorkerEvent } from '../worker/protocol.js';
import { onAbort as listenForAbort } from './abort-listeners.js';
import type { WeightedAdapter } from './adapter-mix.js';
import { tenantOf, type AdapterScope } from './adapter-scope.js';
import { checkGenerateRequest } from './generate-request.js';
import type { CheckedRequest } from './generate-request.js';
import type { TokenStream } from './token-stream.js';
import type {
  GenerateRequest,
  ReasoningDeltaEvent,
  Timing,
  ToolCallEvent,
  Usage,
} from './types.js';

export class OpenRequest {
  state: 'held' | 'sent' | 'ended' = 'held';
  signal: AbortSignal | undefined;
  /** Nobody waits for its adapters any more. */
  onEnd: (() => void) | undefined;
  stopDeadline: (() => void) | undefined;
  /** The engine has admitted it. */
  running = false;
  #request: CheckedRequest | undefined;
  #onUsage: GenerateRequest['onUsage'];
  #stopListening: (() => void) | undefined;
  readonly #openedAt = performance.now();
  /** For the case that the worker dies before it can tell. */
  readonly #usage: Usage = { promptTokens: 0, cachedTokens: 0, outputTokens: 0 };
  readonly #timing: Timing = { queueMs: 0, timeToFirstTokenMs: null, totalMs: 0 };

  constructor(
    readonly id: number,
    readonly stream: TokenStream,
    readonly scope: AdapterScope,
  ) {}

  /** Throws INVALID_OPTIONS; onUsage is known by then if it is a function. */
  start(request: GenerateRequest, onAbort: () => void): void {
    if (typeof request?.onUsage === 'function') this.#onUsage = request.onUsage;
    this.#request = checkGenerateRequest(request);
    this.signal = request.signal;
    if (this.signal !== undefined) this.#stopListening = listenForAbort(this.signal, onAbort);
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
      ...{ type: 'generate', id: this.id, ...this.#request, adapters },
      ...tenantOf(this.scope),
    };
  }

  started(requestId: string, event: WorkerEvent & { type: 'start' }): void {
    const { promptTokens, cachedTokens, queueMs, adapter } = event;
    this.running = true;
    this.#usage.promptTokens = promptTokens;
    this.#usage.cachedTokens = cachedTokens;
    this.#timing.queueMs = queueMs;
    this.stream.push({
      type: 'start',
      id: requestId,
      adapter,
      promptTokens,
      cachedTokens,
      queueMs,
    });
  }

  delta({ text, tokenIds, logprobs }: WorkerEvent & { type: 'delta' }): void {
    this.#usage.outputTokens += tokenIds.length;
    this.#timing.timeToFirstTokenMs ??= this.#elapsed();
    this.stream.push(
      logprobs === undefined
        ? { type: 'delta', text, tokenIds }
        : { type: 'delta', text, tokenIds, logprobs },
    );
  }

  part({ id: _, ...event }: { id: number } & (ReasoningDeltaEvent | ToolCallEvent)): void {
    this.stream.push(event);
  }

  finished({ reason, rawReason, usage, timing }: WorkerEvent & { type: 'finish' }): void {
    this.stream.push({ type: 'finish', reason, rawReason, usage, timing });
    this.stream.end();
  }

  fail(error: unknown, options?: { discard: boolean }): void {
    this.stream.fail(error, options);
  }

  /** An end without the worker's word; undefined = the reader knows already. */
  failLocally(error: unknown): void {
    this.stream.fail(error);
    this.settle(this.#usage, { ...this.#timing, totalMs: this.#elapsed() });
  }

  /** Nobody listens any more. */
  detach(): void {
    this.#stopListening?.();
    this.#stopListening = undefined;
  }

  settle(usage: Usage, timing: Timing): void {
    if (this.state === 'ended') return;
    this.state = 'ended';
    this.detach();
    const onUsage = this.#onUsage;
    // In a microtask: a throwing callback must not stop the events of others.
    if (onUsage !== undefined) queueMicrotask(() => onUsage(usage, timing));
  }

  #elapsed(): number {
    return performance.now() - this.#openedAt;
  }
}
