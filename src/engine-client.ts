/**
 * The main thread's end of one engine: requests and calls out, events back.
 *
 * Every request ends exactly once for its reader and fires onUsage exactly once; the loss of the
 * worker ends them all. Names carry the caller's scope as a prefix, so that several providers can
 * share an engine. Called by createEngine and shared-engines.ts.
 */
import { randomUUID } from 'node:crypto';
import type {
  CallResult,
  ServeOptions,
  WorkerAdapter,
  WorkerEvent,
  WorkerMessage,
} from '../worker/protocol.js';
import type { WeightedAdapter } from './adapter-mix.js';
import type { AdapterScope } from './adapter-scope.js';
import type { Need } from './adapter-load.js';
import { AdapterTable } from './adapter-table.js';
import { ClientAdapters } from './client-adapters.js';
import { ProviderListeners } from './engine-listeners.js';
import { WorkerCalls, type CallCommand } from './worker-calls.js';
import { disposedError, fromWire, unaskedAbort, withoutScopes } from './client-errors.js';
import type { ResolvedEngineOptions } from './engine-options.js';
import type { LoraxError } from './errors.js';
import { noticeOnce } from './notice.js';
import { OpenEmbedding } from './open-embedding.js';
import { OpenRequest } from './open-request.js';
import { deadlineExceeded, onDeadline } from './service-options.js';
import { TenantCounts, type CountedUsage } from './tenant-counts.js';
import { TokenStream } from './token-stream.js';
import { checkDetokenize, checkTokenizeRequest } from './tokenize-request.js';
import type {
  DetokenizeResult,
  EmbedRequest,
  EmbedResult,
  EngineInfo,
  EngineStats,
  GenerateRequest,
  RemovedAdapter,
  TenantStats,
  TokenizeRequest,
  TokenizeResult,
} from './types.js';
import { addonPaths, cudaPluginPaths } from './platform-packages.js';
import type { Connect } from './worker-connection.js';
import { WorkerLink } from './worker-link.js';

/** A request that the worker will end: a stream of tokens, or an embed call. */
type Open = OpenRequest | OpenEmbedding;

/** How long a worker may take to answer `dispose` before its thread is ended. */
const DISPOSE_TIMEOUT_MS = 10_000;

/** While nothing was served, these mean that this worker never will serve. */
const LOAD_FAILURES: readonly string[] = [
  'MODEL_INVALID',
  'MODEL_UNSUPPORTED',
  'MODEL_FETCH_FAILED',
  'ADDON_NOT_BUILT',
  'DEVICE_UNAVAILABLE',
];

export class EngineClient {
  /** Called each time the last open request or call has ended. */
  onIdle: (() => void) | undefined;
  readonly #link: WorkerLink;
  readonly adapters: ClientAdapters;
  readonly #listeners = new ProviderListeners();
  readonly #tenants = new TenantCounts();
  readonly #table: AdapterTable;
  readonly #calls: WorkerCalls;
  /** The worker of this connection has answered or started something. */
  #served = false;
  /** Why no engine can be made in this process any more. */
  #poisoned: LoraxError | undefined;
  #nextId = 1;
  readonly #requests = new Map<number, Open>();
  #disposing: Promise<void> | undefined;

