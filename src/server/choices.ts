/**
 * The requests that one HTTP request makes of the engine (n choices, several prompts), run side by side
 * and read as one sequence of events.
 *
 * At most one event of each is held for a reader who is slow. When one fails, or the reader leaves,
 * all of them end. Made by the completion routes.
 */
import type { GenerateRequest, StartEvent, TokenEvent } from '../types.js';
import type { ServerContext, ServerState } from './environment.js';
import { admitted, leave, nextEvent, open, type AnswerEvent } from './generation.js';

export interface ChoiceEvent {
  index: number;
  event: AnswerEvent;
}

export class Choices {
  readonly #all: AsyncIterator<TokenEvent>[];
  readonly #starts: Promise<StartEvent>[];
  readonly #ready: ChoiceEvent[] = [];
  #failure: { error: unknown } | undefined;
  #wake: (() => void) | undefined;
  #unfinished: number;

  constructor(c: ServerContext, state: ServerState, requests: readonly GenerateRequest[]) {
    const { admissions } = state;
    admissions.check();
    this.#all = requests.map((request) => open(c, request, state));
    this.#unfinished = requests.length;
    this.#starts = this.#all.map(async (events, index) => {
      try {
        const { start } = await admitted(events, admissions);
        this.#pull(index);
        return start;
      } catch (error) {
        this.#fail(error);
        throw error;
      }
    });
    for (const start of this.#starts) start.catch(() => undefined);
  }

  get size(): number {
    return this.#all.length;
  }

  /** Resolves when the first is admitted; rejects where any was refused by then. */
  async admitted(): Promise<StartEvent> {
    try {
      const start = (await this.#starts[0]) as StartEvent;
      if (this.#failure !== undefined) throw this.#failure.error;
      return start;
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Once its first event has been read. */
  start(index: number): Promise<StartEvent> {
    return this.#starts[index] as Promise<StartEvent>;
  }

  /** undefined: all have finished. Throws what one of them failed of. */
  async next(): Promise<ChoiceEvent | undefined> {
    while (this.#ready.length === 0) {
      if (this.#failure !== undefined) {
        this.close();
        throw this.#failure.error;
      }
      if (this.#unfinished === 0) return undefined;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    const turn = this.#ready.shift() as ChoiceEvent;
    if (turn.event.type === 'finish') this.#unfinished--;
    else this.#pull(turn.index);
    return turn;
  }

  close(): void {
    leave(this.#all);
  }

  #pull(index: number): void {
    nextEvent(this.#all[index] as AsyncIterator<TokenEvent>).then(
      (event) => {
        this.#ready.push({ index, event });
        this.#wake?.();
      },
      (error: unknown) => this.#fail(error),
    );
  }

  #fail(error: unknown): void {
    this.#failure ??= { error };
    this.#wake?.();
  }
}
