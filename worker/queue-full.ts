/**
 * Refusals of requests that wait here, for the model or their tokens, before native code counts them.
 *
 * When to try again is told from the pace that native code has measured, looked at now and then; of many
 * that are refused at once each gets a time of its own. Owned by engine-port.ts.
 */
import { LoraxError } from '../src/errors.js';
import type { NativeStats } from './addon.js';

const LOOK_MS = 100;

export class QueueFull {
  private admissionMs = 0;
  private numRefused = 0;
  private lookedAt = -Infinity;

  /** `stats`: null while nothing is loaded. */
  constructor(
    readonly maxQueued: number,
    private readonly stats: () => Pick<NativeStats, 'admissionUs'> | null,
  ) {}

  /** Throws QUEUE_FULL for one more than may wait. */
  check(numWaiting: number): void {
    const { maxQueued } = this;
    if (numWaiting <= maxQueued) return;
    const now = performance.now();
    if (now > this.lookedAt + LOOK_MS) {
      this.admissionMs = (this.stats()?.admissionUs ?? 0) / 1000;
      this.numRefused = 0;
      this.lookedAt = now;
    }
    const retryAfterMs = Math.ceil(++this.numRefused * this.admissionMs);
    throw new LoraxError('QUEUE_FULL', `${maxQueued} requests wait already (maxQueued).`, {
      data: retryAfterMs > 0 ? { maxQueued, retryAfterMs } : { maxQueued },
    });
  }
}
