/**
 * The more requests are refused for want of a place, the less often streams are told what is new.
 *
 * An event costs about the same whether it holds one token or three, and on a machine whose cores the
 * engine has as well the engine pays for it. So streams save what refusals cost:
 * docs/decisions/2026-11-30-overload-joins-events.md. First tokens never wait here. Used by generation.ts.
 */
import type { TokenEvent } from '../types.js';
import type { Admissions } from './admissions.js';

/** The longest at 333 a second: nine in ten of what comes at ten times what two cores serve. */
const MS_PER_REFUSAL_A_SECOND = 0.3;
const MAX_MS = 100;
/** No step is so short that tokens would join. */
const MIN_MS = 2;
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
        const tick = pulled++ < UNPACED ? undefined : this.#next();
        if (tick !== undefined) await tick;
        return events.next();
      },
      return: async () => (await events.return?.()) ?? { done: true, value: undefined },
    };
  }

  /** One timer for all: they are written together. */
  #next(): Promise<void> | undefined {
    const ms = Math.min(MAX_MS, this.admissions.refusalsPerSecond * MS_PER_REFUSAL_A_SECOND);
    if (ms < MIN_MS) return this.#tick;
    this.#tick ??= new Promise((resolve) =>
      setTimeout(() => {
        this.#tick = undefined;
        resolve();
      }, ms),
    );
    return this.#tick;
  }
}
