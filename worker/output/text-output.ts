/**
 * One request's tokens -> what its deltas say: parts, ids, logprobs, and whether a stop was hit.
 *
 * Always holds: a token's id and logprob go out with the batch it came in, its text as soon as it is
 * whole and cannot be part of a stop string or a marker; stop strings are looked for in the text
 * alone, not in reasoning and calls; tokens after a stop string are neither given out nor counted; a
 * stop token is counted (it was generated) and has no text. Called by engine-port.ts.
 */
import type { TokenLogprob } from '../../src/types.js';
import type { TokenBytes } from '../tokenizer/token-bytes.js';
import type { AnswerParser, AnswerPart } from './answer-parser.js';
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
  parts: AnswerPart[];
  tokenIds: number[];
  logprobs?: TokenLogprob[];
  /** The stop string that ends the request here. */
  stop: string | null;
}

/** How an answer with more than text in it is read. */
export interface AnswerReading {
  parser: AnswerParser;
  /** Special tokens that mark something, and how the parser sees them. */
  signs: ReadonlyMap<number, string>;
}

export class TextOutput {
  /** Tokens generated, the stop token included. */
  outputTokens = 0;
  /** undefined: the answer cannot have any. */
  reasoningTokens: number | undefined;
  lastTokenId = -1;
  private readonly parser: AnswerParser | null;
  private readonly detokenizer: Detokenizer;
  private readonly stopStrings: StopStrings | null;
  /** The text's last spaces: they are not given out before a call. */
  private heldSpaces = '';

  constructor(
    table: TokenBytes,
    stop: readonly string[],
    private readonly stopTokenIds: ReadonlySet<number>,
    reading: AnswerReading | null = null,
  ) {
    this.parser = reading?.parser ?? null;
    if (this.parser?.canReason === true) this.reasoningTokens = 0;
    this.detokenizer = new Detokenizer(table, reading?.signs);
    this.stopStrings = stop.length === 0 ? null : new StopStrings(stop);
  }

  get numCalls(): number {
    return this.parser?.numCalls ?? 0;
  }

  get isOpen(): boolean {
    return this.parser?.isOpen ?? false;
  }

  push(batch: TokenBatch): Delta {
    const tokenIds: number[] = [];
    const logprobs: TokenLogprob[] | undefined = batch.numTop < 0 ? undefined : [];
    const parts: AnswerPart[] = [];
    let stop: string | null = null;
    for (let i = 0; i < batch.tokenIds.length && stop === null; i++) {
      const id = batch.tokenIds[i] as number;
      tokenIds.push(id);
      logprobs?.push(logprobOf(batch, i));
      this.outputTokens++;
      this.lastTokenId = id;
      if (this.stopTokenIds.has(id)) break;
      stop = this.read(this.detokenizer.push(id), parts);
    }
    return logprobs === undefined ? { parts, tokenIds, stop } : { parts, tokenIds, logprobs, stop };
  }

  /** At the natural end: what was held back. A last incomplete character may end a stop string. */
  flush(): { parts: AnswerPart[]; stop: string | null } {
    const parts: AnswerPart[] = [];
    const rest = this.detokenizer.flush();
    const last = this.parser === null ? textParts(rest) : this.parser.push(rest);
    const stop = this.add([...last, ...(this.parser?.flush() ?? [])], parts);
    if (stop !== null) return { parts, stop };
    const held = this.heldSpaces + (this.stopStrings?.flush() ?? '');
    this.heldSpaces = '';
    append(held, parts);
    return { parts, stop: null };
  }

  /** One token's text; returns the stop string that it completes. */
  private read(piece: string, parts: AnswerPart[]): string | null {
    if (this.parser === null) return this.addText(piece, parts);
    const before = this.parser.isReasoning;
    const read = this.parser.push(piece);
    if (before || this.parser.isReasoning) this.reasoningTokens = (this.reasoningTokens ?? 0) + 1;
    return this.add(read, parts);
  }

  private add(read: readonly AnswerPart[], parts: AnswerPart[]): string | null {
    for (const part of read) {
      if (part.type !== 'text') {
        if (part.type === 'tool-call-start') this.endText(parts);
        parts.push(part);
        continue;
      }
      const stop = this.addText(part.text, parts);
      if (stop !== null) return stop;
    }
    return null;
  }

  private addText(text: string, parts: AnswerPart[]): string | null {
    const { text: free, stop } = this.stopStrings?.push(text) ?? { text, stop: null };
    const all = this.heldSpaces + free;
    const end = this.parser === null || stop !== null ? all.length : all.trimEnd().length;
    this.heldSpaces = all.slice(end);
    append(all.slice(0, end), parts);
    return stop;
  }

  /** A call begins: what was held for a stop string is text, but spaces before the call are not. */
  private endText(parts: AnswerPart[]): void {
    const held = this.heldSpaces + (this.stopStrings?.flush() ?? '');
    this.heldSpaces = '';
    append(held.trimEnd(), parts);
  }
}

function textParts(text: string): AnswerPart[] {
  return text === '' ? [] : [{ type: 'text', text }];
}

/** Neighbouring texts are one part. */
function append(text: string, parts: AnswerPart[]): void {
  const last = parts.at(-1);
  if (last?.type === 'text') last.text += text;
  else parts.push(...textParts(text));
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
