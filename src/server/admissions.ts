/**
 * How many requests wait for the engine to admit them: one more than may is refused at once.
 *
 * The engine refuses as well (`maxQueued`), but only the worker can say so, behind everything that it
 * has to do; under overload the refusals would be late and cost those who are served. Here they cost
 * nothing but the answer. Used by generation.ts, by routes before they read a body, and by door.ts.
 */
import { LoraxError } from '../errors.js';

/** Of the newest gap between two admissions in the running mean. */
const WEIGHT = 0.1;

export class Admissions {
  #waiting = 0;
  #lastAt: number | undefined;
  /** Between admissions while somebody waited; undefined: none was seen yet. */
  #gapMs: number | undefined;
  #refusal: LoraxError | undefined;
  /** Each counts e^-t after t seconds: in the long run, how many there are in one. */
  #refusals = 0;
  #refusedAt = 0;

  constructor(private readonly maxWaiting: number) {}

  get waiting(): number {
    return this.#waiting;
  }

  /** Of late, in about a second. */
  get refusalsPerSecond(): number {
    return this.#refusals * Math.exp((this.#refusedAt - performance.now()) / 1000);
  }

  /** QUEUE_FULL where there is no place: the same object until somebody is admitted. */
  refuse(): LoraxError | undefined {
    if (this.#waiting < this.maxWaiting) return undefined;
    this.#refusals = this.refusalsPerSecond + 1;
    this.#refusedAt = performance.now();
    return (this.#refusal ??= this.queueFull());
  }

  /** Throws it. */
  check(): void {
    const refusal = this.refuse();
    if (refusal !== undefined) throw refusal;
  }

  /** Takes a place, or throws; what it returns gives the place back, once. */
  enter(): () => void {
    this.check();
    this.#refusal = undefined;
    if (this.#waiting++ === 0) this.#lastAt = undefined;
    let waits = true;
    return () => {
      if (!waits) return;
      waits = false;
      this.#waiting--;
      this.#refusal = undefined;
      const now = performance.now();
      if (this.#lastAt !== undefined) {
        const gap = now - this.#lastAt;
        this.#gapMs = this.#gapMs === undefined ? gap : this.#gapMs + WEIGHT * (gap - this.#gapMs);
      }
      this.#lastAt = now;
    };
  }

  private queueFull(): LoraxError {
    const { maxWaiting } = this;
    const data = this.#gapMs === undefined ? { maxWaiting } : { retryAfterMs: this.#gapMs };
    return new LoraxError('QUEUE_FULL', `${this.#waiting} requests are waiting already.`, { data });
  }
}
