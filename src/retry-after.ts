/**
 * When a refused request may be tried again, as HTTP says it. Used wherever errors become statuses.
 */

/** Where nothing was measured, a place in the queue is free or a new worker started in about a second. */
const USUAL_MS = 1000;

export function retryHeaders(retryAfterMs: unknown): Record<string, string> {
  const ms = typeof retryAfterMs === 'number' ? Math.ceil(retryAfterMs) : USUAL_MS;
  return { 'retry-after': String(Math.ceil(ms / 1000)), 'retry-after-ms': String(ms) };
}
