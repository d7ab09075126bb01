/**
 * A chat's choices as chunks of a stream: the role of each first, then what it says as it comes, its
 * finish reason, and at the end the usage where it was asked for.
 */
import type { Usage } from '../../types.js';
import type { ChoiceEvent, Choices } from '../choices.js';
import { DONE, type EventSource } from '../event-stream.js';
import type { AnswerEvent } from '../generation.js';
import type { TokenTexts } from '../token-texts.js';
import { finishOf } from './finish.js';
import { chatLogprobs } from './logprobs.js';
import { usageOf } from './usage.js';

export interface ChunkHead {
  id: string;
  created: number;
  model: string;
}

export class ChatChunks implements EventSource {
  readonly #choices: Choices;
  readonly #head: string;
  readonly #tail: string;
  readonly #tokens: TokenTexts | undefined;
  readonly #includeUsage: boolean;
  readonly #numCalls: number[];
  readonly #usages: Usage[];
  #state: 'begin' | 'middle' | 'done' | 'end' = 'begin';

  /** `tokens`: where logprobs are asked for. */
  constructor(
    choices: Choices,
    { id, created, model }: ChunkHead,
    { tokens, includeUsage }: { tokens: TokenTexts | undefined; includeUsage: boolean },
  ) {
    this.#choices = choices;
    this.#tokens = tokens;
    this.#includeUsage = includeUsage;
    this.#numCalls = Array.from({ length: choices.size }, () => 0);
    this.#usages = [];
    const head = { id, object: 'chat.completion.chunk', created, model };
    this.#head = `data: ${JSON.stringify(head).slice(0, -1)},"choices":[`;
    this.#tail = `]${includeUsage ? ',"usage":null' : ''}}\n\n`;
  }

  async next(): Promise<string | undefined> {
    if (this.#state === 'begin') {
      this.#state = 'middle';
      return this.#numCalls
        .map((_, index) => this.#chunk(index, { role: 'assistant', content: '' }))
        .join('');
    }
    while (this.#state === 'middle') {
      const turn = await this.#choices.next();
      if (turn === undefined) this.#state = 'done';
      const text = turn === undefined ? this.#last() : await this.#textOf(turn);
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
      return this.#chunk(index, {}, finishOf(event));
    }
    const delta = this.#deltaOf(index, event);
    if (event.type === 'delta' && event.logprobs !== undefined && this.#tokens !== undefined) {
      const content = await chatLogprobs(event.logprobs, this.#tokens);
      return this.#chunk(index, delta ?? {}, undefined, { content, refusal: null });
    }
    return delta === undefined ? '' : this.#chunk(index, delta);
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

  #chunk(
    index: number,
    delta: object,
    finish: object = { finish_reason: null },
    logprobs: object | null = null,
  ): string {
    return this.#head + JSON.stringify({ index, delta, logprobs, ...finish }) + this.#tail;
  }

  #last(): string {
    if (!this.#includeUsage) return '';
    const usage = usageOf(this.#usages.slice(0, 1), this.#usages);
    return `${this.#head}],"usage":${JSON.stringify(usage)}}\n\n`;
  }
}
