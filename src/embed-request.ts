/**
 * EmbedRequest, checked: texts, a known pooling.
 *
 * The result is plain data, ready for the worker's port. Called by the engine client (and the fake
 * engine) for every request; throws INVALID_OPTIONS.
 */
import { checkAdapterField } from './adapter-mix.js';
import type { WeightedAdapter } from './adapter-mix.js';
import {
  checkArray,
  checkBoolean,
  checkObject,
  checkOneOf,
  describe,
  invalidOptions,
} from './check-shape.js';
import { LoraxError } from './errors.js';
import { checkSignal } from './generate-request.js';
import { checkService, SERVICE_KEYS } from './service-options.js';
import type { CheckedService } from './service-options.js';
import type { EmbedRequest, Pooling } from './types.js';

export interface CheckedEmbedRequest extends CheckedService {
  input: string[];
  /** Empty = the base model. */
  adapters: WeightedAdapter[];
  pooling: Pooling;
  normalize: boolean;
}

const KEYS = ['input', 'adapter', 'pooling', 'normalize', 'signal', ...SERVICE_KEYS];
const POOLINGS = ['mean', 'last', 'cls'] as const satisfies readonly Pooling[];

export function checkEmbedRequest(request: EmbedRequest): CheckedEmbedRequest {
  const fields = checkObject(request, 'request', KEYS);
  checkSignal(fields.signal);
  return {
    input: checkInput(fields.input),
    adapters: checkAdapterField(fields.adapter, 'request.adapter'),
    ...checkEmbedSettings(fields, 'request'),
    ...checkService(fields, 'request'),
  };
}

export interface EmbedSettings {
  pooling: Pooling;
  normalize: boolean;
}

/** With their defaults. */
export function checkEmbedSettings(
  { pooling, normalize }: { pooling?: unknown; normalize?: unknown },
  field: string,
): EmbedSettings {
  return {
    pooling: checkOneOf(pooling, `${field}.pooling`, POOLINGS) ?? 'mean',
    normalize: checkBoolean(normalize, `${field}.normalize`) ?? true,
  };
}

function checkInput(value: unknown): string[] {
  const input = checkArray(value, 'request.input') ?? [];
  if (input.length === 0) {
    throw invalidOptions(
      'request.input',
      'request.input must be a non-empty array of texts.',
      value,
    );
  }
  return input.map((text, index) => {
    if (typeof text !== 'string' || text === '') throw unusableInput(text, index);
    return text;
  });
}

function unusableInput(text: unknown, index: number): LoraxError {
  const field = `request.input[${index}]`;
  return new LoraxError(
    'INVALID_OPTIONS',
    `${field} must be a non-empty string, not ${describe(text)}.`,
    { data: { field, index, value: describe(text) } },
  );
}
