/**
 * How much one tenant may have: requests and tokens a minute, requests at once.
 *
 * Buckets that fill as time goes by and hold a minute's worth at most. Tokens are charged when it is
 * known how many there were, so a bucket may go below zero; the next request waits until it is above.
 * A refusal says when there will be room.
 */
import { retryHeaders } from '../../retry-after.js';
import { HttpError } from '../http-error.js';

export interface TenantLimits {
  requestsPerMinute?: number | undefined;
  tokensPerMinute?: number | undefined;
  maxConcurrent?: number | undefined;
}

/** Where nothing was measured, one that runs ends in about this time. */
const USUAL_REQUEST_MS = 1_000;

export class TenantAllowance {
  readonly #requests: Bucket | undefined;
  readonly #tokens: Bucket | undefined;
  readonly #maxConcurrent: number;
  #running = 0;

  constructor(
    { requestsPerMinute, tokensPerMinute, maxConcurrent }: TenantLimits,
    private readonly now: () => number = () => performance.now(),
  ) {
    this.#requests = bucketOf(requestsPerMinute, now());
    this.#tokens = bucketOf(tokensPerMinute, now());
    this.#maxConcurrent = maxConcurrent ?? Number.POSITIVE_INFINITY;
  }

  get running(): number {
    return this.#running;
  }

  /** Throws 429. */
  takeRequest(): void {
    const now = this.now();
    this.checkTokens(now);
    const waitMs = this.#requests?.waitMs(now, 1) ?? 0;
    if (waitMs > 0) throw tooMany('requests a minute', waitMs);
    this.#requests?.take(now, 1);
  }

  /** Throws 429; otherwise `end` is to be called once, with the tokens there were. */
  begin(): (tokens: number) => void {
    this.checkTokens(this.now());
    if (this.#running >= this.#maxConcurrent) {
      throw tooMany('requests at once', USUAL_REQUEST_MS);
    }
    this.#running++;
    let ended = false;
    return (tokens) => {
      if (ended) return;
      ended = true;
      this.#running--;
      this.#tokens?.take(this.now(), tokens);
    };
  }

  private checkTokens(now: number): void {
    const waitMs = this.#tokens?.waitMs(now, 0) ?? 0;
    if (waitMs > 0) throw tooMany('tokens a minute', waitMs);
  }
}

function tooMany(what: string, waitMs: number): HttpError {
  const retryMs = Math.max(1, Math.ceil(waitMs));
  return new HttpError(429, `This key has used up its ${what}.`, {
    code: 'rate_limit_exceeded',
    headers: retryHeaders(retryMs),
  });
}

function bucketOf(perMinute: number | undefined, now: number): Bucket | undefined {
  return perMinute === undefined ? undefined : new Bucket(perMinute, now);
}

class Bucket {
  private level: number;

  constructor(
    private readonly perMinute: number,
    private filledAt: number,
  ) {
    this.level = perMinute;
  }

  /** Until `count` may be taken; with 0: until there is anything. */
  waitMs(now: number, count: number): number {
    this.fill(now);
    if (count === 0 && this.level > 0) return 0;
    const lacking = Math.max(count, Number.MIN_VALUE) - this.level;
    return lacking <= 0 ? 0 : Math.max(1, (lacking / this.perMinute) * 60_000);
  }

  take(now: number, count: number): void {
    this.fill(now);
    this.level -= count;
  }

  private fill(now: number): void {
    const added = ((now - this.filledAt) / 60_000) * this.perMinute;
    this.filledAt = now;
    this.level = Math.min(this.perMinute, this.level + added);
  }
}
