/** LoRAX's POST /tokenize: each token with its text and where it lies in the input. */
import { checkBoolean, invalidOptions, type Fields } from '../../check-shape.js';
import type { ServerContext } from '../environment.js';

export async function tokenizeForLorax(c: ServerContext, fields: Fields): Promise<Response> {
  const { inputs } = fields;
  if (typeof inputs !== 'string' || inputs === '') {
    throw invalidOptions('inputs', 'inputs must be a non-empty text.', inputs);
  }
  const special = checkBoolean(fields.add_special_tokens, 'add_special_tokens') ?? true;
  const engine = c.get('engine');
  const { tokenIds } = await engine.tokenize({ prompt: inputs, addSpecialTokens: special });
  const { pieces, special: isSpecial } = await engine.detokenize(tokenIds);
  const ends = characterEnds(pieces, isSpecial);
  return c.json(
    tokenIds.map((id, at) => ({
      id,
      text: new TextDecoder().decode(pieces[at]),
      start: ends[at - 1] ?? 0,
      stop: ends[at] ?? 0,
    })),
  );
}

/** Where each token ends, in characters (code points) of the text that they spell together. */
function characterEnds(pieces: readonly Uint8Array[], special: readonly boolean[]): number[] {
  let characters = 0;
  return pieces.map((piece, at) => {
    // A continuation byte begins no character.
    if (special[at] !== true) for (const byte of piece) if ((byte & 0xc0) !== 0x80) characters++;
    return characters;
  });
}
