/**
 * One answer as the output items of /v1/responses, and as the events that tell of them as they grow.
 *
 * Always holds: every item and part that was added is done before the next is added, and what the done
 * events say is what the response has in the end; a call that was cut off is an incomplete item.
 */
import { randomUUID } from 'node:crypto';
import type { FinishEvent, TokenLogprob } from '../../types.js';
import type { AnswerEvent } from '../generation.js';
import type { TokenTexts } from '../token-texts.js';
import { chatLogprobs, type ChatLogprob } from './logprobs.js';

type Status = 'in_progress' | 'completed' | 'incomplete';
type TextPart = { type: 'output_text'; text: string; annotations: []; logprobs: ChatLogprob[] };
type ThoughtPart = { type: 'reasoning_text'; text: string };
export type OutputItem =
  | { type: 'message'; id: string; status: Status; role: 'assistant'; content: TextPart[] }
  | { type: 'reasoning'; id: string; status: Status; summary: []; content: ThoughtPart[] }
  | {
      type: 'function_call';
      id: string;
      status: Status;
      call_id: string;
      name: string;
      arguments: string;
    };

/** Without its sequence number. */
export type OutputEvent = { type: string } & Record<string, unknown>;

export class ResponseOutput {
  readonly items: OutputItem[] = [];
  #open: OutputItem | undefined;
  readonly #tokens: TokenTexts | undefined;

  /** `tokens`: where logprobs are asked for. */
  constructor(tokens: TokenTexts | undefined) {
    this.#tokens = tokens;
  }

  async add(event: Exclude<AnswerEvent, FinishEvent>): Promise<OutputEvent[]> {
    switch (event.type) {
      case 'delta': {
        const logprobs = await this.#logprobsOf(event.logprobs);
        return event.text === '' ? [] : this.#text(event.text, logprobs);
      }
      case 'reasoning-delta':
        return this.#thought(event.text);
      case 'tool-call-start':
        return this.#begin({
          ...{ type: 'function_call', id: newId('fc'), status: 'in_progress' },
          ...{ call_id: event.callId, name: event.name, arguments: '' },
        });
      case 'tool-call-delta': {
        const item = this.#open;
        if (item?.type === 'function_call') item.arguments += event.delta;
        return [
          { type: 'response.function_call_arguments.delta', ...this.#at(), delta: event.delta },
        ];
      }
      case 'tool-call-end':
        return this.#end('completed');
    }
  }

  /** What is still open. */
  finish({ reason }: FinishEvent): OutputEvent[] {
    const isCut = reason === 'length';
    // An answer that says nothing is an empty message.
    const begun = this.items.length > 0 ? [] : this.#beginMessage();
    return [...begun, ...this.#end(isCut ? 'incomplete' : 'completed')];
  }

  #text(delta: string, logprobs: ChatLogprob[]): OutputEvent[] {
    const begun = this.#open?.type === 'message' ? [] : this.#beginMessage();
    const part = (this.#open as OutputItem & { type: 'message' }).content[0] as TextPart;
    part.text += delta;
    part.logprobs.push(...logprobs);
    const at = { ...this.#at(), content_index: 0 };
    return [...begun, { type: 'response.output_text.delta', ...at, delta, logprobs }];
  }

  #beginMessage(): OutputEvent[] {
    const id = newId('msg');
    const status = 'in_progress';
    const begun = this.#begin({ type: 'message', id, status, role: 'assistant', content: [] });
    const part: TextPart = { type: 'output_text', text: '', annotations: [], logprobs: [] };
    (this.#open as OutputItem & { type: 'message' }).content.push(part);
    return [...begun, this.#partEvent('added', { ...part })];
  }

  #thought(delta: string): OutputEvent[] {
    const begun: OutputEvent[] = [];
    if (this.#open?.type !== 'reasoning') {
      const id = newId('rs');
      const status = 'in_progress';
      begun.push(...this.#begin({ type: 'reasoning', id, status, summary: [], content: [] }));
      const part: ThoughtPart = { type: 'reasoning_text', text: '' };
      (this.#open as unknown as OutputItem & { type: 'reasoning' }).content.push(part);
      begun.push(this.#partEvent('added', { ...part }));
    }
    const part = (this.#open as OutputItem & { type: 'reasoning' }).content[0] as ThoughtPart;
    part.text += delta;
    const at = { ...this.#at(), content_index: 0 };
    return [...begun, { type: 'response.reasoning_text.delta', ...at, delta }];
  }

  #begin(item: OutputItem): OutputEvent[] {
    const ended = this.#end('completed');
    this.items.push(item);
    this.#open = item;
    const output_index = this.items.length - 1;
    return [...ended, { type: 'response.output_item.added', output_index, item: { ...item } }];
  }

  #end(status: Status): OutputEvent[] {
    const item = this.#open;
    if (item === undefined) return [];
    item.status = status;
    const events: OutputEvent[] = [];
    const at = this.#at();
    if (item.type === 'message') {
      const { text, logprobs } = item.content[0] as TextPart;
      const type = 'response.output_text.done';
      events.push({ type, ...at, content_index: 0, text, logprobs });
      events.push(this.#partEvent('done', item.content[0] as TextPart));
    } else if (item.type === 'reasoning') {
      const { text } = item.content[0] as ThoughtPart;
      events.push({ type: 'response.reasoning_text.done', ...at, content_index: 0, text });
      events.push(this.#partEvent('done', item.content[0] as ThoughtPart));
    } else {
      const { name, arguments: given } = item;
      const type = 'response.function_call_arguments.done';
      events.push({ type, ...at, name, arguments: given });
    }
    const { output_index } = at;
    events.push({ type: 'response.output_item.done', output_index, item });
    this.#open = undefined;
    return events;
  }

  #partEvent(what: 'added' | 'done', part: TextPart | ThoughtPart): OutputEvent {
    return { type: `response.content_part.${what}`, ...this.#at(), content_index: 0, part };
  }

  #at(): { item_id: string; output_index: number } {
    return { item_id: this.#open?.id ?? '', output_index: this.items.length - 1 };
  }

  async #logprobsOf(logprobs: TokenLogprob[] | undefined): Promise<ChatLogprob[]> {
    if (logprobs === undefined || this.#tokens === undefined) return [];
    return chatLogprobs(logprobs, this.#tokens);
  }
}

export function newId(kind: string): string {
  return `${kind}_${randomUUID().replaceAll('-', '')}`;
}
