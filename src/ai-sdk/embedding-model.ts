/**
 * One adapter (or the base) as the AI SDK's embedding model, spec V4: pooled hidden states.
 *
 * A call's texts are embedded in one batch with everybody else's requests. Errors and aborts are as
 * the language model's.
 */
import type { EmbeddingModelV4, EmbeddingModelV4CallOptions } from '@ai-sdk/provider';
import { UnsupportedFunctionalityError } from '@ai-sdk/provider';
import { checkObject } from '../check-shape.js';
import { checkEmbedSettings } from '../embed-request.js';
import { pickService, SERVICE_KEYS } from '../service-options.js';
import type { EmbedRequest, EngineView } from '../types.js';
import { convertError } from './convert-error.js';
import type { ServiceProviderOptions } from './convert-options.js';
import { adapterOf, checkTarget, shownModelId } from './model-target.js';
import type { ModelTarget } from './model-target.js';
import type { LoraxEmbedResult } from './model-types.js';

/** `providerOptions: { lorax: { ... } satisfies LoraxEmbeddingOptions }` */
export type LoraxEmbeddingOptions = Pick<EmbedRequest, 'pooling' | 'normalize'> &
  ServiceProviderOptions;

export interface EmbeddingModelConfig {
  provider: string;
  engine: Pick<EngineView, 'generate' | 'embed'>;
}

export class LoraxEmbeddingModel implements EmbeddingModelV4 {
  readonly specificationVersion = 'v4';
  /** So that an answer is of bounded size; the engine itself takes any number. */
  readonly maxEmbeddingsPerCall = 2048;
  readonly supportsParallelCalls = true;
  readonly provider: string;
  readonly modelId: string;
  readonly #engine: Pick<EngineView, 'embed'>;
  readonly #target: ModelTarget;

  constructor(config: EmbeddingModelConfig, target: ModelTarget, modelId: string) {
    this.#engine = config.engine;
    this.#target = target;
    this.provider = config.provider;
    this.modelId = shownModelId(modelId);
  }

  async doEmbed({
    values,
    dimensions,
    abortSignal,
    providerOptions,
  }: EmbeddingModelV4CallOptions): Promise<LoraxEmbedResult> {
    checkTarget(this.#target, this.modelId, 'embeddingModel');
    if (dimensions !== undefined) {
      throw new UnsupportedFunctionalityError({
        functionality: 'dimensions',
        message: 'Embeddings have the hidden size of their model: dimensions are not supported.',
      });
    }
    const field = 'providerOptions.lorax';
    const keys = ['pooling', 'normalize', ...SERVICE_KEYS];
    const settings = checkObject(providerOptions?.lorax ?? {}, field, keys);
    try {
      const { embeddings, usage, adapter } = await this.#engine.embed({
        input: values,
        adapter: adapterOf(this.#target),
        ...checkEmbedSettings(settings, field),
        ...pickService(settings, field),
        ...(abortSignal === undefined ? {} : { signal: abortSignal }),
      });
      return {
        embeddings: embeddings.map((embedding) => Array.from(embedding)),
        usage: { tokens: usage.promptTokens },
        providerMetadata: {
          lorax: { adapter: adapter?.name ?? null, adapterHash: adapter?.hash ?? null },
        },
        warnings: [],
      };
    } catch (error) {
      throw convertError(error, this.modelId, 'embeddingModel');
    }
  }
}
