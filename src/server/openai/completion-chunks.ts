/**
 * Completions as chunks of a stream: what stands before each first (echo), then its text as it comes,
 * its finish reason, and at the end the usage where it was asked for.
 */
import type { Usage } from '../../types.js';
import type { Choices } from '../choices.js';
import { DONE, type EventSource } from '../event-stream.js';
import type { TokenTexts } from '../token-texts.js';
import { ChunkLines, type ChunkHead } from './chunk-lines.js';
import { finishOf } from './finish.js';
import { completionLogprobs } from './logprobs.js';

interface CompletionChunkOptions {
  /** Where logprobs are asked for. */
  tokens: TokenTexts | undefined;
  includeUsage: boolean;
  /** Of each prompt. */
  echoes: string[];
  /** Choices of each prompt. */
  n: number;
}

export class CompletionChunks implements EventSource {
  readonly #choices: Choices;
  readonly #lines: ChunkLines;
  readonly #options: CompletionChunkOptions;
  /** Characters of each choice so far. */
  readonly #lengths: number[];
  readonly #usages: (Usage | undefined)[];
  #state: 'begin' | 'middle' | 'done' | 'end' = 'begin';

  constructor(choices: Choices, head: ChunkHead, options: CompletionChunkOptions) {
    this.#choices = choices;
    this.#options = options;
    const { echoes, n, includeUsage } = options;
    this.#lines = new ChunkLines('text_completion', head, includeUsage);
    this.#lengths = echoes.flatMap((echo) => Array.from({ length: n }, () => echo.length));
    this.#usages = this.#lengths.map(() => undefined);
  }

  async next(): Promise<string | undefined> {
    if (this.#state === 'begin') {
      this.#state = 'middle';
      const echoed = this.#lengths.map((length, index) =>
        length === 0 ? '' : this.#lines.chunk(index, { text: this.#echo(index) }),
      );
      if (echoed.some((text) => text !== '')) return echoed.join('');
    }
    while (this.#state === 'middle') {
      const text = await this.#middle();
      if (text !== '') return text;
    }
    if (this.#state !== 'done') return undefined;
    this.#state = 'end';
    return DONE;
  }

  close(): void {
    this.#choices.close();
  }

  async #middle(): Promise<string> {
    const turn = await this.#choices.next();
    if (turn === undefined) {
      this.#state = 'done';
      return this.#last();
    }
    const { index, event } = turn;
    if (event.type === 'finish') {
      this.#usages[index] = event.usage;
      return this.#lines.chunk(index, { text: '' }, finishOf(event));
    }
    if (event.type !== 'delta') return '';
    const { tokens } = this.#options;
    const offset = this.#lengths[index] as number;
    this.#lengths[index] = offset + event.text.length;
    if (tokens !== undefined && event.logprobs !== undefined) {
      const logprobs = await completionLogprobs(event.logprobs, tokens, offset);
      return this.#lines.chunk(index, { text: event.text }, undefined, logprobs);
    }
    return event.text === '' ? '' : this.#lines.chunk(index, { text: event.text });
  }

  #echo(index: number): string {
    const { echoes, n } = this.#options;
    return echoes[Math.floor(index / n)] ?? '';
  }

  #last(): string {
    const { n } = this.#options;
    const usages = this.#usages as Usage[];
    return this.#lines.last(
      usages.filter((_, index) => index % n === 0),
      usages,
    );
  }
}
