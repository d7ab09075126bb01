/**
 * An EngineAddon without native code: the contract of worker/addon.ts, token by token.
 *
 * Deterministic: the next token depends on the request alone (its prompt, adapters, seed and
 * position), unless a test gives its own rule. Steps run by themselves, or one at a time when
 * `manual`. Every submitted request ends in exactly one of Finished, Aborted, Failed. Used by tests
 * of the worker, and bundled as a stand-in for lorax.node where a test runs a real worker.
 */
import { EVENT } from '../../worker/addon.js';
import type {
  EngineAddon,
  NativeAdapterInfo,
  NativeAdapterSpec,
  NativeAdapterUse,
  NativeConstraint,
  NativeEngine,
  NativeEmbedding,
  NativeEngineConfig,
  NativeEngineInfo,
  NativeFailure,
  NativeGrammar,
  NativeSampling,
  NativeService,
  NativeStats,
  NativeVocabulary,
  StepEvents,
} from '../../worker/addon.js';

export interface FakeRequest {
  id: number;
  prompt: Int32Array;
  /** Empty = base. */
  adapters: readonly NativeAdapterUse[];
  /** One that is embedded has none of its own. */
  sampling: NativeSampling;
  embedding?: NativeEmbedding;
  constraint?: NativeConstraint;
  service?: NativeService;
  output: number[];
}

/** It constrains nothing: a test's nextToken does what its text says. */
export interface FakeGrammar extends NativeGrammar {
  readonly text: string;
}

export interface FakeAddonOptions {
  /** Default: a hash of prompt, adapters, seed and position. */
  nextToken?(request: FakeRequest): number;
  /** Steps happen only when a test calls step(). */
  manual?: boolean;
  /** Default: of a prompt its length, its first and last token, and the sum of weight * (handle + 1), less 1. */
  embed?(request: FakeRequest): Float32Array | NativeFailure;
  /** How many requests run at once; others wait. Default 16. */
  maxRunning?: number;
  tokensPerStep?: number;
  /** Called when an engine is made; may throw or wait. */
  onCreate?(config: NativeEngineConfig): void | Promise<void>;
  /** Called when an adapter is added; may throw or wait. */
  onAddAdapter?(spec: NativeAdapterSpec): void | Promise<void>;
  /** Called when a grammar is compiled; may throw or wait. Returns shortestTokens, default 1. */
  onCompileGrammar?(text: string): number | Promise<number>;
}

export interface FakeAddon extends EngineAddon {
  /** Every engine made so far. */
  readonly engines: FakeEngine[];
}

export function createFakeAddon(options: FakeAddonOptions = {}): FakeAddon {
  const engines: FakeEngine[] = [];
  return {
    engines,
    async createEngine(config, onEvents, onProgress) {
      await options.onCreate?.(config);
      onProgress(0, 100);
      onProgress(100, 100);
      const engine = new FakeEngine(config, options, onEvents);
      engines.push(engine);
      return engine;
    },
    createEvaluator() {
      throw new Error('The fake addon computes no logits.');
    },
    createMatcher() {
      throw new Error('The fake addon knows no grammars.');
    },
  };
}

export class FakeEngine implements NativeEngine {
  stopped = false;
  /** In the order of submission. */
  readonly submissions: FakeRequest[] = [];
  readonly adapterSpecs = new Map<number, NativeAdapterSpec>();
  /** Handles given to removeAdapter, in order. */
  readonly removedAdapters: number[] = [];
  /** Handles given to prefetchAdapter, in order. */
  readonly prefetched: number[] = [];
  vocabulary: NativeVocabulary | null = null;
  /** In the order of compilation; equal texts share one. */
  readonly grammars = new Map<string, FakeGrammar>();
  private readonly waiting: FakeRequest[] = [];
  private readonly running: FakeRequest[] = [];
  private readonly cancelled = new Set<number>();
  private readonly refused: { id: number; failure: NativeFailure }[] = [];
  private nextHandle = 0;
  private timer: NodeJS.Immediate | null = null;
  private readonly totals = { steps: 0, promptTokens: 0, outputTokens: 0, finished: 0, aborted: 0 };

