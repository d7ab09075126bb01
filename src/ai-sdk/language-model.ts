/**
 * One adapter (or the base) as the AI SDK's language model, spec V4.
 *
 * doStream resolves when the engine has admitted the request, so that what may be retried (a full
 * queue) rejects the call and is retried by the AI SDK.
 */
import type { LanguageModelV4, LanguageModelV4CallOptions } from '@ai-sdk/provider';
import type { EngineView, Sampling, TokenEvent } from '../types.js';
import { AnswerMetadata } from './answer-metadata.js';
import { addToContent, AnswerParts } from './answer-parts.js';
import { answerStream } from './answer-stream.js';
import { convertError, cutOff } from './convert-error.js';
import { convertOptions } from './convert-options.js';
import { convertPrompt } from './convert-prompt.js';
import { convertTools } from './convert-tools.js';
import { adapterOf, checkTarget, shownModelId } from './model-target.js';
import type { ModelTarget } from './model-target.js';
import { CAPABILITIES } from './model-types.js';
import type {
  LoraxContent,
  LoraxGenerateResult,
  LoraxStreamResult,
  LoraxWarning,
} from './model-types.js';

export interface LanguageModelConfig {
  provider: string;
  engine: Pick<EngineView, 'generate' | 'embed'>;
  defaults: Sampling;
}

interface Call {
  events: AsyncIterator<TokenEvent>;
  metadata: AnswerMetadata;
  warnings: LoraxWarning[];
}

export class LoraxLanguageModel implements LanguageModelV4 {
  readonly specificationVersion = 'v4';
  readonly supportedUrls = {};
  readonly capabilities = CAPABILITIES;
  readonly provider: string;
  readonly modelId: string;
  readonly #config: LanguageModelConfig;
  readonly #target: ModelTarget;

  /** `modelId` is what the caller wrote, for people to read. */
  constructor(config: LanguageModelConfig, target: ModelTarget, modelId: string) {
    this.#config = config;
    this.#target = target;
    this.provider = config.provider;
    this.modelId = shownModelId(modelId);
  }

  async doGenerate(options: LanguageModelV4CallOptions): Promise<LoraxGenerateResult> {
    const { events, metadata, warnings } = this.#start(options);
    const parts = new AnswerParts();
    const content: LoraxContent[] = [];
    try {
      for (;;) {
        const { done, value: event } = await events.next();
        if (done === true) throw cutOff();
        if (event.type === 'start') {
          metadata.start(event);
          continue;
        }
        if (event.type === 'delta') metadata.delta(event);
        for (const part of parts.of(event)) addToContent(content, part);
        if (event.type !== 'finish') continue;
        return { content, ...metadata.finish(event), response: metadata.response(), warnings };
      }
    } catch (error) {
      throw convertError(error, this.modelId);
    }
  }

  async doStream(options: LanguageModelV4CallOptions): Promise<LoraxStreamResult> {
    const call = this.#start(options);
    try {
      const { done, value: start } = await call.events.next();
      if (done === true || start.type !== 'start') throw cutOff();
      call.metadata.start(start);
      const stream = answerStream({
        ...call,
        start,
        includeRawChunks: options.includeRawChunks === true,
        abortSignal: options.abortSignal,
        convertError: (error) => convertError(error, this.modelId),
      });
      return { stream };
    } catch (error) {
      throw convertError(error, this.modelId);
    }
  }

  #start(options: LanguageModelV4CallOptions): Call {
    const { defaults, engine } = this.#config;
    checkTarget(this.#target, this.modelId, 'languageModel');
    const prompt = convertPrompt(options.prompt);
    const { warnings, service, ...settings } = convertOptions(options, defaults);
    const tools = convertTools(options);
    const events = engine.generate({
      messages: prompt.messages,
      adapter: adapterOf(this.#target),
      ...settings,
      ...service,
      ...tools.request,
      ...(options.abortSignal === undefined ? {} : { signal: options.abortSignal }),
    });
    return {
      events: events[Symbol.asyncIterator](),
      metadata: new AnswerMetadata(this.modelId),
      warnings: [...prompt.warnings, ...warnings, ...tools.warnings],
    };
  }
}
