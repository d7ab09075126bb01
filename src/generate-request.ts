/**
 * GenerateRequest, checked: exactly one prompt, known roles, valid sampling.
 *
 * The result is plain data, ready for the worker's port. Called by the engine client (and the fake
 * engine) for every request; throws INVALID_OPTIONS.
 */
import type { WirePrompt } from '../worker/protocol.js';
import { BASE_MODEL } from './adapter-name.js';
import { checkFunction, checkObject, checkOneOf, invalidOptions } from './check-shape.js';
import { checkSampling, checkTokenIds } from './sampling-options.js';
import type { ChatMessage, GenerateRequest, Sampling } from './types.js';

export interface CheckedRequest {
  prompt: WirePrompt;
  /** null = the base model. */
  adapter: string | null;
  sampling: Sampling;
}

const KEYS = ['messages', 'prompt', 'promptTokens', 'adapter', 'sampling', 'signal', 'onUsage'];
const ROLES = ['system', 'user', 'assistant'] as const;

export function checkGenerateRequest(request: GenerateRequest): CheckedRequest {
  const fields = checkObject(request, 'request', KEYS);
  checkFunction(fields.onUsage, 'request.onUsage');
  checkSignal(fields.signal);
  return {
    prompt: checkPrompt(fields.messages, fields.prompt, fields.promptTokens),
    adapter: checkAdapterField(fields.adapter),
    sampling: checkSampling(fields.sampling, 'request.sampling'),
  };
}

/** null = the base model. */
export function checkAdapterField(adapter: unknown): string | null {
  if (adapter !== undefined && typeof adapter !== 'string') {
    throw invalidOptions('request.adapter', 'request.adapter must be a name.', adapter);
  }
  return adapter === undefined || adapter === BASE_MODEL ? null : adapter;
}

export function checkSignal(signal: unknown): void {
  if (signal === undefined) return;
  const looksRight =
    typeof signal === 'object' &&
    signal !== null &&
    'aborted' in signal &&
    'addEventListener' in signal;
  if (!looksRight) {
    throw invalidOptions('request.signal', 'request.signal must be an AbortSignal.', signal);
  }
}

function checkPrompt(messages: unknown, prompt: unknown, promptTokens: unknown): WirePrompt {
  const given = [messages, prompt, promptTokens].filter((value) => value !== undefined).length;
  if (given !== 1) {
    throw invalidOptions(
      'request.messages',
      `A request has exactly one of messages, prompt and promptTokens; this one has ${given}.`,
    );
  }
  if (messages !== undefined) return { kind: 'messages', messages: checkMessages(messages) };
  if (prompt !== undefined) {
    if (typeof prompt === 'string') return { kind: 'text', text: prompt };
    throw invalidOptions('request.prompt', 'request.prompt must be a string.', prompt);
  }
  const tokens = checkTokenIds(promptTokens, 'request.promptTokens') ?? [];
  if (tokens.length === 0) {
    throw invalidOptions('request.promptTokens', 'request.promptTokens must not be empty.');
  }
  return { kind: 'tokens', tokens };
}

function checkMessages(messages: unknown): ChatMessage[] {
  if (!Array.isArray(messages) || messages.length === 0) {
    throw invalidOptions(
      'request.messages',
      'request.messages must be a non-empty array.',
      messages,
    );
  }
  return messages.map((message: unknown, index) => {
    const field = `request.messages[${index}]`;
    const fields = checkObject(message, field, ['role', 'content']);
    const role = checkOneOf(fields.role, `${field}.role`, ROLES);
    if (role === undefined) throw invalidOptions(`${field}.role`, `${field}.role is missing.`);
    if (typeof fields.content !== 'string') {
      throw invalidOptions(
        `${field}.content`,
        `${field}.content must be a string.`,
        fields.content,
      );
    }
    return { role, content: fields.content };
  });
}