  /** The first connection waits for `gate`. */
  constructor(options: ResolvedEngineOptions, connect: Connect, gate?: Promise<unknown>) {
    // A function cannot cross to the worker.
    const { onProgress: _p, onAdapter: _a, sources: _s, hubModel, ...settings } = options;
    const serveOptions: ServeOptions = {
      ...settings,
      hubModel: hubModel === undefined ? null : { kind: 'hub', ...hubModel },
      addonPaths: addonPaths(),
      cudaPluginPaths: cudaPluginPaths(),
    };
    this.#link = new WorkerLink(serveOptions, connect, gate, {
      onMessage: (message) => this.#receive(message),
      onLost: (error) => this.#lose(error),
    });
    this.#calls = new WorkerCalls(
      (command) => this.#link.send(command),
      () => this.#updateHold(),
    );
    this.#table = new AdapterTable(
      {
        add: (command, onFetched) => {
          this.#checkOpen();
          return this.#calls.add(command, onFetched);
        },
        remove: (name) => this.#call<RemovedAdapter>({ type: 'removeAdapter', name }),
        prefetch: (name) => this.#call<null>({ type: 'prefetchAdapter', name }),
      },
      (full, event) => this.#listeners.adapter(full, event),
    );
    this.adapters = new ClientAdapters(this.#table, {
      check: () => this.#checkOpen(),
      list: () => this.#call<WorkerAdapter[]>({ type: 'listAdapters' }),
    });
  }

  /** Requests and calls without an answer yet. */
  get numOpen(): number {
    return this.#requests.size + this.#calls.size;
  }

  get disposed(): boolean {
    return this.#disposing !== undefined;
  }

  /** Sends the request on its way; all failures arrive through the stream. */
  open(request: GenerateRequest, scope: AdapterScope): TokenStream {
    const id = this.#nextId++;
    const stream = new TokenStream(() => this.#leave(id));
    const open = new OpenRequest(id, stream, scope);
    this.#begin(open, () => open.start(request, () => this.#abort(id)));
    return stream;
  }

  embed(request: EmbedRequest, scope: AdapterScope): Promise<EmbedResult> {
    const id = this.#nextId++;
    const open = new OpenEmbedding(id, scope);
    this.#begin(open, () => open.start(request, () => this.#abort(id)));
    return open.result;
  }

  ready(): Promise<EngineInfo> {
    return this.#call<EngineInfo>({ type: 'ready' });
  }

  async tokenize(request: TokenizeRequest): Promise<TokenizeResult> {
    return this.#call<TokenizeResult>({ type: 'tokenize', ...checkTokenizeRequest(request) });
  }

  async detokenize(tokenIds: readonly number[]): Promise<DetokenizeResult> {
    return this.#call<DetokenizeResult>({
      type: 'detokenize',
      tokenIds: checkDetokenize(tokenIds),
    });
  }

  stats(): Promise<EngineStats> {
    return this.#call<EngineStats>({ type: 'stats' });
  }

  /** Of what one tenant has asked for. */
  async tenantStats(scope: AdapterScope): Promise<TenantStats> {
    if (this.disposed) throw disposedError();
    const requests = { running: 0, waiting: 0 };
    for (const open of this.#requests.values()) {
      if (open.scope.own === scope.own) requests[open.running ? 'running' : 'waiting']++;
    }
    return { requests, totals: this.#tenants.totals(scope.own) };
  }

  /** What belongs to a provider: who listens, and where its names are looked up. */
  setProvider(provider: string, options: ResolvedEngineOptions): void {
    this.#listeners.set(provider, options);
    this.#table.setSources(provider, options.sources);
  }

  /** Ends a scope's requests with DISPOSED and forgets its adapters; others go on. */
  async endScope(prefix: string): Promise<void> {
    for (const open of [...this.#requests.values()]) {
      if (!open.scope.own.startsWith(prefix)) continue;
      open.fail(disposedError(), { discard: true });
      this.#cancel(open);
    }
    this.#listeners.delete(prefix);
    this.#tenants.forget(prefix);
    if (this.disposed) return;
    await this.#table.removeScope(prefix);
  }

  /** Ends every request with DISPOSED and the worker with them. Idempotent. */
  dispose(): Promise<void> {
    return (this.#disposing ??= Promise.resolve().then(() => this.#dispose()));
  }

  async #dispose(): Promise<void> {
    for (const open of [...this.#requests.values()]) {
      if (open.state === 'held') this.#settleLocally(open, disposedError());
    }
    const { connection } = this.#link;
    if (connection !== undefined) {
      const timer = setTimeout(() => this.#failAll(disposedError()), DISPOSE_TIMEOUT_MS);
      await this.#calls.post<null>({ type: 'dispose' }).catch(() => undefined);
      clearTimeout(timer);
    }
    this.#failAll(disposedError());
    this.#link.disconnect();
    await connection?.close();
  }

  /** `start` checks the request. */
  #begin(open: Open, start: () => void): void {
    try {
      start();
    } catch (error) {
      open.failLocally(error);
      return;
    }
    const refusal = this.disposed ? disposedError() : this.#poisoned;
    if (refusal !== undefined) {
      open.failLocally(refusal);
      return;
    }
    if (open.signal?.aborted === true) {
      open.failLocally(open.signal.reason);
      return;
    }
    this.#requests.set(open.id, open);
    const { deadlineAt } = open;
    if (deadlineAt !== undefined) {
      const allowedMs = deadlineAt - Date.now();
      open.stopDeadline = onDeadline(deadlineAt, () => this.#expire(open, allowedMs));
    }
    this.#submit(open);
  }

  #submit(open: Open): void {
    const needs: Need[] = [];
    try {
      for (const { name } of open.adapters) needs.push(this.#table.need(open.scope, name));
    } catch (error) {
      for (const need of needs) need.leave();
      this.#settleLocally(open, error);
      return;
    }
    const named = (names: readonly string[]) =>
      open.adapters.map(({ weight }, index) => ({ name: names[index] as string, weight }));
    if (needs.every(({ loading }) => loading === undefined)) {
      this.#send(open, named(needs.map(({ name }) => name)));
      return;
    }
    open.onEnd = () => needs.forEach((need) => need.leave());
    Promise.all(needs.map(({ loading, name }) => loading ?? name)).then(
      (names) => {
        if (open.state === 'held') this.#send(open, named(names));
      },
      (error: unknown) => {
        if (open.state === 'held') this.#settleLocally(open, withoutScopes(error, open.scope));
      },
    );
  }

  #send(open: Open, adapters: WeightedAdapter[]): void {
    open.state = 'sent';
    this.#link.send(open.command(adapters));
    this.#updateHold();
  }

  #leave(id: number): void {
    const open = this.#requests.get(id);
    if (open !== undefined) this.#cancel(open);
  }

  #abort(id: number): void {
    const open = this.#requests.get(id);
    if (open === undefined) return;
    open.fail(open.signal?.reason, { discard: true });
    this.#cancel(open);
  }

  /** An answer that has begun the engine ends with what there is. */
  #expire(open: Open, allowedMs: number): void {
    if (open.state === 'ended' || (open instanceof OpenRequest && open.running)) return;
    const error = deadlineExceeded(allowedMs, open.state === 'held');
    if (open.state === 'held') return this.#settleLocally(open, error);
    open.fail(error, { discard: true });
    this.#cancel(open);
  }

  /** Its reader has been answered; the worker's last word brings the usage. */
  #cancel(open: Open): void {
    open.detach();
    const { id } = open;
    if (open.state === 'held' || this.#link.withdraw(id)) this.#settleLocally(open, undefined);
    else this.#link.send({ type: 'cancel', id });
  }

  #settleLocally(open: Open, error: unknown): void {
    open.failLocally(error);
    this.#forget(open, error === undefined ? 'aborted' : 'failed', NO_USAGE);
  }

  #forget(open: Open, outcome: 'finished' | 'aborted' | 'failed', usage: CountedUsage): void {
    if (!this.#requests.delete(open.id)) return;
    open.onEnd?.();
    open.stopDeadline?.();
    if (open.scope.tenant !== undefined) this.#tenants.count(open.scope.own, outcome, usage);
    this.#updateHold();
  }

  async #call<T extends CallResult>(command: CallCommand): Promise<T> {
    this.#checkOpen();
    return this.#calls.post<T>(command);
  }

  /** Throws why no call can be made any more. */
  #checkOpen(): void {
    if (this.disposed) throw disposedError();
    if (this.#poisoned !== undefined) throw this.#poisoned;
  }

  /**
   * Fails everything open. The next command makes a new connection, unless the process cannot hold
   * another engine: then it fails as these did.
   */
  #lose(error: LoraxError): void {
    if (error.data.recoverable === false) this.#poisoned = error;
    this.#served = false;
    this.#table.forgetLoaded();
    this.#failAll(this.disposed ? disposedError() : error);
  }

  #failAll(error: LoraxError): void {
    this.#link.clear();
    this.#calls.failAll(error);
    for (const open of [...this.#requests.values()]) this.#settleLocally(open, error);
    this.#updateHold();
  }

  #updateHold(): void {
    this.#link.hold(this.numOpen > 0);
    if (this.numOpen === 0) this.onIdle?.();
  }

  #receive(message: WorkerMessage): void {
    let fatal: LoraxError | undefined;
    for (const event of message) {
      const error = this.#handle(event);
      if (error !== undefined && this.#isFatal(error)) fatal = error;
    }
    if (fatal === undefined || this.disposed) return;
    const connection = this.#link.disconnect();
    if (connection === undefined) return;
    this.#lose(fatal);
    void connection.close();
  }

  #isFatal({ code }: LoraxError): boolean {
    return code === 'ENGINE_LOST' || (!this.#served && LOAD_FAILURES.includes(code));
  }

  /** Returns the error that the event carries, if it does. */
  #handle(event: WorkerEvent): LoraxError | undefined {
    switch (event.type) {
      case 'delta':
        this.#generation(event.id)?.delta(event);
        return undefined;
      case 'reasoning-delta':
      case 'tool-call-start':
      case 'tool-call-delta':
      case 'tool-call-end':
        this.#generation(event.id)?.part(event);
        return undefined;
      case 'start':
        this.#served = true;
        this.#generation(event.id)?.started(`lorax-${randomUUID()}`, event);
        return undefined;
      case 'embedded':
        this.#served = true;
        this.#endEmbedding(event);
        return undefined;
      case 'progress':
        this.#listeners.progress(event.progress);
        return undefined;
      case 'fetched':
        this.#calls.fetched(event);
        return undefined;
      case 'notice':
        noticeOnce(event.code, event.message);
        return undefined;
      case 'result':
        this.#served = true;
        return this.#calls.answer(event);
      case 'error':
        return this.#calls.answer(event);
      case 'finish':
      case 'aborted':
      case 'failed':
        return this.#endRequest(event);
    }
  }

  #generation(id: number): OpenRequest | undefined {
    const open = this.#requests.get(id);
    return open instanceof OpenRequest ? open : undefined;
  }

  #endEmbedding(event: WorkerEvent & { type: 'embedded' }): void {
    const open = this.#requests.get(event.id);
    if (!(open instanceof OpenEmbedding)) return;
    open.embedded(event);
    open.settle();
    this.#forget(open, 'finished', { promptTokens: event.promptTokens, outputTokens: 0 });
  }

  #endRequest(
    event: WorkerEvent & { type: 'finish' | 'aborted' | 'failed' },
  ): LoraxError | undefined {
    const open = this.#requests.get(event.id);
    if (open === undefined) return undefined;
    let error: LoraxError | undefined;
    if (event.type === 'finish') {
      this.#generation(event.id)?.finished(event);
    } else if (event.type === 'failed') {
      error = fromWire(event.error);
      open.fail(withoutScopes(error, open.scope));
    } else {
      // The answer to a cancel, after which nobody reads; unless the engine is going away.
      open.fail(this.disposed ? disposedError() : unaskedAbort());
    }
    open.settle(event.usage, event.timing);
    this.#forget(open, OUTCOMES[event.type], event.usage);
    return error;
  }
}

const NO_USAGE: CountedUsage = { promptTokens: 0, outputTokens: 0 };
const OUTCOMES = { finish: 'finished', aborted: 'aborted', failed: 'failed' } as const;
