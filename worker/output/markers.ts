/**
 * What marks calls and reasoning, in the two alphabets it is met in.
 *
 * A marker may be ordinary text, or hold special tokens of the tokenizer, which spell nothing. In a
 * grammar such a token is a terminal of its own; in the text that the parser reads it is one
 * character that no text can contain (a lone surrogate), so that nobody can spell it. Used by
 * answer-plan.ts.
 */
import type { AddedToken } from '../tokenizer/control-tokens.js';
import { literal } from './gbnf.js';

const FIRST_SIGN = 0xdc00;
const LAST_SIGN = 0xdffe;
const SIGNS = /[\uDC00-\uDFFE]/gu;

/** Without the signs of special tokens that marked nothing here. */
export function withoutSigns(text: string): string {
  return text.replace(SIGNS, '');
}

export class Markers {
  /** Special token -> how it shows in the parser's text. */
  readonly signs: ReadonlyMap<number, string>;
  private readonly byContent = new Map<string, AddedToken>();
  private readonly anySpecial: RegExp | null;

  /** `texts`: everything that marks something. */
  constructor(special: readonly AddedToken[], texts: readonly string[]) {
    const used = special
      .filter(({ content }) => content !== '' && texts.some((text) => text.includes(content)))
      .slice(0, LAST_SIGN - FIRST_SIGN + 1)
      .sort((a, b) => b.content.length - a.content.length);
    for (const token of used) this.byContent.set(token.content, token);
    this.signs = new Map(
      used.map(({ id }, index) => [id, String.fromCharCode(FIRST_SIGN + index)]),
    );
    const escaped = used.map(({ content }) => content.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&'));
    this.anySpecial = used.length === 0 ? null : new RegExp(`(${escaped.join('|')})`);
  }

  /** As the parser sees it. */
  shown(text: string): string {
    return this.pieces(text)
      .map((piece) => (typeof piece === 'string' ? piece : (this.signs.get(piece) ?? '')))
      .join('');
  }

  /** As a grammar says it: a sequence, never empty. */
  terminals(text: string): string {
    const pieces = this.pieces(text);
    if (pieces.length === 0) return '""';
    return pieces.map((p) => (typeof p === 'string' ? literal(p) : `<[${p}]>`)).join(' ');
  }

  /** As submit() takes it. */
  trigger(text: string): string | number {
    const pieces = this.pieces(text);
    return pieces.length === 1 ? (pieces[0] as string | number) : text;
  }

  /** The token, where a special one is all there is of it. */
  tokenOf(text: string): number | null {
    const trigger = this.trigger(text);
    return typeof trigger === 'number' ? trigger : null;
  }

  private pieces(text: string): (string | number)[] {
    if (this.anySpecial === null) return text === '' ? [] : [text];
    return text
      .split(this.anySpecial)
      .filter((piece) => piece !== '')
      .map((piece) => this.byContent.get(piece)?.id ?? piece);
  }
}
