/**
 * A request's prompt, in any of its three forms, or a text to embed -> token ids that the model has
 * and can hold.
 *
 * Throws INVALID_OPTIONS (names the field) or CONTEXT_TOO_LONG; native code checks once more, with
 * the explicit maximum of output counted in. Called by prepare-request.ts and embedding-calls.ts.
 */
import { LoraxError } from '../src/errors.js';
import type { Thinking } from './chat/reasoning-tags.js';
import type { GenerateCommand } from './protocol.js';
import { checkTokenIds } from './sampling-defaults.js';
import type { Chat } from './tokenizer/chat-template.js';
import type { Tokenizer } from './tokenizer/tokenizer.js';

interface Limits {
  contextTokens: number;
  vocabSize: number;
}

const FIELDS = { messages: 'messages', text: 'prompt', tokens: 'promptTokens' } as const;

export interface EncodedPrompt {
  tokens: Int32Array;
  thinking: Thinking;
}

export async function encodePrompt(
  { prompt, tools, reasoning }: Pick<GenerateCommand, 'prompt' | 'tools' | 'reasoning'>,
  tokenizer: Tokenizer,
  limits: Limits,
): Promise<EncodedPrompt> {
  const { contextTokens } = limits;
  let tokens: number[];
  let thinking: Thinking = 'none';
  if (prompt.kind === 'messages') {
    const chat: Chat = { messages: prompt.messages };
    if (tools !== undefined) chat.tools = tools.definitions;
    if (reasoning !== undefined) chat.reasoning = reasoning;
    ({ ids: tokens, thinking } = await tokenizer.encodeChat(chat, contextTokens));
  } else if (prompt.kind === 'text') {
    tokens = await tokenizer.encodeText(prompt.text, contextTokens);
  } else {
    ({ tokens } = prompt);
  }
  const field = FIELDS[prompt.kind];
  if (prompt.kind === 'tokens') checkTokenIds(tokens, field, limits.vocabSize);
  return { tokens: checked(tokens, field, limits), thinking };
}

/** A text to embed: whole, with the tokens that end a text where the tokenizer has any. */
export async function encodeInput(
  text: string,
  field: string,
  tokenizer: Tokenizer,
  limits: Limits,
): Promise<Int32Array> {
  return checked(await tokenizer.encodeWholeText(text, limits.contextTokens), field, limits);
}

function checked(
  tokens: number[],
  field: string,
  { contextTokens, vocabSize }: Limits,
): Int32Array {
  if (tokens.length > contextTokens) {
    throw new LoraxError(
      'CONTEXT_TOO_LONG',
      `${field}: the prompt has ${tokens.length} tokens; the model's context holds ` +
        `${contextTokens}.`,
      { data: { field, promptTokens: tokens.length, contextTokens } },
    );
  }
  if (tokens.length === 0) {
    throw new LoraxError('INVALID_OPTIONS', `${field}: the prompt has no tokens.`, {
      data: { field },
    });
  }
  if (tokens.some((id) => id >= vocabSize)) {
    throw new LoraxError(
      'MODEL_INVALID',
      `tokenizer.json has ids beyond config.json's vocab_size ${vocabSize}: they are not of one ` +
        'model.',
      { data: { field: 'vocab_size', vocabSize } },
    );
  }
  return Int32Array.from(tokens);
}
