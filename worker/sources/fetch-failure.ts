/**
 * Why something could not be fetched: one error type inside worker/sources/, and what it becomes for
 * the caller.
 *
 * `retryable` failures are tried again (http-file.ts) before anybody hears of them. Messages name
 * sources and addresses, never a token or a signed query.
 */
import { LoraxError, type LoraxErrorCode } from '../../src/errors.js';

export type FetchReason =
  | 'unauthorized'
  | 'forbidden'
  | 'not-found'
  | 'offline'
  | 'timeout'
  | 'network'
  | 'server'
  | 'rate-limited'
  | 'truncated'
  | 'hash-mismatch'
  | 'refused'
  | 'disk'
  | 'cancelled';

export interface FetchFailureFacts {
  /** Of the HTTP response. */
  status?: number;
  /** Without its query. */
  url?: string;
  /** What the user can do about it. */
  hint?: string;
  retryable?: boolean;
  /** What the server asked for. */
  retryAfterMs?: number;
  cause?: unknown;
}

export class FetchFailure extends Error {
  override readonly name = 'FetchFailure';
  readonly status: number | undefined;
  readonly url: string | undefined;
  readonly hint: string | undefined;
  readonly retryable: boolean;
  readonly retryAfterMs: number | undefined;

  constructor(
    readonly reason: FetchReason,
    message: string,
    { status, url, hint, retryable = false, retryAfterMs, cause }: FetchFailureFacts = {},
  ) {
    super(message, cause === undefined ? undefined : { cause });
    this.status = status;
    this.url = url;
    this.hint = hint;
    this.retryable = retryable;
    this.retryAfterMs = retryAfterMs;
  }
}

/** An address as it may be shown: without credentials and query. */
export function shownUrl(url: string | URL): string {
  const shown = new URL(url);
  shown.username = '';
  shown.password = '';
  shown.search = '';
  shown.hash = '';
  return shown.href;
}

export function cancelled(signal: AbortSignal): FetchFailure {
  return new FetchFailure('cancelled', 'it was cancelled', { cause: signal.reason });
}

/** A failure of the file system, of which a full disk is the one that deserves a hint. */
export function diskFailure(cause: unknown): FetchFailure {
  const { code, message } = cause as NodeJS.ErrnoException;
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new FetchFailure('disk', 'the disk is full', {
      hint: 'make room, or move the cache (HF_HUB_CACHE, XDG_CACHE_HOME)',
      cause,
    });
  }
  return new FetchFailure('disk', message, { cause });
}

/** `source`: as people write it. Anything that is no FetchFailure stays what it is. */
export function fetchError(code: LoraxErrorCode, source: string, thrown: unknown): unknown {
  if (!(thrown instanceof FetchFailure)) return thrown;
  const { reason, status, url, hint, message } = thrown;
  const text = `${source} cannot be fetched: ${message}${hint === undefined ? '' : ` (${hint})`}.`;
  const data: Record<string, unknown> = { source, reason };
  for (const [key, value] of Object.entries({ status, url, hint })) {
    if (value !== undefined) data[key] = value;
  }
  return new LoraxError(code, text, { data, cause: thrown });
}
