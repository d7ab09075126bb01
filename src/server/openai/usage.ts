/** The engine's usage in the form of OpenAI's APIs. */
import type { Usage } from '../../types.js';

export interface UsageJson {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  prompt_tokens_details: { cached_tokens: number };
  completion_tokens_details?: { reasoning_tokens: number };
}

/** `prompts`: of one request each; the same prompt counts once, whatever was made of it. */
export function usageOf(prompts: readonly Usage[], answers: readonly Usage[]): UsageJson {
  const sum = (all: readonly Usage[], key: 'promptTokens' | 'cachedTokens' | 'outputTokens') =>
    all.reduce((total, usage) => total + usage[key], 0);
  const prompt = sum(prompts, 'promptTokens');
  const completion = sum(answers, 'outputTokens');
  const reasoning = answers.flatMap(({ reasoningTokens }) => reasoningTokens ?? []);
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    prompt_tokens_details: { cached_tokens: sum(prompts, 'cachedTokens') },
    ...(reasoning.length === 0
      ? {}
      : { completion_tokens_details: { reasoning_tokens: reasoning.reduce((a, b) => a + b) } }),
  };
}
