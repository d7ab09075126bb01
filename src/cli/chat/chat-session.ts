/**
 * One conversation: what was said, which adapter answers (or which two, side by side), and the commands
 * that change it. Knows no terminal; commands/chat.ts shows what it returns.
 */
import type { ChatMessage, Engine, Sampling } from '../../types.js';

export const HELP = [
  '/adapter [name]     who answers; without a name the base model',
  '/compare a [b]      two answer each question, side by side; /compare ends it',
  '/adapters           which there are',
  '/system text        what comes before everything; without a text nothing',
  '/reset              forgets what was said',
  '/quit',
];

/** What a line was. */
export type ChatStep =
  | { kind: 'told'; lines: string[] }
  | { kind: 'question'; answers: ChatAnswer[] }
  | { kind: 'quit' };

export interface ChatAnswer {
  adapter: string;
  /** Pieces as they come; rejects where the engine refuses. */
  text: AsyncIterable<string>;
}

export interface ChatOptions {
  engine: Pick<Engine, 'generate'>;
  /** Of adapters. */
  names: readonly string[];
  sampling: Sampling;
}

const BASE = 'base';

export class ChatSession {
  #adapters: string[] = [BASE];
  #system = '';
  /** Of each who answers its own: the questions are the same. */
  #said = new Map<string, ChatMessage[]>();

  constructor(private readonly options: ChatOptions) {}

  /** Who answers next. */
  get prompt(): string {
    return `${this.#adapters.join(' | ')}> `;
  }

  /** Throws nothing; what is wrong is told. */
  take(line: string): ChatStep {
    const text = line.trim();
    if (text === '') return { kind: 'told', lines: [] };
    if (!text.startsWith('/')) return { kind: 'question', answers: this.ask(text) };
    const [command = '', ...words] = text.split(/\s+/);
    const rest = text.slice(command.length).trim();
    switch (command) {
      case '/adapter':
        return this.choose([words[0] ?? BASE]);
      case '/compare':
        if (words.length === 0) return this.choose([this.#adapters[0] as string]);
        return this.choose(
          words.length === 1 ? [this.#adapters[0] as string, words[0] as string] : words,
        );
      case '/adapters':
        return told(BASE, ...this.options.names);
      case '/system':
        this.#system = rest;
        return this.forget(rest === '' ? 'no system prompt' : 'another system prompt');
      case '/reset':
        return this.forget('nothing was said');
      case '/quit':
      case '/exit':
        return { kind: 'quit' };
      default:
        return told(...HELP);
    }
  }

  private choose(names: string[]): ChatStep {
    if (names.length > 2) return told('/compare takes two.');
    const unknown = names.find((name) => name !== BASE && !this.options.names.includes(name));
    if (unknown !== undefined) {
      return told(`There is no adapter ${unknown}: ${[BASE, ...this.options.names].join(', ')}.`);
    }
    if (new Set(names).size < names.length) return told('These are the same.');
    // Who comes new has heard what the first one has.
    const heard = this.#said.get(this.#adapters[0] as string) ?? [];
    const said = new Map(names.map((name) => [name, this.#said.get(name) ?? [...heard]]));
    this.#said = said;
    this.#adapters = names;
    return told(`${names.join(' and ')} answer${names.length === 1 ? 's' : ''}`);
  }

  private forget(what: string): ChatStep {
    this.#said.clear();
    return told(what);
  }

  private ask(question: string): ChatAnswer[] {
    return this.#adapters.map((adapter) => {
      const said = this.#said.get(adapter) ?? [];
      this.#said.set(adapter, said);
      said.push({ role: 'user', content: question });
      return { adapter, text: this.answer(adapter, said) };
    });
  }

  private async *answer(adapter: string, said: ChatMessage[]): AsyncIterable<string> {
    const { engine, sampling } = this.options;
    const system: ChatMessage[] =
      this.#system === '' ? [] : [{ role: 'system', content: this.#system }];
    let whole = '';
    let finished = false;
    try {
      const request = { messages: [...system, ...said], adapter, sampling };
      for await (const event of engine.generate(request)) {
        if (event.type !== 'delta' || event.text === '') continue;
        whole += event.text;
        yield event.text;
      }
      finished = true;
    } finally {
      // A question without an answer would leave the next one beside it.
      if (finished || whole !== '') said.push({ role: 'assistant', content: whole });
      else said.pop();
    }
  }
}

function told(...lines: string[]): ChatStep {
  return { kind: 'told', lines };
}
