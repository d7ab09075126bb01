/**
 * An engine without a model, for the tests of apps: scripted answers, everything else as the real
 * one: the same events, checks, errors, usage and abort. No worker, no native code, no disk.
 *
 * A "token" is a word with the blanks before it. Called through `lorax-js/test`.
 */
import { createHash, randomUUID } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import { onAbort as listenForAbort } from '../abort-listeners.js';
import { adaptersIdentity } from '../adapter-mix.js';
import type { WeightedAdapter } from '../adapter-mix.js';
import { BASE_MODEL, checkAdapterName } from '../adapter-name.js';
import { directorySource, hasKey, resolveAdapterSource } from '../adapter-source.js';
import type { ResolvedSource } from '../adapter-source.js';
import { checkNumber, checkObject } from '../check-shape.js';
import { disposedError, unknownAdapter } from '../client-errors.js';
import { checkEmbedRequest } from '../embed-request.js';
import type { CheckedEmbedRequest } from '../embed-request.js';
import type { LoraxError } from '../errors.js';
import { checkGenerateRequest } from '../generate-request.js';
import type { CheckedRequest } from '../generate-request.js';
import { checkWeight, deadlineExceeded, onDeadline } from '../service-options.js';
import { TokenStream } from '../token-stream.js';
import { askedOf, countPromptTokens, playSteps, splitTokens, tokenId } from './fake-answer.js';
import type { FakeAnswer, FakeReply, FakeScript, FakeStep } from './fake-answer.js';
import { checkDetokenize, checkTokenizeRequest } from '../tokenize-request.js';
import { fakeEmbedding } from './fake-embedding.js';
import type {
  AdapterIdentity,
  AdapterInfo,
  AdapterSource,
  DetokenizeResult,
  EmbedRequest,
  EmbedResult,
  Engine,
  EngineAdapters,
  EngineInfo,
  EngineStats,
  FinishEvent,
  GenerateRequest,
  TenantOptions,
  TokenizeRequest,
  TokenizeResult,
  Usage,
} from '../types.js';

export interface FakeEngineOptions {
  /**
   * By adapter name; 'base' is the base model, "0.7*pirate + 0.3*json" a mix. Its names are
   * registered from the start.
   */
  answers?: Record<string, FakeAnswer>;
  /** Pause before each token, ms. Default 0: one turn of the event loop. */
  tokenMs?: number;
}

interface Run {
  end(error: unknown): void;
}

