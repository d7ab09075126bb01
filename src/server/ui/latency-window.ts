/**
 * Quantiles of what happened in the last seconds: counts in buckets that grow by 4 %, one set a second.
 *
 * Costs the same however much happens, and nothing while nothing does. Used by request-watch.ts.
 */
import type { Quantiles } from './dashboard-events.js';

const SMALLEST_MS = 0.01;
const GROWTH = Math.log(1.04);
/** Up to 4.5 hours. */
const NUM_BUCKETS = 540;

interface Second {
  /** Since the epoch. */
  second: number;
  counts: Uint32Array;
}

export class LatencyWindow {
  readonly #seconds: Second[];

  constructor(
    readonly windowSeconds: number,
    private readonly now: () => number = Date.now,
  ) {
    this.#seconds = Array.from({ length: windowSeconds }, () => ({
      ...{ second: -1, counts: new Uint32Array(NUM_BUCKETS) },
    }));
  }

  record(ms: number, count = 1): void {
    const second = Math.floor(this.now() / 1000);
    const slot = this.#seconds[second % this.windowSeconds] as Second;
    if (slot.second !== second) {
      slot.second = second;
      slot.counts.fill(0);
    }
    const bucket = Math.floor(Math.log(Math.max(ms, SMALLEST_MS) / SMALLEST_MS) / GROWTH);
    slot.counts[Math.min(bucket, NUM_BUCKETS - 1)]! += count;
  }

  /** null: nothing was recorded. */
  read(): Quantiles | null {
    const oldest = Math.floor(this.now() / 1000) - this.windowSeconds + 1;
    const sums = new Uint32Array(NUM_BUCKETS);
    let count = 0;
    for (const { second, counts } of this.#seconds) {
      if (second < oldest) continue;
      for (let i = 0; i < NUM_BUCKETS; i++) {
        sums[i]! += counts[i] as number;
        count += counts[i] as number;
      }
    }
    if (count === 0) return null;
    const quantile = (share: number) => {
      let left = share * count;
      const bucket = sums.findIndex((each) => (left -= each) <= 0);
      // The middle of the bucket.
      return Number((SMALLEST_MS * Math.exp((bucket + 0.5) * GROWTH)).toPrecision(3));
    };
    return { count, p50: quantile(0.5), p99: quantile(0.99) };
  }
}
