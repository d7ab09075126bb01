/** One conversation with the base or an adapter: what was said, and how fast each answer came. */
import { askChat, KeyNeeded, type ChatMessage, type ChatProgress } from './chat-request.js';
import { element, setText } from './dom.js';
import { count, milliseconds, short } from './format.js';
import type { Keys } from './keys.js';

export interface Sampling {
  temperature?: number;
  maxTokens?: number;
}

export class ChatLane {
  readonly node: HTMLElement;
  readonly #model: HTMLInputElement;
  readonly #log: HTMLElement;
  readonly #messages: ChatMessage[] = [];
  #abort: AbortController | undefined;

  constructor(
    private readonly keys: Keys,
    private readonly base: () => string,
    label: string,
  ) {
    this.#model = element('input', {
      ...{ list: 'models', 'aria-label': label, placeholder: 'the base model' },
      ...{ autocomplete: 'off', spellcheck: 'false', class: 'model' },
    });
    this.#log = element('div', {
      ...{ class: 'log', role: 'log', tabindex: '0' },
      'aria-label': `Answers of the ${label.toLowerCase()}`,
    });
    this.node = element('div', { class: 'lane' }, this.#model, this.#log);
  }

  /** What is asked: an adapter, or what the server calls its base. */
  set model(name: string) {
    this.#model.value = name;
  }

  clear(): void {
    this.stop();
    this.#messages.length = 0;
    this.#log.replaceChildren();
  }

  stop(): void {
    this.#abort?.abort();
  }

  /** Resolves when the answer has ended, however. */
  async ask(content: string, sampling: Sampling): Promise<void> {
    const model = this.#model.value.trim() || this.base();
    const abort = new AbortController();
    this.#abort = abort;
    this.#messages.push({ role: 'user', content });
    this.#log.append(element('p', { class: 'user' }, content));
    const text = element('p', { class: 'answer' });
    const facts = element('small', { class: 'muted' }, model);
    const answer = element('article', { 'aria-busy': 'true' }, text, facts);
    this.#log.append(answer);
    this.#follow();
    let progress: ChatProgress | undefined;
    const say = (end: string) =>
      setText(facts, [model, ...factsOf(progress), end].filter(Boolean).join(' · '));
    try {
      const request = { model, messages: [...this.#messages], ...sampling };
      for await (progress of askChat(request, this.keys.headers('api'), abort.signal)) {
        setText(text, progress.text);
        say('');
        this.#follow();
      }
      say(progress?.finishReason === 'length' ? 'cut at max tokens' : '');
    } catch (error) {
      if (abort.signal.aborted) say('stopped');
      else this.#failed(answer, error);
    } finally {
      answer.setAttribute('aria-busy', 'false');
      this.#follow();
    }
    // What failed is not part of the conversation.
    if (progress === undefined || progress.text === '') this.#messages.pop();
    else this.#messages.push({ role: 'assistant', content: progress.text });
  }

  #failed(answer: HTMLElement, error: unknown): void {
    const message = element('p', { class: 'failure', role: 'alert' }, (error as Error).message);
    answer.append(message);
    if (!(error instanceof KeyNeeded)) return;
    const button = element('button', { type: 'button' }, 'Enter a key');
    button.addEventListener('click', () => this.keys.ask((error as Error).message, 'api'));
    answer.append(button);
  }

  /** The newest stays in sight, unless somebody reads further up. */
  #follow(): void {
    const { scrollTop, scrollHeight, clientHeight } = this.#log;
    if (scrollHeight - scrollTop - clientHeight < 120) this.#log.scrollTop = scrollHeight;
  }
}

function factsOf(progress: ChatProgress | undefined): string[] {
  if (progress === undefined) return [];
  const { tokens, firstTokenMs, tokensPerSecond } = progress;
  return [
    `${count(tokens)} tokens`,
    ...(firstTokenMs === undefined ? [] : [`first after ${milliseconds(firstTokenMs)}`]),
    ...(tokensPerSecond === undefined ? [] : [`${short(tokensPerSecond)} tokens/s`]),
  ];
}
