/**
 * What an answer tells beside its content, under LangChain's names.
 *
 * Of a stream it is all in the last chunk: LangChain joins the texts of chunks, also these.
 */
import type { UsageMetadata } from '@langchain/core/messages';
import type { FinishEvent, StartEvent, TokenLogprob, Usage } from '../types.js';
import { BASE_MODEL } from '../adapter-name.js';

export const PROVIDER = 'lorax';

/** `response_metadata` of an answer that is complete. */
export type LoraxResponseMetadata = {
  model_provider: string;
  /** The adapter's name, or 'base'; under both keys that others use. */
  model: string;
  model_name: string;
  /** null = the base model. */
  adapter: string | null;
  /** sha256 of the adapter's content, hex. */
  adapter_hash: string | null;
  finish_reason: 'stop' | 'length' | 'tool_calls';
  /** 'eos', 'stop-token:<id>', 'stop-string:<text>', 'max-output-tokens', 'context', 'pool'. */
  raw_finish_reason: string;
  timing: { queue_ms: number; time_to_first_token_ms: number | null; total_ms: number };
  /** One a token, when asked for; of a stream each chunk has its own. */
  logprobs?: TokenLogprob[];
};

export function responseMetadata(
  { adapter }: StartEvent,
  { reason, rawReason, timing }: FinishEvent,
): LoraxResponseMetadata {
  const model = adapter?.name ?? BASE_MODEL;
  return {
    ...{ model_provider: PROVIDER, model, model_name: model },
    adapter: adapter?.name ?? null,
    adapter_hash: adapter?.hash ?? null,
    finish_reason: reason === 'tool-calls' ? 'tool_calls' : reason,
    raw_finish_reason: rawReason,
    timing: {
      queue_ms: timing.queueMs,
      time_to_first_token_ms: timing.timeToFirstTokenMs,
      total_ms: timing.totalMs,
    },
  };
}

export function usageMetadata(usage: Usage): UsageMetadata {
  const { promptTokens, cachedTokens, outputTokens, reasoningTokens } = usage;
  return {
    input_tokens: promptTokens,
    output_tokens: outputTokens,
    total_tokens: promptTokens + outputTokens,
    input_token_details: { cache_read: cachedTokens },
    ...(reasoningTokens === undefined
      ? {}
      : { output_token_details: { reasoning: reasoningTokens } }),
  };
}

/** What `llmOutput.tokenUsage` has of it. */
export interface TokenUsage {
  promptTokens: number;
  completionTokens: number;
  totalTokens: number;
}

export function tokenUsage({ promptTokens, outputTokens }: Usage): TokenUsage {
  const totalTokens = promptTokens + outputTokens;
  return { promptTokens, completionTokens: outputTokens, totalTokens };
}

/** Of several answers; those out of a cache have none. */
export function sumTokenUsage(usages: readonly (TokenUsage | undefined)[]): TokenUsage {
  const sum = { promptTokens: 0, completionTokens: 0, totalTokens: 0 };
  for (const usage of usages) {
    sum.promptTokens += usage?.promptTokens ?? 0;
    sum.completionTokens += usage?.completionTokens ?? 0;
    sum.totalTokens += usage?.totalTokens ?? 0;
  }
  return sum;
}
