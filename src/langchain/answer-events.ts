/**
 * An answer as it comes, in LangChain's stream events: each content block starts, grows and ends.
 *
 * What streamEvents() without a version and LangGraph's newer streams read. LangChain could make
 * these of chunks, but its chunks do not say where a block ends and why an answer does.
 */
import type {
  ChatModelStreamEvent,
  ContentBlockDelta,
} from '@langchain/core/language_models/event';
import type { StartEvent } from '../types.js';
import { toolCall, unfinishedCall } from './answer.js';
import type { AnswerEvent } from './engine-call.js';
import { responseMetadata, usageMetadata } from './metadata.js';

/** The block that is growing, as its first event shows it but with all that has come since. */
type Block =
  | { type: 'text'; text: string }
  | { type: 'reasoning'; reasoning: string }
  | { type: 'tool_call_chunk'; id: string; name: string; args: string };

const REASONS = { stop: 'stop', length: 'length', 'tool-calls': 'tool_use' } as const;

export class AnswerEvents {
  readonly #start: StartEvent;
  #block: Block | undefined;
  /** Of the block that is growing, else of the one before. */
  #index = -1;

  constructor(start: StartEvent) {
    this.#start = start;
  }

  begin(): ChatModelStreamEvent {
    return { event: 'message-start', id: this.#start.id };
  }

  next(event: AnswerEvent): ChatModelStreamEvent[] {
    switch (event.type) {
      case 'delta': {
        const { text } = event;
        if (text === '') return [];
        const before = this.#block?.type === 'text' ? [] : this.#open({ type: 'text', text: '' });
        if (this.#block?.type === 'text') this.#block.text += text;
        return [...before, this.#delta({ type: 'text-delta', text })];
      }
      case 'reasoning-delta': {
        const { text: reasoning } = event;
        const before =
          this.#block?.type === 'reasoning' ? [] : this.#open({ type: 'reasoning', reasoning: '' });
        if (this.#block?.type === 'reasoning') this.#block.reasoning += reasoning;
        return [...before, this.#delta({ type: 'reasoning-delta', reasoning })];
      }
      case 'tool-call-start':
        return this.#open({
          ...{ type: 'tool_call_chunk', id: event.callId, name: event.name, args: '' },
        });
      case 'tool-call-delta':
        if (this.#block?.type === 'tool_call_chunk') this.#block.args += event.delta;
        return [this.#delta({ type: 'tool-call-delta', args: event.delta })];
      case 'tool-call-end':
        return this.#close(true);
      case 'finish':
        return [
          ...this.#close(),
          {
            event: 'message-finish',
            reason: REASONS[event.reason],
            usage: usageMetadata(event.usage),
            responseMetadata: responseMetadata(this.#start, event),
          },
        ];
    }
  }

  #open(block: Block): ChatModelStreamEvent[] {
    const before = this.#close();
    this.#block = block;
    this.#index += 1;
    const content = { ...block };
    return [...before, { event: 'content-block-start', index: this.#index, content }];
  }

  #delta(delta: ContentBlockDelta): ChatModelStreamEvent {
    return { event: 'content-block-delta', index: this.#index, delta };
  }

  /** `complete`: of a call, that its JSON is. */
  #close(complete = false): ChatModelStreamEvent[] {
    const block = this.#block;
    if (block === undefined) return [];
    this.#block = undefined;
    const content = block.type === 'tool_call_chunk' ? callOf(block, complete) : block;
    return [{ event: 'content-block-finish', index: this.#index, content }];
  }
}

function callOf({ id, name, args: json }: Block & { type: 'tool_call_chunk' }, complete: boolean) {
  return complete ? toolCall({ id, name, json }) : unfinishedCall({ id, name, json });
}
