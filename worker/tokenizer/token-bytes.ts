/**
 * What each token id spells, as UTF-8 bytes: one flat table for the whole vocabulary.
 *
 * Always holds: the text of an id sequence is the lossy UTF-8 decoding of its tokens' bytes joined
 * (special tokens have none), less `stripStart` leading spaces. True of byte-level BPE and of
 * SentencePiece-like vocabularies alike; a decoder it is not true of is refused by name. Read by
 * output/detokenizer.ts and length-bound.ts; native code has `visible()` for its grammars.
 */
import { isUtf8 } from 'node:buffer';
import { LoraxError } from '../../src/errors.js';
import type { AddedToken } from './control-tokens.js';

export type TokenDecoding =
  | { kind: 'byte-level' }
  /** `space`: the character that stands for ' '. `byteFallback`: "<0x0A>" is the byte 0A. */
  | { kind: 'pieces'; space: string; byteFallback: boolean; stripStart: number };

interface DecoderJson {
  type?: string;
  decoders?: DecoderJson[];
  replacement?: string;
  prepend_scheme?: string;
  pattern?: { String?: string };
  content?: string;
  start?: number;
  stop?: number;
}

/** tokenizer.json's `decoder` -> how bytes come from tokens. */
export function tokenDecodingOf(decoder: unknown, file: string): TokenDecoding {
  const root = (decoder ?? {}) as DecoderJson;
  const chain = root.type === 'Sequence' ? (root.decoders ?? []) : [root];
  if (chain.some((step) => step.type === 'ByteLevel') && chain.every(isByteLevelOrFuse)) {
    return { kind: 'byte-level' };
  }
  const pieces = { kind: 'pieces' as const, space: '▁', byteFallback: false, stripStart: 0 };
  let fused = chain.length === 1;
  for (const step of chain) {
    if (step.type === 'Metaspace') {
      pieces.space = step.replacement ?? '▁';
      pieces.stripStart = 1;
    } else if (step.type === 'Replace' && step.content === ' ' && step.pattern?.String) {
      pieces.space = step.pattern.String;
    } else if (step.type === 'ByteFallback') {
      pieces.byteFallback = true;
    } else if (step.type === 'Fuse') {
      fused = true;
    } else if (step.type === 'Strip' && fused && step.content === ' ' && !step.stop) {
      pieces.stripStart = step.start ?? 0;
    } else {
      throw new LoraxError(
        'MODEL_UNSUPPORTED',
        `${file}: decoder "${step.type ?? 'none'}" is not supported (ByteLevel, Metaspace, and ` +
          'Replace + ByteFallback + Fuse + Strip are).',
        { data: { file, field: 'decoder', value: step.type ?? null } },
      );
    }
  }
  return pieces;
}

const isByteLevelOrFuse = (step: DecoderJson) => step.type === 'ByteLevel' || step.type === 'Fuse';

/** GPT-2's printable stand-ins: character code -> byte, -1 where it stands for none. */
const BYTE_OF_CODE = (() => {
  const table = new Int16Array(512).fill(-1);
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable =
      (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    table[printable ? byte : next++] = byte;
  }
  return table;
})();

export class TokenBytes {
  /** Ids below this may be asked for; the model's vocabulary may be larger. */
  readonly size: number;
  readonly stripStart: number;
  /** Bytes of token i: flat[offsets[i] .. offsets[i + 1]). */
  private readonly flat: Uint8Array;
  private readonly offsets: Uint32Array; // [size + 1]
  private readonly hidden: Uint8Array; // [size], 1 = special
  /** null: not valid UTF-8 by itself. Filled as tokens appear. */
  private readonly texts: (string | null | undefined)[];

  constructor(tokens: readonly (string | undefined)[], added: AddedToken[], how: TokenDecoding) {
    this.size = tokens.length;
    this.stripStart = how.kind === 'pieces' ? how.stripStart : 0;
    this.offsets = new Uint32Array(this.size + 1);
    this.hidden = new Uint8Array(this.size);
    this.texts = new Array<string | null | undefined>(this.size);
    const addedContents = new Map<number, string>();
    for (const token of added) {
      if (token.id >= this.size) continue;
      addedContents.set(token.id, token.content);
      if (token.special) this.hidden[token.id] = 1;
    }
    let flat = Buffer.allocUnsafe(this.size * 8 + 1024);
    let length = 0;
    for (let id = 0; id < this.size; id++) {
      const token = tokens[id] ?? '';
      // UTF-8 needs at most 3 bytes per UTF-16 unit.
      if (length + token.length * 3 > flat.length) {
        flat = Buffer.concat([flat], flat.length * 2 + token.length * 3);
      }
      length += writeToken(flat, length, token, addedContents.has(id), how);
      this.offsets[id + 1] = length;
    }
    this.flat = new Uint8Array(flat.subarray(0, length)); // a copy of the exact size
  }

  /** Every token's bytes, joined, and where each begins; special tokens have none. */
  visible(): { bytes: Uint8Array; offsets: Uint32Array } {
    const bytes = new Uint8Array(this.flat.length);
    const offsets = new Uint32Array(this.size + 1);
    let length = 0;
    for (let id = 0; id < this.size; id++) {
      if (!this.isHidden(id)) {
        const own = this.bytes(id);
        bytes.set(own, length);
        length += own.length;
      }
      offsets[id + 1] = length;
    }
    return { bytes: bytes.subarray(0, length), offsets };
  }

  isHidden(id: number): boolean {
    return this.hidden[id] === 1;
  }

  /** Empty for ids that spell nothing known. */
  bytes(id: number): Uint8Array {
    if (id < 0 || id >= this.size) return new Uint8Array(0);
    return this.flat.subarray(this.offsets[id], this.offsets[id + 1]);
  }

  /** The token's text where its bytes are whole characters, else null. */
  text(id: number): string | null {
    if (id < 0 || id >= this.size) return '';
    const known = this.texts[id];
    if (known !== undefined) return known;
    const bytes = this.bytes(id);
    const text = isUtf8(bytes) ? Buffer.from(bytes).toString('utf8') : null;
    this.texts[id] = text;
    return text;
  }
}

function writeToken(
  into: Buffer,
  at: number,
  token: string,
  isAdded: boolean,
  how: TokenDecoding,
): number {
  if (how.kind === 'pieces') {
    if (how.byteFallback && /^<0x[0-9A-Fa-f]{2}>$/.test(token)) {
      into[at] = parseInt(token.slice(3, 5), 16);
      return 1;
    }
    return into.write(token.replaceAll(how.space, ' '), at, 'utf8');
  }
  if (isAdded) return into.write(token, at, 'utf8');
  for (let i = 0; i < token.length; i++) {
    const code = token.charCodeAt(i);
    const byte = code < 512 ? (BYTE_OF_CODE[code] ?? -1) : -1;
    // Not written in stand-ins: then it is itself, as in the reference implementation.
    if (byte < 0) return into.write(token, at, 'utf8');
    into[at + i] = byte;
  }
  return token.length;
}
