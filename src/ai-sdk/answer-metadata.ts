/**
 * What surrounds an answer: its id and model, usage, finish reason, `providerMetadata.lorax`.
 *
 * Gathered from a request's events as they pass. Used by language-model.ts and answer-stream.ts.
 */
import type { DeltaEvent, FinishEvent, StartEvent, Usage } from '../types.js';
import type {
  LogprobJson,
  LoraxGenerateResult,
  LoraxProviderMetadata,
  LoraxUsage,
  ResponseMetadata,
} from './model-types.js';

export class AnswerMetadata {
  #start: StartEvent | undefined;
  #logprobs: LogprobJson[] | undefined;
  readonly #timestamp = new Date();

  constructor(private readonly modelId: string) {}

  start(event: StartEvent): void {
    this.#start = event;
  }

  delta({ logprobs }: DeltaEvent): void {
    if (logprobs !== undefined) (this.#logprobs ??= []).push(...logprobs);
  }

  response(): ResponseMetadata {
    return { id: this.#start?.id ?? '', timestamp: this.#timestamp, modelId: this.modelId };
  }

  finish({
    reason,
    rawReason,
    usage,
    timing,
  }: FinishEvent): Pick<LoraxGenerateResult, 'finishReason' | 'usage' | 'providerMetadata'> {
    const lorax: LoraxProviderMetadata = {
      adapter: this.#start?.adapter?.name ?? null,
      adapterHash: this.#start?.adapter?.hash ?? null,
      queueMs: timing.queueMs,
      timeToFirstTokenMs: timing.timeToFirstTokenMs,
    };
    if (this.#logprobs !== undefined) lorax.logprobs = this.#logprobs;
    return {
      finishReason: { unified: reason, raw: rawReason },
      usage: convertUsage(usage),
      providerMetadata: { lorax },
    };
  }
}

function convertUsage(usage: Usage): LoraxUsage {
  const { promptTokens, cachedTokens, outputTokens, reasoningTokens } = usage;
  return {
    inputTokens: {
      total: promptTokens,
      noCache: promptTokens - cachedTokens,
      cacheRead: cachedTokens,
      cacheWrite: undefined,
    },
    outputTokens: {
      total: outputTokens,
      text: outputTokens - (reasoningTokens ?? 0),
      reasoning: reasoningTokens,
    },
    raw: { ...usage },
  };
}
