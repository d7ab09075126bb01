/**
 * An ECMAScript pattern (flag `u`) -> a tree of sets, sequences, alternatives, repeats and looks.
 *
 * JavaScript's own engine has accepted the pattern before it is read here, so only what it may
 * contain is told apart, not what it may not. What no finite automaton can do (backreferences) is
 * refused. Called by regex-program.ts.
 */
import { CodePoints, type Range } from './code-points.js';
import { invalid, unsupported, type Place } from './faults.js';
import { DIGITS, LINE_ENDS, SPACES, WORDS, propertySet } from './regex-sets.js';

export type RegexNode =
  | { kind: 'set'; set: CodePoints }
  | { kind: 'sequence'; items: RegexNode[] }
  | { kind: 'alternatives'; options: RegexNode[] }
  | { kind: 'repeat'; item: RegexNode; min: number; max: number }
  | { kind: 'look'; ahead: boolean; negated: boolean; body: RegexNode };

const ANY: RegexNode = { kind: 'set', set: CodePoints.all };
/** Nothing lies before, nothing lies behind. */
const BEGIN: RegexNode = { kind: 'look', ahead: false, negated: true, body: ANY };
const END: RegexNode = { kind: 'look', ahead: true, negated: true, body: ANY };

/** Patterns nest at most so deep. */
const MAX_DEPTH = 100;

export function parseRegex(pattern: string, place: Place): RegexNode {
  try {
    new RegExp(pattern, 'u');
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw invalid(place, `is no ECMAScript pattern: ${reason}.`);
  }
  return new RegexParser(pattern, place).parse();
}

class RegexParser {
  private readonly chars: string[];
  private at = 0;
  private depth = 0;

  constructor(
    pattern: string,
    private readonly place: Place,
  ) {
    this.chars = [...pattern];
  }

  parse(): RegexNode {
    return this.disjunction();
  }

  private get char(): string {
    return this.chars[this.at] ?? '';
  }

  private take(text: string): boolean {
    if (this.chars.slice(this.at, this.at + text.length).join('') !== text) return false;
    this.at += text.length;
    return true;
  }

  private disjunction(): RegexNode {
    if (++this.depth > MAX_DEPTH) throw unsupported(this.place, 'nests too deeply.');
    const options = [this.alternative()];
    while (this.take('|')) options.push(this.alternative());
    this.depth--;
    return options.length === 1 ? options[0]! : { kind: 'alternatives', options };
  }

  private alternative(): RegexNode {
    const items: RegexNode[] = [];
    while (this.at < this.chars.length && this.char !== '|' && this.char !== ')') {
      items.push(this.quantified(this.term()));
    }
    return items.length === 1 ? items[0]! : { kind: 'sequence', items };
  }

  private term(): RegexNode {
    const char = this.chars[this.at++]!;
    switch (char) {
      case '^':
        return BEGIN;
      case '$':
        return END;
      case '.':
        return { kind: 'set', set: LINE_ENDS.complement() };
      case '[':
        return { kind: 'set', set: this.characterClass() };
      case '(':
        return this.group();
      case '\\':
        if (this.take('b')) return wordBoundary(false);
        if (this.take('B')) return wordBoundary(true);
        if (/[1-9k]/.test(this.char)) {
          throw unsupported(this.place, 'has a backreference, which no grammar can follow.');
        }
        return { kind: 'set', set: asSet(this.escape()) };
      default:
        return { kind: 'set', set: CodePoints.ofText(char) };
    }
  }

  private group(): RegexNode {
    const look = this.lookStart();
    if (look === null && this.take('?') && !this.take(':')) {
      if (!this.take('<')) throw unsupported(this.place, 'has a group with flags of its own.');
      while (!this.take('>')) this.at++;
    }
    const body = this.disjunction();
    this.at++; // )
    return look === null ? body : { kind: 'look', ...look, body };
  }

  private lookStart(): { ahead: boolean; negated: boolean } | null {
    if (this.take('?=')) return { ahead: true, negated: false };
    if (this.take('?!')) return { ahead: true, negated: true };
    if (this.take('?<=')) return { ahead: false, negated: false };
    if (this.take('?<!')) return { ahead: false, negated: true };
    return null;
  }

