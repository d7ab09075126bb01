/**
 * The body of LoRAX's /generate, checked -> the engine's requests, `best_of` of them, and how the answer
 * is to look. Throws INVALID_OPTIONS with the fields' own names.
 *
 * As LoRAX has it: greedy unless something of sampling is asked for, then at temperature 1. What is
 * asked of `adapter_source` is the app's to say: the engine finds adapters where its `sources` are.
 */
import { randomInt } from 'node:crypto';
import { checkJsonSchema } from '../../asked-constraints.js';
import {
  checkBoolean,
  checkNumber,
  checkOneOf,
  checkString,
  invalidOptions,
} from '../../check-shape.js';
import type { Fields } from '../../check-shape.js';
import { checkMaxOutputTokens, checkSamplingNumber, checkStop } from '../../sampling-options.js';
import type { AdapterMix, Constraint, GenerateRequest, Sampling } from '../../types.js';
import type { ServerContext, ServerState } from '../environment.js';
import { badRequest } from '../http-error.js';
import { adapterAsked } from '../model-name.js';
import { objectOf } from '../openai/chat-messages.js';
import { samplingOfChoice } from '../openai/sampling-fields.js';

export interface LoraxRequest {
  requests: GenerateRequest[];
  /** Stands before the generated text. */
  echo: string;
  details: boolean;
  /** Shown for each token. */
  alternatives: number | undefined;
  /** Of the first of them, where there is sampling. */
  seed: number | null;
}

const SOURCES = ['hub', 'local', 's3'] as const;
const MAX_BEST_OF = 16;

export async function loraxRequestOf(
  c: ServerContext,
  { inputs, parameters: given }: Fields,
  state: ServerState,
): Promise<LoraxRequest> {
  if (typeof inputs !== 'string' || inputs === '') {
    throw invalidOptions('inputs', 'inputs must be a non-empty text.', inputs);
  }
  const parameters = withoutNulls(given === undefined ? {} : objectOf(given, 'parameters'));
  refuseUnsupported(parameters);
  const sampling = samplingOf(parameters);
  const isGreedy = sampling.temperature === 0;
  const bestOf =
    checkNumber(parameters.best_of, 'best_of', { min: 1, max: MAX_BEST_OF, integer: true }) ?? 1;
  if (bestOf > 1 && isGreedy) throw badRequest('best_of', 'best_of > 1 needs sampling.');
  const alternatives = checkSamplingNumber(
    'logprobs',
    parameters.return_k_alternatives,
    'return_k_alternatives',
  );
  const adapter = await adapterOf(parameters, state);
  const constraint = constraintOf(parameters.response_format);
  const request = {
    ...(await promptOf(c, inputs, parameters)),
    ...(adapter === undefined ? {} : { adapter }),
    ...(constraint === undefined ? {} : { constraint }),
  };
  // Every token is shown with its logprob.
  sampling.logprobs = alternatives ?? 0;
  const requests = Array.from({ length: bestOf }, (_, index): GenerateRequest => ({
    ...request,
    sampling: samplingOfChoice(sampling, index),
  }));
  const full = checkBoolean(parameters.return_full_text, 'return_full_text') ?? false;
  return {
    requests,
    echo: full ? inputs : '',
    details: checkBoolean(parameters.details, 'details') ?? false,
    alternatives,
    seed: isGreedy ? null : (sampling.seed ?? null),
  };
}

function samplingOf(parameters: Fields): Sampling {
  const doSample = checkBoolean(parameters.do_sample, 'do_sample') ?? false;
  const temperature = checkSamplingNumber('temperature', parameters.temperature, 'temperature');
  const topK = checkSamplingNumber('topK', parameters.top_k, 'top_k');
  const topP = checkSamplingNumber('topP', parameters.top_p, 'top_p');
  const samples = doSample || [temperature, topK, topP].some((value) => value !== undefined);
  const penalty = parameters.repetition_penalty;
  const repetitionPenalty = checkSamplingNumber('repetitionPenalty', penalty, 'repetition_penalty');
  const maximum = checkMaxOutputTokens(parameters.max_new_tokens, 'max_new_tokens');
  const stop = checkStop(parameters.stop, 'stop');
  const ignoreEos = checkBoolean(parameters.ignore_eos_token, 'ignore_eos_token');
  const seed = checkSamplingNumber('seed', parameters.seed, 'seed');
  return {
    temperature: samples ? (temperature ?? 1) : 0,
    topK: topK ?? 0,
    topP: topP ?? 1,
    // Told in the details, so that the answer can be had again.
    ...(samples ? { seed: seed ?? randomInt(2 ** 32) } : {}),
    ...(repetitionPenalty === undefined ? {} : { repetitionPenalty }),
    ...(maximum === undefined ? {} : { maxOutputTokens: maximum }),
    ...(stop === undefined ? {} : { stop }),
    ...(ignoreEos === undefined ? {} : { ignoreEos }),
  };
}

