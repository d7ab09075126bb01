/**
 * Token ids -> text of one request, as they come.
 *
 * Always holds: the pieces given out so far are the lossy UTF-8 decoding of all bytes so far, except
 * for an incomplete character at the end (at most 3 bytes), which is held back; `flush` gives that
 * out as U+FFFD. So nothing is half a character and nothing is a token late. Called by
 * text-output.ts once per token; the common case is one table look-up.
 */
import type { TokenBytes } from '../tokenizer/token-bytes.js';

export class Detokenizer {
  /** Bytes of a character whose end has not come yet. */
  private pending: Uint8Array | null = null;
  private leadingSpacesToStrip: number;

  /** `signs`: special tokens that show all the same, and how. */
  constructor(
    private readonly table: TokenBytes,
    private readonly signs: ReadonlyMap<number, string> = new Map(),
  ) {
    this.leadingSpacesToStrip = table.stripStart;
  }

  push(id: number): string {
    if (this.table.isHidden(id)) {
      const sign = this.signs.get(id);
      return sign === undefined ? '' : this.flush() + sign;
    }
    if (this.pending === null) {
      const text = this.table.text(id);
      if (text !== null) return this.leadingSpacesToStrip === 0 ? text : this.strip(text);
    }
    const bytes = this.table.bytes(id);
    const joined =
      this.pending === null ? Buffer.from(bytes) : Buffer.concat([this.pending, bytes]);
    const tail = incompleteTail(joined);
    this.pending = tail === 0 ? null : joined.subarray(joined.length - tail);
    return this.strip(joined.toString('utf8', 0, joined.length - tail));
  }

  /** What is left at the end. */
  flush(): string {
    if (this.pending === null) return '';
    const text = Buffer.from(this.pending).toString('utf8');
    this.pending = null;
    return text;
  }

  /** SentencePiece texts begin with a space that is not the text's. */
  private strip(text: string): string {
    if (this.leadingSpacesToStrip === 0 || text === '') return text;
    let start = 0;
    while (start < this.leadingSpacesToStrip && text.charCodeAt(start) === 0x20) start++;
    this.leadingSpacesToStrip = start === text.length ? this.leadingSpacesToStrip - start : 0;
    return text.slice(start);
  }
}

/** Length of the beginning of a character at the end of `bytes` that more bytes could complete. */
export function incompleteTail(bytes: Uint8Array): number {
  const end = bytes.length;
  for (let length = 1; length <= 3 && length <= end; length++) {
    const lead = bytes[end - length] as number;
    if ((lead & 0xc0) === 0x80) continue; // a continuation byte: the lead is further left
    const needed = lead >= 0xf0 && lead <= 0xf4 ? 4 : lead >= 0xe0 && lead < 0xf0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4 || length >= needed) return 0;
    return length === 1 || mayFollow(lead, bytes[end - length + 1] as number) ? length : 0;
  }
  return 0;
}

/** Overlong forms, surrogates and what lies past U+10FFFF show in the second byte (RFC 3629). */
function mayFollow(lead: number, second: number): boolean {
  if (lead === 0xe0) return second >= 0xa0;
  if (lead === 0xed) return second <= 0x9f;
  if (lead === 0xf0) return second >= 0x90;
  if (lead === 0xf4) return second <= 0x8f;
  return true;
}
