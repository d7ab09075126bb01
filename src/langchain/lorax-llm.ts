/**
 * `LoraxLLM`: one adapter (or the base) as LangChain's plain language model: the prompt goes to the
 * model as it is, without a chat template.
 *
 * Shares its engine as ChatLorax does. Several prompts of one call run in one batch.
 */
import type { CallbackManagerForLLMRun, Callbacks } from '@langchain/core/callbacks/manager';
import { BaseLLM } from '@langchain/core/language_models/llms';
import type { BaseLLMCallOptions, BaseLLMParams } from '@langchain/core/language_models/llms';
import { GenerationChunk } from '@langchain/core/outputs';
import type { LLMResult } from '@langchain/core/outputs';
import type { Fields } from '../check-shape.js';
import { pickService, SERVICE_KEYS } from '../service-options.js';
import type {
  AdapterMix,
  Constraint,
  EngineView,
  EngineInfo,
  GenerateRequest,
  Sampling,
  ServiceOptions,
} from '../types.js';
import { completeCall, openCall, retryTransient, withTimeout } from './engine-call.js';
import type { OpenCall } from './engine-call.js';
import { EngineTarget } from './engine-target.js';
import { PROVIDER, sumTokenUsage } from './metadata.js';
import {
  checkFields,
  checkTimeout,
  ENGINE_FIELD_KEYS,
  LANGUAGE_MODEL_KEYS,
  pickSampling,
  SAMPLING_FIELD_KEYS,
} from './model-fields.js';
import type { EngineFields, SamplingFields } from './model-fields.js';
import { PlainAnswer } from './plain-answer.js';
import type { PlainResult } from './plain-answer.js';
import { reportChunk } from './report-chunk.js';

export interface LoraxLLMFields extends BaseLLMParams, EngineFields, SamplingFields {
  /** Of each call, ms. */
  timeout?: number;
}

export interface LoraxLLMCallOptions extends BaseLLMCallOptions, SamplingFields, ServiceOptions {
  /** Another than the model's own; a name, or names with weights. */
  adapter?: string | AdapterMix;
  /** What the answer must match, token by token. */
  constraint?: Constraint;
}

const OWN_KEYS = [...SAMPLING_FIELD_KEYS, 'timeout'];
const CALL_KEYS: ReadonlySet<string> = new Set([
  ...SAMPLING_FIELD_KEYS,
  ...SERVICE_KEYS,
  ...['adapter', 'constraint'],
]);

export class LoraxLLM extends BaseLLM<LoraxLLMCallOptions> {
  override lc_serializable = true;
  /** 'base' = the base model. */
  readonly adapter: string | AdapterMix;
  readonly timeout: number | undefined;
  readonly #target: EngineTarget;
  readonly #sampling: Sampling;

  static override lc_name(): string {
    return 'LoraxLLM';
  }

  constructor(fields: LoraxLLMFields = {}) {
    const checked = checkFields(fields, [...LANGUAGE_MODEL_KEYS, ...OWN_KEYS]);
    super({ ...fields, onFailedAttempt: fields.onFailedAttempt ?? retryTransient });
    this.#target = new EngineTarget(checked);
    this.#sampling = pickSampling(checked);
    this.adapter = this.#target.adapter;
    this.timeout = checkTimeout(checked.timeout);
  }

  _llmType(): string {
    return PROVIDER;
  }

  override get lc_serializable_keys(): string[] {
    return [
      ...ENGINE_FIELD_KEYS,
      ...OWN_KEYS,
      ...['maxRetries', 'maxConcurrency', 'tags', 'metadata'],
    ];
  }

  override get callKeys(): string[] {
    return [...super.callKeys, ...CALL_KEYS];
  }

  /** For its adapters and stats. */
  get engine(): EngineView {
    return this.#target.engine;
  }

  /** Loads the engine if it is not loaded. */
  ready(): Promise<EngineInfo> {
    return this.#target.ready();
  }

  /** Ends this model's calls. An engine that was given to it, or is shared, stays for the others. */
  dispose(): Promise<void> {
    return this.#target.dispose();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  override invocationParams(options: this['ParsedCallOptions']): Record<string, unknown> {
    const given = Object.entries(options).filter(([key]) => CALL_KEYS.has(key));
    return { ...this._identifyingParams(), ...Object.fromEntries(given) };
  }

  /** Which weights, and what decides their answers. Complete once they are loaded. */
  override _identifyingParams(): Record<string, unknown> {
    return { ...this.#target.identity(this.adapter), ...this.#sampling };
  }

  override _getSerializedCacheKeyParametersForCall(
    options: LoraxLLMCallOptions & { config?: Record<string, unknown> },
  ): string {
    return super._getSerializedCacheKeyParametersForCall(this.#target.cacheKeyOf(options));
  }

  override async generate(
    prompts: string[],
    options?: string[] | Partial<LoraxLLMCallOptions>,
    callbacks?: Callbacks,
  ): Promise<LLMResult> {
    if (this.cache !== undefined) await this.#target.identifyFor(options);
    return super.generate(prompts, options, callbacks);
  }

  async _generate(prompts: string[], options: this['ParsedCallOptions']): Promise<LLMResult> {
    const answers = await Promise.all(prompts.map((prompt) => this.#answer(prompt, options)));
    return {
      generations: answers.map(({ text, generationInfo }) => [{ text, generationInfo }]),
      llmOutput: { tokenUsage: sumTokenUsage(answers.map(({ usage }) => usage)) },
    };
  }

  override async *_streamResponseChunks(
    prompt: string,
    options: this['ParsedCallOptions'],
    runManager?: CallbackManagerForLLMRun,
  ): AsyncGenerator<GenerationChunk> {
    const { engine } = this;
    const request = this.#request(prompt, options);
    const { start, events } = await openCall(engine, this.caller, request, options.maxRetries);
    this.#target.learn(start);
    const answer = new PlainAnswer(start);
    for await (const event of events) {
      const text = answer.add(event);
      if (text === '' && event.type !== 'finish') continue;
      const { generationInfo } = event.type === 'finish' ? answer.result() : {};
      const chunk = new GenerationChunk({ text, ...(generationInfo && { generationInfo }) });
      yield chunk;
      await reportChunk(runManager, chunk);
    }
  }

  #answer(prompt: string, options: this['ParsedCallOptions']): Promise<PlainResult> {
    const receive = async ({ start, events }: OpenCall) => {
      this.#target.learn(start);
      const answer = new PlainAnswer(start);
      for await (const event of events) answer.add(event);
      return answer.result();
    };
    const request = this.#request(prompt, options);
    return completeCall(this.engine, this.caller, request, options.maxRetries, receive);
  }

  #request(prompt: string, options: this['ParsedCallOptions']): GenerateRequest {
    const { constraint } = options;
    const signal = withTimeout(options.signal, this.timeout);
    return {
      prompt,
      adapter: this.#target.adapterOf(options),
      sampling: { ...this.#sampling, ...pickSampling(options as Fields) },
      ...(constraint === undefined ? {} : { constraint }),
      ...pickService(options as Fields, 'options'),
      ...(signal === undefined ? {} : { signal }),
    };
  }
}
