/**
 * The engine behind one of LangChain's objects, and which of its weights that object asks for.
 *
 * Remembers what it has heard of the engine and its adapters, because LangChain asks for a model's
 * identity and profile without waiting. Called by the three classes.
 */
import { adaptersIdentity, adaptersName, checkAdapterField, mixOf } from '../adapter-mix.js';
import { BASE_MODEL, isAdapterName } from '../adapter-name.js';
import { checkAdapters } from '../ai-sdk/provider.js';
import { checkString, invalidOptions } from '../check-shape.js';
import type { Fields } from '../check-shape.js';
import { malformedAdapterName } from '../client-errors.js';
import { lorax } from '../default-provider.js';
import { ENGINE_OPTION_KEYS, pickEngineOptions } from '../engine-options.js';
import { ScopedEngine } from '../shared-engines.js';
import type { AdapterMix, EngineInfo, EngineView, ServiceOptions, StartEvent } from '../types.js';

/** What makes two answers comparable; part of a cache's keys. */
export interface ModelIdentity {
  /** The directory of the base model; unset until an engine of someone else's has told. */
  base?: string;
  /** Of a mix: "0.7*pirate + 0.3*json". */
  adapter: string;
  /** AdapterIdentity's; null = the base model, unset = not loaded yet. */
  adapter_hash?: string | null;
}

const FIELD = 'options.adapter';

export class EngineTarget {
  readonly engine: EngineView;
  /** 'base' = the base model. */
  readonly adapter: string | AdapterMix;
  #info: EngineInfo | undefined;
  #base: string | undefined;
  readonly #ownsEngine: boolean;
  /** By adapter's name. */
  readonly #hashes = new Map<string, string>();

  constructor(fields: Fields) {
    this.adapter = checkAdapter(fields.adapter) ?? BASE_MODEL;
    const { engine, owned, base } = chooseEngine(fields);
    this.#ownsEngine = owned;
    this.engine = engine;
    this.#base = base;
  }

  /** undefined until the engine has answered once. */
  get info(): EngineInfo | undefined {
    return this.#info;
  }

  async ready(): Promise<EngineInfo> {
    const info = await this.engine.ready();
    this.#info = info;
    this.#base ??= info.model;
    return info;
  }

  /** As far as it is known. */
  identity(adapter: string | AdapterMix): ModelIdentity {
    const adapters = checkAdapterField(adapter, FIELD);
    const known = adapters.flatMap((each) => {
      const hash = this.#hashes.get(each.name);
      return hash === undefined ? [] : [{ ...each, hash }];
    });
    return {
      ...(this.#base === undefined ? {} : { base: this.#base }),
      adapter: adaptersName(adapters),
      ...(known.length < adapters.length
        ? {}
        : { adapter_hash: adaptersIdentity(known)?.hash ?? null }),
    };
  }

  /** How it is shown. */
  nameOf(adapter: string | AdapterMix): string {
    return adaptersName(checkAdapterField(adapter, FIELD));
  }

  /**
   * Completes identity() for a call whose answer may come from a cache: loads the engine where it
   * must be asked, and the adapters, because a key tells apart what a name stands for now and then.
   */
  async identifyFor(options: string[] | { adapter?: unknown } | undefined): Promise<void> {
    const adapter = this.adapterOf(Array.isArray(options) ? {} : (options ?? {}));
    if (this.#base === undefined) await this.ready();
    const adapters = checkAdapterField(adapter, FIELD);
    await Promise.all(
      adapters.map(async ({ name }) => {
        const { hash } = await this.engine.adapters.identify(name);
        this.#hashes.set(name, hash);
      }),
    );
  }

  /** A call's options as they belong in a cache's key: with the weights, without when it is answered. */
  cacheKeyOf<T extends ServiceOptions & { adapter?: string | AdapterMix; signal?: AbortSignal }>(
    options: T,
  ) {
    const { signal: _s, priority: _p, deadline: _d, ...rest } = options;
    return { ...rest, ...this.identity(options.adapter ?? this.adapter) };
  }

  /** The adapter of one call: its own, else this object's. */
  adapterOf(options: { adapter?: unknown }): string | AdapterMix {
    const adapter = checkAdapter(options.adapter) ?? this.adapter;
    return typeof adapter === 'string' ? checkName(adapter) : adapter;
  }

  /** What an answer tells of the engine. */
  learn({ adapter }: StartEvent): void {
    const learned = adapter === null ? [] : (adapter.mix ?? [adapter]);
    for (const { name, hash } of learned) this.#hashes.set(name, hash);
    if (this.#info === undefined) this.ready().catch(() => undefined);
  }

  /** Ends this object's requests; an engine that was given to it stays. */
  async dispose(): Promise<void> {
    if (this.#ownsEngine) await this.engine.dispose();
  }
}

/** `owned`: the engine was opened here; `base` is set where that tells what it runs. */
function chooseEngine(fields: Fields): { engine: EngineView; owned: boolean; base?: string } {
  const given = [...ENGINE_OPTION_KEYS, 'adapters'].filter((key) => fields[key] !== undefined);
  if (fields.engine !== undefined) {
    if (given.length > 0) {
      throw invalidOptions(
        'options.engine',
        `options.engine is an engine that has its options already: leave out ${given.join(', ')}` +
          (given.includes('adapters') ? ' (adapters are added with engine.adapters.add()).' : '.'),
      );
    }
    return { engine: checkEngine(fields.engine), owned: false };
  }
  if (given.length === 0) return { engine: lorax.engine, owned: false };
  const options = pickEngineOptions(fields);
  const engine = new ScopedEngine(() => options);
  for (const [name, source] of checkAdapters(fields.adapters)) {
    engine.declareAdapter(name, source);
  }
  // What a name of the hub stands for is known when it is here.
  return { engine, owned: true, ...(options.hubModel ? {} : { base: options.model }) };
}

function checkEngine(engine: unknown): EngineView {
  const like = engine as Partial<EngineView> | null;
  if (typeof like === 'object' && typeof like?.generate === 'function') return engine as EngineView;
  throw invalidOptions(
    'options.engine',
    "options.engine must be what createEngine() gives, or a provider's `.engine`, or a tenant's.",
    engine,
  );
}

/** A copy of a mix; throws INVALID_OPTIONS. */
function checkAdapter(adapter: unknown): string | AdapterMix | undefined {
  if (adapter === undefined || typeof adapter === 'string') return checkString(adapter, FIELD);
  return mixOf(checkAdapterField(adapter, FIELD));
}

/** Names come from apps' clients: what cannot be a name is no adapter, before anything is asked. */
function checkName(adapter: string): string {
  if (isAdapterName(adapter)) return adapter;
  throw malformedAdapterName(adapter);
}
