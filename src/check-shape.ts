/**
 * The checks every options object goes through before anything is started.
 *
 * Each function throws INVALID_OPTIONS with the path of the field at fault ("sampling.topP"), what
 * was given and what is wanted. `undefined` always means "unset". Used by the *-options.ts files.
 */
import { LoraxError } from './errors.js';

export type Fields = Record<string, unknown>;

export function invalidOptions(field: string, message: string, value?: unknown): LoraxError {
  return new LoraxError('INVALID_OPTIONS', message, { data: { field, value: describe(value) } });
}

/** A short form of any value that is safe in a message and across a port. */
export function describe(value: unknown): string {
  if (typeof value === 'string') {
    return value.length > 60 ? `${JSON.stringify(value.slice(0, 60))}...` : JSON.stringify(value);
  }
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (typeof value === 'function') return 'a function';
  if (typeof value === 'object' && value !== null) return 'an object';
  return String(value);
}

function wanted(field: string, want: string, value: unknown): LoraxError {
  return invalidOptions(field, `${field} must be ${want}, not ${describe(value)}.`, value);
}

/** Refuses what is no plain object and keys it does not know. */
export function checkObject(value: unknown, field: string, known: readonly string[]): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw wanted(field, 'an object', value);
  }
  for (const key of Object.keys(value)) {
    if (!known.includes(key)) throw unknownKey(key, known, field);
  }
  return value as Fields;
}

/** `field`: what has no such key; unset = the command line. */
export function unknownKey(key: string, known: readonly string[], field?: string): LoraxError {
  const near = nearestKey(key, known);
  const [who, path] = field === undefined ? ['There is', key] : [`${field} has`, `${field}.${key}`];
  return new LoraxError(
    'INVALID_OPTIONS',
    `${who} no option ${JSON.stringify(key)}.` +
      (near === undefined ? ` Known: ${known.join(', ')}.` : ` Did you mean "${near}"?`),
    { data: { field: path, known: [...known], didYouMean: near ?? null } },
  );
}

export interface NumberRange {
  min: number;
  max: number;
  /** `min` itself is refused. */
  openMin?: boolean;
  integer?: boolean;
}

export function checkNumber(
  value: unknown,
  field: string,
  { min, max, openMin = false, integer = false }: NumberRange,
): number | undefined {
  if (value === undefined) return undefined;
  const ok =
    typeof value === 'number' &&
    (openMin ? value > min : value >= min) &&
    value <= max &&
    (!integer || Number.isInteger(value));
  if (ok) return value;
  const kind = integer ? 'an integer' : 'a number';
  const upper = max >= Number.MAX_VALUE ? 'finite' : `<= ${max}`;
  throw wanted(field, `${kind} ${openMin ? '>' : '>='} ${min} and ${upper}`, value);
}

export function checkString(value: unknown, field: string): string | undefined {
  if (value === undefined) return undefined;
  if (typeof value !== 'string' || value === '') throw wanted(field, 'a non-empty string', value);
  if (value.includes('\u0000')) throw wanted(field, 'a string without NUL characters', value);
  return value;
}

export function checkBoolean(value: unknown, field: string): boolean | undefined {
  if (value === undefined || typeof value === 'boolean') return value;
  throw wanted(field, 'true or false', value);
}

export function checkFunction(value: unknown, field: string): void {
  if (value !== undefined && typeof value !== 'function') throw wanted(field, 'a function', value);
}

export function checkOneOf<T extends string>(
  value: unknown,
  field: string,
  choices: readonly T[],
): T | undefined {
  if (value === undefined) return undefined;
  const found = choices.find((choice) => choice === value);
  if (found === undefined) {
    throw wanted(field, choices.map((choice) => JSON.stringify(choice)).join(' or '), value);
  }
  return found;
}

export function checkArray(value: unknown, field: string): unknown[] | undefined {
  if (value === undefined) return undefined;
  if (ArrayBuffer.isView(value) && !(value instanceof DataView)) {
    return Array.from(value as unknown as ArrayLike<number>);
  }
  if (!Array.isArray(value)) throw wanted(field, 'an array', value);
  return value;
}

/** A copy that holds nothing but JSON, so that it can cross a port. */
export function checkJson(value: unknown, field: string): unknown {
  try {
    const text = JSON.stringify(value) as string | undefined;
    if (text !== undefined) return JSON.parse(text);
  } catch {
    // Cyclic, or a bigint somewhere in it.
  }
  throw wanted(field, 'JSON', value);
}

export function checkJsonObject(value: unknown, field: string): Record<string, unknown> {
  const json = checkJson(value, field);
  if (typeof json === 'object' && json !== null && !Array.isArray(json)) return json as Fields;
  throw wanted(field, 'a JSON object', value);
}

/** The known key at the smallest edit distance, if it is near enough to be a slip. */
function nearestKey(key: string, known: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.floor(key.length / 3)) + 1;
  for (const candidate of known) {
    const distance = editDistance(key.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** Levenshtein distance, one row at a time. */
function editDistance(a: string, b: string): number {
  if (a.length > 64) return a.length;
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replace = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replace, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
