/**
 * The chunks of one stream as lines: what all have is written once. Used by chat-chunks.ts and
 * completion-chunks.ts.
 */
import type { Usage } from '../../types.js';
import { usageOf } from './usage.js';

export interface ChunkHead {
  id: string;
  created: number;
  model: string;
}

export class ChunkLines {
  readonly #head: string;
  readonly #includeUsage: boolean;

  constructor(object: string, { id, created, model }: ChunkHead, includeUsage: boolean) {
    const head = JSON.stringify({ id, object, created, model });
    this.#head = `data: ${head.slice(0, -1)},"choices":[`;
    this.#includeUsage = includeUsage;
  }

  /** `said`: what is new of the choice, { delta } or { text }. */
  chunk(
    index: number,
    said: object,
    finish: object = { finish_reason: null },
    logprobs: object | null = null,
  ): string {
    const usage = this.#includeUsage ? ',"usage":null' : '';
    return `${this.#head}${JSON.stringify({ index, ...said, logprobs, ...finish })}]${usage}}\n\n`;
  }

  /** '' where no usage was asked for. As usageOf() has it: of the prompts, and of all. */
  last(prompts: readonly Usage[], all: readonly Usage[]): string {
    if (!this.#includeUsage) return '';
    return `${this.#head}],"usage":${JSON.stringify(usageOf(prompts, all))}}\n\n`;
  }
}
