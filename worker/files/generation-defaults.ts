/**
 * How a model wants to be sampled, and which tokens end its turns: generation_config.json, the
 * ids in config.json, and the tokenizer's own end-of-sequence token. Called by the worker once per
 * model; every request's unset sampling starts from here.
 */
import path from 'node:path';

import type { Sampling } from '../../src/types.js';
import {
  ConfigReader,
  MODEL_CODES,
  isJsonObject,
  readJsonObject,
  show,
  type JsonObject,
} from './config-reader.js';

export interface GenerationDefaults {
  /** Only what the model's files say. Greedy (`temperature: 0`) unless they ask for sampling. */
  sampling: Sampling;
  /** Ascending, no duplicates; the union of all three sources. */
  eosTokenIds: number[];
  /** Fields of generation_config.json that ask for what this package lacks, worth a warning. */
  ignored: string[];
}

/** Neutral values of fields that would change the tokens if set otherwise. */
const NEUTRAL: Readonly<Record<string, readonly unknown[]>> = {
  num_beams: [1],
  num_beam_groups: [1],
  penalty_alpha: [0],
  typical_p: [1],
  epsilon_cutoff: [0],
  eta_cutoff: [0],
  top_h: [],
  diversity_penalty: [0],
  encoder_repetition_penalty: [1],
  no_repeat_ngram_size: [0],
  encoder_no_repeat_ngram_size: [0],
  bad_words_ids: [],
  force_words_ids: [],
  forced_bos_token_id: [],
  forced_eos_token_id: [],
  exponential_decay_length_penalty: [],
  suppress_tokens: [],
  begin_suppress_tokens: [],
  sequence_bias: [],
  guidance_scale: [1],
  watermarking_config: [],
  min_length: [0],
  min_new_tokens: [0],
  dola_layers: [],
  constraints: [],
};

export async function readGenerationDefaults(
  directory: string,
  vocabSize: number,
): Promise<GenerationDefaults> {
  const at = (name: string) => path.join(directory, name);
  const eos = new Set<number>();

  const config = await readJsonObject(at('config.json'), MODEL_CODES);
  addEosIds(eos, new ConfigReader(at('config.json'), config, MODEL_CODES), vocabSize);

  const file = at('generation_config.json');
  const values = await readJsonObject(file, MODEL_CODES, { optional: true });
  let sampling: Sampling = { temperature: 0 };
  let ignored: string[] = [];
  if (values !== undefined) {
    const reader = new ConfigReader(file, values, MODEL_CODES);
    addEosIds(eos, reader, vocabSize);
    sampling = readSampling(reader);
    ignored = Object.keys(NEUTRAL).filter((field) => {
      const value = reader.value(field);
      return value !== undefined && value !== false && !NEUTRAL[field]?.includes(value);
    });
  }

  const fromTokenizer = await tokenizerEosId(directory);
  if (fromTokenizer !== undefined && fromTokenizer < vocabSize) eos.add(fromTokenizer);
  return { sampling, eosTokenIds: [...eos].sort((a, b) => a - b), ignored };
}

function addEosIds(eos: Set<number>, config: ConfigReader, vocabSize: number): void {
  const value = config.value('eos_token_id');
  if (value === undefined) return;
  for (const id of Array.isArray(value) ? (value as unknown[]) : [value]) {
    if (!Number.isSafeInteger(id) || (id as number) < 0 || (id as number) >= vocabSize) {
      throw config.invalid(
        'eos_token_id',
        `${show(id)} is not a token id below vocab_size ${vocabSize}`,
      );
    }
    eos.add(id as number);
  }
}

/** As in transformers, `do_sample` decides whether temperature and the truncations are used. */
function readSampling(config: ConfigReader): Sampling {
  const sampling: Sampling = {};
  const repetitionPenalty = config.positive('repetition_penalty');
  if (repetitionPenalty !== undefined) sampling.repetitionPenalty = repetitionPenalty;
  const stop = config.value('stop_strings');
  if (typeof stop === 'string') sampling.stop = [stop];
  else if (stop !== undefined) sampling.stop = config.strings('stop_strings') ?? [];

  if (!(config.boolean('do_sample') ?? false)) {
    sampling.temperature = 0;
    return sampling;
  }
  sampling.temperature = atLeastZero(config, 'temperature') ?? 1;
  const topK = config.integer('top_k', 0);
  if (topK !== undefined) sampling.topK = topK;
  const topP = config.positive('top_p');
  if (topP !== undefined) {
    if (topP > 1) throw config.invalid('top_p', `expected a number in (0, 1], found ${topP}`);
    sampling.topP = topP;
  }
  const minP = atLeastZero(config, 'min_p');
  if (minP !== undefined) {
    if (minP > 1) throw config.invalid('min_p', `expected a number in [0, 1], found ${minP}`);
    sampling.minP = minP;
  }
  return sampling;
}

function atLeastZero(config: ConfigReader, field: string): number | undefined {
  return config.value(field) === 0 ? 0 : config.positive(field);
}

/** The id of tokenizer_config.json's eos_token, from the lists of added tokens. */
async function tokenizerEosId(directory: string): Promise<number | undefined> {
  const config = await readJsonObject(path.join(directory, 'tokenizer_config.json'), MODEL_CODES, {
    optional: true,
  });
  const token = config?.['eos_token'];
  const content = isJsonObject(token) ? token['content'] : token;
  if (config === undefined || typeof content !== 'string') return undefined;

  const decoder = config['added_tokens_decoder'];
  if (isJsonObject(decoder)) {
    for (const [id, entry] of Object.entries(decoder)) {
      if (isJsonObject(entry) && entry['content'] === content) return asId(Number(id));
    }
  }
  const tokenizer = await readJsonObject(path.join(directory, 'tokenizer.json'), MODEL_CODES, {
    optional: true,
  });
  const added = tokenizer?.['added_tokens'];
  if (!Array.isArray(added)) return undefined;
  const entry = (added as unknown[]).find(
    (each): each is JsonObject => isJsonObject(each) && each['content'] === content,
  );
  return asId(entry?.['id']);
}

const asId = (value: unknown): number | undefined =>
  Number.isSafeInteger(value) && (value as number) >= 0 ? (value as number) : undefined;
