/**
 * Sampling under the names that OpenAI's and vLLM's clients use. Throws INVALID_OPTIONS with those names.
 */
import { checkBoolean, checkNumber, type Fields } from '../../check-shape.js';
import {
  checkLogitBias,
  checkSamplingNumber,
  checkStop,
  checkTokenIds,
} from '../../sampling-options.js';
import type { Sampling } from '../../types.js';

const NUMBERS = {
  temperature: 'temperature',
  top_p: 'topP',
  min_p: 'minP',
  repetition_penalty: 'repetitionPenalty',
  frequency_penalty: 'frequencyPenalty',
  presence_penalty: 'presencePenalty',
} as const;

/** All but the maximum of tokens and logprobs, which each API names in its own way. */
export function samplingOf(fields: Fields): Sampling {
  const sampling: Sampling = {};
  for (const [name, key] of Object.entries(NUMBERS)) {
    const value = checkSamplingNumber(key, fields[name], name);
    if (value !== undefined) sampling[key] = value;
  }
  // vLLM's clients write "off" as -1.
  const topK = fields.top_k === -1 ? 0 : checkSamplingNumber('topK', fields.top_k, 'top_k');
  if (topK !== undefined) sampling.topK = topK;
  const seed = seedOf(fields.seed);
  if (seed !== undefined) sampling.seed = seed;
  const logitBias = checkLogitBias(fields.logit_bias, 'logit_bias');
  if (logitBias !== undefined) sampling.logitBias = logitBias;
  const stop = checkStop(typeof fields.stop === 'string' ? [fields.stop] : fields.stop, 'stop');
  if (stop !== undefined) sampling.stop = stop;
  const stopTokenIds = checkTokenIds(fields.stop_token_ids, 'stop_token_ids');
  if (stopTokenIds !== undefined) sampling.stopTokenIds = stopTokenIds;
  const ignoreEos = checkBoolean(fields.ignore_eos, 'ignore_eos');
  if (ignoreEos !== undefined) sampling.ignoreEos = ignoreEos;
  return sampling;
}

/** The next choice of the same request differs, and does so every time. */
export function samplingOfChoice(sampling: Sampling, index: number): Sampling {
  const { seed } = sampling;
  if (seed === undefined || index === 0) return sampling;
  return { ...sampling, seed: (seed + index) % NUM_SEEDS };
}

const NUM_SEEDS = 2 ** 53;

/** -1 means "none" to vLLM; other negative ones are as good as any. */
function seedOf(value: unknown): number | undefined {
  if (value === -1) return undefined;
  const range = { min: -Number.MAX_SAFE_INTEGER, max: Number.MAX_SAFE_INTEGER, integer: true };
  const seed = checkNumber(value, 'seed', range);
  return seed === undefined || seed >= 0 ? seed : seed + NUM_SEEDS;
}