  /** Greedy or lazy: the same language. */
  private quantified(item: RegexNode): RegexNode {
    const counts = this.counts();
    if (counts === null) return item;
    this.take('?');
    return { kind: 'repeat', item, ...counts };
  }

  private counts(): { min: number; max: number } | null {
    if (this.take('*')) return { min: 0, max: Infinity };
    if (this.take('+')) return { min: 1, max: Infinity };
    if (this.take('?')) return { min: 0, max: 1 };
    if (!this.take('{')) return null;
    const min = this.number();
    const max = this.take(',') ? (this.char === '}' ? Infinity : this.number()) : min;
    this.at++; // }
    return { min, max };
  }

  private number(): number {
    let digits = '';
    while (/[0-9]/.test(this.char)) digits += this.chars[this.at++];
    return Number(digits);
  }

  private characterClass(): CodePoints {
    const negated = this.take('^');
    const ranges: Range[] = [];
    while (!this.take(']')) {
      const first = this.classAtom();
      const isRange = this.char === '-' && this.chars[this.at + 1] !== ']';
      if (typeof first !== 'number') {
        ranges.push(...first.ranges);
      } else if (isRange) {
        this.at++; // -
        ranges.push([first, this.classAtom() as number]);
      } else {
        ranges.push([first, first]);
      }
    }
    const set = CodePoints.of(ranges);
    return negated ? set.complement() : set;
  }

  private classAtom(): number | CodePoints {
    const char = this.chars[this.at++]!;
    if (char !== '\\') return char.codePointAt(0)!;
    return this.take('b') ? 8 : this.escape();
  }

  /** What follows a backslash: one character (a lone surrogate perhaps) or a class. */
  private escape(): number | CodePoints {
    const char = this.chars[this.at++]!;
    switch (char) {
      case 'd':
        return DIGITS;
      case 'D':
        return DIGITS.complement();
      case 's':
        return SPACES;
      case 'S':
        return SPACES.complement();
      case 'w':
        return WORDS;
      case 'W':
        return WORDS.complement();
      case 'p':
      case 'P':
        return this.property(char === 'P');
      case 'c':
        return this.chars[this.at++]!.codePointAt(0)! % 32;
      case 'x':
        return this.hex(2);
      case 'u':
        return this.unicodeEscape();
      default:
        return (CONTROLS[char] ?? char).codePointAt(0)!;
    }
  }

  private property(negated: boolean): CodePoints {
    const end = this.chars.indexOf('}', this.at);
    const name = this.chars.slice(this.at + 1, end).join('');
    this.at = end + 1;
    const set = propertySet(name);
    return negated ? set.complement() : set;
  }

  private unicodeEscape(): number {
    if (this.take('{')) {
      const end = this.chars.indexOf('}', this.at);
      const value = parseInt(this.chars.slice(this.at, end).join(''), 16);
      this.at = end + 1;
      return value;
    }
    const lead = this.hex(4);
    if (lead < 0xd800 || lead > 0xdbff || this.chars[this.at] !== '\\') return lead;
    const before = this.at;
    if (this.take('\\u') && this.char !== '{') {
      const trail = this.hex(4);
      if (trail >= 0xdc00 && trail <= 0xdfff) {
        return 0x10000 + ((lead - 0xd800) << 10) + (trail - 0xdc00);
      }
    }
    this.at = before;
    return lead;
  }

  private hex(length: number): number {
    const digits = this.chars.slice(this.at, this.at + length).join('');
    this.at += length;
    return parseInt(digits, 16);
  }
}

const CONTROLS: Record<string, string> = {
  ...{ f: '\f', n: '\n', r: '\r', t: '\t', v: '\v', '0': '\0' },
};

function asSet(value: number | CodePoints): CodePoints {
  return typeof value === 'number' ? CodePoints.single(value) : value;
}

/** A word character on exactly one side; `negated`: on both or on neither. */
function wordBoundary(negated: boolean): RegexNode {
  const body: RegexNode = { kind: 'set', set: WORDS };
  const sides = (before: boolean, after: boolean): RegexNode => ({
    kind: 'sequence',
    items: [
      { kind: 'look', ahead: false, negated: !before, body },
      { kind: 'look', ahead: true, negated: !after, body },
    ],
  });
  return {
    kind: 'alternatives',
    options: [sides(true, negated), sides(false, !negated)],
  };
}