function refuseUnsupported(parameters: Fields): void {
  const asked: [string, boolean][] = [
    ['typical_p', parameters.typical_p !== undefined && parameters.typical_p !== 1],
    ['watermark', parameters.watermark === true],
    ['decoder_input_details', parameters.decoder_input_details === true],
    ['api_token', parameters.api_token !== undefined],
  ];
  for (const [name, isAsked] of asked) {
    if (isAsked) throw badRequest(name, `${name} is not supported by this server; leave it out.`);
  }
}

async function adapterOf(
  parameters: Fields,
  state: ServerState,
): Promise<string | AdapterMix | undefined> {
  checkOneOf(parameters.adapter_source, 'adapter_source', SOURCES);
  const { merged_adapters: merged } = parameters;
  if (merged === undefined) {
    const id = checkString(parameters.adapter_id, 'adapter_id');
    return id === undefined ? undefined : (await adapterAsked(state, id)).adapter;
  }
  if (parameters.adapter_id !== undefined) {
    throw badRequest('merged_adapters', 'Give one of adapter_id and merged_adapters, not both.');
  }
  return mixOf(withoutNulls(objectOf(merged, 'merged_adapters')));
}

/** LoRAX's default, `linear`; the others change weights before they add them up. */
function mixOf(merged: Fields): AdapterMix {
  const field = 'merged_adapters';
  const strategy = merged.merge_strategy ?? 'linear';
  if (strategy !== 'linear') {
    const message = `${field}.merge_strategy must be "linear": the others are not supported.`;
    throw badRequest(`${field}.merge_strategy`, message);
  }
  const { ids, weights = [] } = merged;
  if (!Array.isArray(ids) || ids.length === 0 || !ids.every((id) => typeof id === 'string')) {
    throw badRequest(`${field}.ids`, `${field}.ids must be a non-empty array of adapters.`);
  }
  if (new Set(ids).size < ids.length) {
    throw badRequest(`${field}.ids`, `${field}.ids names an adapter twice.`);
  }
  if (!Array.isArray(weights) || (weights.length > 0 && weights.length !== ids.length)) {
    throw badRequest(`${field}.weights`, `${field}.weights must have one for each of ids.`);
  }
  const given = weights as number[];
  return Object.fromEntries((ids as string[]).map((id, at) => [id, given[at] ?? 1 / ids.length]));
}

function constraintOf(format: unknown): Constraint | undefined {
  if (format === undefined) return undefined;
  const { type, schema } = withoutNulls(objectOf(format, 'response_format'));
  checkOneOf(type, 'response_format.type', ['json_object']);
  if (schema === undefined) return { type: 'json' };
  return { type: 'json', schema: checkJsonSchema(schema, 'response_format.schema') };
}

type Prompt =
  | Pick<GenerateRequest & { prompt: string }, 'prompt'>
  | Pick<GenerateRequest & { promptTokens: number[] }, 'promptTokens'>
  | Pick<GenerateRequest & { messages: unknown[] }, 'messages'>;

async function promptOf(c: ServerContext, inputs: string, parameters: Fields): Promise<Prompt> {
  const isChat = checkBoolean(parameters.apply_chat_template, 'apply_chat_template') ?? false;
  const range = { min: 1, max: 2 ** 31 - 1, integer: true };
  const truncate = checkNumber(parameters.truncate, 'truncate', range);
  const messages = [{ role: 'user' as const, content: inputs }];
  if (truncate === undefined) return isChat ? { messages } : { prompt: inputs };
  if (isChat) throw badRequest('truncate', 'truncate and apply_chat_template exclude each other.');
  const { tokenIds } = await c.get('engine').tokenize({ prompt: inputs });
  return { promptTokens: tokenIds.slice(-truncate) };
}

function withoutNulls(fields: Fields): Fields {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null));
}
