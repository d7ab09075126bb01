/**
 * One answer's events -> the AI SDK's stream parts, and the same parts -> the content of an answer
 * that is not streamed.
 *
 * Always holds: every part that is started is ended, before the next one starts; ids are distinct
 * within the answer. Used by answer-stream.ts and language-model.ts.
 */
import type { TokenEvent } from '../types.js';
import type { LoraxContent, LoraxContentPart } from './model-types.js';

type AnswerEvent = Exclude<TokenEvent, { type: 'start' }>;

export class AnswerParts {
  #open: { type: 'text' | 'reasoning' | 'tool-input'; id: string } | undefined;
  #count = 0;

  /** An event may say nothing yet: half a character, or what may become a stop string. */
  of(event: AnswerEvent): LoraxContentPart[] {
    switch (event.type) {
      case 'delta':
        return event.text === '' ? [] : this.#block('text', event.text);
      case 'reasoning-delta':
        return this.#block('reasoning', event.text);
      case 'tool-call-start': {
        const end = this.#end();
        this.#open = { type: 'tool-input', id: event.callId };
        return [...end, { type: 'tool-input-start', id: event.callId, toolName: event.name }];
      }
      case 'tool-call-delta':
        return [{ type: 'tool-input-delta', id: event.callId, delta: event.delta }];
      case 'tool-call-end': {
        const { callId: toolCallId, name: toolName, input } = event;
        return [...this.#end(), { type: 'tool-call', toolCallId, toolName, input }];
      }
      case 'finish':
        return this.#end();
    }
  }

  #block(type: 'text' | 'reasoning', delta: string): LoraxContentPart[] {
    if (this.#open?.type === type) return [{ type: `${type}-delta`, id: this.#open.id, delta }];
    const end = this.#end();
    const id = String(this.#count++);
    this.#open = { type, id };
    return [...end, { type: `${type}-start`, id }, { type: `${type}-delta`, id, delta }];
  }

  #end(): LoraxContentPart[] {
    if (this.#open === undefined) return [];
    const { type, id } = this.#open;
    this.#open = undefined;
    return [{ type: `${type}-end`, id }];
  }
}

/** Appends what the part adds to the content. */
export function addToContent(content: LoraxContent[], part: LoraxContentPart): void {
  switch (part.type) {
    case 'text-start':
      content.push({ type: 'text', text: '' });
      break;
    case 'reasoning-start':
      content.push({ type: 'reasoning', text: '' });
      break;
    case 'text-delta':
    case 'reasoning-delta': {
      const last = content.at(-1);
      if (last?.type === 'text' || last?.type === 'reasoning') last.text += part.delta;
      break;
    }
    case 'tool-call':
      content.push(part);
      break;
  }
}