export class FakeEngine implements Engine {
  readonly adapters: EngineAdapters;
  readonly #answers: Map<string, FakeAnswer>;
  readonly #tokenMs: number;
  readonly #adapters = new Map<string, ResolvedSource>();
  readonly #options: FakeEngineOptions;
  readonly #tenants = new Map<string, FakeEngine>();
  /** Of a tenant: the engine whose names it shares. */
  #everybody: FakeEngine | undefined;
  readonly #runs = new Set<Run>();
  /** By token id. */
  readonly #spelled = new Map<number, string>();
  #disposed = false;
  readonly #totals = {
    ...{ steps: 0, promptTokens: 0, outputTokens: 0, preemptions: 0, adapterLoads: 0 },
    ...{ adapterEvictions: 0, hostDrops: 0, hostReads: 0, finished: 0, aborted: 0, failed: 0 },
    ...{ cachedTokens: 0, prefixHits: 0, prefixMisses: 0, prefixEvictions: 0, adapterHits: 0 },
  };

  constructor(options: FakeEngineOptions = {}) {
    checkObject(options, 'options', ['answers', 'tokenMs']);
    this.#tokenMs = checkNumber(options.tokenMs, 'options.tokenMs', { min: 0, max: 60_000 }) ?? 0;
    this.#options = options;
    this.#answers = new Map(Object.entries(options.answers ?? {}));
    for (const name of this.#answers.keys()) {
      if (name === BASE_MODEL) continue;
      for (const part of namesIn(name)) {
        checkAdapterName(part, 'options.answers');
        this.declareAdapter(part, directorySource(`/fake/${part}`));
      }
    }
    const identify = async (name: string) => {
      this.#checkOpen();
      if (this.#sourceOf(name) === undefined) throw this.#unknownAdapter(name);
      return this.#identity(name);
    };
    this.adapters = {
      add: async (name, source) => {
        this.#checkOpen();
        checkAdapterName(name, 'name');
        // There is no content here that could change: a version is what is there.
        if (hasKey(source, 'hash')) return identify(name);
        this.declareAdapter(name, resolveAdapterSource(source as AdapterSource, 'source'));
        return this.#identity(name);
      },
      remove: async (name) => {
        this.#checkOpen();
        if (!this.#adapters.has(name)) throw this.#unknownAdapter(name);
        const { hash } = this.#identity(name);
        this.#adapters.delete(name);
        return { name, hash, freedBytes: 0 };
      },
      identify,
      prefetch: (name) => {
        const loaded = identify(name);
        loaded.catch(() => undefined);
        return loaded;
      },
      list: async () => {
        this.#checkOpen();
        return [...this.#adapters.keys()].map((name) => this.#adapterInfo(name));
      },
    };
  }

  declareAdapter(name: string, source: ResolvedSource): void {
    this.#adapters.set(name, source);
  }

  /** With the same answers, and names and counts of its own. */
  tenant(id: string, { weight }: TenantOptions = {}): FakeEngine {
    checkWeight(weight, 'options.weight');
    const found = this.#tenants.get(id) ?? new FakeEngine(this.#options);
    if (found.#everybody === undefined) {
      found.#everybody = this;
      found.#adapters.clear();
    }
    this.#tenants.set(id, found);
    return found;
  }

  async ready(): Promise<EngineInfo> {
    this.#checkOpen();
    return {
      model: '/fake',
      architecture: 'FakeForCausalLM',
      device: 'cpu',
      deviceDescription: 'fake: scripted answers, no model',
      precision: 'float32',
      contextTokens: 4096,
      vocabSize: 1 << 16,
      numPages: 1,
      pageBytes: 1,
      blockTokens: 16,
    };
  }

  generate(request: GenerateRequest): TokenStream {
    const openedAt = performance.now();
    const usage: Usage = { promptTokens: 0, cachedTokens: 0, outputTokens: 0 };
    let firstTokenAt: number | null = null;
    let stopListening: (() => void) | undefined;
    let stopDeadline: (() => void) | undefined;
    const timing = () => ({
      queueMs: 0,
      timeToFirstTokenMs: firstTokenAt === null ? null : firstTokenAt - openedAt,
      totalMs: performance.now() - openedAt,
    });
    const signal = (request as Partial<GenerateRequest> | undefined)?.signal;
    const onUsage = (request as Partial<GenerateRequest> | undefined)?.onUsage;
    const settle = (outcome: 'finished' | 'aborted' | 'failed') => {
      if (!this.#runs.delete(run)) return false;
      this.#totals[outcome] += 1;
      stopListening?.();
      stopDeadline?.();
      const finalTiming = timing();
      if (typeof onUsage === 'function') queueMicrotask(() => onUsage({ ...usage }, finalTiming));
      return true;
    };
    const stream = new TokenStream(() => settle('aborted'));
    const run: Run = {
      end: (error) => {
        if (settle('failed')) stream.fail(error, { discard: false });
      },
    };
    const finish = (reason: FinishEvent['reason'], rawReason: string) => {
      stream.push({ type: 'finish', reason, rawReason, usage: { ...usage }, timing: timing() });
      stream.end();
      settle('finished');
    };
    const onAbort = () => {
      if (settle('aborted')) stream.fail(signal?.reason, { discard: true });
    };
    this.#runs.add(run);
    try {
      const checked = checkGenerateRequest(request);
      this.#checkOpen();
      if (signal?.aborted === true) {
        onAbort();
        return stream;
      }
      if (signal !== undefined) stopListening = listenForAbort(signal, onAbort);
      const { deadlineAt } = checked;
      if (deadlineAt !== undefined) {
        const allowedMs = deadlineAt - Date.now();
        const expire = () => {
          if (usage.outputTokens === 0 || checked.constraint !== undefined) {
            run.end(deadlineExceeded(allowedMs, false));
          } else {
            finish('length', 'deadline');
          }
        };
        if (allowedMs <= 0) return (expire(), stream);
        stopDeadline = onDeadline(deadlineAt, expire);
      }
      const { adapter, reply } = this.#reply(checked);
      if (reply instanceof Error) throw reply;
      const script: FakeScript = typeof reply === 'string' ? { text: reply } : reply;
      usage.promptTokens = countPromptTokens(checked);
      this.#totals.promptTokens += usage.promptTokens;
      stream.push({
        type: 'start',
        id: `lorax-fake-${randomUUID()}`,
        adapter,
        promptTokens: usage.promptTokens,
        cachedTokens: 0,
        queueMs: 0,
      });
      const { steps, reason, rawReason } = playSteps(script, checked.sampling);
      if (script.reasoning !== undefined) usage.reasoningTokens = 0;
      this.#play(steps, (step) => {
        if (!this.#runs.has(run)) return false;
        if (step !== undefined) {
          firstTokenAt ??= performance.now();
          usage.outputTokens += 1;
          if (step.reasoning) usage.reasoningTokens = (usage.reasoningTokens ?? 0) + 1;
          this.#totals.outputTokens += 1;
          this.#totals.steps += 1;
          for (const event of step.events) stream.push(event);
          return true;
        }
        if (script.thenFail !== undefined && rawReason === 'eos') {
          run.end(script.thenFail);
        } else {
          finish(reason, rawReason);
        }
        return false;
      });
    } catch (error) {
      run.end(error);
    }
    return stream;
  }

  /** After one pause; an adapter whose scripted answer is an error fails with it. */
  embed(request: EmbedRequest): Promise<EmbedResult> {
    return new Promise((resolve, reject) => {
      const checked = checkEmbedRequest(request);
      this.#checkOpen();
      request.signal?.throwIfAborted();
      const result = this.#embedding(checked);
      const settle = (outcome: 'finished' | 'aborted' | 'failed') => {
        this.#runs.delete(run);
        this.#totals[outcome] += 1;
        stopListening?.();
        stopDeadline?.();
      };
      const run: Run = {
        end: (error) => {
          settle('failed');
          reject(error as Error);
        },
      };
      const stopListening =
        request.signal &&
        listenForAbort(request.signal, () => {
          settle('aborted');
          reject(request.signal?.reason as Error);
        });
      this.#runs.add(run);
      const { deadlineAt } = checked;
      const allowedMs = (deadlineAt ?? Infinity) - Date.now();
      const expire = () => run.end(deadlineExceeded(allowedMs, false));
      const stopDeadline = deadlineAt === undefined ? undefined : onDeadline(deadlineAt, expire);
      this.#play([], () => {
        if (!this.#runs.has(run)) return false;
        settle('finished');
        this.#totals.promptTokens += result.usage.promptTokens;
        this.#totals.steps += 1;
        resolve(result);
        return false;
      });
    });
  }

  async tokenize(request: TokenizeRequest): Promise<TokenizeResult> {
    this.#checkOpen();
    const { prompt } = checkTokenizeRequest(request);
    const texts = prompt.kind === 'text' ? [prompt.text] : prompt.messages.map((m) => m.content);
    const tokenIds = texts.flatMap(splitTokens).map((token) => {
      this.#spelled.set(tokenId(token), token);
      return tokenId(token);
    });
    return { tokenIds };
  }

  /** Of words that were tokenized here; any other is '?'. */
  async detokenize(tokenIds: readonly number[]): Promise<DetokenizeResult> {
    this.#checkOpen();
    const words = checkDetokenize(tokenIds).map((id) => this.#spelled.get(id) ?? '?');
    const pieces = words.map((word) => new TextEncoder().encode(word));
    return { text: words.join(''), pieces, special: words.map(() => false) };
  }

  async stats(): Promise<EngineStats> {
    this.#checkOpen();
    return {
      pages: { total: 1, free: 1, kv: 0, cold: 0, adapter: 0, retiring: 0 },
      host: { bytes: 0, budgetBytes: 0, images: 0 },
      requests: { running: this.#runs.size, waiting: 0 },
      totals: { ...this.#totals },
      recentSteps: [],
    };
  }

  async dispose(): Promise<void> {
    this.#disposed = true;
    for (const run of [...this.#runs]) run.end(disposedError());
    await Promise.all([...this.#tenants.values()].map((tenant) => tenant.dispose()));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  #checkOpen(): void {
    if (this.#disposed) throw disposedError();
  }

  #reply(checked: CheckedRequest): { adapter: AdapterIdentity | null; reply: FakeReply } {
    const adapter = this.#identityOf(checked.adapters);
    const name = adapter?.name ?? BASE_MODEL;
    const answer = this.#answers.get(name) ?? `This is the fake answer of ${name}.`;
    if (typeof answer !== 'function') return { adapter, reply: answer };
    return { adapter, reply: answer(askedOf(checked)) };
  }

  #embedding({ input, adapters, ...settings }: CheckedEmbedRequest): EmbedResult {
    const adapter = this.#identityOf(adapters);
    const name = adapter?.name ?? BASE_MODEL;
    const answer = this.#answers.get(name);
    if (answer instanceof Error) throw answer;
    const words = input.map(splitTokens);
    return {
      embeddings: words.map((each) => fakeEmbedding(each, name, settings)),
      usage: { promptTokens: words.reduce((sum, each) => sum + each.length, 0) },
      adapter,
    };
  }

  /** One token a turn; `emit` says whether to go on, and gets undefined after the last. */
  #play(steps: FakeStep[], emit: (step: FakeStep | undefined) => boolean): void {
    let index = 0;
    const step = () => {
      if (emit(steps[index++])) next();
    };
    const next = () => {
      if (this.#tokenMs > 0) setTimeout(step, this.#tokenMs);
      else setImmediate(step);
    };
    next();
  }

  #sourceOf(name: string): ResolvedSource | undefined {
    const own = this.#adapters.get(name);
    if (own !== undefined || this.#everybody === undefined) return own;
    return this.#everybody.#sourceOf(name);
  }

  #identity(name: string): AdapterIdentity {
    const source = this.#sourceOf(name)?.shown ?? '';
    return { name, hash: createHash('sha256').update(`${name}\n${source}`).digest('hex') };
  }

  #identityOf(adapters: readonly WeightedAdapter[]): AdapterIdentity | null {
    const unknown = adapters.find(({ name }) => this.#sourceOf(name) === undefined);
    if (unknown !== undefined) throw this.#unknownAdapter(unknown.name);
    return adaptersIdentity(adapters.map((each) => ({ ...each, ...this.#identity(each.name) })));
  }

  #adapterInfo(name: string): AdapterInfo {
    const source = this.#sourceOf(name)?.shown ?? '';
    return {
      ...this.#identity(name),
      ...{ state: 'resident', source, directory: source, bytes: 0, rank: 8, activeRequests: 0 },
    };
  }

  #unknownAdapter(name: string): LoraxError {
    return unknownAdapter(name, [...this.#adapters.keys()]);
  }
}

/** Of "0.7*pirate + 0.3*json" both. */
function namesIn(shown: string): string[] {
  return shown.split(' + ').map((part) => part.slice(part.indexOf('*') + 1));
}
