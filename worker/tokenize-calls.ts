/**
 * Tokens asked for without generating: a prompt's ids, and what ids spell.
 *
 * The same way as a request's prompt takes, so that what is counted here is what is computed there.
 * Called by engine-port.ts.
 */
import type { DetokenizeResult, TokenizeResult } from '../src/types.js';
import { encodePrompt } from './encode-prompt.js';
import type { LoadedEngine } from './load-engine.js';
import { Detokenizer } from './output/detokenizer.js';
import type { ClientCommand } from './protocol.js';
import { checkTokenIds } from './sampling-defaults.js';

type Command<TYPE extends ClientCommand['type']> = ClientCommand & { type: TYPE };

export async function tokenize(
  command: Command<'tokenize'>,
  { tokenizer, info }: Pick<LoadedEngine, 'tokenizer' | 'info'>,
): Promise<TokenizeResult> {
  const { prompt, addSpecialTokens } = command;
  if (prompt.kind === 'text' && (!addSpecialTokens || prompt.text === '')) {
    const { contextTokens } = info;
    return { tokenIds: await tokenizer.encodeText(prompt.text, contextTokens, addSpecialTokens) };
  }
  const { tokens } = await encodePrompt(command, tokenizer, info);
  return { tokenIds: Array.from(tokens) };
}

export function detokenize(
  tokenIds: readonly number[],
  { tokenizer: { table }, info }: Pick<LoadedEngine, 'tokenizer' | 'info'>,
): DetokenizeResult {
  checkTokenIds(tokenIds, 'tokenIds', info.vocabSize);
  const detokenizer = new Detokenizer(table);
  const text = tokenIds.map((id) => detokenizer.push(id)).join('') + detokenizer.flush();
  // Copies: the table's own buffer would travel whole with each of them.
  const pieces = tokenIds.map((id) => table.bytes(id).slice());
  return { text, pieces, special: tokenIds.map((id) => table.isHidden(id)) };
}
