/**
 * GenerateRequest, checked: exactly one prompt, known roles, valid sampling.
 *
 * The result is plain data, ready for the worker's port. Called by the engine client (and the fake
 * engine) for every request; throws INVALID_OPTIONS.
 */
import type { WireConstraint, WirePrompt, WireTools } from '../worker/protocol.js';
import { checkAdapterField } from './adapter-mix.js';
import type { WeightedAdapter } from './adapter-mix.js';
import { checkMessages } from './chat-messages.js';
import {
  checkBoolean,
  checkFunction,
  checkObject,
  checkString,
  invalidOptions,
} from './check-shape.js';
import { checkConstraint } from './constraint-options.js';
import { checkSampling, checkTokenIds } from './sampling-options.js';
import { checkService, SERVICE_KEYS } from './service-options.js';
import type { CheckedService } from './service-options.js';
import { checkTools } from './tool-options.js';
import type { GenerateRequest, Sampling } from './types.js';

export interface CheckedRequest extends CheckedService {
  prompt: WirePrompt;
  /** Empty = the base model. */
  adapters: WeightedAdapter[];
  sampling: Sampling;
  constraint?: WireConstraint;
  /** Unset: nothing can be called. */
  tools?: WireTools;
  reasoning?: boolean;
  cacheScope?: string;
}

/** What only a chat template can express. */
const CHAT_KEYS = ['tools', 'toolChoice', 'parallelToolCalls', 'reasoning'];
const KEYS = [
  ...['messages', 'prompt', 'promptTokens', 'adapter', 'sampling', 'signal', 'onUsage'],
  ...['constraint', 'cacheScope', ...SERVICE_KEYS],
  ...CHAT_KEYS,
];

export function checkGenerateRequest(request: GenerateRequest): CheckedRequest {
  const fields = checkObject(request, 'request', KEYS);
  checkFunction(fields.onUsage, 'request.onUsage');
  checkSignal(fields.signal);
  const checked: CheckedRequest = {
    prompt: checkPrompt(fields.messages, fields.prompt, fields.promptTokens),
    adapters: checkAdapterField(fields.adapter, 'request.adapter'),
    sampling: checkSampling(fields.sampling, 'request.sampling'),
    ...checkService(fields, 'request'),
  };
  const constraint = checkConstraint(fields.constraint, 'request.constraint');
  if (constraint !== undefined) checked.constraint = constraint;
  const tools = checkTools(fields);
  if (tools !== undefined) checked.tools = tools;
  const reasoning = checkBoolean(fields.reasoning, 'request.reasoning');
  if (reasoning !== undefined) checked.reasoning = reasoning;
  const cacheScope = checkString(fields.cacheScope, 'request.cacheScope');
  if (cacheScope !== undefined) checked.cacheScope = cacheScope;
  const chatOnly = CHAT_KEYS.find((key) => fields[key] !== undefined);
  if (chatOnly !== undefined && checked.prompt.kind !== 'messages') {
    const field = `request.${chatOnly}`;
    throw invalidOptions(field, `${field} needs messages: a prompt without a chat has no tools.`);
  }
  return checked;
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
