/**
 * Fields that other servers honour and this one cannot: refused by name, since the answer would not be
 * what was asked for. A value that asks for nothing is let pass, and so is a field that is not known:
 * both APIs' clients send more than a server has to read.
 */
import type { Fields } from '../../check-shape.js';
import { badRequest } from '../http-error.js';

/** What they are set to where they ask for nothing. */
const HARMLESS: Record<string, readonly unknown[]> = {
  // OpenAI's
  audio: [],
  functions: [],
  function_call: ['none'],
  prediction: [],
  web_search_options: [],
  suffix: [''],
  background: [false],
  conversation: [],
  previous_response_id: [],
  max_tool_calls: [],
  // vLLM's
  use_beam_search: [false],
  length_penalty: [1],
  min_tokens: [0],
  prompt_logprobs: [],
  logits_processors: [],
  truncate_prompt_tokens: [],
  bad_words: [],
  allowed_token_ids: [],
  include_stop_str_in_output: [false],
  skip_special_tokens: [true],
  spaces_between_special_tokens: [true],
  detokenize: [true],
  add_generation_prompt: [true],
  continue_final_message: [false],
  chat_template: [],
  documents: [],
  mm_processor_kwargs: [],
  guided_whitespace_pattern: [],
  return_token_ids: [false],
  return_tokens_as_token_ids: [false],
  prompt_embeds: [],
  kv_transfer_params: [],
};

export function refuseUnsupported(fields: Fields): void {
  for (const [name, harmless] of Object.entries(HARMLESS)) {
    const value = fields[name];
    if (value === undefined || harmless.includes(value) || isEmpty(value)) continue;
    throw badRequest(name, `${name} is not supported by this server; leave it out.`);
  }
  const modalities = fields.modalities;
  if (modalities !== undefined && !(Array.isArray(modalities) && modalities.join() === 'text')) {
    throw badRequest('modalities', 'modalities: models here read and write text only.');
  }
}

function isEmpty(value: unknown): boolean {
  return typeof value === 'object' && value !== null && Object.keys(value).length === 0;
}
