/**
 * The body of /v1/completions, checked -> the engine's requests, `best_of` for each prompt, and how the
 * answer is to look. Throws INVALID_OPTIONS and HttpErrors.
 */
import { checkBoolean, invalidOptions, type Fields } from '../../check-shape.js';
import {
  checkMaxOutputTokens,
  checkSamplingNumber,
  checkTokenIds,
} from '../../sampling-options.js';
import type { GenerateRequest } from '../../types.js';
import type { ServerContext, ServerState } from '../environment.js';
import { badRequest } from '../http-error.js';
import { adapterAsked } from '../model-name.js';
import { constraintOf } from './constraint-fields.js';
import { countOf, serviceOf, streamOf, type StreamFields } from './request-fields.js';
import { samplingOf, samplingOfChoice } from './sampling-fields.js';
import { refuseUnsupported } from './unsupported-fields.js';

/** As OpenAI has it. */
const DEFAULT_MAX_TOKENS = 16;
const MAX_REQUESTS = 256;

export interface CompletionRequest extends StreamFields {
  model: string;
  /** `bestOf` of the first prompt, then those of the next. */
  requests: GenerateRequest[];
  /** To be given, of each prompt. */
  n: number;
  bestOf: number;
  /** What stands before each prompt's answers: the prompt, or ''. */
  echoes: string[];
  logprobs: boolean;
}

type Prompt = { prompt: string } | { promptTokens: number[] };

export async function completionRequestOf(
  c: ServerContext,
  fields: Fields,
  state: ServerState,
): Promise<CompletionRequest> {
  refuseUnsupported(fields);
  const prompts = promptsOf(fields.prompt);
  const n = countOf(fields.n, 'n') ?? 1;
  const bestOf = countOf(fields.best_of, 'best_of') ?? n;
  const streaming = streamOf(fields);
  if (bestOf < n) throw badRequest('best_of', 'best_of must not be less than n.');
  if (bestOf > n && streaming.stream) {
    throw badRequest('best_of', 'best_of > n cannot be streamed: the best is known at the end.');
  }
  if (prompts.length * bestOf > MAX_REQUESTS) {
    throw badRequest('prompt', `At most ${MAX_REQUESTS} completions go, over all prompts.`);
  }
  const sampling = samplingOf(fields);
  sampling.maxOutputTokens =
    checkMaxOutputTokens(fields.max_tokens, 'max_tokens') ?? DEFAULT_MAX_TOKENS;
  const top = logprobsOf(fields.logprobs);
  // By which the best are told.
  if (top !== undefined || bestOf > n) sampling.logprobs = top ?? 0;
  const echo = checkBoolean(fields.echo, 'echo') ?? false;
  if (echo && top !== undefined) {
    throw badRequest('echo', 'echo with logprobs is not supported: a prompt has none here.');
  }
  const constraint = constraintOf(fields);
  const { model, adapter } = await adapterAsked(state, fields.model);
  const common = {
    ...(adapter === undefined ? {} : { adapter }),
    ...(constraint === undefined ? {} : { constraint }),
    ...serviceOf(fields),
  };
  const requests = prompts.flatMap((prompt) =>
    Array.from({ length: bestOf }, (_, index): GenerateRequest => ({
      ...prompt,
      ...common,
      sampling: samplingOfChoice(sampling, index),
    })),
  );
  const echoes = await Promise.all(prompts.map((prompt) => (echo ? textOf(c, prompt) : '')));
  return { model, requests, n, bestOf, echoes, logprobs: top !== undefined, ...streaming };
}

function logprobsOf(value: unknown): number | undefined {
  if (value === undefined || value === false) return undefined;
  return checkSamplingNumber('logprobs', value === true ? 0 : value, 'logprobs');
}

/** A text, token ids, or an array of either. */
function promptsOf(value: unknown): Prompt[] {
  if (typeof value === 'string') return [{ prompt: value }];
  if (!Array.isArray(value) || value.length === 0) {
    const forms = 'a text, an array of texts, token ids, or an array of those';
    throw invalidOptions('prompt', `prompt must be ${forms}, and not empty.`, value);
  }
  const entries = value as unknown[];
  if (entries.every((entry) => typeof entry === 'number')) {
    return [{ promptTokens: checkTokenIds(entries, 'prompt') ?? [] }];
  }
  return entries.map((entry, at): Prompt => {
    if (typeof entry === 'string') return { prompt: entry };
    const promptTokens = checkTokenIds(entry, `prompt[${at}]`) ?? [];
    if (promptTokens.length > 0) return { promptTokens };
    throw invalidOptions(`prompt[${at}]`, `prompt[${at}] has no tokens.`);
  });
}

async function textOf(c: ServerContext, prompt: Prompt): Promise<string> {
  if ('prompt' in prompt) return prompt.prompt;
  return (await c.get('engine').detokenize(prompt.promptTokens)).text;
}
