/**
 * What the constructors of LangChain's three classes have in common, checked: which engine, which
 * adapter, and sampling under the names that LangChain's users know.
 *
 * Nothing here touches a disk or a worker. Throws INVALID_OPTIONS.
 */
import { checkNumber, checkObject } from '../check-shape.js';
import type { Fields } from '../check-shape.js';
import { ENGINE_OPTION_KEYS } from '../engine-options.js';
import {
  checkMaxOutputTokens,
  checkSampling,
  checkStop,
  SAMPLING_KEYS,
} from '../sampling-options.js';
import type { AdapterMix, AdapterSource, EngineView, EngineOptions, Sampling } from '../types.js';

/** `model` and its options, or `engine`, or neither: then the engine of the ready-made `lorax`. */
export interface EngineFields extends Partial<EngineOptions> {
  /** One there is: of createEngine(), or a provider's `.engine`. It stays its owner's. */
  engine?: EngineView;
  /** name -> PEFT directory. Loaded when first asked for. */
  adapters?: Record<string, AdapterSource>;
  /** A registered name, or names with weights; unset or 'base' = the base model. */
  adapter?: string | AdapterMix;
}

export interface SamplingFields extends Omit<Sampling, 'maxOutputTokens'> {
  maxTokens?: number;
  /** `stop`, as some providers call it. */
  stopSequences?: string[];
}

/** What every class of LangChain's takes that calls something. */
const CALLER_KEYS = ['maxConcurrency', 'maxRetries', 'onFailedAttempt'];

/** What BaseLanguageModel takes. */
export const LANGUAGE_MODEL_KEYS = [
  ...CALLER_KEYS,
  ...['cache', 'callbacks', 'callbackManager', 'metadata', 'tags', 'verbose'],
];

/** Those of EngineFields that can be written down and read back. */
export const ENGINE_FIELD_KEYS = [
  ...ENGINE_OPTION_KEYS.filter((key) => key !== 'onProgress'),
  'adapters',
  'adapter',
];

const SAMPLING_NAMES = SAMPLING_KEYS.filter((key) => key !== 'maxOutputTokens');
export const SAMPLING_FIELD_KEYS = [...SAMPLING_NAMES, 'maxTokens', 'stopSequences'];

/** `own`: the keys of one class beside its engine's and its caller's. */
export function checkFields(fields: unknown, own: readonly string[]): Fields {
  const known = [...ENGINE_FIELD_KEYS, 'engine', 'onProgress', ...CALLER_KEYS, ...own];
  return checkObject(fields, 'options', known);
}

/** The sampling in an object that holds other things as well. */
export function pickSampling(fields: Fields): Sampling {
  const named = SAMPLING_NAMES.map((key) => [key, fields[key]] as const);
  const sampling = checkSampling(Object.fromEntries(named), 'options');
  const maxTokens = checkMaxOutputTokens(fields.maxTokens, 'options.maxTokens');
  if (maxTokens !== undefined) sampling.maxOutputTokens = maxTokens;
  const stop = checkStop(fields.stopSequences, 'options.stopSequences');
  if (stop !== undefined) sampling.stop ??= stop;
  return sampling;
}

/** ms; as long as a timer can be. */
export function checkTimeout(value: unknown): number | undefined {
  return checkNumber(value, 'options.timeout', { min: 0, max: 2 ** 31 - 1, integer: true });
}