  constructor(
    private readonly config: NativeEngineConfig,
    private readonly options: FakeAddonOptions,
    private readonly onEvents: (events: StepEvents) => void,
  ) {}

  info(): NativeEngineInfo {
    return {
      device: 'cpu',
      deviceDescription: 'fake',
      numPages: 1024,
      pageBytes: 4096,
      blockTokens: 16,
    };
  }

  async addAdapter(spec: NativeAdapterSpec): Promise<number> {
    this.checkRunning();
    await this.options.onAddAdapter?.(spec);
    this.checkRunning();
    const handle = this.nextHandle++;
    this.adapterSpecs.set(handle, spec);
    return handle;
  }

  removeAdapter(handle: number): void {
    if (!this.adapterSpecs.delete(handle)) throw new Error(`No adapter with handle ${handle}`);
    this.removedAdapters.push(handle);
  }

  relocateAdapter(handle: number, spec: NativeAdapterSpec): void {
    this.adapterSpecs.set(handle, spec);
  }

  prefetchAdapter(handle: number): void {
    this.prefetched.push(handle);
  }

  adapters(): NativeAdapterInfo[] {
    const active = (handle: number) =>
      [...this.waiting, ...this.running].filter(({ adapters }) =>
        adapters.some((use) => use.handle === handle),
      ).length;
    return [...this.adapterSpecs.keys()].map((handle) => ({
      handle,
      bytes: 1000 + handle,
      inHost: true,
      resident: true,
      activeRequests: active(handle),
    }));
  }

  setVocabulary(vocabulary: NativeVocabulary): void {
    this.checkRunning();
    if (this.vocabulary !== null) throw new Error('The vocabulary is set already');
    this.vocabulary = vocabulary;
  }

  async compileGrammar(text: string): Promise<NativeGrammar> {
    this.checkRunning();
    if (this.vocabulary === null) throw new Error('A grammar needs the vocabulary');
    const shortestTokens = (await this.options.onCompileGrammar?.(text)) ?? 1;
    this.checkRunning();
    const grammar = this.grammars.get(text) ?? { text, shortestTokens };
    this.grammars.set(text, grammar);
    return grammar;
  }

  submit(
    id: number,
    prompt: Int32Array,
    adapters: readonly NativeAdapterUse[],
    sampling: NativeSampling,
    constraint?: NativeConstraint,
    service?: NativeService,
  ): void {
    const request: FakeRequest = { id, prompt: prompt.slice(), adapters, sampling, output: [] };
    if (constraint !== undefined) request.constraint = constraint;
    if (service !== undefined) request.service = service;
    this.enqueue(request);
  }

  embed(
    id: number,
    prompt: Int32Array,
    adapters: readonly NativeAdapterUse[],
    embedding: NativeEmbedding,
    service?: NativeService,
  ): void {
    const sampling = NO_SAMPLING;
    const request = { id, prompt: prompt.slice(), adapters, sampling, embedding, output: [] };
    this.enqueue(service === undefined ? request : { ...request, service });
  }

  private enqueue(request: FakeRequest): void {
    const { id, prompt, adapters, sampling, constraint } = request;
    this.checkRunning();
    for (const { handle } of adapters) {
      if (!this.adapterSpecs.has(handle)) throw new Error(`No adapter ${handle}`);
    }
    if (this.find(id) !== undefined) throw new Error(`Request ${id} is open already`);
    if (
      constraint !== undefined &&
      ![...this.grammars.values()].includes(constraint.grammar as FakeGrammar)
    ) {
      throw new Error('The grammar is not one of this engine');
    }
    this.submissions.push(request);
    const contextTokens = this.config.model.config.contextTokens;
    if (prompt.length + sampling.maxOutputTokens > contextTokens) {
      const data = { promptTokens: prompt.length, contextTokens };
      this.refuse(id, 'CONTEXT_TOO_LONG', 'The prompt and its answer do not fit.', data);
    } else if (this.waiting.length >= this.config.maxQueued) {
      this.refuse(id, 'QUEUE_FULL', 'Too many requests wait.', {
        maxQueued: this.config.maxQueued,
      });
    } else {
      this.waiting.push(request);
    }
    this.schedule();
  }

