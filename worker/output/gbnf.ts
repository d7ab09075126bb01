/**
 * Pieces of grammar text: literals, a grammar inside another, text up to a marker.
 *
 * The dialect is native/grammar/gbnf_parser.h's. Used by answer-grammar.ts.
 */

/** A literal of exactly this text. */
export function literal(text: string): string {
  const escaped = text.replace(/["\\]|\p{Cc}/gu, (character) => {
    const named = { '"': '\\"', '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t' }[character];
    return named ?? `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`;
  });
  return `"${escaped}"`;
}

/** Literals, character classes, tokens and comments, in none of which a name is a rule's. */
const NOT_NAMES = String.raw`"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|<\[[0-9]+\]>|#[^\n]*|\{[^}]*\}`;
const NAME = '[A-Za-z0-9_-]+';

/** The same grammar with every rule renamed, so that it can stand beside others: `root` is `${prefix}root`. */
export function embedded(grammar: string, prefix: string): string {
  return grammar.replace(new RegExp(`${NOT_NAMES}|(${NAME})`, 'g'), (piece, name?: string) =>
    name === undefined ? piece : prefix + name,
  );
}

/**
 * Rules for any text with `marker` at its first appearance, then `then`; with `mayEnd` also for text
 * without it. Rule `${name}0` is the whole. One rule for each length of the marker that the text may
 * have just ended with (Knuth, Morris and Pratt's automaton).
 */
export function textUntil(marker: string, name: string, then: string, mayEnd: boolean): string[] {
  const letters = [...marker];
  const alphabet = [...new Set(letters)];
  return letters.map((_, matched) => {
    const branches: string[] = [];
    const continuing: string[] = [];
    for (const letter of alphabet) {
      const next = matchedAfter(letters, matched, letter);
      if (next === 0) continue;
      continuing.push(letter);
      branches.push(`${literal(letter)} ${next === letters.length ? then : name + next}`);
    }
    branches.push(`[^${continuing.map(inClass).join('')}] ${name}0`);
    const rule = branches.join(' | ');
    return `${name}${matched} ::= ${mayEnd ? `( ${rule} )?` : rule}`;
  });
}

/** How much of the marker the text ends with, when `letter` follows `matched` letters of it. */
function matchedAfter(letters: string[], matched: number, letter: string): number {
  const seen = [...letters.slice(0, matched), letter];
  for (let length = seen.length; length > 0; length--) {
    const tail = seen.slice(seen.length - length);
    if (tail.every((one, i) => one === letters[i])) return length;
  }
  return 0;
}

function inClass(letter: string): string {
  if (letter === '\\' || letter === ']') return `\\${letter}`;
  return /[[^-]/.test(letter) ? `\\x${letter.charCodeAt(0).toString(16)}` : letter;
}
