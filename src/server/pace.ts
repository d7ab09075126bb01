/**
 * While requests are refused for want of a place, streams hear of their tokens every 50 ms.
 *
 * An event costs about the same whether it holds one token or three, and on a machine whose cores the
 * engine has as well the engine pays for it. So what refusals cost is made up for by what streams
 * don't: docs/decisions/2026-11-30-overload-joins-events.md. First tokens never wait here. Used by
 * generation.ts.
 */
import type { TokenEvent } from '../types.js';
import type { Admissions } from './admissions.js';

const TICK_MS = 100;
/** The start and the first token. */
const UNPACED = 2;

export class Pace {
  #tick: Promise<void> | undefined;

  constructor(private readonly admissions: Admissions) {}

  /** The same events; meanwhile the engine's stream joins deltas. */
  of(events: AsyncIterator<TokenEvent>): AsyncIterator<TokenEvent> {
    let pulled = 0;
    return {
      next: async () => {
        if (pulled++ >= UNPACED && this.admissions.isRefusing) await this.#next();
        return events.next();
      },
      return: async () => (await events.return?.()) ?? { done: true, value: undefined },
    };
  }

  /** One timer for all: they are written together. */
  #next(): Promise<void> {
    this.#tick ??= new Promise((resolve) =>
      setTimeout(() => {
        this.#tick = undefined;
        resolve();
      }, TICK_MS),
    );
    return this.#tick;
  }
}
