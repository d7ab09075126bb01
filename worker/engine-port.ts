/**
 * One MessagePort and the engine behind it: commands in, events out, one message per engine step, and one
 * more where it has first tokens.
 *
 * Always holds: every `generate` ends in exactly one finish, aborted or failed (and every `embed`:
 * embedding-calls.ts), every call in one result or error; a load that fails fails whoever waited, and
 * the next command begins another; when the client is gone the engine stops. Made by main.ts; the
 * client's side is src/engine-client.ts.
 */
import { stat } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { MessagePort } from 'node:worker_threads';
import { LoraxError, type LoraxErrorCode } from '../src/errors.js';
import { activeUses } from './activation.js';
import { AdapterCalls, throttledProgress } from './adapter-calls.js';
import type { NativeAdapterUse, NativeEngine, NativeService } from './addon.js';
import { answerEvents } from './answer-events.js';
import { EmbeddingCalls } from './embedding-calls.js';
import { engineStats } from './engine-stats.js';
import { finishAtString, finishOf, type Finish } from './finish-reason.js';
import { GrammarCache } from './grammar/grammar-cache.js';
import { loadEngine, type LoadedEngine, type LoadEngine } from './load-engine.js';
import { OpenRequest } from './open-request.js';
import { Outbox } from './outbox.js';
import type { TokenBatch } from './output/text-output.js';
import { serviceOf } from './native-service.js';
import { prepareRequest, type PreparedRequest } from './prepare-request.js';
import type {
  CallResult,
  ClientCommand,
  ClientMessage,
  GenerateCommand,
  ServeOptions,
  WireError,
} from './protocol.js';
import { QueueFull } from './queue-full.js';
import { SourceFetcher } from './sources/source-fetcher.js';
import { readStepEvents, type StepEventHandler } from './step-events.js';
import { detokenize, tokenize } from './tokenize-calls.js';
import { wireError } from './wire-error.js';

const MAX_NATIVE_ID = 2 ** 31 - 1;
/** For fetches that were told to end. */
const MAX_FETCH_END_MS = 2_000;

export class EnginePort {
  /** By the client's id, from receipt to the terminal event. */
  private readonly requests = new Map<number, OpenRequest>();
  /** By native id; an entry may outlive its request until native code's last word. */
  private readonly submitted = new Map<number, OpenRequest>();
  private readonly embeddings: EmbeddingCalls;
  private readonly adapters: AdapterCalls;
  private readonly stepHandler: StepEventHandler;
  private readonly grammars: GrammarCache;
  private readonly queueFull: QueueFull;
  private loading: Promise<LoadedEngine> | null = null;
  /** Once it is loaded. */
  private native: NativeEngine | null = null;
  /** Why nothing can be served any more. */
  private over: LoraxError | null = null;
  private stopping: Promise<void> | null = null;
  private readonly outbox: Outbox;
  private readonly fetcher: SourceFetcher;
  /** Ends what is being fetched. */
  private readonly stopped = new AbortController();
  /** Open requests that native code has not been given yet. */
  private numPreparing = 0;
  /** First tokens, which native code reports before a step's others: they leave before those are read. */
  private readsFirsts = false;
  private lastNativeId = 0;

