/**
 * `LoraxEmbeddings`: hidden states of one adapter (or the base), pooled, as LangChain's embeddings.
 *
 * Shares its engine as ChatLorax does; embedding runs in the same batch as the chats.
 */
import { Embeddings } from '@langchain/core/embeddings';
import type { EmbeddingsParams } from '@langchain/core/embeddings';
import { checkNumber } from '../check-shape.js';
import { checkEmbedSettings } from '../embed-request.js';
import type { EmbedSettings } from '../embed-request.js';
import { pickService, SERVICE_KEYS } from '../service-options.js';
import type { AdapterMix, EngineView, EngineInfo, Pooling, ServiceOptions } from '../types.js';
import { callWithRetries, retryTransient, withTimeout } from './engine-call.js';
import { EngineTarget } from './engine-target.js';
import { checkFields, checkTimeout } from './model-fields.js';
import type { EngineFields } from './model-fields.js';

export interface LoraxEmbeddingsFields extends EmbeddingsParams, EngineFields, ServiceFields {
  /** Which tokens' hidden states make the vector. Default 'mean'. */
  pooling?: Pooling;
  /** To length 1. Default true. */
  normalize?: boolean;
  /** Texts of one request to the engine. Default 2048. */
  batchSize?: number;
  /** Of each call, ms. */
  timeout?: number;
}

/** Of each request to the engine; a deadline in milliseconds from then. */
type ServiceFields = Pick<ServiceOptions, 'priority'> & { deadline?: number };

const OWN_KEYS = ['pooling', 'normalize', 'batchSize', 'timeout', ...SERVICE_KEYS];
const COUNT = { min: 1, max: 2 ** 31 - 1, integer: true };

export class LoraxEmbeddings extends Embeddings {
  /** 'base' = the base model. */
  readonly adapter: string | AdapterMix;
  readonly batchSize: number;
  readonly timeout: number | undefined;
  readonly #settings: EmbedSettings;
  readonly #service: ServiceOptions;
  readonly #target: EngineTarget;

  constructor(fields: LoraxEmbeddingsFields = {}) {
    const checked = checkFields(fields, OWN_KEYS);
    super({ ...fields, onFailedAttempt: fields.onFailedAttempt ?? retryTransient });
    this.#target = new EngineTarget(checked);
    this.#settings = checkEmbedSettings(checked, 'options');
    this.#service = pickService(checked, 'options');
    this.adapter = this.#target.adapter;
    this.batchSize = checkNumber(checked.batchSize, 'options.batchSize', COUNT) ?? 2048;
    this.timeout = checkTimeout(checked.timeout);
  }

  /** For its adapters and stats. */
  get engine(): EngineView {
    return this.#target.engine;
  }

  /** Loads the engine if it is not loaded. */
  ready(): Promise<EngineInfo> {
    return this.#target.ready();
  }

  /** An engine that was given to this object, or is shared, stays for the others. */
  dispose(): Promise<void> {
    return this.#target.dispose();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  async embedQuery(text: string): Promise<number[]> {
    const [vector] = await this.#embed([text]);
    return vector ?? [];
  }

  async embedDocuments(texts: string[]): Promise<number[][]> {
    const vectors: number[][] = [];
    for (let at = 0; at < texts.length; at += this.batchSize) {
      vectors.push(...(await this.#embed(texts.slice(at, at + this.batchSize))));
    }
    return vectors;
  }

  async #embed(input: string[]): Promise<number[][]> {
    const { engine } = this;
    const adapter = this.#target.adapterOf({});
    const signal = withTimeout(undefined, this.timeout);
    const request = {
      ...{ input, adapter, ...this.#settings, ...this.#service },
      ...(signal === undefined ? {} : { signal }),
    };
    const { embeddings } = await callWithRetries(this.caller, request, () => engine.embed(request));
    return embeddings.map((vector) => Array.from(vector));
  }
}
