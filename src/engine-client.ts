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
  ClientCommand,
  ServeOptions,
  WorkerEvent,
  WorkerMessage,
} from '../worker/protocol.js';
import { isAdapterName } from './adapter-name.js';
import { AdapterTable } from './adapter-table.js';
import {
  disposedError,
  fromWire,
  unaskedAbort,
  unknownAdapter,
  withoutScope,
} from './client-errors.js';
import type { ResolvedEngineOptions } from './engine-options.js';
import type { LoraxError } from './errors.js';
import { noticeOnce } from './notice.js';
import { OpenEmbedding } from './open-embedding.js';
import { OpenRequest } from './open-request.js';
import { TokenStream } from './token-stream.js';
import type {
  AdapterIdentity,
  AdapterInfo,
  EmbedRequest,
  EmbedResult,
  EngineInfo,
  EngineStats,
  GenerateRequest,
  LoadProgress,
} from './types.js';
import { addonPaths, cudaPluginPaths } from './worker-connection.js';
import type { Connect } from './worker-connection.js';
import { WorkerLink } from './worker-link.js';

interface PendingCall {
  resolve(value: CallResult): void;
  reject(error: LoraxError): void;
}

/** A request that the worker will end: a stream of tokens, or an embed call. */
type Open = OpenRequest | OpenEmbedding;