  constructor(
    private readonly port: MessagePort,
    private readonly options: ServeOptions,
    private readonly load: LoadEngine = loadEngine,
  ) {
    this.outbox = new Outbox((message) => port.postMessage(message));
    this.fetcher = new SourceFetcher(options.hub);
    this.adapters = new AdapterCalls({
      engine: () => this.engine(),
      emit: (event) => this.outbox.emit(event),
      fetcher: this.fetcher,
      stopped: this.stopped.signal,
    });
    this.queueFull = new QueueFull(options.maxQueued, () => this.native?.stats() ?? null);
    this.embeddings = new EmbeddingCalls(
      {
        engine: () => this.engine(),
        lease: (adapters) => this.adapters.registry.lease(adapters),
        nextNativeId: () => this.nextNativeId(),
        emit: (event) => this.outbox.emit(event),
        onFailure: (error) => this.stopIfLost(error),
      },
      this.queueFull,
    );
    this.grammars = new GrammarCache(async (text) =>
      (await this.engine()).native.compileGrammar(text),
    );
    this.stepHandler = {
      started: (id, queueUs, cachedTokens) => this.onStarted(id, queueUs, cachedTokens),
      tokens: (id, batch) => this.onTokens(id, batch),
      finished: (id, reason) => this.onFinished(id, reason),
      embedded: (id, embedding) => this.embeddings.onEmbedded(id, embedding),
      aborted: (id) => {
        if (this.embeddings.owns(id)) this.embeddings.onAborted(id);
        else this.onLast(id, (request) => this.abort(request));
      },
      failed: (id, failure) => {
        if (this.embeddings.owns(id)) this.embeddings.onFailed(id, failure);
        else this.onLast(id, (request) => this.fail(request, failure));
      },
    };
    port.on('message', (message: ClientMessage) => message.forEach((c) => this.receive(c)));
    port.on('close', () => void this.stop(disposedError()));
    // Begins to load; whoever asks hears of a failure.
    this.engine().catch(() => undefined);
  }

  private receive(command: ClientCommand): void {
    switch (command.type) {
      case 'generate':
        void this.generate(command);
        return;
      case 'embed':
        void this.embeddings.run(command);
        return;
      case 'cancel':
        if (!this.embeddings.cancel(command.id)) this.cancel(command.id);
        return;
      case 'ready':
        this.answer(command.call, 'ENGINE_LOST', async () => (await this.engine()).info);
        return;
      case 'addAdapter':
        this.answer(command.call, 'ADAPTER_INVALID', () => this.adapters.add(command));
        return;
      case 'cancelCall':
        this.adapters.cancel(command.call);
        return;
      case 'removeAdapter':
        this.answer(command.call, 'ENGINE_LOST', () => this.adapters.registry.remove(command.name));
        return;
      case 'prefetchAdapter':
        this.answer(command.call, 'ENGINE_LOST', async () => {
          await this.adapters.registry.prefetch(command.name);
          return null;
        });
        return;
      case 'listAdapters':
        this.answer(command.call, 'ENGINE_LOST', () => this.adapters.registry.list());
        return;
      case 'stats':
        this.answer(command.call, 'ENGINE_LOST', async () => {
          const { native } = await this.engine();
          return engineStats(native.stats(), this.numPreparing + this.embeddings.numPreparing);
        });
        return;
      case 'tokenize':
        this.answer(command.call, 'INVALID_OPTIONS', async () =>
          tokenize(command, await this.engine()),
        );
        return;
      case 'detokenize':
        this.answer(command.call, 'INVALID_OPTIONS', async () =>
          detokenize(command.tokenIds, await this.engine()),
        );
        return;
      case 'dispose':
        this.answer(command.call, 'ENGINE_LOST', async () => {
          await this.stop(disposedError());
          // After the answer, which leaves in the flush that is already scheduled by then.
          setImmediate(() => this.port.close());
          return null;
        });
        return;
    }
  }

  private answer(call: number, otherwise: LoraxErrorCode, run: () => Promise<CallResult>): void {
    run().then(
      (value) => this.outbox.emit({ type: 'result', call, value }),
      (error: unknown) =>
        this.outbox.emit({ type: 'error', call, error: wireError(error, otherwise) }),
    );
  }

  // Loading and stopping.

  private async engine(): Promise<LoadedEngine> {
    if (this.over !== null) throw this.over;
    const loading = (this.loading ??= this.beginLoad());
    let engine: LoadedEngine;
    try {
      engine = await loading;
    } catch (error) {
      if (this.loading === loading) this.loading = null;
      throw error;
    }
    if (this.over !== null) throw this.over;
    this.native = engine.native;
    return engine;
  }

  private async beginLoad(): Promise<LoadedEngine> {
    try {
      const model = await this.modelDirectory();
      return await this.load(
        { ...this.options, model },
        {
          onEvents: (events) => this.onStep(() => readStepEvents(events, this.stepHandler)),
          onProgress: this.modelProgress('model'),
          onNotice: (code, message) => this.outbox.emit({ type: 'notice', code, message }),
        },
      );
    } catch (thrown) {
      const { code, message, data } = wireError(thrown, 'MODEL_INVALID');
      throw new LoraxError(code as LoraxErrorCode, message, { data, cause: thrown });
    }
  }

