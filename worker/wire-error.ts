/**
 * Any thrown value -> the error that crosses the port.
 *
 * A known code is kept, from LoraxErrors and from native errors alike; anything else gets the code of
 * the stage it happened in. What comes out can always be cloned. Used wherever the worker catches.
 */
import { ERROR_CODES, type LoraxErrorCode } from '../src/errors.js';
import type { WireError } from './protocol.js';

const KNOWN: readonly unknown[] = ERROR_CODES;

export function wireError(thrown: unknown, otherwise: LoraxErrorCode): WireError {
  const error = (typeof thrown === 'object' && thrown !== null ? thrown : {}) as {
    code?: unknown;
    message?: unknown;
    data?: unknown;
  };
  return {
    code: KNOWN.includes(error.code) ? (error.code as string) : otherwise,
    message: typeof error.message === 'string' ? error.message : String(thrown),
    data: cloneable(error.data),
  };
}

function cloneable(data: unknown): Record<string, unknown> {
  if (typeof data !== 'object' || data === null) return {};
  try {
    return structuredClone(data) as Record<string, unknown>;
  } catch {
    return Object.fromEntries(Object.entries(data).map(([key, value]) => [key, String(value)]));
  }
}
