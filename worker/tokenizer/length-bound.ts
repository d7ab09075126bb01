/**
 * A lower bound on how many tokens a text has, without tokenizing it.
 *
 * With L[a, b] the length of the longest token that holds the bytes a, b side by side: every byte of
 * a token of n bytes carries 1/n of it, and n = 1 or n <= L of the byte with its left or its right
 * neighbour, hence tokens >= sum over bytes of 1 / max(1, L[left, b], L[b, right]). One pass, which
 * stops once the bound is past the limit. Called by tokenizer.ts before it spends time.
 */
import type { TokenBytes } from './token-bytes.js';

/** Classes of characters: 0..127 ASCII, 128 anything else, and 129 no neighbour. */
const CLASSES = 130;
const OTHER = 128;
const NONE = 129;

export class LengthBound {
  private readonly longestWith = new Uint32Array(CLASSES * CLASSES);
  private readonly longest: number;
  /** Bytes of the longest token that holds a byte beyond ASCII. */
  private readonly longestOther: number;

  /** `normalizes`: the tokenizer may compose characters first, which shortens the text. */
  constructor(
    table: TokenBytes,
    private readonly normalizes: boolean,
  ) {
    let longest = 1;
    let longestOther = 1;
    for (let id = 0; id < table.size; id++) {
      if (table.isHidden(id)) continue;
      const bytes = table.bytes(id);
      const { length } = bytes;
      if (length > longest) longest = length;
      for (let i = 0; i < length; i++) {
        const right = Math.min(bytes[i] as number, OTHER);
        if (right === OTHER && length > longestOther) longestOther = length;
        if (i === 0) continue;
        const pair = Math.min(bytes[i - 1] as number, OTHER) * CLASSES + right;
        if (length > (this.longestWith[pair] as number)) this.longestWith[pair] = length;
      }
    }
    this.longest = longest;
    this.longestOther = longestOther;
  }

  /** No more than the truth; may stop early once past `limit`. */
  atLeast(text: string, limit: number): number {
    // Too long even if all of it were the longest token: no need to look at it. (Composing turns
    // at most 9 bytes into 3.)
    const byLength = text.length / (this.normalizes ? 4 * this.longest : this.longest);
    if (byLength > limit) return Math.ceil(byLength);
    // At least two bytes of UTF-8 per UTF-16 unit beyond ASCII; none if they may be composed away.
    const other = this.normalizes ? 0 : 2 / this.longestOther;
    let sum = 0;
    let left = NONE;
    let here = classAt(text, 0);
    for (let i = 0; i < text.length; i++) {
      const right = classAt(text, i + 1);
      if (here === OTHER) {
        sum += other;
      } else if (!(this.normalizes && right === OTHER)) {
        const withLeft = this.longestWith[left * CLASSES + here] as number;
        const withRight = this.longestWith[here * CLASSES + right] as number;
        sum += 1 / Math.max(1, withLeft, withRight);
      }
      if (sum > limit + 1) break;
      left = here;
      here = right;
    }
    return Math.floor(sum);
  }
}

function classAt(text: string, index: number): number {
  if (index >= text.length) return NONE;
  const unit = text.charCodeAt(index);
  return unit < 128 ? unit : OTHER;
}
