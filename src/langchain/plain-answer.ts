/**
 * An answer without a chat: text, and at its end what `generationInfo` tells of it.
 *
 * Called by lorax-llm.ts.
 */
import type { UsageMetadata } from '@langchain/core/messages';
import { LoraxError } from '../errors.js';
import type { FinishEvent, StartEvent, TokenLogprob } from '../types.js';
import type { AnswerEvent } from './engine-call.js';
import { responseMetadata, tokenUsage, usageMetadata } from './metadata.js';
import type { LoraxResponseMetadata, TokenUsage } from './metadata.js';

/** Of LoraxLLM: what a chat's answer has in `response_metadata` and `usage_metadata`. */
export type LoraxGenerationInfo = LoraxResponseMetadata & { usage_metadata: UsageMetadata };

export interface PlainResult {
  text: string;
  generationInfo: LoraxGenerationInfo;
  usage: TokenUsage;
}

export class PlainAnswer {
  readonly #start: StartEvent;
  #text = '';
  #logprobs: TokenLogprob[] | undefined;
  #finish: FinishEvent | undefined;

  constructor(start: StartEvent) {
    this.#start = start;
  }

  /** The text that came with it. */
  add(event: AnswerEvent): string {
    if (event.type === 'finish') this.#finish = event;
    if (event.type !== 'delta') return '';
    if (event.logprobs !== undefined) (this.#logprobs ??= []).push(...event.logprobs);
    this.#text += event.text;
    return event.text;
  }

  result(): PlainResult {
    const finish = this.#finish;
    if (finish === undefined) throw new LoraxError('ENGINE_LOST', 'The answer has no end.');
    return {
      text: this.#text,
      generationInfo: {
        ...responseMetadata(this.#start, finish),
        usage_metadata: usageMetadata(finish.usage),
        ...(this.#logprobs === undefined ? {} : { logprobs: this.#logprobs }),
      },
      usage: tokenUsage(finish.usage),
    };
  }
}
