/**
 * A chat's choices as chunks of a stream: the role of each first, then what it says as it comes, its
 * finish reason, and at the end the usage where it was asked for.
 */
import type { Usage } from '../../types.js';
import type { ChoiceEvent, Choices } from '../choices.js';
import { DONE, type EventSource } from '../event-stream.js';
import type { AnswerEvent } from '../generation.js';
import type { TokenTexts } from '../token-texts.js';
import { ChunkLines, type ChunkHead } from './chunk-lines.js';
import { finishOf } from './finish.js';
import { chatLogprobs } from './logprobs.js';

export class ChatChunks implements EventSource {
  readonly #choices: Choices;
  readonly #lines: ChunkLines;
  readonly #tokens: TokenTexts | undefined;
  readonly #numCalls: number[];
  readonly #usages: Usage[];
  #state: 'begin' | 'middle' | 'done' | 'end' = 'begin';

  /** `tokens`: where logprobs are asked for. */
  constructor(
    choices: Choices,
    head: ChunkHead,
    { tokens, includeUsage }: { tokens: TokenTexts | undefined; includeUsage: boolean },
  ) {
    this.#choices = choices;
    this.#lines = new ChunkLines('chat.completion.chunk', head, includeUsage);
    this.#tokens = tokens;
    this.#numCalls = Array.from({ length: choices.size }, () => 0);
    this.#usages = [];
  }

  async next(): Promise<string | undefined> {
    if (this.#state === 'begin') {
      this.#state = 'middle';
      return this.#numCalls
        .map((_, index) => this.#lines.chunk(index, { delta: { role: 'assistant', content: '' } }))
        .join('');
    }
    while (this.#state === 'middle') {
      const turn = await this.#choices.next();
      if (turn === undefined) this.#state = 'done';
      const text =
        turn === undefined
          ? this.#lines.last(this.#usages.slice(0, 1), this.#usages)
          : await this.#textOf(turn);
      if (text !== '') return text;
    }
    if (this.#state !== 'done') return undefined;
    this.#state = 'end';
    return DONE;
  }

  close(): void {
    this.#choices.close();
  }

  async #textOf({ index, event }: ChoiceEvent): Promise<string> {
    if (event.type === 'finish') {
      this.#usages.push(event.usage);
      return this.#lines.chunk(index, { delta: {} }, finishOf(event));
    }
    const delta = this.#deltaOf(index, event);
    if (event.type === 'delta' && event.logprobs !== undefined && this.#tokens !== undefined) {
      const content = await chatLogprobs(event.logprobs, this.#tokens);
      return this.#lines.chunk(index, { delta: delta ?? {} }, undefined, {
        content,
        refusal: null,
      });
    }
    return delta === undefined ? '' : this.#lines.chunk(index, { delta });
  }

  /** undefined: it says nothing yet. */
  #deltaOf(index: number, event: Exclude<AnswerEvent, { type: 'finish' }>): object | undefined {
    switch (event.type) {
      case 'delta':
        return event.text === '' ? undefined : { content: event.text };
      case 'reasoning-delta':
        return { reasoning_content: event.text };
      case 'tool-call-start': {
        const { callId: id, name } = event;
        const at = (this.#numCalls[index] as number)++;
        const called = { name, arguments: '' };
        return { tool_calls: [{ index: at, id, type: 'function', function: called }] };
      }
      case 'tool-call-delta': {
        const at = (this.#numCalls[index] as number) - 1;
        return { tool_calls: [{ index: at, function: { arguments: event.delta } }] };
      }
      case 'tool-call-end':
        return undefined;
    }
  }
}
