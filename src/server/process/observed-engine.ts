/**
 * An engine whose generations and embeddings somebody watches: metrics, spans, whoever restarts it.
 *
 * Everything goes through unchanged. A watch hears start, tokens and one end, which comes when the
 * reader knows the outcome and the engine has told the usage, also of aborted and failed requests.
 * Tenants' views are watched as well. Made by start-server.ts, around the one engine of a process.
 */
import { performance } from 'node:perf_hooks';
import { checkAdapterField } from '../../adapter-mix.js';
import type {
  EmbedRequest,
  Engine,
  EngineView,
  GenerateRequest,
  StartEvent,
  Timing,
  TokenEvent,
  Usage,
} from '../../types.js';

export interface ObservedRequest {
  kind: 'generate' | 'embed';
  /** As the request names them; empty = the base. */
  adapters: readonly string[];
  tenant: string | undefined;
}

export interface RequestEnd {
  outcome: 'finished' | 'aborted' | 'failed';
  /** 'stop', 'length', 'tool-calls'; of what finished. */
  reason?: string;
  error?: unknown;
  usage: Usage;
  timing: Timing;
}

export interface RequestWatch {
  start?(event: StartEvent): void;
  /** Milliseconds since the last ones, or since the request began. */
  tokens?(count: number, sinceMs: number): void;
  end?(end: RequestEnd): void;
}

export type EngineObserver = (request: ObservedRequest) => RequestWatch;

const NO_USAGE: Usage = { promptTokens: 0, cachedTokens: 0, outputTokens: 0 };

export function observeEngine(engine: Engine, observers: readonly EngineObserver[]): Engine {
  return {
    ...observeView(engine, observers, undefined),
    stats: () => engine.stats(),
    tenant: (id, options) => observeView(engine.tenant(id, options), observers, id),
  };
}

function observeView<STATS>(
  view: EngineView<STATS>,
  observers: readonly EngineObserver[],
  tenant: string | undefined,
): EngineView<STATS> {
  const watch = (kind: ObservedRequest['kind'], adapter: GenerateRequest['adapter']) => {
    const adapters = namesOf(adapter);
    return observers.map((observe) => observe({ kind, adapters, tenant }));
  };
  return {
    ready: () => view.ready(),
    generate: (request) => observed(view, request, watch('generate', request.adapter)),
    embed: (request) => observedEmbed(view, request, watch('embed', request.adapter)),
    tokenize: (request) => view.tokenize(request),
    detokenize: (tokenIds) => view.detokenize(tokenIds),
    adapters: view.adapters,
    stats: () => view.stats(),
    dispose: () => view.dispose(),
    [Symbol.asyncDispose]: () => view.dispose(),
  };
}

/** As the engine reads them; what is wrong with them it says. */
function namesOf(adapter: unknown): readonly string[] {
  try {
    return checkAdapterField(adapter, 'adapter').map(({ name }) => name);
  } catch {
    return [];
  }
}

function observed<STATS>(
  view: EngineView<STATS>,
  request: GenerateRequest,
  watches: readonly RequestWatch[],
): AsyncIterable<TokenEvent> {
  const ending = new Ending(watches);
  const source = view.generate({
    ...request,
    onUsage: (usage, timing) => {
      ending.told(usage, timing);
      request.onUsage?.(usage, timing);
    },
  } as GenerateRequest);
  const iterator = source[Symbol.asyncIterator]();
  let lastAt = performance.now();
  const see = (event: TokenEvent) => {
    if (event.type === 'start') for (const each of watches) each.start?.(event);
    if (event.type === 'finish') ending.over({ outcome: 'finished', reason: event.reason });
    if (event.type !== 'delta' || event.tokenIds.length === 0) return;
    const now = performance.now();
    for (const each of watches) each.tokens?.(event.tokenIds.length, now - lastAt);
    lastAt = now;
  };
  return {
    [Symbol.asyncIterator]: () => ({
      async next() {
        try {
          const result = await iterator.next();
          if (result.done !== true) see(result.value);
          return result;
        } catch (error) {
          const isAbort = request.signal?.aborted === true && error === request.signal.reason;
          ending.over({ outcome: isAbort ? 'aborted' : 'failed', error });
          throw error;
        }
      },
      async return() {
        ending.over({ outcome: 'aborted' });
        return (await iterator.return?.()) ?? { done: true, value: undefined };
      },
    }),
  };
}

/** One end, when both halves of it are known. */
class Ending {
  private how: Pick<RequestEnd, 'outcome' | 'reason' | 'error'> | undefined;
  private usage: { usage: Usage; timing: Timing } | undefined;
  private done = false;

  constructor(private readonly watches: readonly RequestWatch[]) {}

  over(how: Pick<RequestEnd, 'outcome' | 'reason' | 'error'>): void {
    this.how ??= how;
    this.settle();
  }

  told(usage: Usage, timing: Timing): void {
    this.usage = { usage, timing };
    this.settle();
  }

  private settle(): void {
    if (this.done || this.how === undefined || this.usage === undefined) return;
    this.done = true;
    for (const watch of this.watches) watch.end?.({ ...this.how, ...this.usage });
  }
}

async function observedEmbed<STATS>(
  view: EngineView<STATS>,
  request: EmbedRequest,
  watches: readonly RequestWatch[],
) {
  const begin = performance.now();
  const timing = (): Timing => ({
    ...{ queueMs: 0, timeToFirstTokenMs: null },
    totalMs: performance.now() - begin,
  });
  try {
    const result = await view.embed(request);
    const usage = { ...NO_USAGE, promptTokens: result.usage.promptTokens };
    for (const each of watches) each.end?.({ outcome: 'finished', usage, timing: timing() });
    return result;
  } catch (error) {
    const outcome = request.signal?.aborted === true ? 'aborted' : 'failed';
    const end = { usage: NO_USAGE, timing: timing() };
    for (const each of watches) each.end?.({ outcome, error, ...end });
    throw error;
  }
}
