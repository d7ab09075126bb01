/**
 * `ChatLorax`: one adapter (or the base) as LangChain's chat model.
 *
 * Making one costs nothing until it is called. Models with the same engine options, and providers of
 * the AI SDK with them, share one engine (shared-engines.ts), so that all their calls run in one
 * batch. An engine, callbacks and keys are never part of the model's serialized form.
 */
import type { CallbackManagerForLLMRun, Callbacks } from '@langchain/core/callbacks/manager';
import type {
  BaseLanguageModelInput,
  StructuredOutputMethodOptions,
} from '@langchain/core/language_models/base';
import { BaseChatModel } from '@langchain/core/language_models/chat_models';
import type {
  BaseChatModelParams,
  BindToolsInput,
  LangSmithParams,
} from '@langchain/core/language_models/chat_models';
import type { ChatModelStreamEvent } from '@langchain/core/language_models/event';
import type { ModelProfile } from '@langchain/core/language_models/profile';
import type {
  AIMessageChunk,
  BaseMessage,
  BaseMessageLike,
  ContentBlock,
  MessageContent,
} from '@langchain/core/messages';
import type { ChatGenerationChunk, ChatResult, LLMResult } from '@langchain/core/outputs';
import type { Runnable } from '@langchain/core/runnables';
import { checkBoolean } from '../check-shape.js';
import type { AdapterMix, EngineView, EngineInfo, GenerateRequest } from '../types.js';
import { AnswerChunks } from './answer-chunks.js';
import { AnswerEvents } from './answer-events.js';
import { Answer } from './answer.js';
import type { OutputVersion } from './answer.js';
import { buildRequest, CHAT_CALL_KEYS } from './call-options.js';
import type { ChatLoraxCallOptions, ModelSettings } from './call-options.js';
import { convertMessages } from './convert-messages.js';
import { asOpenAITool, convertTools } from './convert-tools.js';
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
import { reportChunk } from './report-chunk.js';
import { structuredOutput } from './structured-output.js';
import type { OutputSchema, StructuredOutput } from './structured-output.js';
import { TEXT_FILE_TYPES } from './text-files.js';

export interface ChatLoraxFields extends BaseChatModelParams, EngineFields, SamplingFields {
  /** Whether a model that can think before it answers does. Default: as its chat template has it. */
  reasoning?: boolean;
  /** invoke() tells callbacks of every token, as stream() does. */
  streaming?: boolean;
  /** Of each call, ms. */
  timeout?: number;
  /** Not used: there is no service. So that code written for one needs no change. */
  apiKey?: unknown;
}

const OWN_KEYS = [...SAMPLING_FIELD_KEYS, 'reasoning', 'streaming', 'timeout'];
const CHAT_MODEL_KEYS = [...LANGUAGE_MODEL_KEYS, 'disableStreaming', 'outputVersion'];
const CALL_KEYS: ReadonlySet<string> = new Set([...SAMPLING_FIELD_KEYS, ...CHAT_CALL_KEYS]);

/** True of every model; its context is its own. */
const PROFILE = {
  ...{ toolCalling: true, toolChoice: true, structuredOutput: true },
  ...{ imageInputs: false, imageUrlInputs: false, audioInputs: false, videoInputs: false },
  ...{ pdfInputs: false, imageToolMessage: false, pdfToolMessage: false },
  ...{ imageOutputs: false, audioOutputs: false, videoOutputs: false },
  fileMimeTypes: TEXT_FILE_TYPES,
} as const satisfies ModelProfile;

export class ChatLorax extends BaseChatModel<ChatLoraxCallOptions, AIMessageChunk> {
  override lc_serializable = true;
  /** 'base' = the base model. */
  readonly adapter: string | AdapterMix;
  readonly streaming: boolean;
  readonly timeout: number | undefined;
  readonly #target: EngineTarget;
  readonly #settings: ModelSettings;

  static override lc_name(): string {
    return 'ChatLorax';
  }

