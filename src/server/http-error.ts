/**
 * Every failure as an HTTP answer: the one place where a LoraxError gets its status and OpenAI's shape.
 *
 * Nothing of the server's inside is told: what is no LoraxError and no HttpError is a bare 500. Before a
 * stream it is an answer (`errorResponse`), inside one an event with the same body (`errorBody`).
 */
import { LoraxError } from '../errors.js';
import type { LoraxErrorCode } from '../errors.js';
import { retryHeaders } from '../retry-after.js';

/** What OpenAI's clients read. */
export interface ErrorBody {
  error: { message: string; type: string; param: string | null; code: string | number | null };
}

export interface HttpErrorOptions {
  /** The field at fault, as the client wrote it. */
  param?: string | null;
  code?: string | null;
  headers?: Record<string, string>;
  cause?: unknown;
}

const TYPES: Partial<Record<number, string>> = {
  401: 'authentication_error',
  403: 'permission_error',
  429: 'rate_limit_error',
};

/** A failure that knows its status. Thrown by handlers and middleware alike. */
export class HttpError extends Error {
  override readonly name = 'HttpError';
  readonly param: string | null;
  readonly code: string | null;
  readonly headers: Record<string, string>;

  constructor(
    readonly status: number,
    message: string,
    { param = null, code = null, headers = {}, cause }: HttpErrorOptions = {},
  ) {
    super(message, cause === undefined ? undefined : { cause });
    this.param = param;
    this.code = code;
    this.headers = headers;
  }

  get type(): string {
    return TYPES[this.status] ?? (this.status < 500 ? 'invalid_request_error' : 'server_error');
  }
}

/** The client's fault, with the field that it is in. */
export function badRequest(param: string | null, message: string): HttpError {
  return new HttpError(400, message, { param });
}

const STATUS: Record<LoraxErrorCode, number> = {
  INVALID_OPTIONS: 400,
  MODEL_INVALID: 503,
  MODEL_UNSUPPORTED: 503,
  ADAPTER_NOT_FOUND: 404,
  ADAPTER_INVALID: 400,
  ADAPTER_UNSUPPORTED: 400,
  ADAPTER_FETCH_FAILED: 502,
  MODEL_FETCH_FAILED: 503,
  CONSTRAINT_INVALID: 400,
  CONSTRAINT_UNSUPPORTED: 400,
  GRAMMAR_INVALID: 400,
  CONTEXT_TOO_LONG: 400,
  POOL_EXHAUSTED: 400,
  HOST_MEMORY_EXHAUSTED: 503,
  QUEUE_FULL: 429,
  DEADLINE_EXCEEDED: 503,
  WORKER_DIED: 503,
  ENGINE_LOST: 503,
  ADDON_NOT_BUILT: 503,
  DEVICE_UNAVAILABLE: 503,
  DISPOSED: 503,
};

/** As OpenAI names them; the others keep the engine's own. */
const CODES: Partial<Record<LoraxErrorCode, string | null>> = {
  INVALID_OPTIONS: null,
  ADAPTER_NOT_FOUND: 'model_not_found',
  CONTEXT_TOO_LONG: 'context_length_exceeded',
};

/** Their messages tell of this machine: paths, compilers, devices. */
const INTERNAL: ReadonlySet<LoraxErrorCode> = new Set([
  ...(['MODEL_INVALID', 'MODEL_UNSUPPORTED', 'MODEL_FETCH_FAILED'] as const),
  ...(['ADDON_NOT_BUILT', 'DEVICE_UNAVAILABLE', 'ENGINE_LOST'] as const),
]);

export function toHttpError(error: unknown): HttpError {
  if (error instanceof HttpError) return error;
  if (!LoraxError.isInstance(error)) {
    return new HttpError(500, 'The server could not answer this request.', { cause: error });
  }
  const { code, data } = error;
  const status = STATUS[code];
  const mayRetry = status === 429 || (status === 503 && data.recoverable !== false);
  return new HttpError(
    status,
    INTERNAL.has(code) ? 'The model cannot be served at the moment.' : messageOf(error),
    {
      param: paramOf(error),
      code: code in CODES ? (CODES[code] ?? null) : code.toLowerCase(),
      headers: mayRetry ? retryHeaders(data.retryAfterMs) : {},
      cause: error,
    },
  );
}

function paramOf({ code, data }: LoraxError): string | null {
  if (code === 'ADAPTER_NOT_FOUND') return 'model';
  return typeof data.field === 'string' ? apiName(data.field) : null;
}

/** With fields named as the client wrote them. */
function messageOf({ message }: LoraxError): string {
  return message.replace(/\b(?:request|options|sampling)\.\w[\w.[\]]*/g, (name) => {
    const field = name.replace(/\.$/, '');
    return apiName(field) + name.slice(field.length);
  });
}

/** What the engine calls a field -> what the APIs call it: 'request.sampling.topP' -> 'top_p'. */
function apiName(field: string): string {
  const bare = field.replace(/^(?:request|options)\./, '').replace(/^sampling\./, '');
  const [, head = '', rest = ''] = /^(\w+)(.*)$/s.exec(bare) ?? [];
  const renamed = RENAMED[head] ?? head.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  return renamed + rest;
}

const RENAMED: Record<string, string> = {
  promptTokens: 'prompt',
  constraint: 'response_format',
  maxOutputTokens: 'max_tokens',
};

export function errorBody(error: HttpError): ErrorBody {
  const { message, type, param, code } = error;
  return { error: { message, type, param, code } };
}

export function errorResponse(error: unknown): Response {
  const failure = toHttpError(error);
  return Response.json(errorBody(failure), { status: failure.status, headers: failure.headers });
}
