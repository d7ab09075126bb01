/**
 * One adapter (or the base) as the AI SDK's language model, spec V4.
 *
 * doStream resolves when the engine has admitted the request, so that what may be retried (a full
 * queue) rejects the call and is retried by the AI SDK. Leaving the stream cancels the request.
 */
import type { LanguageModelV4, LanguageModelV4CallOptions } from '@ai-sdk/provider';
import { LoraxError } from '../errors.js';
import type {
  DeltaEvent,
  Engine,
  FinishEvent,
  Sampling,
  StartEvent,
  TokenEvent,
} from '../types.js';
import { convertError } from './convert-error.js';
import { convertOptions } from './convert-options.js';
import { convertPrompt } from './convert-prompt.js';
import { adapterOf, checkTarget, shownModelId } from './model-target.js';
import type { ModelTarget } from './model-target.js';
import type {
  LogprobJson,
  LoraxGenerateResult,
  LoraxProviderMetadata,
  LoraxStreamPart,
  LoraxStreamResult,
  LoraxWarning,
  ResponseMetadata,
} from './model-types.js';

export interface LanguageModelConfig {
  provider: string;
  engine: Engine;
  defaults: Sampling;
}

interface Call {
  events: AsyncIterator<TokenEvent>;
  warnings: LoraxWarning[];
}

const TEXT_ID = '0';

export class LoraxLanguageModel implements LanguageModelV4 {
  readonly specificationVersion = 'v4';
  readonly supportedUrls = {};
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
    const { events, warnings } = this.#start(options);
    const answer = new Answer(this.modelId);
    let text = '';
    try {
      for (;;) {
        const { done, value } = await events.next();
        if (done === true) throw cutOff();
        if (value.type === 'start') answer.start(value);
        else if (value.type === 'delta') text += answer.delta(value);
        else
          return { content: contentOf(text), ...answer.finish(value), ...answer.meta(), warnings };
      }
    } catch (error) {
      throw convertError(error, this.modelId);
    }
  }

  async doStream(options: LanguageModelV4CallOptions): Promise<LoraxStreamResult> {
    const { events, warnings } = this.#start(options);
    const answer = new Answer(this.modelId);
    try {
      const first = await events.next();
      if (first.done === true || first.value.type !== 'start') throw cutOff();
      answer.start(first.value);
    } catch (error) {
      throw convertError(error, this.modelId);
    }
    return { stream: this.#stream(events, warnings, answer, options.abortSignal) };
  }

  #stream(
    events: AsyncIterator<TokenEvent>,
    warnings: LoraxWarning[],
    answer: Answer,
    abortSignal: AbortSignal | undefined,
  ): ReadableStream<LoraxStreamPart> {
    let failure: { error: unknown } | undefined;
    return new ReadableStream<LoraxStreamPart>(
      {
        start: (controller) => {
          controller.enqueue({ type: 'stream-start', warnings });
          controller.enqueue({ type: 'response-metadata', ...answer.meta().response });
          controller.enqueue({ type: 'text-start', id: TEXT_ID });
        },
        pull: async (controller) => {
          if (failure !== undefined) throw failure.error;
          try {
            await enqueueNext(events, answer, controller);
          } catch (thrown) {
            const error = convertError(thrown, this.modelId);
            if (abortSignal?.aborted === true) throw error;
            // The part reaches onError (and retries of streams, where asked for); the stream's own
            // failure then keeps a reader of the text from taking half an answer for a whole one.
            controller.enqueue({ type: 'error', error });
            failure = { error };
          }
        },
        cancel: async () => {
          await events.return?.();
        },
      },
      // Nothing is pulled ahead of the reader; meanwhile the engine's stream joins deltas.
      { highWaterMark: 0 },
    );
  }

  #start(options: LanguageModelV4CallOptions): Call {
    const { defaults, engine } = this.#config;
    checkTarget(this.#target, this.modelId, 'languageModel');
    const prompt = convertPrompt(options.prompt);
    const { sampling, warnings } = convertOptions(options, defaults);
    const events = engine.generate({
      messages: prompt.messages,
      adapter: adapterOf(this.#target),
      sampling,
      ...(options.abortSignal === undefined ? {} : { signal: options.abortSignal }),
    });
    return {
      events: events[Symbol.asyncIterator](),
      warnings: [...prompt.warnings, ...warnings],
    };
  }
}

/** Enqueues one part at least: the reader asks again only after that. */
async function enqueueNext(
  events: AsyncIterator<TokenEvent>,
  answer: Answer,
  controller: ReadableStreamDefaultController<LoraxStreamPart>,
): Promise<void> {
  for (;;) {
    const { done, value } = await events.next();
    if (done === true) throw cutOff();
    if (value.type === 'delta') {
      const delta = answer.delta(value);
      // Half a character, or what may become a stop string: nothing to show yet.
      if (delta === '') continue;
      controller.enqueue({ type: 'text-delta', id: TEXT_ID, delta });
    } else if (value.type === 'finish') {
      controller.enqueue({ type: 'text-end', id: TEXT_ID });
      controller.enqueue({ type: 'finish', ...answer.finish(value) });
      controller.close();
    }
    return;
  }
}

/** What is gathered from a request's events. */
class Answer {
  #start: StartEvent | undefined;
  #logprobs: LogprobJson[] | undefined;
  readonly #timestamp = new Date();

  constructor(private readonly modelId: string) {}

  start(event: StartEvent): void {
    this.#start = event;
  }

  delta({ text, logprobs }: DeltaEvent): string {
    if (logprobs !== undefined) (this.#logprobs ??= []).push(...logprobs);
    return text;
  }

  meta(): { response: ResponseMetadata } {
    const id = this.#start?.id ?? '';
    return { response: { id, timestamp: this.#timestamp, modelId: this.modelId } };
  }

  finish({
    reason,
    rawReason,
    usage,
    timing,
  }: FinishEvent): Pick<LoraxGenerateResult, 'finishReason' | 'usage' | 'providerMetadata'> {
    const { promptTokens, cachedTokens, outputTokens } = usage;
    const lorax: LoraxProviderMetadata = {
      adapter: this.#start?.adapter?.name ?? null,
      adapterHash: this.#start?.adapter?.hash ?? null,
      queueMs: timing.queueMs,
      timeToFirstTokenMs: timing.timeToFirstTokenMs,
    };
    if (this.#logprobs !== undefined) lorax.logprobs = this.#logprobs;
    return {
      finishReason: { unified: reason, raw: rawReason },
      usage: {
        inputTokens: {
          total: promptTokens,
          noCache: promptTokens - cachedTokens,
          cacheRead: cachedTokens,
          cacheWrite: undefined,
        },
        outputTokens: { total: outputTokens, text: outputTokens, reasoning: undefined },
        raw: { promptTokens, cachedTokens, outputTokens },
      },
      providerMetadata: { lorax },
    };
  }
}

function contentOf(text: string): { type: 'text'; text: string }[] {
  return text === '' ? [] : [{ type: 'text', text }];
}

function cutOff(): LoraxError {
  return new LoraxError('ENGINE_LOST', "The engine's answer ended without its last event.");
}
