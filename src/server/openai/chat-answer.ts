/** One choice of a chat, gathered from its events, as OpenAI's clients read it. */
import type { FinishEvent, TokenLogprob, Usage } from '../../types.js';
import type { AnswerEvent } from '../generation.js';
import { cutOff } from '../../ai-sdk/convert-error.js';
import { finishOf } from './finish.js';
import { chatLogprobs } from './logprobs.js';
import type { TokenTexts } from '../token-texts.js';

export interface ToolCallJson {
  id: string;
  type: 'function';
  function: { name: string; arguments: string };
}

export class ChatAnswer {
  #text = '';
  #reasoning = '';
  readonly #calls: ToolCallJson[] = [];
  readonly #logprobs: TokenLogprob[] = [];
  #finish: FinishEvent | undefined;

  add(event: AnswerEvent): void {
    switch (event.type) {
      case 'delta':
        this.#text += event.text;
        if (event.logprobs !== undefined) this.#logprobs.push(...event.logprobs);
        break;
      case 'reasoning-delta':
        this.#reasoning += event.text;
        break;
      case 'tool-call-start': {
        const { callId: id, name } = event;
        this.#calls.push({ id, type: 'function', function: { name, arguments: '' } });
        break;
      }
      case 'tool-call-delta': {
        const call = this.#calls.at(-1);
        if (call !== undefined) call.function.arguments += event.delta;
        break;
      }
      case 'finish':
        this.#finish = event;
    }
  }

  get finish(): FinishEvent {
    if (this.#finish === undefined) throw cutOff();
    return this.#finish;
  }

  get usage(): Usage {
    return this.finish.usage;
  }

  /** `tokens`: where logprobs are asked for. */
  async choice(index: number, tokens: TokenTexts | undefined) {
    const calls = this.#calls;
    const message = {
      role: 'assistant' as const,
      content: this.#text === '' && calls.length > 0 ? null : this.#text,
      refusal: null,
      ...(calls.length === 0 ? {} : { tool_calls: calls }),
      ...(this.#reasoning === '' ? {} : { reasoning_content: this.#reasoning }),
    };
    const content = tokens && (await chatLogprobs(this.#logprobs, tokens));
    const logprobs = content === undefined ? null : { content, refusal: null };
    return { index, message, logprobs, ...finishOf(this.finish) };
  }
}