  constructor(fields: ChatLoraxFields = {}) {
    const checked = checkFields(fields, [...CHAT_MODEL_KEYS, ...OWN_KEYS, 'apiKey']);
    super({ ...fields, onFailedAttempt: fields.onFailedAttempt ?? retryTransient });
    this.#target = new EngineTarget(checked);
    this.#settings = {
      sampling: pickSampling(checked),
      reasoning: checkBoolean(checked.reasoning, 'options.reasoning'),
    };
    this.adapter = this.#target.adapter;
    this.streaming = checkBoolean(checked.streaming, 'options.streaming') ?? false;
    this.timeout = checkTimeout(checked.timeout);
  }

  _llmType(): string {
    return PROVIDER;
  }

  override get lc_serializable_keys(): string[] {
    return [
      ...ENGINE_FIELD_KEYS,
      ...OWN_KEYS,
      ...['maxRetries', 'maxConcurrency', 'tags', 'metadata', 'disableStreaming', 'outputVersion'],
    ];
  }

  override get callKeys(): string[] {
    return [...super.callKeys, ...CALL_KEYS];
  }

  /** For its adapters and stats. */
  get engine(): EngineView {
    return this.#target.engine;
  }

  /** Loads the engine if it is not loaded; `profile` knows the context's length from then on. */
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

  override get profile(): ModelProfile {
    const contextTokens = this.#target.info?.contextTokens;
    return {
      ...PROFILE,
      ...(contextTokens === undefined ? {} : { maxInputTokens: contextTokens }),
    };
  }

  override getLsParams(options: this['ParsedCallOptions']): LangSmithParams {
    const { temperature, maxOutputTokens, stop } = this.#settings.sampling;
    return {
      ls_provider: PROVIDER,
      ls_model_name: this.#target.nameOf(options.adapter ?? this.adapter),
      ls_model_type: 'chat',
      ls_temperature: options.temperature ?? temperature,
      ls_max_tokens: options.maxTokens ?? maxOutputTokens,
      ls_stop: options.stop ?? options.stopSequences ?? stop,
    } as LangSmithParams;
  }

  /** For traces: what the call says, over what the model says. */
  override invocationParams(options: this['ParsedCallOptions']): Record<string, unknown> {
    const given = Object.entries(options).filter(([key]) => CALL_KEYS.has(key));
    return { ...this._identifyingParams(), ...Object.fromEntries(given) };
  }

  /** Which weights, and what decides their answers. Complete once they are loaded. */
  override _identifyingParams(): Record<string, unknown> {
    const { sampling, reasoning } = this.#settings;
    const outputVersion = this.outputVersion === 'v1' ? 'v1' : undefined;
    return { ...this.#target.identity(this.adapter), ...sampling, reasoning, outputVersion };
  }

  override _getSerializedCacheKeyParametersForCall(
    options: ChatLoraxCallOptions & { config?: Record<string, unknown> },
  ): string {
    const key = this.#target.cacheKeyOf(options);
    // LangChain's own tools are written down without what makes them different.
    const tools = options.tools === undefined ? {} : { tools: convertTools(options.tools) };
    return super._getSerializedCacheKeyParametersForCall({ ...key, ...tools } as typeof options);
  }

  override async generate(
    messages: BaseMessageLike[][],
    options?: string[] | Partial<ChatLoraxCallOptions>,
    callbacks?: Callbacks,
  ): Promise<LLMResult> {
    if (this.cache !== undefined) await this.#target.identifyFor(options);
    return super.generate(messages, options, callbacks);
  }

  async _generate(
    messages: BaseMessage[],
    options: this['ParsedCallOptions'],
    runManager?: CallbackManagerForLLMRun,
  ): Promise<ChatResult> {
    const request = this.#request(messages, options);
    const receive = async ({ start, events }: OpenCall) => {
      this.#target.learn(start);
      const answer = new Answer(start);
      for await (const event of events) {
        answer.add(event);
        if (!this.streaming || event.type !== 'delta' || event.text === '') continue;
        await runManager?.handleLLMNewToken(event.text);
      }
      return answer.result(this.#version(options));
    };
    return completeCall(this.engine, this.caller, request, options.maxRetries, receive);
  }

  override async *_streamResponseChunks(
    messages: BaseMessage[],
    options: this['ParsedCallOptions'],
    runManager?: CallbackManagerForLLMRun,
  ): AsyncGenerator<ChatGenerationChunk> {
    const { start, events } = await this.#open(messages, options);
    const chunks = new AnswerChunks(start, this.#version(options));
    for await (const event of events) {
      const chunk = chunks.next(event);
      if (chunk === undefined) continue;
      yield chunk;
      await reportChunk(runManager, chunk);
    }
  }

  override async *_streamChatModelEvents(
    messages: BaseMessage[],
    options: this['ParsedCallOptions'],
  ): AsyncGenerator<ChatModelStreamEvent> {
    const { start, events } = await this.#open(messages, options);
    const answer = new AnswerEvents(start);
    yield answer.begin();
    for await (const event of events) yield* answer.next(event);
  }

  override _combineLLMOutput(...outputs: LLMResult['llmOutput'][]): LLMResult['llmOutput'] {
    return { tokenUsage: sumTokenUsage(outputs.map((output) => output?.tokenUsage)) };
  }

  /** All four forms of tools; what is bound is plain JSON, for traces and caches. */
  override bindTools(
    tools: BindToolsInput[],
    kwargs: Partial<ChatLoraxCallOptions> = {},
  ): Runnable<BaseLanguageModelInput, AIMessageChunk, ChatLoraxCallOptions> {
    return this.withConfig({ tools: convertTools(tools).map(asOpenAITool), ...kwargs });
  }

  override withStructuredOutput<T extends object>(
    schema: OutputSchema<T>,
    config?: StructuredOutputMethodOptions<false>,
  ): Runnable<BaseLanguageModelInput, T>;
  override withStructuredOutput<T extends object>(
    schema: OutputSchema<T>,
    config: StructuredOutputMethodOptions<true>,
  ): Runnable<BaseLanguageModelInput, { raw: BaseMessage; parsed: T }>;
  override withStructuredOutput<T extends object>(
    schema: OutputSchema<T>,
    config?: StructuredOutputMethodOptions<boolean>,
  ): StructuredOutput<T> {
    return structuredOutput(this, schema, config);
  }

  /** About: the tokenizer is on another thread, and LangChain's own estimate asks a server. */
  override async getNumTokens(content: MessageContent): Promise<number> {
    const text = typeof content === 'string' ? content : content.map(textOf).join('');
    return Math.ceil(text.length / 4);
  }

  async #open(messages: BaseMessage[], options: this['ParsedCallOptions']): Promise<OpenCall> {
    const request = this.#request(messages, options);
    const { engine } = this;
    const call = await openCall(engine, this.caller, request, options.maxRetries);
    this.#target.learn(call.start);
    return call;
  }

  #request(messages: BaseMessage[], options: this['ParsedCallOptions']): GenerateRequest {
    const adapter = this.#target.adapterOf(options);
    const signal = withTimeout(options.signal, this.timeout);
    return {
      ...buildRequest(convertMessages(messages), options, this.#settings),
      adapter,
      ...(signal === undefined ? {} : { signal }),
    };
  }

  #version({ outputVersion }: this['ParsedCallOptions']): OutputVersion {
    return outputVersion ?? this.outputVersion ?? 'v0';
  }
}

function textOf(block: ContentBlock): string {
  return typeof block.text === 'string' ? block.text : '';
}
