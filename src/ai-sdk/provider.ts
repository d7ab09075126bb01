/**
 * The provider function: `lorax('pirate')` is a language model, `lorax.embeddingModel('pirate')` an
 * embedding model.
 *
 * Making one costs nothing: no disk, no worker, until a model is called. Adapters and defaults
 * belong to the provider; the engine behind it is shared (shared-engines.ts).
 */
import type { ImageModelV4, ProviderV4 } from '@ai-sdk/provider';
import { NoSuchModelError } from '@ai-sdk/provider';
import { resolve } from 'node:path';
import { adaptersName, checkMix, mixOf } from '../adapter-mix.js';
import { BASE_MODEL, checkAdapterName } from '../adapter-name.js';
import { checkObject, checkString, invalidOptions } from '../check-shape.js';
import { directorySource, resolveAdapterSource, type ResolvedSource } from '../adapter-source.js';
import { ENGINE_OPTION_KEYS, pickEngineOptions } from '../engine-options.js';
import { checkSampling } from '../sampling-options.js';
import { ScopedEngine } from '../shared-engines.js';
import type {
  AdapterMix,
  AdapterSource,
  AdapterIdentity,
  Engine,
  EngineAdapters,
  EngineOptions,
  EngineStats,
  EngineView,
  Sampling,
  TenantOptions,
  TenantStats,
} from '../types.js';
import type { Connect } from '../worker-connection.js';
import { LoraxEmbeddingModel } from './embedding-model.js';
import { LoraxLanguageModel } from './language-model.js';

export interface LoraxOptions<NAME extends string = string> extends EngineOptions {
  /** name -> where its files are. Loaded when first asked for. */
  adapters?: Record<NAME, AdapterSource>;
  /** For all calls of this provider that do not say otherwise. */
  defaults?: Sampling;
  /** What models call their provider. Default 'lorax'. */
  name?: string;
}

