/**
 * Sampling as a request has it + the model's generation_config.json -> NativeSampling, in which
 * every field is decided.
 *
 * src/ has checked ranges and shapes; here come the checks that need the vocabulary. Called by
 * engine-port.ts once per request.
 */
import { randomFillSync } from 'node:crypto';
import { LoraxError } from '../src/errors.js';
import type { Sampling } from '../src/types.js';
import type { NativeSampling } from './addon.js';

export interface ResolvedSampling {
  native: NativeSampling;
  stop: string[];
  /** The end-of-sequence tokens that count for this request: none with ignoreEos. */
  eosTokenIds: ReadonlySet<number>;
  /** eosTokenIds and the request's own stopTokenIds. */
  stopTokenIds: ReadonlySet<number>;
}

export function resolveSampling(
  request: Sampling,
  defaults: Sampling,
  modelEosTokenIds: readonly number[],
  vocabSize: number,
): ResolvedSampling {
  const pick = <K extends keyof Sampling>(key: K) => request[key] ?? defaults[key];
  const bias = Object.entries(request.logitBias ?? {});
  const biasIds = bias.map(([id]) => Number(id));
  checkTokenIds(biasIds, 'sampling.logitBias', vocabSize);
  const ownStops = request.stopTokenIds ?? [];
  checkTokenIds(ownStops, 'sampling.stopTokenIds', vocabSize);

  const eosTokenIds = new Set(request.ignoreEos === true ? [] : modelEosTokenIds);
  const stopTokenIds = new Set([...eosTokenIds, ...ownStops]);
  const stop = pick('stop') ?? [];
  return {
    native: {
      maxOutputTokens: pick('maxOutputTokens') ?? 0,
      temperature: pick('temperature') ?? 0,
      topK: pick('topK') ?? 0,
      topP: pick('topP') ?? 1,
      minP: pick('minP') ?? 0,
      repetitionPenalty: pick('repetitionPenalty') ?? 1,
      frequencyPenalty: pick('frequencyPenalty') ?? 0,
      presencePenalty: pick('presencePenalty') ?? 0,
      logitBiasIds: Int32Array.from(biasIds),
      logitBiasValues: Float32Array.from(bias, ([, value]) => value),
      seed: request.seed === undefined ? randomSeed() : halvesOf(request.seed),
      logprobs: request.logprobs ?? -1,
      stopTokenIds: Int32Array.from(stopTokenIds),
    },
    stop: stop.filter((text) => text !== ''),
    eosTokenIds,
    stopTokenIds,
  };
}

/** Throws INVALID_OPTIONS that names the field and the first id at fault. */
export function checkTokenIds(ids: readonly number[], field: string, vocabSize: number): void {
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i] as number;
    if (Number.isInteger(id) && id >= 0 && id < vocabSize) continue;
    throw new LoraxError(
      'INVALID_OPTIONS',
      `${field}: ${id} is not a token of this model; ids go from 0 to ${vocabSize - 1}.`,
      { data: { field, value: id, vocabSize } },
    );
  }
}

/** [low, high] 32 bits of an integer in [0, 2^53). */
function halvesOf(seed: number): [number, number] {
  return [seed % 2 ** 32, Math.floor(seed / 2 ** 32)];
}

function randomSeed(): [number, number] {
  const [low, high] = randomFillSync(new Uint32Array(2));
  return [low ?? 0, high ?? 0];
}
