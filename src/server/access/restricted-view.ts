/**
 * An engine's view as one key has it: the adapters it may use, and how much its tenant may have. What it
 * may not use does not exist for it.
 *
 * Handlers ask the engine through such a view alone (environment.ts), so no route can forget. A mix
 * counts as all its adapters. Made by access.ts.
 */
import { checkAdapterField } from '../../adapter-mix.js';
import { BASE_MODEL } from '../../adapter-name.js';
import { LoraxError } from '../../errors.js';
import type {
  AdapterInfo,
  EmbedRequest,
  EngineAdapters,
  EngineView,
  GenerateRequest,
  TokenEvent,
} from '../../types.js';
import { HttpError } from '../http-error.js';
import type { TenantAllowance } from './tenant-limits.js';

export interface Restrictions {
  mayUse(adapter: string): boolean;
  mayUseBase: boolean;
  /** Shared names, for lists. */
  listShared(): Promise<AdapterInfo[]>;
  allowance: TenantAllowance | undefined;
  /** Loads and unloads adapters; what may be loaded is the route's to say (allowed-sources.ts). */
  mayChange: boolean;
}

export function restrictView<STATS>(
  view: EngineView<STATS>,
  limits: Restrictions,
): EngineView<STATS> {
  const check = (adapter: GenerateRequest['adapter']) => checkAdapter(adapter, limits);
  return {
    ready: () => view.ready(),
    generate: (request) => {
      try {
        check(request.adapter);
        const end = limits.allowance?.begin();
        return hiding(view.generate(end === undefined ? request : withUsage(request, end)));
      } catch (error) {
        return refused(request, error);
      }
    },
    embed: async (request: EmbedRequest) => {
      check(request.adapter);
      const end = limits.allowance?.begin();
      let tokens = 0;
      try {
        const result = await view.embed(request);
        tokens = result.usage.promptTokens;
        return result;
      } catch (error) {
        throw hidden(error);
      } finally {
        end?.(tokens);
      }
    },
    tokenize: (request) => view.tokenize(request),
    detokenize: (tokenIds) => view.detokenize(tokenIds),
    adapters: restrictAdapters(view.adapters, limits),
    stats: () => view.stats(),
    dispose: () => Promise.reject(notAllowed('end the engine')),
    [Symbol.asyncDispose]: () => Promise.reject(notAllowed('end the engine')),
  };
}

function withUsage(request: GenerateRequest, end: (tokens: number) => void): GenerateRequest {
  return {
    ...request,
    onUsage: (usage, timing) => {
      end(usage.promptTokens + usage.outputTokens);
      request.onUsage?.(usage, timing);
    },
  } as GenerateRequest;
}

/** As the engine refuses: through the stream, so that whoever opened several ends the others. */
function refused(request: GenerateRequest, error: unknown): AsyncIterable<TokenEvent> {
  request.onUsage?.(
    { promptTokens: 0, cachedTokens: 0, outputTokens: 0 },
    { queueMs: 0, timeToFirstTokenMs: null, totalMs: 0 },
  );
  return { [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(error) }) };
}

/** Throws ADAPTER_NOT_FOUND, what one may not use is not there; INVALID_OPTIONS as the engine does. */
function checkAdapter(adapter: GenerateRequest['adapter'], limits: Restrictions): void {
  const adapters = checkAdapterField(adapter, 'adapter');
  if (adapters.length === 0 && !limits.mayUseBase) throw notThere(BASE_MODEL);
  for (const { name } of adapters) if (!mayUse(name, limits)) throw notThere(name);
}

/** A version, name@hash, is its name's. */
function mayUse(name: string, limits: Restrictions): boolean {
  const plain = name.includes('@') ? name.slice(0, name.lastIndexOf('@')) : name;
  return limits.mayUse(plain);
}

/** What the engine says of a name that is not there holds the names that are. */
function hidden(error: unknown): unknown {
  if (!LoraxError.isInstance(error) || error.code !== 'ADAPTER_NOT_FOUND') return error;
  return notThere(String(error.data.adapter));
}

function hiding(source: AsyncIterable<TokenEvent>): AsyncIterable<TokenEvent> {
  return {
    [Symbol.asyncIterator]() {
      const iterator = source[Symbol.asyncIterator]();
      return {
        next: () =>
          iterator.next().catch((error: unknown) => {
            throw hidden(error);
          }),
        return: async () =>
          (await iterator.return?.()) ?? { done: true as const, value: undefined },
      };
    },
  };
}

function notThere(adapter: string): LoraxError {
  const message = `There is no adapter named ${JSON.stringify(adapter)}.`;
  return new LoraxError('ADAPTER_NOT_FOUND', message, { data: { adapter, known: [] } });
}

function restrictAdapters(adapters: EngineAdapters, limits: Restrictions): EngineAdapters {
  const known = (name: string) => {
    if (!mayUse(name, limits)) throw notThere(name);
  };
  return {
    add: async (name, source) => {
      if (!limits.mayChange) throw notAllowed('load adapters');
      return adapters.add(name, source);
    },
    remove: async (name) => {
      if (!limits.mayChange) throw notAllowed('unload adapters');
      return adapters.remove(name);
    },
    identify: async (name) => {
      known(name);
      return adapters.identify(name);
    },
    prefetch: async (name) => {
      known(name);
      return adapters.prefetch(name);
    },
    async list() {
      const [own, shared] = await Promise.all([adapters.list(), limits.listShared()]);
      const byName = new Map<string, AdapterInfo>();
      for (const info of shared) if (limits.mayUse(info.name)) byName.set(info.name, info);
      for (const info of own) byName.set(info.name, info);
      return [...byName.values()];
    },
  };
}

function notAllowed(what: string): HttpError {
  return new HttpError(403, `This key may not ${what}.`, { code: 'not_allowed' });
}
