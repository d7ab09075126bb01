/**
 * How a request is served beside others: whose turn comes first, and until when it is of use.
 *
 * Checked for generate and embed alike. A deadline travels as a point in time, because some of it
 * passes while an adapter or the model loads. Throws INVALID_OPTIONS.
 */
import { checkNumber, describe, invalidOptions } from './check-shape.js';
import type { Fields } from './check-shape.js';
import { LoraxError } from './errors.js';
import type { ServiceOptions } from './types.js';

export interface CheckedService {
  priority?: number;
  /** As Date.now() counts. */
  deadlineAt?: number;
}

export const SERVICE_KEYS = ['priority', 'deadline'] as const;

const PRIORITIES = { min: -1000, max: 1000, integer: true };
const WEIGHTS = { min: 0.001, max: 1000 };
/** As long as a timer can be. */
const MAX_MS = 2 ** 31 - 1;

export function checkService(fields: Fields, field: string): CheckedService {
  const service: CheckedService = {};
  const priority = checkNumber(fields.priority, `${field}.priority`, PRIORITIES);
  if (priority !== undefined) service.priority = priority;
  const deadlineAt = checkDeadline(fields.deadline, `${field}.deadline`);
  if (deadlineAt !== undefined) service.deadlineAt = deadlineAt;
  return service;
}

/** Checked, as they were given. */
export function pickService({ priority, deadline }: Fields, field: string): ServiceOptions {
  const service = checkService({ priority, deadline }, field);
  const picked: ServiceOptions = {};
  if (service.priority !== undefined) picked.priority = service.priority;
  if (service.deadlineAt !== undefined) picked.deadline = deadline as number | Date;
  return picked;
}

/** Of a tenant. */
export function checkWeight(value: unknown, field: string): number | undefined {
  return checkNumber(value, field, WEIGHTS);
}

/** Milliseconds from now, or a Date -> a point in time. */
function checkDeadline(value: unknown, field: string): number | undefined {
  if (value === undefined) return undefined;
  if (value instanceof Date && !Number.isNaN(value.getTime())) return value.getTime();
  if (typeof value === 'number' && value >= 0 && value <= MAX_MS) return Date.now() + value;
  throw invalidOptions(
    field,
    `${field} must be milliseconds from now, 0 to ${MAX_MS}, or a Date; not ${describe(value)}.`,
    value,
  );
}

/** `isHeld`: its adapters were not there yet. */
export function deadlineExceeded(allowedMs: number, isHeld: boolean): LoraxError {
  const when = isHeld ? 'before its adapters were there' : 'while it waited for its turn';
  const deadlineMs = Math.max(0, Math.round(allowedMs));
  return new LoraxError('DEADLINE_EXCEEDED', `The request's deadline came ${when}.`, {
    data: { deadlineMs, waitedMs: deadlineMs, outputTokens: 0 },
  });
}

/** Calls back at `at`, however far that is. Returns what stops it. */
export function onDeadline(at: number, callback: () => void): () => void {
  let timer: NodeJS.Timeout;
  const wait = () => {
    const left = at - Date.now();
    timer = setTimeout(left > MAX_MS ? wait : callback, Math.min(Math.max(left, 0), MAX_MS));
    timer.unref();
  };
  wait();
  return () => clearTimeout(timer);
}