/** A provider, or one tenant's view of it. */
export interface LoraxView<NAME extends string = string, STATS = TenantStats> extends ProviderV4 {
  /** No name or 'base' = the base model. An unknown name rejects at the call. */
  (name?: ModelName<NAME>): LoraxLanguageModel;
  languageModel(name?: ModelName<NAME>): LoraxLanguageModel;
  /** A PEFT directory without a name. Never pass a client's text here. */
  fromDirectory(directory: string): LoraxLanguageModel;
  /**
   * Several adapters in each call, each times its weight: `lorax.mix({ pirate: 0.7, json: 0.3 })`.
   * Throws INVALID_OPTIONS.
   */
  mix(weights: AdapterMix): LoraxLanguageModel;
  embeddingModel(name?: ModelName<NAME>): LoraxEmbeddingModel;
  embeddingMix(weights: AdapterMix): LoraxEmbeddingModel;
  /** Throws NoSuchModelError. */
  imageModel(modelId: string): ImageModelV4;
  adapters: EngineAdapters;
  /** Fetches and loads an adapter ahead of requests. As a hint it needs no catch. */
  prefetch(name: ModelName<NAME>): Promise<AdapterIdentity>;
  engine: EngineView<STATS>;
  stats(): Promise<STATS>;
  /** Ends this provider's (this tenant's) requests; the engine stops with its last provider. */
  dispose(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface LoraxProvider<NAME extends string = string> extends LoraxView<NAME, EngineStats> {
  engine: Engine;
  /**
   * The provider as one tenant sees it: with names, versions and stats of its own, beside the names
   * that are registered without a tenant. Costs nothing until it is used.
   */
  tenant(id: string, options?: TenantOptions): LoraxView<NAME>;
}

/**
 * Names of adapters that an app knows of, for its editor: they complete wherever a model is named.
 *
 *   declare module 'lorax-js' { interface LoraxAdapters { pirate: true } }
 */
// eslint-disable-next-line @typescript-eslint/no-empty-object-type -- apps fill it in
export interface LoraxAdapters {}

// `string & {}` keeps the known names in an editor's completion.
export type ModelName<NAME extends string> = NAME | keyof LoraxAdapters | 'base' | (string & {});

const LORAX_OPTION_KEYS = [...ENGINE_OPTION_KEYS, 'adapters', 'defaults', 'name'];

/** Throws INVALID_OPTIONS for options of a wrong shape; files are looked at when called. */
export function createLorax<NAME extends string = string>(
  options: LoraxOptions<NAME>,
): LoraxProvider<NAME> {
  return createLoraxOn(undefined, options);
}

/** @internal With another way to a worker, for tests. */
export function createLoraxOn<NAME extends string = string>(
  connect: Connect | undefined,
  options: LoraxOptions<NAME>,
): LoraxProvider<NAME> {
  const fields = checkObject(options, 'options', LORAX_OPTION_KEYS);
  const engineOptions = pickEngineOptions(fields);
  const defaults = checkSampling(fields.defaults, 'options.defaults');
  const name = checkString(fields.name, 'options.name');
  const engine = new ScopedEngine(() => engineOptions, connect);
  for (const [adapter, source] of checkAdapters(fields.adapters)) {
    engine.declareAdapter(adapter, source);
  }
  return buildProvider<NAME>({ engine, defaults, name: name ?? 'lorax' });
}

export function checkAdapters(adapters: unknown): Map<string, ResolvedSource> {
  const sources = new Map<string, ResolvedSource>();
  if (adapters === undefined) return sources;
  if (typeof adapters !== 'object' || adapters === null || Array.isArray(adapters)) {
    throw invalidOptions(
      'options.adapters',
      'options.adapters must be an object from name to source, e.g. a PEFT directory.',
      adapters,
    );
  }
  for (const [name, source] of Object.entries(adapters as Record<string, AdapterSource>)) {
    const field = `options.adapters[${JSON.stringify(name)}]`;
    sources.set(checkAdapterName(name, field), resolveAdapterSource(source, field));
  }
  return sources;
}

/** An engine that can be told of adapters without loading them. */
export interface Declares {
  declareAdapter(name: string, source: ResolvedSource): void;
}

export interface ProviderEngine extends Engine, Declares {
  tenant(id: string, options?: TenantOptions): EngineView & Declares;
}

export interface ProviderParts<ENGINE = ProviderEngine> {
  engine: ENGINE;
  defaults: Sampling;
  name: string;
}

export function buildProvider<NAME extends string = string>(
  parts: ProviderParts,
): LoraxProvider<NAME> {
  const { engine } = parts;
  const tenant = (id: string, options?: TenantOptions) =>
    buildView<NAME, TenantStats, EngineView & Declares>({
      ...parts,
      engine: engine.tenant(id, options),
    });
  return Object.assign(buildView<NAME, EngineStats, ProviderEngine>(parts), { engine, tenant });
}

function buildView<NAME extends string, STATS, ENGINE extends EngineView<STATS> & Declares>({
  engine,
  defaults,
  name: provider,
}: ProviderParts<ENGINE>): LoraxView<NAME, STATS> {
  const config = { provider, engine, defaults };
  const languageModel = (name: string = BASE_MODEL): LoraxLanguageModel =>
    new LoraxLanguageModel(config, { name: checkName(name) }, name);
  const embeddingModel = (name: string = BASE_MODEL): LoraxEmbeddingModel =>
    new LoraxEmbeddingModel(config, { name: checkName(name) }, name);
  const fromDirectory = (directory: string): LoraxLanguageModel => {
    if (checkString(directory, 'directory') === undefined) {
      throw invalidOptions('directory', 'fromDirectory() needs the path of a PEFT directory.');
    }
    // An absolute path is no adapter name, so the two cannot meet.
    const absolute = resolve(directory);
    engine.declareAdapter(absolute, directorySource(absolute));
    return new LoraxLanguageModel(config, { directory: absolute }, directory);
  };
  const mixed = (weights: AdapterMix): [{ mix: AdapterMix }, string] => {
    const adapters = checkMix(weights, 'weights');
    return [{ mix: mixOf(adapters) }, adaptersName(adapters)];
  };
  const methods = {
    specificationVersion: 'v4' as const,
    languageModel,
    fromDirectory,
    mix: (weights: AdapterMix) => new LoraxLanguageModel(config, ...mixed(weights)),
    embeddingModel,
    embeddingMix: (weights: AdapterMix) => new LoraxEmbeddingModel(config, ...mixed(weights)),
    imageModel(modelId: string): never {
      throw new NoSuchModelError({ modelId, modelType: 'imageModel' });
    },
    adapters: engine.adapters,
    prefetch: (name: string) => engine.adapters.prefetch(name),
    engine: engine as EngineView<STATS>,
    stats: () => engine.stats(),
    dispose: () => engine.dispose(),
    [Symbol.asyncDispose]: () => engine.dispose(),
  };
  return Object.assign((name?: string) => languageModel(name), methods);
}

function checkName(name: unknown): string {
  if (typeof name === 'string') return name;
  throw invalidOptions('name', "A model's name must be a string.", name);
}
