/**
 * What token ids spell, for answers that show tokens. Asked of the engine once for each token.
 */
import type { Engine } from '../types.js';

export interface TokenText {
  /** With U+FFFD where the bytes are no whole character. */
  text: string;
  bytes: number[];
  /** Says nothing in an answer. */
  special: boolean;
}

export class TokenTexts {
  readonly #known = new Map<number, TokenText>();

  constructor(private readonly engine: Pick<Engine, 'detokenize'>) {}

  /** Afterwards `of` knows all of them. */
  async learn(tokenIds: Iterable<number>): Promise<void> {
    const missing = [...new Set(tokenIds)].filter((id) => !this.#known.has(id));
    if (missing.length === 0) return;
    const { pieces, special } = await this.engine.detokenize(missing);
    missing.forEach((id, index) => {
      const piece = pieces[index] ?? new Uint8Array(0);
      this.#known.set(id, {
        text: new TextDecoder().decode(piece),
        bytes: [...piece],
        special: special[index] ?? false,
      });
    });
  }

  of(tokenId: number): TokenText {
    return this.#known.get(tokenId) ?? { text: '', bytes: [], special: false };
  }
}
