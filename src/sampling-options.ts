/**
 * Sampling, checked: every value in its range, no NaN, no unknown key.
 *
 * The result is a fresh plain object that holds only what was set. Called for every request and
 * for a provider's defaults.
 */
import {
  checkArray,
  checkBoolean,
  checkNumber,
  checkObject,
  invalidOptions,
} from './check-shape.js';
import type { NumberRange } from './check-shape.js';
import type { Sampling } from './types.js';

const FINITE = Number.MAX_VALUE;
const MAX_INT32 = 2 ** 31 - 1;

const NUMBER_RANGES = {
  maxOutputTokens: { min: 1, max: MAX_INT32, integer: true },
  temperature: { min: 0, max: FINITE },
  topK: { min: 0, max: MAX_INT32, integer: true },
  topP: { min: 0, max: 1, openMin: true },
  minP: { min: 0, max: 1 },
  repetitionPenalty: { min: 0, max: FINITE, openMin: true },
  frequencyPenalty: { min: -2, max: 2 },
  presencePenalty: { min: -2, max: 2 },
  seed: { min: 0, max: Number.MAX_SAFE_INTEGER, integer: true },
  logprobs: { min: 0, max: 20, integer: true },
} as const satisfies Partial<Record<keyof Sampling, NumberRange>>;

const NUMBER_KEYS = Object.keys(NUMBER_RANGES) as (keyof typeof NUMBER_RANGES)[];

export const SAMPLING_KEYS = [
  ...NUMBER_KEYS,
  'logitBias',
  'stop',
  'stopTokenIds',
  'ignoreEos',
] as const satisfies readonly (keyof Sampling)[];

const TOKEN_ID: NumberRange = { min: 0, max: MAX_INT32, integer: true };

export function checkSampling(value: unknown, field = 'sampling'): Sampling {
  const sampling: Sampling = {};
  if (value === undefined) return sampling;
  const fields = checkObject(value, field, SAMPLING_KEYS);
  for (const key of NUMBER_KEYS) {
    const checked = checkNumber(fields[key], `${field}.${key}`, NUMBER_RANGES[key]);
    if (checked !== undefined) sampling[key] = checked;
  }
  const logitBias = checkLogitBias(fields.logitBias, `${field}.logitBias`);
  if (logitBias !== undefined) sampling.logitBias = logitBias;
  const stop = checkStop(fields.stop, `${field}.stop`);
  if (stop !== undefined) sampling.stop = stop;
  const stopTokenIds = checkTokenIds(fields.stopTokenIds, `${field}.stopTokenIds`);
  if (stopTokenIds !== undefined) sampling.stopTokenIds = stopTokenIds;
  const ignoreEos = checkBoolean(fields.ignoreEos, `${field}.ignoreEos`);
  if (ignoreEos !== undefined) sampling.ignoreEos = ignoreEos;
  return sampling;
}

/** For where it has another name. */
export function checkSamplingNumber(
  key: keyof typeof NUMBER_RANGES,
  value: unknown,
  field: string,
): number | undefined {
  return checkNumber(value, field, NUMBER_RANGES[key]);
}

/** Likewise. */
export function checkMaxOutputTokens(value: unknown, field: string): number | undefined {
  return checkSamplingNumber('maxOutputTokens', value, field);
}

export function checkTokenIds(value: unknown, field: string): number[] | undefined {
  const array = checkArray(value, field);
  if (array === undefined) return undefined;
  array.forEach((id, index) => checkTokenId(id, `${field}[${index}]`));
  return [...(array as number[])];
}

function checkTokenId(value: unknown, field: string): void {
  if (checkNumber(value, field, TOKEN_ID) === undefined) {
    throw invalidOptions(field, `${field} must be a token id, not undefined.`);
  }
}

export function checkStop(value: unknown, field: string): string[] | undefined {
  const array = checkArray(value, field);
  if (array === undefined) return undefined;
  return array.map((text, index) => {
    if (typeof text === 'string' && text !== '') return text;
    throw invalidOptions(
      `${field}[${index}]`,
      `${field}[${index}] must be a non-empty string.`,
      text,
    );
  });
}

export function checkLogitBias(value: unknown, field: string): Record<number, number> | undefined {
  if (value === undefined) return undefined;
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalidOptions(field, `${field} must be an object from token id to bias.`, value);
  }
  const bias: Record<number, number> = {};
  for (const [key, amount] of Object.entries(value)) {
    if (!/^\d+$/.test(key)) {
      throw invalidOptions(
        `${field}.${key}`,
        `${field} maps token ids to numbers; ${JSON.stringify(key)} is no token id.`,
        amount,
      );
    }
    checkNumber(Number(key), `${field}.${key} (the token id)`, TOKEN_ID);
    const checked = checkNumber(amount, `${field}.${key}`, { min: -100, max: 100 });
    if (checked !== undefined) bias[Number(key)] = checked;
  }
  return bias;
}
