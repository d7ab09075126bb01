/**
 * One HTTP request that cannot hang: a response, or a FetchFailure that says whether to try again.
 *
 * Silence (no header, no byte) for `silenceMs` ends it. Called by http-file.ts and hub-listing.ts.
 */
import { FetchFailure, cancelled, shownUrl } from './fetch-failure.js';
import type { FetchPolicy } from './fetch-policy.js';

export interface HttpRequest {
  url: string;
  headers: Record<string, string>;
}

export interface HttpAnswer {
  response: Response;
  /** The body, piece by piece; throws FetchFailure. Must be read or closed. */
  body(): AsyncGenerator<Uint8Array>;
  /** Lets the connection go without reading on. Idempotent. */
  close(): void;
}

/** Answers with content (2xx) and 416 come back as responses; redirects are followed. */
export async function httpRequest(
  { url, headers }: HttpRequest,
  { silenceMs }: FetchPolicy,
  signal: AbortSignal,
): Promise<HttpAnswer> {
  if (signal.aborted) throw cancelled(signal);
  const silence = new AbortController();
  const timer = setTimeout(() => silence.abort(), silenceMs);
  const stop = () => {
    clearTimeout(timer);
    silence.abort();
  };
  const failure = (thrown: unknown): FetchFailure => {
    clearTimeout(timer);
    if (thrown instanceof FetchFailure) return thrown;
    if (signal.aborted) return cancelled(signal);
    if (silence.signal.aborted) {
      const message = `nothing came from ${new URL(url).host} for ${silenceMs / 1000} s`;
      return new FetchFailure('timeout', message, { url: shownUrl(url), retryable: true });
    }
    const reason = networkReason(thrown);
    const message = `the connection to ${new URL(url).host} failed: ${reason}`;
    return new FetchFailure('network', message, {
      ...{ url: shownUrl(url), retryable: true, cause: thrown },
    });
  };
  let response: Response;
  try {
    response = await fetch(url, {
      // As it lies on the server: ranges and sizes count its bytes.
      headers: { 'accept-encoding': 'identity', 'user-agent': 'lorax-js', ...headers },
      signal: AbortSignal.any([signal, silence.signal]),
    });
    timer.refresh();
    if (!response.ok && response.status !== 416) {
      await response.body?.cancel();
      throw statusFailure(response, url);
    }
  } catch (thrown) {
    throw failure(thrown);
  }
  async function* body(): AsyncGenerator<Uint8Array> {
    try {
      for await (const piece of response.body ?? []) {
        timer.refresh();
        yield piece as Uint8Array;
        timer.refresh();
      }
    } catch (thrown) {
      throw failure(thrown);
    } finally {
      stop();
    }
  }
  return { response, body, close: stop };
}

/** Reads a small JSON document. */
export async function readJson(answer: HttpAnswer, maxBytes: number): Promise<unknown> {
  const pieces: Uint8Array[] = [];
  let bytes = 0;
  for await (const piece of answer.body()) {
    pieces.push(piece);
    bytes += piece.length;
    if (bytes > maxBytes) throw new FetchFailure('refused', `the answer is too long`);
  }
  try {
    return JSON.parse(Buffer.concat(pieces).toString('utf8')) as unknown;
  } catch (cause) {
    throw new FetchFailure('server', 'the answer is not JSON', { cause });
  }
}

function statusFailure({ status, headers }: Response, url: string): FetchFailure {
  const facts = { status, url: shownUrl(url) };
  const server = new URL(url).host;
  // The hub says more in headers of its own.
  const code = headers.get('x-error-code') ?? '';
  const said = headers.get('x-error-message');
  const answer = `${server} answers ${status}${said === null ? '' : `: ${said}`}`;
  if (code === 'GatedRepo') {
    return new FetchFailure('forbidden', answer, {
      ...facts,
      hint: 'the repository is gated: ask for access on its page, and give the token of that account',
    });
  }
  if (status === 404 || status === 410) return new FetchFailure('not-found', answer, facts);
  if (status === 401 || status === 403) {
    const reason = status === 401 ? 'unauthorized' : 'forbidden';
    const hint = 'it does not exist, or the credentials are missing or may not read it';
    return new FetchFailure(reason, answer, { ...facts, hint });
  }
  if (status === 429) {
    const retryAfterMs = retryAfter(headers.get('retry-after'));
    return new FetchFailure('rate-limited', answer, {
      ...{ ...facts, retryable: true },
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    });
  }
  if (status >= 500 || status === 408) {
    const retryAfterMs = retryAfter(headers.get('retry-after'));
    return new FetchFailure('server', answer, {
      ...{ ...facts, retryable: true },
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    });
  }
  // S3's answer where a bucket is asked for in another region than its own.
  const region = headers.get('x-amz-bucket-region');
  const hint = region === null ? {} : { hint: `the bucket is in the region ${region}` };
  return new FetchFailure('refused', answer, { ...facts, ...hint });
}

/** Seconds or a date. */
function retryAfter(value: string | null): number | undefined {
  if (value === null) return undefined;
  const ms = /^\d+$/.test(value.trim()) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Number.isFinite(ms) ? Math.max(0, ms) : undefined;
}

/** undici wraps what happened: "fetch failed", cause: ECONNREFUSED. */
function networkReason(thrown: unknown): string {
  let error = thrown as Error & { code?: string };
  while (error.cause instanceof Error) error = error.cause;
  const { message, code } = error;
  if (code !== undefined && !message.includes(code)) return `${message || 'failed'} (${code})`;
  return message || String(thrown);
}