type Unnumbered<T> = T extends { call: number } ? Omit<T, 'call'> : never;
type CallCommand = Unnumbered<ClientCommand>;

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
  readonly #progress = new Map<string, (progress: LoadProgress) => void>();
  readonly #adapters: AdapterTable;
  /** The worker of this connection has answered or started something. */
  #served = false;
  /** Why no engine can be made in this process any more. */
  #poisoned: LoraxError | undefined;
  #nextId = 1;
  readonly #requests = new Map<number, Open>();
  readonly #calls = new Map<number, PendingCall>();
  #disposing: Promise<void> | undefined;

  /** The first connection waits for `gate`. */
  constructor(options: ResolvedEngineOptions, connect: Connect, gate?: Promise<unknown>) {
    // A function cannot cross to the worker.
    const { onProgress: _, hubModel, ...settings } = options;
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
    this.#adapters = new AdapterTable((name, directory) =>
      this.#call<AdapterIdentity>({ type: 'addAdapter', name, directory }),
    );
  }

  /** Requests and calls without an answer yet. */
  get numOpen(): number {
    return this.#requests.size + this.#calls.size;
  }

  get disposed(): boolean {
    return this.#disposing !== undefined;
  }

  /** Sends the request on its way; all failures arrive through the stream. */
  open(request: GenerateRequest, scope = ''): TokenStream {
    const id = this.#nextId++;
    const stream = new TokenStream(() => this.#leave(id));
    const open = new OpenRequest(id, stream, scope);
    this.#begin(open, () => open.start(request, () => this.#abort(id)));
    return stream;
  }

  embed(request: EmbedRequest, scope = ''): Promise<EmbedResult> {
    const id = this.#nextId++;
    const open = new OpenEmbedding(id, scope);
    this.#begin(open, () => open.start(request, () => this.#abort(id)));
    return open.result;
  }

  ready(): Promise<EngineInfo> {
    return this.#call<EngineInfo>({ type: 'ready' });
  }

  /** Knows the adapter from now on; loads it when it is first asked for. */
  declareAdapter(scope: string, name: string, directory: string): void {
    this.#adapters.declare(scope + name, directory);
  }

  async addAdapter(scope: string, name: string, directory: string): Promise<AdapterIdentity> {
    try {
      const { hash } = await this.#adapters.add(scope + name, directory);
      return { name, hash };
    } catch (error) {
      throw withoutScope(error, scope);
    }
  }

  async identifyAdapter(scope: string, name: string): Promise<AdapterIdentity> {
    if (this.disposed) throw disposedError();
    let identity: AdapterIdentity | undefined;
    try {
      identity = await this.#adapters.identify(scope + name);
    } catch (error) {
      throw withoutScope(error, scope);
    }
    if (identity === undefined) throw this.#unknownAdapter(scope, name);
    return { name, hash: identity.hash };
  }

  async removeAdapter(scope: string, name: string): Promise<void> {
    if (this.disposed) throw disposedError();
    const remove = (wireName: string) =>
      this.#call<null>({ type: 'removeAdapter', name: wireName });
    try {
      if (await this.#adapters.remove(scope + name, remove)) return;
    } catch (error) {
      throw withoutScope(error, scope);
    }
    throw this.#unknownAdapter(scope, name);
  }

  async listAdapters(scope: string): Promise<AdapterInfo[]> {
    try {
      await this.#adapters.loadAll(scope);
      const all = await this.#call<AdapterInfo[]>({ type: 'listAdapters' });
      return all
        .filter((info) => info.name.startsWith(scope))
        .map((info) => ({ ...info, name: info.name.slice(scope.length) }))
        .sort((a, b) => (a.name < b.name ? -1 : 1));
    } catch (error) {
      throw withoutScope(error, scope);
    }
  }

  stats(): Promise<EngineStats> {
    return this.#call<EngineStats>({ type: 'stats' });
  }

  setProgressListener(scope: string, listener: ((p: LoadProgress) => void) | undefined): void {
    if (listener === undefined) this.#progress.delete(scope);
    else this.#progress.set(scope, listener);
  }

  /** Ends a scope's requests with DISPOSED and forgets its adapters; others go on. */
  async endScope(scope: string): Promise<void> {
    for (const open of [...this.#requests.values()]) {
      if (open.scope !== scope) continue;
      open.fail(disposedError(), { discard: true });
      this.#cancel(open);
    }
    this.#progress.delete(scope);
    if (this.disposed) return;
    await this.#adapters.removeScope(scope, (name) =>
      this.#call<null>({ type: 'removeAdapter', name }),
    );
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
      await this.#post<null>({ type: 'dispose' }).catch(() => undefined);
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
    this.#submit(open);
  }

  #submit(open: Open): void {
    const { adapters, scope } = open;
    const unknown = adapters.find(({ name }) => !this.#adapters.has(scope + name));
    if (unknown !== undefined) {
      this.#settleLocally(open, this.#unknownAdapter(scope, unknown.name));
      return;
    }
    const loading = adapters
      .map(({ name }) => this.#adapters.load(scope + name))
      .filter((each) => each !== undefined);
    if (loading.length === 0) {
      this.#send(open);
      return;
    }
    Promise.all(loading).then(
      () => {
        if (open.state === 'held') this.#send(open);
      },
      (error: unknown) => {
        if (open.state === 'held') this.#settleLocally(open, withoutScope(error, scope));
      },
    );
  }

  #send(open: Open): void {
    open.state = 'sent';
    this.#link.send(open.command());
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

  /** Its reader has been answered; the worker's last word brings the usage. */
  #cancel(open: Open): void {
    open.detach();
    const { id } = open;
    if (open.state === 'held' || this.#link.withdraw(id)) this.#settleLocally(open, undefined);
    else this.#link.send({ type: 'cancel', id });
  }

  #settleLocally(open: Open, error: unknown): void {
    open.failLocally(error);
    this.#forget(open);
  }

  #forget(open: Open): void {
    if (!this.#requests.delete(open.id)) return;
    this.#updateHold();
  }

  async #call<T extends CallResult>(command: CallCommand): Promise<T> {
    if (this.disposed) throw disposedError();
    if (this.#poisoned !== undefined) throw this.#poisoned;
    return this.#post<T>(command);
  }

  #post<T extends CallResult>(command: CallCommand): Promise<T> {
    const call = this.#nextId++;
    return new Promise<T>((resolve, reject) => {
      // The protocol pairs each call with its result's type.
      this.#calls.set(call, { resolve: (value) => resolve(value as T), reject });
      this.#link.send({ ...command, call });
      this.#updateHold();
    });
  }

  /**
   * Fails everything open. The next command makes a new connection, unless the process cannot hold
   * another engine: then it fails as these did.
   */
  #lose(error: LoraxError): void {
    if (error.data.recoverable === false) this.#poisoned = error;
    this.#served = false;
    this.#adapters.forgetLoaded();
    this.#failAll(this.disposed ? disposedError() : error);
  }

  #failAll(error: LoraxError): void {
    this.#link.clear();
    const calls = [...this.#calls.values()];
    this.#calls.clear();
    for (const call of calls) call.reject(error);
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
        this.#reportProgress(event.progress);
        return undefined;
      case 'notice':
        noticeOnce(event.code, event.message);
        return undefined;
      case 'result':
      case 'error':
        return this.#answerCall(event);
      case 'finish':
      case 'aborted':
      case 'failed':
        return this.#endRequest(event);
    }
  }

  #answerCall(event: WorkerEvent & { type: 'result' | 'error' }): LoraxError | undefined {
    const call = this.#calls.get(event.call);
    this.#calls.delete(event.call);
    this.#updateHold();
    if (event.type === 'result') {
      this.#served = true;
      call?.resolve(event.value);
      return undefined;
    }
    const error = fromWire(event.error);
    call?.reject(error);
    return error;
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
    this.#forget(open);
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
      open.fail(withoutScope(error, open.scope));
    } else {
      // The answer to a cancel, after which nobody reads; unless the engine is going away.
      open.fail(this.disposed ? disposedError() : unaskedAbort());
    }
    open.settle(event.usage, event.timing);
    this.#forget(open);
    return error;
  }

  #reportProgress(progress: LoadProgress): void {
    for (const [scope, listener] of this.#progress) {
      const ofAdapter = progress.stage === 'adapter' || progress.stage === 'fetch-adapter';
      if (ofAdapter && !progress.name.startsWith(scope)) continue;
      const name = ofAdapter ? progress.name.slice(scope.length) : progress.name;
      // In a microtask: a throwing listener must not stop the events of others.
      queueMicrotask(() => listener({ ...progress, name }));
    }
  }

  #unknownAdapter(scope: string, name: string): LoraxError {
    // Directories opened by path are not names, and no business of who asks for a name.
    return unknownAdapter(name, this.#adapters.names(scope).filter(isAdapterName));
  }
}
