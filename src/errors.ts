/**
 * The one error type of the package and its codes.
 *
 * Every failure a caller can meet is a `LoraxError`; `code` says what kind, `data` names the thing
 * at fault. Errors cross the worker's port as `{ code, message, data }` (see worker/protocol.ts).
 */

export const ERROR_CODES = [
  'INVALID_OPTIONS',
  'MODEL_INVALID',
  'MODEL_UNSUPPORTED',
  'ADAPTER_NOT_FOUND',
  'ADAPTER_INVALID',
  'ADAPTER_UNSUPPORTED',
  'ADAPTER_FETCH_FAILED',
  'MODEL_FETCH_FAILED',
  'CONSTRAINT_INVALID',
  'CONSTRAINT_UNSUPPORTED',
  'GRAMMAR_INVALID',
  'CONTEXT_TOO_LONG',
  'POOL_EXHAUSTED',
  'HOST_MEMORY_EXHAUSTED',
  'QUEUE_FULL',
  'WORKER_DIED',
  'ENGINE_LOST',
  'ADDON_NOT_BUILT',
  'DEVICE_UNAVAILABLE',
  'DISPOSED',
] as const;

export type LoraxErrorCode = (typeof ERROR_CODES)[number];

/** Facts about the failure: numbers, file names, field names. Structured-cloneable. */
export type LoraxErrorData = Record<string, unknown>;

const MARKER = Symbol.for('lorax-js.error');

export class LoraxError extends Error {
  override readonly name = 'LoraxError';
  readonly code: LoraxErrorCode;
  readonly data: LoraxErrorData;

  constructor(
    code: LoraxErrorCode,
    message: string,
    options: { data?: LoraxErrorData; cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.data = options.data ?? {};
    Object.defineProperty(this, MARKER, { value: true });
  }

  /** Works across the ESM and CJS copies of the package, unlike `instanceof`. */
  static isInstance(value: unknown): value is LoraxError {
    return typeof value === 'object' && value !== null && MARKER in value;
  }
}
