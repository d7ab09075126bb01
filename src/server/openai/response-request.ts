/**
 * The body of /v1/responses, checked -> the engine's request, and what of it the answer repeats. Nothing
 * is stored: what needs an earlier response is refused. Throws INVALID_OPTIONS and HttpErrors.
 */
import { checkJsonSchema } from '../../asked-constraints.js';
import { checkArray, checkBoolean, checkOneOf, type Fields } from '../../check-shape.js';
import { checkMaxOutputTokens, checkSamplingNumber } from '../../sampling-options.js';
import type { Constraint, GenerateRequest } from '../../types.js';
import type { ServerState } from '../environment.js';
import { badRequest } from '../http-error.js';
import { adapterAsked } from '../model-name.js';
import { objectOf, requiredText } from './chat-messages.js';
import { reasoningOf, serviceOf } from './request-fields.js';
import { responseMessagesOf } from './response-input.js';
import { samplingOf } from './sampling-fields.js';
import { toolsOf } from './tool-fields.js';
import { refuseUnsupported } from './unsupported-fields.js';

export interface ResponseRequest {
  request: GenerateRequest;
  stream: boolean;
  logprobs: boolean;
  /** Fields of the response object that say what was asked. */
  asked: Fields;
}

export async function responseRequestOf(
  fields: Fields,
  state: ServerState,
): Promise<ResponseRequest> {
  refuseUnsupported(fields);
  if (fields.prompt !== undefined) {
    throw badRequest('prompt', 'prompt: templates are not kept here; give instructions and input.');
  }
  const truncation = ['auto', 'disabled'] as const;
  if (checkOneOf(fields.truncation, 'truncation', truncation) === 'auto') {
    throw badRequest('truncation', 'truncation "auto" is not supported; a long input is refused.');
  }
  const messages = responseMessagesOf(fields);
  const sampling = samplingOf(fields);
  const maximum = checkMaxOutputTokens(fields.max_output_tokens, 'max_output_tokens');
  if (maximum !== undefined) sampling.maxOutputTokens = maximum;
  const include = (checkArray(fields.include, 'include') ?? []).map((each, at) =>
    requiredText(each, `include[${at}]`),
  );
  const top = checkSamplingNumber('logprobs', fields.top_logprobs, 'top_logprobs');
  const logprobs = top !== undefined || include.includes('message.output_text.logprobs');
  if (logprobs) sampling.logprobs = top ?? 0;
  const { constraint, format } = formatOf(fields.text);
  const reasoning = fields.reasoning === undefined ? {} : objectOf(fields.reasoning, 'reasoning');
  const thinks = reasoningOf(reasoning.effort, 'reasoning.effort');
  const tools = toolsOf(fields, false);
  const { model, adapter } = await adapterAsked(state, fields.model);
  return {
    request: {
      messages,
      sampling,
      ...(adapter === undefined ? {} : { adapter }),
      ...(constraint === undefined ? {} : { constraint }),
      ...(thinks === undefined ? {} : { reasoning: thinks }),
      ...tools,
      ...serviceOf(fields),
    },
    stream: checkBoolean(fields.stream, 'stream') ?? false,
    logprobs,
    asked: {
      model,
      instructions: fields.instructions ?? null,
      max_output_tokens: maximum ?? null,
      metadata: fields.metadata ?? {},
      parallel_tool_calls: tools.parallelToolCalls ?? true,
      previous_response_id: null,
      reasoning: { effort: reasoning.effort ?? null, summary: null },
      store: false,
      temperature: sampling.temperature ?? null,
      text: { format },
      tool_choice: fields.tool_choice ?? 'auto',
      tools: fields.tools ?? [],
      top_p: sampling.topP ?? null,
      truncation: 'disabled',
      user: fields.user ?? null,
    },
  };
}

function formatOf(text: unknown): { constraint?: Constraint; format: unknown } {
  const plain = { type: 'text' };
  if (text === undefined) return { format: plain };
  const { format } = objectOf(text, 'text');
  if (format === undefined || format === null) return { format: plain };
  const field = 'text.format';
  const { type, schema } = objectOf(format, field);
  const types = ['text', 'json_object', 'json_schema'] as const;
  switch (checkOneOf(type ?? undefined, `${field}.type`, types)) {
    case 'json_object':
      return { constraint: { type: 'json' }, format };
    case 'json_schema': {
      const checked = checkJsonSchema(schema, `${field}.schema`);
      return { constraint: { type: 'json', schema: checked }, format };
    }
    case 'text':
      return { format };
    case undefined:
      throw badRequest(`${field}.type`, `${field}.type is missing.`);
  }
}
