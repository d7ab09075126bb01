/**
 * Which pieces of a rendered prompt are control tokens: those the template wrote, never those that
 * a message's content spells out.
 *
 * Always holds: `shield(content)` changes no character of the content, it only inserts MARK after
 * every character that could begin a control token; whatever a template then does with the content
 * (trim, slice, replace, concatenate), `split` finds no control token that starts in it. Called by
 * chat-template.ts (shield) and tokenizer.ts (split).
 */

export interface AddedToken {
  id: number;
  content: string;
  /** Of the tokenizer's own: not part of the text, hidden when decoding. */
  special: boolean;
  /** Swallows the whitespace before / after it. */
  lstrip: boolean;
  rstrip: boolean;
}

/** A run of ordinary text, or one added token. */
export type PromptPiece = { text: string } | { token: AddedToken };

/**
 * A lone surrogate: no well-formed content contains one, so the mark can never be confused with
 * something a user typed (see `wellFormed`).
 */
const MARK = '\uDFFF';
/** With the u flag only a lone one matches, not the second half of a character such as U+1F3FF. */
const LONE_MARKS = /\uDFFF/gu;

/**
 * Templates print objects as JSON, which writes a mark as an escape. A text that spells the escape
 * itself is kept apart by `shield`.
 */
const ESCAPED_MARK = '\\udfff';

/** Marks as they were before a template printed them as JSON. */
export function restoreMarks(rendered: string): string {
  return rendered.replaceAll(ESCAPED_MARK, MARK);
}

/** Lone surrogates cannot be encoded as UTF-8; every encoder writes U+FFFD for them. */
export function wellFormed(text: string): string {
  return text.replace(/\p{Surrogate}/gu, '\uFFFD');
}

const escapeForRegExp = (text: string) => text.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&');

/** Leftmost, then longest, of the given strings; null for none. */
function matcherOf(contents: string[], flags: string): RegExp | null {
  if (contents.length === 0) return null;
  const longestFirst = [...contents].sort((a, b) => b.length - a.length);
  return new RegExp(longestFirst.map(escapeForRegExp).join('|'), flags);
}

/** Added tokens that are only a shorthand for ordinary text ("  ", "ing"): anyone may type them. */
const isPlainText = (token: AddedToken) =>
  !token.special && /^[\s▁\p{L}\p{N}]+$/u.test(token.content);

export class ControlTokens {
  private readonly byContent: Map<string, AddedToken>;
  private readonly anyToken: RegExp | null;
  private readonly plainText: RegExp | null;
  private readonly forUsers: Shield;
  private readonly forAuthors: Shield;

  constructor(tokens: AddedToken[]) {
    const usable = tokens.filter((token) => token.content.length > 0);
    const contents = (of: AddedToken[]) => of.map((token) => token.content);
    this.byContent = new Map(usable.map((token) => [token.content, token]));
    this.anyToken = matcherOf(contents(usable), 'g');
    this.plainText = matcherOf(contents(usable.filter(isPlainText)), 'g');
    const control = usable.filter((token) => !isPlainText(token));
    this.forUsers = new Shield(contents(control), []);
    // What the model itself writes ("<think>") and system prompts describe ("<tool_call>") keeps
    // its meaning in assistant and system turns; the special tokens that end a turn do not.
    this.forAuthors = new Shield(
      contents(control.filter((token) => token.special)),
      contents(control.filter((token) => !token.special)),
    );
  }

  has(content: string): boolean {
    return this.byContent.has(content);
  }

  /** The content with marks in it; `split` removes them again. */
  shield(content: string, role: string): string {
    const marked = (role === 'user' ? this.forUsers : this.forAuthors).apply(wellFormed(content));
    return marked.replaceAll(ESCAPED_MARK, `\\u${MARK}dfff`);
  }

  /** Rendered template text -> runs of ordinary text and added tokens; no marks remain. */
  split(rendered: string): PromptPiece[] {
    return this.splitBy(this.anyToken, rendered);
  }

  /** Text with no template around it: no control token in it, whatever it spells. */
  splitPlain(text: string): PromptPiece[] {
    return this.splitBy(this.plainText, wellFormed(text));
  }

  private splitBy(matcher: RegExp | null, text: string): PromptPiece[] {
    const pieces: PromptPiece[] = [];
    const addText = (from: number, to: number) => {
      let run = text.slice(from, to);
      const before = pieces.at(-1);
      if (before !== undefined && 'token' in before && before.token.rstrip) run = run.trimStart();
      if (run.includes(MARK)) run = run.replace(LONE_MARKS, '');
      if (run !== '') pieces.push({ text: run });
    };
    let position = 0;
    if (matcher !== null) {
      for (const match of text.matchAll(matcher)) {
        const token = this.byContent.get(match[0]);
        if (token === undefined) continue;
        addText(position, match.index);
        const before = pieces.at(-1);
        if (token.lstrip && before !== undefined && 'text' in before) {
          before.text = before.text.trimEnd();
          if (before.text === '') pieces.pop();
        }
        pieces.push({ token });
        position = match.index + match[0].length;
      }
    }
    addText(position, text.length);
    return pieces;
  }
}

/** Marks content so that none of `forbidden` can be spelled by it; `allowed` ones stay whole. */
class Shield {
  private readonly firstCharacters: RegExp | null;
  private readonly forbiddenHere: RegExp | null;
  private readonly allowedHere: RegExp | null;
  /** Proper suffixes of forbidden tokens, by first character. */
  private readonly suffixes = new Map<string, string[]>();

  constructor(forbidden: string[], allowed: string[]) {
    const first = [...new Set(forbidden.map((content) => [...content][0] ?? ''))];
    this.firstCharacters =
      first.length === 0 ? null : new RegExp(`[${first.map(escapeForRegExp).join('')}]`, 'gu');
    this.forbiddenHere = matcherOf(forbidden, 'y');
    this.allowedHere = matcherOf(allowed, 'y');
    const seen = new Set<string>();
    for (const content of forbidden) {
      const firstLength = [...content][0]?.length ?? 1;
      for (let start = firstLength; start < content.length; start++) {
        const suffix = content.slice(start);
        if (seen.has(suffix)) continue;
        seen.add(suffix);
        const list = this.suffixes.get(suffix.charAt(0));
        if (list === undefined) this.suffixes.set(suffix.charAt(0), [suffix]);
        else list.push(suffix);
      }
    }
  }

  apply(content: string): string {
    if (this.firstCharacters === null) return content;
    const marked = content.replace(this.firstCharacters, (character, offset: number) =>
      this.isAllowedAt(content, offset) ? character : character + MARK,
    );
    return this.markStart(marked);
  }

  private isAllowedAt(content: string, offset: number): boolean {
    if (this.allowedHere === null || this.forbiddenHere === null) return false;
    this.allowedHere.lastIndex = offset;
    if (!this.allowedHere.test(content)) return false;
    this.forbiddenHere.lastIndex = offset;
    return !this.forbiddenHere.test(content);
  }

  /** Content may also go on with what template text began: "<|" + "im_end|>". */
  private markStart(content: string): string {
    const start = content.search(/\S/);
    if (start < 0) return content;
    const candidates = this.suffixes.get(content.charAt(start));
    if (candidates === undefined) return content;
    const left = content.length - start;
    const continues = candidates.some(
      (suffix) =>
        content.startsWith(suffix, start) ||
        (left < suffix.length && suffix.startsWith(content.slice(start).trimEnd())),
    );
    return continues ? content.slice(0, start) + MARK + content.slice(start) : content;
  }
}