  /** The model's files, fetched from the hub where no such directory is there. */
  private async modelDirectory(): Promise<string> {
    const { model, hubModel } = this.options;
    if (hubModel === null || (await isDirectory(model))) return model;
    try {
      return await this.fetcher.model(hubModel, {
        signal: this.stopped.signal,
        onProgress: this.modelProgress('fetch-model'),
      });
    } catch (cause) {
      if (!LoraxError.isInstance(cause) || !path.isAbsolute(model)) throw cause;
      // It may have been meant as a directory.
      const message = `There is no directory ${model}, and ${cause.message}`;
      throw new LoraxError(cause.code, message, { data: { ...cause.data, file: model }, cause });
    }
  }

  /** Ends every request with `reason`, then the engine. Idempotent; never rejects. */
  private stop(reason: LoraxError): Promise<void> {
    this.over ??= reason;
    this.stopped.abort(reason);
    this.stopping ??= (async () => {
      for (const request of [...this.requests.values()]) this.fail(request, reason);
      this.embeddings.failAll(reason);
      // They were told to end; a disk that hangs is not waited for.
      const fetches = Promise.race([
        this.fetcher.settled(),
        sleep(MAX_FETCH_END_MS, undefined, { ref: false }),
      ]);
      const engine = await (this.loading ?? Promise.resolve(null)).catch(() => null);
      await engine?.native.stop().catch(() => undefined);
      await fetches;
    })();
    return this.stopping;
  }

  // One request's way in.

  private async generate(command: GenerateCommand): Promise<void> {
    // An id that is still open is the client's defect; the open request is not to pay for it.
    if (this.requests.has(command.id)) return;
    const request = new OpenRequest(command.id);
    this.requests.set(command.id, request);
    this.numPreparing++;
    try {
      // Native code counts those it has; these wait as well, for the model or their tokens.
      this.queueFull.check(this.numPreparing);
      // At receipt: a later add or remove of the name does not concern this request.
      const lease = await this.adapters.registry.lease(command.adapters);
      request.lease = lease;
      try {
        const engine = await this.engine();
        if (request.ended) return;
        const prepared = await prepareRequest(command, engine, this.grammars);
        if (request.ended) return;
        const { output, sampling } = prepared;
        const nativeId = this.nextNativeId();
        request.promptTokens = prepared.tokens.length;
        request.submission = {
          nativeId,
          adapter: lease.identity,
          output,
          sampling,
          atMs: request.elapsedMs(),
        };
        const uses = activeUses(lease.uses, prepared.tokens);
        this.submit(engine, request, nativeId, prepared, uses, serviceOf(command));
      } finally {
        if (request.submission === null) lease.release();
      }
    } catch (error) {
      this.fail(request, error);
    }
  }

  private submit(
    engine: LoadedEngine,
    request: OpenRequest,
    nativeId: number,
    { tokens, sampling, constraint }: PreparedRequest,
    adapters: readonly NativeAdapterUse[],
    service: NativeService,
  ): void {
    this.numPreparing--;
    this.submitted.set(nativeId, request);
    try {
      engine.native.submit(nativeId, tokens, adapters, sampling.native, constraint, service);
    } catch (error) {
      this.submitted.delete(nativeId);
      request.lease?.release();
      throw error;
    }
  }

  private nextNativeId(): number {
    do {
      this.lastNativeId = (this.lastNativeId % MAX_NATIVE_ID) + 1;
    } while (this.submitted.has(this.lastNativeId) || this.embeddings.owns(this.lastNativeId));
    return this.lastNativeId;
  }

  private cancel(id: number): void {
    const request = this.requests.get(id);
    if (request === undefined) return;
    if (request.submission === null) this.abort(request);
    else this.cancelNative(request.submission.nativeId);
  }

  private cancelNative(nativeId: number): void {
    // Submitted, hence loaded.
    void this.loading?.then((engine) => engine.native.cancel(nativeId)).catch(() => undefined);
  }

  // What native code reports.

