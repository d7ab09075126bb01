/**
 * Tries again what may work the next time: exponential backoff with a random part, Retry-After.
 *
 * A try that made progress starts the count anew, so a long download over a bad line goes on while
 * it gets anywhere. Called by http-file.ts and hub-listing.ts.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { FetchFailure, cancelled } from './fetch-failure.js';
import type { FetchPolicy } from './fetch-policy.js';

/** `attempt` tells whether it made progress before it failed. */
export async function withRetries<T>(
  { attempts, backoffMs, maxRetryAfterMs }: FetchPolicy,
  signal: AbortSignal,
  attempt: (progress: () => void) => Promise<T>,
): Promise<T> {
  let failures = 0;
  for (;;) {
    try {
      return await attempt(() => (failures = 0));
    } catch (thrown) {
      failures++;
      if (!(thrown instanceof FetchFailure) || !thrown.retryable) throw thrown;
      const { retryAfterMs = 0 } = thrown;
      if (failures >= attempts || retryAfterMs > maxRetryAfterMs) throw thrown;
      const backoff = backoffMs * 2 ** (failures - 1) * (0.5 + Math.random());
      await pause(Math.max(backoff, retryAfterMs), signal);
    }
  }
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  try {
    await sleep(ms, undefined, { signal });
  } catch {
    throw cancelled(signal);
  }
}
