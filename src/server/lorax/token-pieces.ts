/**
 * An answer's events as LoRAX shows them: tokens, each with the text that it adds.
 *
 * Always holds: the texts of the tokens that are not special, joined, are the generated text; a
 * token comes out when the next has come, since text that was held back may still belong to it.
 */
import type { FinishEvent, TokenLogprob } from '../../types.js';
import type { AnswerEvent } from '../generation.js';
import type { TokenTexts } from '../token-texts.js';

export interface TokenJson {
  id: number;
  text: string;
  logprob: number;
  special: boolean;
  skipped: false;
  alternative_tokens?: { id: number; text: string; logprob: number }[];
}

export class TokenPieces {
  text = '';
  #held: TokenJson | undefined;
  readonly #tokens: TokenTexts;
  readonly #alternatives: boolean;

  constructor(tokens: TokenTexts, alternatives: boolean) {
    this.#tokens = tokens;
    this.#alternatives = alternatives;
  }

  /** The tokens that are complete now. */
  async add(event: Exclude<AnswerEvent, FinishEvent>): Promise<TokenJson[]> {
    if (event.type !== 'delta') return [];
    const { text, logprobs = [] } = event;
    this.text += text;
    await this.#tokens.learn(
      logprobs.flatMap(({ tokenId, top }) => [tokenId, ...top.map((each) => each.tokenId)]),
    );
    const tokens = logprobs.map((logprob) => this.#token(logprob));
    this.#share(text, tokens);
    if (tokens.length === 0) return [];
    const complete = this.#held === undefined ? tokens : [this.#held, ...tokens];
    this.#held = complete.pop();
    return complete;
  }

  /** The last one, with the stop string that ended the text, as LoRAX has it in there. */
  last({ rawReason }: FinishEvent): TokenJson | undefined {
    const [, stop = ''] = /^stop-string:(.*)$/s.exec(rawReason) ?? [];
    this.text += stop;
    if (this.#held !== undefined) this.#held.text += stop;
    return this.#held;
  }

  /** Token by token where that adds up to the text, else all of it to the last. */
  #share(text: string, tokens: TokenJson[]): void {
    const shown = tokens.filter(({ special }) => !special);
    const spelled = shown.map(({ id }) => this.#tokens.of(id).text);
    const exact = spelled.join('') === text;
    shown.forEach((token, at) => (token.text = exact ? (spelled[at] ?? '') : ''));
    if (exact || text === '') return;
    const target = shown.at(-1) ?? this.#held;
    if (target !== undefined) target.text += text;
  }

  #token({ tokenId, logprob, top }: TokenLogprob): TokenJson {
    const { text, special } = this.#tokens.of(tokenId);
    return {
      ...{ id: tokenId, text, logprob: Math.max(logprob, -9999), special, skipped: false },
      ...(this.#alternatives
        ? {
            alternative_tokens: top.map((each) => ({
              id: each.tokenId,
              text: this.#tokens.of(each.tokenId).text,
              logprob: Math.max(each.logprob, -9999),
            })),
          }
        : {}),
    };
  }
}

export function finishReason({ reason, rawReason }: FinishEvent): string {
  if (reason === 'length') return 'length';
  return rawReason.startsWith('stop-string:') ? 'stop_sequence' : 'eos_token';
}
