/**
 * How patient downloads are: one set of numbers, which tests shorten.
 */
export interface FetchPolicy {
  /** A server that says nothing for so long is given up, and tried again. */
  silenceMs: number;
  /** A download that says nothing for so long leaves its place to others; it goes on all the same. */
  quietMs: number;
  /** Tries in a row that bring nothing, the first one included. */
  attempts: number;
  /** Before the second try; doubles with each, with a random part. */
  backoffMs: number;
  /** Of what a server asks for in Retry-After; more is not waited for. */
  maxRetryAfterMs: number;
  /** Files under way at once from one host. */
  filesPerHost: number;
}

export const FETCH_POLICY: FetchPolicy = {
  silenceMs: 30_000,
  quietMs: 1_000,
  attempts: 5,
  backoffMs: 500,
  maxRetryAfterMs: 60_000,
  filesPerHost: 8,
};
