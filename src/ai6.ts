/**
 * `lorax-js/ai6`: the same provider for ai 6, which knows spec V3.
 *
 * Answers are the same in both; prompts differ in how they carry files (from-v3.ts).
 */
import type {
  EmbeddingModelV3,
  EmbeddingModelV3CallOptions,
  LanguageModelV3,
  LanguageModelV3CallOptions,
} from '@ai-sdk/provider';
import type { LoraxEmbeddingModel } from './ai-sdk/embedding-model.js';
import { optionsFromV3 } from './ai-sdk/from-v3.js';
import type { LoraxLanguageModel } from './ai-sdk/language-model.js';
import { CAPABILITIES } from './ai-sdk/model-types.js';
import type {
  LoraxEmbedResult,
  LoraxGenerateResult,
  LoraxStreamResult,
} from './ai-sdk/model-types.js';
import { createLorax as createLoraxV4 } from './ai-sdk/provider.js';
import type {
  LoraxOptions,
  LoraxProvider as LoraxProviderV4,
  LoraxView as LoraxViewV4,
  ModelName,
} from './ai-sdk/provider.js';
import { lorax as loraxV4 } from './default-provider.js';
import type { AdapterMix, Engine, EngineStats, TenantOptions, TenantStats } from './types.js';

export type { LoraxAdapters, LoraxOptions } from './ai-sdk/provider.js';
export type { LoraxProviderOptions } from './ai-sdk/convert-options.js';
export type { LoraxEmbeddingOptions } from './ai-sdk/embedding-model.js';
export type { LoraxProviderMetadata } from './ai-sdk/model-types.js';
export { ERROR_CODES, LoraxError } from './errors.js';
export type { LoraxErrorCode, LoraxErrorData } from './errors.js';
export type * from './types.js';

/**
 * Assignable to ai 6's ProviderV3. Written out, because ai 6 has an @ai-sdk/provider of its own,
 * whose JSON types are mutable: through V3's interfaces of ours TypeScript would see a difference.
 */
export interface LoraxView<NAME extends string = string, STATS = TenantStats> extends Pick<
  LoraxViewV4<NAME, STATS>,
  'adapters' | 'prefetch' | 'engine' | 'stats' | 'dispose' | typeof Symbol.asyncDispose
> {
  (name?: ModelName<NAME>): LoraxLanguageModelV3;
  readonly specificationVersion: 'v3';
  languageModel(name?: ModelName<NAME>): LoraxLanguageModelV3;
  fromDirectory(directory: string): LoraxLanguageModelV3;
  /** Throws INVALID_OPTIONS. */
  mix(weights: AdapterMix): LoraxLanguageModelV3;
  embeddingModel(name?: ModelName<NAME>): LoraxEmbeddingModelV3;
  embeddingMix(weights: AdapterMix): LoraxEmbeddingModelV3;
  /** The name that ProviderV3 had before. */
  textEmbeddingModel(name?: ModelName<NAME>): LoraxEmbeddingModelV3;
  /** Throws NoSuchModelError. */
  imageModel(modelId: string): never;
}

export interface LoraxProvider<NAME extends string = string> extends LoraxView<NAME, EngineStats> {
  engine: Engine;
  /** The provider as one tenant sees it. */
  tenant(id: string, options?: TenantOptions): LoraxView<NAME>;
}

export function createLorax<NAME extends string = string>(
  options: LoraxOptions<NAME>,
): LoraxProvider<NAME> {
  return asProviderV3(createLoraxV4(options));
}

export const lorax: LoraxProvider = asProviderV3(loraxV4);

export function asProviderV3<NAME extends string>(v4: LoraxProviderV4<NAME>): LoraxProvider<NAME> {
  const tenant = (id: string, options?: TenantOptions) => asViewV3(v4.tenant(id, options));
  return Object.assign(asViewV3<NAME, EngineStats>(v4), { engine: v4.engine, tenant });
}

function asViewV3<NAME extends string, STATS>(
  v4: LoraxViewV4<NAME, STATS>,
): LoraxView<NAME, STATS> {
  const languageModel = (name?: ModelName<NAME>) => new LoraxLanguageModelV3(v4(name));
  const embeddingModel = (name?: ModelName<NAME>) =>
    new LoraxEmbeddingModelV3(v4.embeddingModel(name));
  const methods = {
    specificationVersion: 'v3' as const,
    languageModel,
    fromDirectory: (directory: string) => new LoraxLanguageModelV3(v4.fromDirectory(directory)),
    mix: (weights: AdapterMix) => new LoraxLanguageModelV3(v4.mix(weights)),
    embeddingModel,
    embeddingMix: (weights: AdapterMix) => new LoraxEmbeddingModelV3(v4.embeddingMix(weights)),
    textEmbeddingModel: embeddingModel,
    imageModel: (modelId: string) => v4.imageModel(modelId) as never,
    adapters: v4.adapters,
    prefetch: (name: ModelName<NAME>) => v4.prefetch(name),
    engine: v4.engine,
    stats: () => v4.stats(),
    dispose: () => v4.dispose(),
    [Symbol.asyncDispose]: () => v4.dispose(),
  };
  return Object.assign((name?: ModelName<NAME>) => languageModel(name), methods);
}

export class LoraxLanguageModelV3 implements LanguageModelV3 {
  readonly specificationVersion = 'v3';
  readonly supportedUrls = {};
  readonly capabilities = CAPABILITIES;
  readonly provider: string;
  readonly modelId: string;
  readonly #model: LoraxLanguageModel;

  constructor(model: LoraxLanguageModel) {
    this.#model = model;
    this.provider = model.provider;
    this.modelId = model.modelId;
  }

  doGenerate(options: LanguageModelV3CallOptions): Promise<LoraxGenerateResult> {
    return this.#model.doGenerate(optionsFromV3(options));
  }

  doStream(options: LanguageModelV3CallOptions): Promise<LoraxStreamResult> {
    return this.#model.doStream(optionsFromV3(options));
  }
}

export class LoraxEmbeddingModelV3 implements EmbeddingModelV3 {
  readonly specificationVersion = 'v3';
  readonly maxEmbeddingsPerCall: number;
  readonly supportsParallelCalls: boolean;
  readonly provider: string;
  readonly modelId: string;
  readonly #model: LoraxEmbeddingModel;

  constructor(model: LoraxEmbeddingModel) {
    this.#model = model;
    this.provider = model.provider;
    this.modelId = model.modelId;
    this.maxEmbeddingsPerCall = model.maxEmbeddingsPerCall;
    this.supportsParallelCalls = model.supportsParallelCalls;
  }

  doEmbed(options: EmbeddingModelV3CallOptions): Promise<LoraxEmbedResult> {
    return this.#model.doEmbed(options);
  }
}