  cancel(id: number): void {
    if (this.find(id) === undefined) return;
    this.cancelled.add(id);
    this.schedule();
  }

  stats(): NativeStats {
    const { steps, promptTokens, outputTokens, finished, aborted } = this.totals;
    return {
      pages: { total: 1024, free: 1024, kv: 0, cold: 0, adapter: 0, retiring: 0 },
      host: { bytes: 0, budgetBytes: this.config.hostMemoryBytes, images: this.adapterSpecs.size },
      ...{ hostDrops: 0, hostReads: 0 },
      running: this.running.length,
      waiting: this.waiting.length,
      ...{ steps, promptTokens, outputTokens, finished, aborted },
      ...{ preemptions: 0, adapterLoads: this.nextHandle, adapterEvictions: 0, failed: 0 },
      admissionUs: 2000,
      ...{ cachedTokens: 0, prefixHits: 0, prefixMisses: 0, prefixEvictions: 0, adapterHits: 0 },
      recentSteps: Int32Array.of(0, this.running.length, 0, 1500),
    };
  }

  async stop(): Promise<void> {
    if (this.stopped) return;
    this.stopped = true;
    if (this.timer !== null) clearImmediate(this.timer);
    const failure = { code: 'DISPOSED', message: 'The engine has been stopped.', data: {} };
    const open = [...this.running.splice(0), ...this.waiting.splice(0)];
    for (const { id } of open) this.refused.push({ id, failure });
    this.report([]);
    await new Promise((resolve) => setImmediate(resolve));
  }

  /** Fails everything open as a broken device would. */
  lose(message: string): void {
    const failure = { code: 'ENGINE_LOST', message, data: { recoverable: true } };
    for (const { id } of [...this.running.splice(0), ...this.waiting.splice(0)]) {
      this.refused.push({ id, failure });
    }
    this.report([]);
  }

  /** One engine step: cancels, admissions, then up to tokensPerStep tokens for each that runs. */
  step(): void {
    const ints: number[] = [];
    const floats: number[] = [];
    for (const list of [this.waiting, this.running]) {
      for (const request of [...list]) {
        if (!this.cancelled.has(request.id)) continue;
        list.splice(list.indexOf(request), 1);
        ints.push(EVENT.Aborted, request.id, request.output.length);
        this.totals.aborted++;
      }
    }
    this.cancelled.clear();
    while (this.running.length < (this.options.maxRunning ?? 16) && this.waiting.length > 0) {
      const request = this.waiting.shift() as FakeRequest;
      this.running.push(request);
      this.totals.promptTokens += request.prompt.length;
      ints.push(EVENT.Started, request.id, 250, Math.floor(request.prompt.length / 2));
    }
    // First tokens before the others', as the engine has it.
    const [firsts, others] = [[], []] as [FakeRequest[], FakeRequest[]];
    for (const request of this.running)
      (request.output.length === 0 ? firsts : others).push(request);
    for (const request of [...firsts, ...others]) this.advance(request, ints, floats);
    this.totals.steps++;
    this.report(ints, floats);
    if (this.running.length + this.waiting.length > 0) this.schedule();
  }