  private onStep(read: () => void): void {
    try {
      read();
    } catch (cause) {
      const message = cause instanceof Error ? cause.message : String(cause);
      const lost = `The engine's report of a step cannot be read: ${message}`;
      void this.stop(new LoraxError('ENGINE_LOST', lost, { cause }));
    }
    this.outbox.flush();
  }

  private onStarted(nativeId: number, queueMicroseconds: number, cachedTokens: number): void {
    this.embeddings.onStarted(nativeId);
    const request = this.submitted.get(nativeId);
    if (request === undefined || request.ended || request.submission === null) return;
    const queueMs = request.submission.atMs + queueMicroseconds / 1000;
    request.queueMs = queueMs;
    request.cachedTokens = cachedTokens;
    const { id, promptTokens } = request;
    const { adapter } = request.submission;
    this.outbox.emit({ type: 'start', id, adapter, promptTokens, cachedTokens, queueMs });
  }

  private onTokens(nativeId: number, batch: TokenBatch): void {
    const request = this.submitted.get(nativeId);
    if (request === undefined || request.ended || request.submission === null) return;
    const isFirst = request.timeToFirstTokenMs === null;
    if (!isFirst && this.readsFirsts) this.outbox.flush();
    this.readsFirsts = isFirst;
    request.timeToFirstTokenMs ??= request.elapsedMs();
    const { parts, tokenIds, logprobs, stop } = request.submission.output.push(batch);
    if (tokenIds.length > 0) {
      this.outbox.emit(...answerEvents(request.id, parts, tokenIds, logprobs));
    }
    if (stop === null) return;
    this.finish(request, finishAtString(stop));
    this.cancelNative(nativeId);
  }

  private onFinished(nativeId: number, reasonIndex: number): void {
    this.onLast(nativeId, (request) => {
      const { submission } = request;
      if (submission === null) return;
      const { parts, stop } = submission.output.flush();
      this.outbox.emit(...answerEvents(request.id, parts));
      const finish = stop === null ? finishOf(submission, reasonIndex) : finishAtString(stop);
      this.finish(request, finish);
    });
  }

  /** Native code's last word on a request; nobody listens where it has ended already. */
  private onLast(nativeId: number, end: (request: OpenRequest) => void): void {
    const request = this.submitted.get(nativeId);
    this.submitted.delete(nativeId);
    request?.lease?.release();
    if (request !== undefined && !request.ended) end(request);
  }

  private modelProgress(stage: 'fetch-model' | 'model') {
    const name = this.options.model;
    return throttledProgress(
      (event) => this.outbox.emit(event),
      (loadedBytes, totalBytes) => ({ stage, name, loadedBytes, totalBytes }),
    );
  }

  // Terminal events: the only places that end a request.

  private finish(request: OpenRequest, finish: Finish): void {
    if (!this.end(request)) return;
    const { id } = request;
    const [usage, timing] = [request.usage(), request.timing()];
    this.outbox.emit({ type: 'finish', id, ...finish, usage, timing });
  }

  private abort(request: OpenRequest): void {
    if (!this.end(request)) return;
    const { id } = request;
    this.outbox.emit({ type: 'aborted', id, usage: request.usage(), timing: request.timing() });
  }

  private fail(request: OpenRequest, thrown: unknown): void {
    if (!this.end(request)) return;
    const { id } = request;
    const error = wireError(thrown, 'INVALID_OPTIONS');
    this.outbox.emit({
      type: 'failed',
      id,
      error,
      usage: request.usage(),
      timing: request.timing(),
    });
    this.stopIfLost(error);
  }

  /** The client starts a new worker then; what is left here ends. */
  private stopIfLost({ code, message, data }: WireError): void {
    if (code === 'ENGINE_LOST') void this.stop(new LoraxError('ENGINE_LOST', message, { data }));
  }

  private end(request: OpenRequest): boolean {
    if (request.ended) return false;
    request.ended = true;
    this.requests.delete(request.id);
    if (request.submission === null) this.numPreparing--;
    return true;
  }
}

async function isDirectory(file: string): Promise<boolean> {
  return stat(file).then(
    (found) => found.isDirectory(),
    () => false,
  );
}

function disposedError(): LoraxError {
  return new LoraxError('DISPOSED', 'The engine has been disposed.');
}
