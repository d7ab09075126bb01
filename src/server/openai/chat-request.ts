/**
 * The body of /v1/chat/completions, checked -> the engine's requests, one for each choice, and how the
 * answer is to look. Throws INVALID_OPTIONS and HttpErrors.
 */
import { checkBoolean, type Fields } from '../../check-shape.js';
import { checkMaxOutputTokens, checkSamplingNumber } from '../../sampling-options.js';
import type { GenerateRequest } from '../../types.js';
import type { ServerState } from '../environment.js';
import { badRequest } from '../http-error.js';
import { adapterAsked } from '../model-name.js';
import { chatMessagesOf } from './chat-messages.js';
import { constraintOf } from './constraint-fields.js';
import {
  countOf,
  reasoningOf,
  serviceOf,
  streamOf,
  templateReasoning,
  type StreamFields,
} from './request-fields.js';
import { samplingOf, samplingOfChoice } from './sampling-fields.js';
import { toolsOf } from './tool-fields.js';
import { refuseUnsupported } from './unsupported-fields.js';

export interface ChatRequest extends StreamFields {
  /** As the client wrote it. */
  model: string;
  requests: GenerateRequest[];
  logprobs: boolean;
}

export async function chatRequestOf(fields: Fields, state: ServerState): Promise<ChatRequest> {
  refuseUnsupported(fields);
  if (fields.best_of !== undefined && fields.best_of !== 1) {
    throw badRequest('best_of', 'best_of is of /v1/completions; a chat has n.');
  }
  const count = countOf(fields.n, 'n') ?? 1;
  const messages = chatMessagesOf(fields.messages);
  const sampling = samplingOf(fields);
  const maximum =
    checkMaxOutputTokens(fields.max_completion_tokens, 'max_completion_tokens') ??
    checkMaxOutputTokens(fields.max_tokens, 'max_tokens');
  if (maximum !== undefined) sampling.maxOutputTokens = maximum;
  const logprobs = checkBoolean(fields.logprobs, 'logprobs') ?? false;
  const top = checkSamplingNumber('logprobs', fields.top_logprobs, 'top_logprobs');
  if (top !== undefined && top > 0 && !logprobs) {
    throw badRequest('top_logprobs', 'top_logprobs needs logprobs: true.');
  }
  if (logprobs) sampling.logprobs = top ?? 0;
  const constraint = constraintOf(fields);
  const reasoning =
    templateReasoning(fields.chat_template_kwargs) ??
    reasoningOf(fields.reasoning_effort, 'reasoning_effort');
  const { model, adapter } = await adapterAsked(state, fields.model);
  const request: GenerateRequest = {
    messages,
    ...(adapter === undefined ? {} : { adapter }),
    ...(constraint === undefined ? {} : { constraint }),
    ...(reasoning === undefined ? {} : { reasoning }),
    ...toolsOf(fields, true),
    ...serviceOf(fields),
  };
  const requests = Array.from({ length: count }, (_, index) => ({
    ...request,
    sampling: samplingOfChoice(sampling, index),
  }));
  return { model, requests, logprobs, ...streamOf(fields) };
}