  private advance(request: FakeRequest, ints: number[], floats: number[]): void {
    if (request.embedding !== undefined) return this.finishEmbedding(request, ints, floats);
    const { prompt, sampling, output } = request;
    const { contextTokens } = this.config.model.config;
    const tokens: number[] = [];
    let reason = -1;
    for (let i = 0; i < (this.options.tokensPerStep ?? 1) && reason < 0; i++) {
      const token = (this.options.nextToken ?? hashedToken)(request);
      output.push(token);
      tokens.push(token);
      if (sampling.stopTokenIds.includes(token)) reason = 0;
      else if (output.length === sampling.maxOutputTokens) reason = 1;
      else if (prompt.length + output.length >= contextTokens) reason = 2;
    }
    this.totals.outputTokens += tokens.length;
    const numTop = sampling.logprobs;
    ints.push(EVENT.Tokens, request.id, tokens.length, numTop, ...tokens);
    // Recognizable numbers: token t has logprob -t / 1000, its k-th alternative -(t + k) / 1000.
    for (const token of tokens) for (let k = 1; k <= numTop; k++) ints.push(token + k);
    if (numTop >= 0) {
      for (const token of tokens)
        for (let k = 0; k <= numTop; k++) floats.push(-(token + k) / 1000);
    }
    if (reason < 0) return;
    this.running.splice(this.running.indexOf(request), 1);
    this.totals.finished++;
    ints.push(EVENT.Finished, request.id, reason, output.length);
  }

  private finishEmbedding(request: FakeRequest, ints: number[], floats: number[]): void {
    const embedding = (this.options.embed ?? recognizableEmbedding)(request);
    this.running.splice(this.running.indexOf(request), 1);
    if (!(embedding instanceof Float32Array)) {
      this.refused.push({ id: request.id, failure: embedding });
      return;
    }
    this.totals.finished++;
    ints.push(EVENT.Embedded, request.id, embedding.length);
    floats.push(...embedding);
  }

  private report(ints: number[], floats: number[] = []): void {
    const failures: NativeFailure[] = [];
    for (const { id, failure } of this.refused.splice(0)) {
      ints.push(EVENT.Failed, id, failures.length, 0);
      failures.push(failure);
    }
    if (ints.length === 0) return;
    this.onEvents({ ints: Int32Array.from(ints), floats: Float32Array.from(floats), failures });
  }

  private refuse(id: number, code: string, message: string, data: NativeFailure['data']): void {
    this.refused.push({ id, failure: { code, message, data } });
  }

  private find(id: number): FakeRequest | undefined {
    return [...this.waiting, ...this.running].find((request) => request.id === id);
  }

  private schedule(): void {
    if (this.options.manual === true || this.timer !== null || this.stopped) return;
    this.timer = setImmediate(() => {
      this.timer = null;
      if (!this.stopped) this.step();
    });
  }

  private checkRunning(): void {
    if (!this.stopped) return;
    throw Object.assign(new Error('The engine has been stopped.'), { code: 'DISPOSED', data: {} });
  }
}

const NO_SAMPLING = { maxOutputTokens: 0 } as NativeSampling;

function recognizableEmbedding({ prompt, adapters }: FakeRequest): Float32Array {
  const sum = adapters.reduce((total, { handle, weight }) => total + weight * (handle + 1), -1);
  return Float32Array.of(prompt.length, prompt[0] ?? 0, prompt.at(-1) ?? 0, sum);
}

/** FNV-1a over prompt, adapters, seed and position, into the first 256 ids (the fixtures' bytes). */
export function hashedToken({ prompt, adapters, sampling, output }: FakeRequest): number {
  let hash = 0x811c9dc5;
  const mix = (value: number) => {
    hash = Math.imul(hash ^ value, 0x01000193) >>> 0;
  };
  prompt.forEach(mix);
  for (const { handle, weight } of adapters) [handle, Math.round(1000 * weight)].forEach(mix);
  [adapters.length, ...sampling.seed, output.length].forEach(mix);
  return (hash >>> 8) % 256;
}
