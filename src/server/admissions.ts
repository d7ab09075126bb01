/**
 * How many requests wait for the engine to admit them: one more than may is refused at once.
 *
 * The engine refuses as well (`maxQueued`), but only the worker can say so, behind everything that it
 * has to do; under overload the refusals would be late and cost those who are served. Here they cost
 * nothing but the answer. Used by generation.ts, and by routes before they read a body.
 */
import { LoraxError } from '../errors.js';

/** Of the newest gap between two admissions in the running mean. */
const WEIGHT = 0.1;

export class Admissions {
  #waiting = 0;
  #lastAt: number | undefined;
  /** Between admissions while somebody waited; undefined: none was seen yet. */
  #gapMs: number | undefined;

  constructor(private readonly maxWaiting: number) {}

  get waiting(): number {
    return this.#waiting;
  }

  /** Throws QUEUE_FULL where there is no place. */
  check(): void {
    if (this.#waiting < this.maxWaiting) return;
    const { maxWaiting } = this;
    const data = this.#gapMs === undefined ? { maxWaiting } : { retryAfterMs: this.#gapMs };
    throw new LoraxError('QUEUE_FULL', `${this.#waiting} requests are waiting already.`, { data });
  }

  /** Takes a place, or throws; what it returns gives the place back, once. */
  enter(): () => void {
    this.check();
    if (this.#waiting++ === 0) this.#lastAt = undefined;
    let waits = true;
    return () => {
      if (!waits) return;
      waits = false;
      this.#waiting--;
      const now = performance.now();
      if (this.#lastAt !== undefined) {
        const gap = now - this.#lastAt;
        this.#gapMs = this.#gapMs === undefined ? gap : this.#gapMs + WEIGHT * (gap - this.#gapMs);
      }
      this.#lastAt = now;
    };
  }
}
