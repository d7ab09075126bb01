/**
 * TokenizeRequest, checked: a chat or a text. Called by the engine client (and the fake engine);
 * throws INVALID_OPTIONS.
 */
import type { WirePrompt, WireTools } from '../worker/protocol.js';
import { checkMessages } from './chat-messages.js';
import { checkBoolean, checkObject, invalidOptions } from './check-shape.js';
import { checkTokenIds } from './sampling-options.js';
import { checkTools } from './tool-options.js';
import type { TokenizeRequest } from './types.js';

export interface CheckedTokenizeRequest {
  prompt: Exclude<WirePrompt, { kind: 'tokens' }>;
  addSpecialTokens: boolean;
  tools?: WireTools;
  reasoning?: boolean;
}

const KEYS = { chat: ['messages', 'tools', 'reasoning'], text: ['prompt', 'addSpecialTokens'] };

export function checkTokenizeRequest(request: TokenizeRequest): CheckedTokenizeRequest {
  const all = checkObject(request, 'request', [...KEYS.chat, ...KEYS.text]);
  const fields = checkObject(request, 'request', all.prompt === undefined ? KEYS.chat : KEYS.text);
  if (fields.prompt === undefined) {
    const checked: CheckedTokenizeRequest = {
      prompt: { kind: 'messages', messages: checkMessages(fields.messages) },
      addSpecialTokens: true,
    };
    const tools = checkTools(fields);
    if (tools !== undefined) checked.tools = tools;
    const reasoning = checkBoolean(fields.reasoning, 'request.reasoning');
    if (reasoning !== undefined) checked.reasoning = reasoning;
    return checked;
  }
  if (typeof fields.prompt !== 'string') {
    throw invalidOptions('request.prompt', 'request.prompt must be a string.', fields.prompt);
  }
  const special = checkBoolean(fields.addSpecialTokens, 'request.addSpecialTokens') ?? true;
  return { prompt: { kind: 'text', text: fields.prompt }, addSpecialTokens: special };
}

export function checkDetokenize(tokenIds: unknown): number[] {
  const ids = checkTokenIds(tokenIds, 'tokenIds');
  if (ids !== undefined) return ids;
  throw invalidOptions('tokenIds', 'tokenIds must be an array of token ids, not undefined.');
}
