/**
 * One request's tokens -> what its deltas say: text, ids, logprobs, and whether a stop was hit.
 *
 * Always holds: a token's id and logprob go out with the batch it came in, its text as soon as it is
 * whole and cannot be part of a stop string; tokens after a stop string are neither given out nor
 * counted; a stop token is counted (it was generated) and has no text. Called by engine-port.ts.
 */
import type { TokenLogprob } from '../../src/types.js';
import type { TokenBytes } from '../tokenizer/token-bytes.js';
import { Detokenizer } from './detokenizer.js';
import { StopStrings } from './stop-strings.js';

/** Tokens of one request out of one engine step; arrays are views into the step's. */
export interface TokenBatch {
  tokenIds: Int32Array; // [count]
  /** -1: no logprobs. */
  numTop: number;
  topIds: Int32Array; // [count, numTop]
  logprobs: Float32Array; // [count, 1 + numTop]: its own, then the alternatives'
}

export interface Delta {
  text: string;
  tokenIds: number[];
  logprobs?: TokenLogprob[];
  /** The stop string that ends the request here. */
  stop: string | null;
}

export class TextOutput {
  /** Tokens generated, the stop token included. */
  outputTokens = 0;
  lastTokenId = -1;
  private readonly detokenizer: Detokenizer;
  private readonly stopStrings: StopStrings | null;

  constructor(
    table: TokenBytes,
    stop: readonly string[],
    private readonly stopTokenIds: ReadonlySet<number>,
  ) {
    this.detokenizer = new Detokenizer(table);
    this.stopStrings = stop.length === 0 ? null : new StopStrings(stop);
  }

  push(batch: TokenBatch): Delta {
    const tokenIds: number[] = [];
    const logprobs: TokenLogprob[] | undefined = batch.numTop < 0 ? undefined : [];
    let text = '';
    let stop: string | null = null;
    for (let i = 0; i < batch.tokenIds.length && stop === null; i++) {
      const id = batch.tokenIds[i] as number;
      tokenIds.push(id);
      logprobs?.push(logprobOf(batch, i));
      this.outputTokens++;
      this.lastTokenId = id;
      if (this.stopTokenIds.has(id)) break;
      const piece = this.detokenizer.push(id);
      if (this.stopStrings === null || piece === '') {
        text += piece;
      } else {
        const watched = this.stopStrings.push(piece);
        text += watched.text;
        stop = watched.stop;
      }
    }
    return logprobs === undefined ? { text, tokenIds, stop } : { text, tokenIds, logprobs, stop };
  }

  /** At the natural end: what was held back. A last incomplete character may end a stop string. */
  flush(): { text: string; stop: string | null } {
    const rest = this.detokenizer.flush();
    if (this.stopStrings === null) return { text: rest, stop: null };
    const watched = this.stopStrings.push(rest);
    if (watched.stop !== null) return watched;
    return { text: watched.text + this.stopStrings.flush(), stop: null };
  }
}

function logprobOf(batch: TokenBatch, i: number): TokenLogprob {
  const { numTop } = batch;
  const top: TokenLogprob['top'] = [];
  for (let k = 0; k < numTop; k++) {
    top.push({
      tokenId: batch.topIds[i * numTop + k] as number,
      logprob: batch.logprobs[i * (numTop + 1) + 1 + k] as number,
    });
  }
  return {
    tokenId: batch.tokenIds[i] as number,
    logprob: batch.logprobs[i * (numTop + 1)] as number,
    top,
  };
}
