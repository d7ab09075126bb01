/**
 * A request's prompt, in any of its three forms, or a text to embed -> token ids that the model has and can hold.
 *
 * Throws INVALID_OPTIONS (names the field) or CONTEXT_TOO_LONG; native code checks once more, with
 * the explicit maximum of output counted in. Called by engine-port.ts and embedding-calls.ts.
 */
import { LoraxError } from '../src/errors.js';
import type { WirePrompt } from './protocol.js';
import { checkTokenIds } from './sampling-defaults.js';
import type { Tokenizer } from './tokenizer/tokenizer.js';

/** A text to embed: whole, with the tokens that end a text where the tokenizer has any. */
export interface InputPrompt {
  kind: 'input';
  text: string;
  index: number;
}

const FIELDS = { messages: 'messages', text: 'prompt', tokens: 'promptTokens' } as const;

export async function encodePrompt(
  prompt: WirePrompt | InputPrompt,
  tokenizer: Tokenizer,
  { contextTokens, vocabSize }: { contextTokens: number; vocabSize: number },
): Promise<Int32Array> {
  const field = prompt.kind === 'input' ? `input[${prompt.index}]` : FIELDS[prompt.kind];
  let tokens: number[];
  if (prompt.kind === 'messages') {
    tokens = await tokenizer.encodeMessages(prompt.messages, contextTokens);
  } else if (prompt.kind === 'text') {
    tokens = await tokenizer.encodeText(prompt.text, contextTokens);
  } else if (prompt.kind === 'input') {
    tokens = await tokenizer.encodeWholeText(prompt.text, contextTokens);
  } else {
    ({ tokens } = prompt);
  }
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
  if (prompt.kind === 'tokens') {
    checkTokenIds(tokens, field, vocabSize);
  } else if (tokens.some((id) => id >= vocabSize)) {
    throw new LoraxError(
      'MODEL_INVALID',
      `tokenizer.json has ids beyond config.json's vocab_size ${vocabSize}: they are not of one ` +
        'model.',
      { data: { field: 'vocab_size', vocabSize } },
    );
  }
  return Int32Array.from(tokens);
}
