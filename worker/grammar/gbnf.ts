/**
 * Rules under construction, and their GBNF text.
 *
 * Always holds for the text: every rule in it is reachable from `root` and matches something, every
 * rule that is named is defined. Rules that nothing can match (a list without an end) are left out
 * with the alternatives that need them. Filled by json-schema.ts and its like, and by tools.
 */
import type { CodePoints } from './code-points.js';
import { NEVER, alternatives, isNever, repeat, rule, sequence } from './expression.js';
import type { Expression } from './expression.js';
import { unsupported, type Place } from './faults.js';
import type { Work } from './work.js';

/** What the native compiler takes. */
const MAX_LENGTH = 1 << 20;

export class Grammar {
  private readonly rules = new Map<string, Expression>();
  private readonly taken = new Set(['root']);

  constructor(private readonly work: Work) {}

  /** A name for one rule that no other has: letters, digits and dashes. */
  fresh(stem: string): string {
    const letters = stem.replace(/[^a-zA-Z0-9]+/g, '-').replace(/^[-0-9]+|-+$/g, '');
    const base = letters.slice(0, 32) || 'rule';
    let name = base;
    for (let count = 2; this.taken.has(name); count++) name = `${base}-${count}`;
    this.taken.add(name);
    return name;
  }

  define(name: string, expression: Expression): Expression {
    this.rules.set(name, expression);
    return rule(name);
  }

  /** The text of all that `root` needs, or null where nothing can match it. */
  text(root: Expression, place: Place): string | null {
    const productive = this.productive(place);
    const expression = (name: string) => (productive.has(name) ? this.resolved(name) : NEVER);
    const start = substituted(root, expression);
    if (isNever(start)) return null;
    const lines = [`root ::= ${written(start, 'rule')}`];
    const named = namesIn(start);
    for (const name of named) {
      const body = substituted(this.rules.get(name)!, expression);
      namesIn(body, named);
      lines.push(`${name} ::= ${written(body, 'rule')}`);
      this.work.spend(10, place);
    }
    const text = `${lines.join('\n')}\n`;
    if (text.length > MAX_LENGTH) {
      throw unsupported(place, `makes a grammar of ${text.length} characters, too large to use.`);
    }
    return text;
  }

  /** What stands for a rule: itself, or the short thing that it is. */
  private resolved(name: string): Expression {
    const seen = new Set<string>();
    for (let at = name; !seen.has(at);) {
      seen.add(at);
      const body = this.rules.get(at)!;
      if (body.kind === 'text' || body.kind === 'set') return body;
      if (body.kind !== 'rule') return rule(at);
      at = body.name;
    }
    return rule(name);
  }

  /** Names of rules that match some finite text: what needs only such ones is one too. */
  private productive(place: Place): Set<string> {
    const productive = new Set<string>();
    const waiting = new Map<string, string[]>();
    const queue = [...this.rules.keys()];
    for (const name of queue) {
      if (productive.has(name)) continue;
      this.work.spend(10, place);
      const expression = this.rules.get(name)!;
      if (matchesSome(expression, productive)) {
        productive.add(name);
        queue.push(...(waiting.get(name) ?? []));
      } else {
        for (const needed of namesIn(expression)) {
          if (!productive.has(needed)) waiting.set(needed, [...(waiting.get(needed) ?? []), name]);
        }
      }
    }
    return productive;
  }
}

function matchesSome(expression: Expression, productive: Set<string>): boolean {
  switch (expression.kind) {
    case 'text':
    case 'set':
      return true;
    case 'sequence':
      return expression.items.every((item) => matchesSome(item, productive));
    case 'alternatives':
      return expression.options.some((option) => matchesSome(option, productive));
    case 'repeat':
      return expression.min === 0 || matchesSome(expression.item, productive);
    case 'rule':
      return productive.has(expression.name);
  }
}

/** Made again, with `of` in the place of every rule's name. */
function substituted(expression: Expression, of: (name: string) => Expression): Expression {
  switch (expression.kind) {
    case 'text':
    case 'set':
      return expression;
    case 'sequence':
      return sequence(...expression.items.map((item) => substituted(item, of)));
    case 'alternatives':
      return alternatives(...expression.options.map((option) => substituted(option, of)));
    case 'repeat':
      return repeat(substituted(expression.item, of), expression.min, expression.max);
    case 'rule':
      return of(expression.name);
  }
}

function namesIn(expression: Expression, names = new Set<string>()): Set<string> {
  switch (expression.kind) {
    case 'text':
    case 'set':
      break;
    case 'sequence':
      for (const item of expression.items) namesIn(item, names);
      break;
    case 'alternatives':
      for (const option of expression.options) namesIn(option, names);
      break;
    case 'repeat':
      namesIn(expression.item, names);
      break;
    case 'rule':
      names.add(expression.name);
      break;
  }
  return names;
}

/** `within`: what stands around decides about parentheses. */
function written(expression: Expression, within: 'rule' | 'sequence' | 'repeat'): string {
  switch (expression.kind) {
    case 'text': {
      const { text } = expression;
      const isOne = [...text].length === 1;
      return within === 'repeat' && !isOne && text !== '' ? `(${quoted(text)})` : quoted(text);
    }
    case 'set':
      return characterClass(expression.set);
    case 'sequence': {
      const items = expression.items.map((item) => written(item, 'sequence')).join(' ');
      return within === 'repeat' ? `(${items})` : items;
    }
    case 'alternatives': {
      const options = expression.options.map((option) => written(option, 'rule')).join(' | ');
      return within === 'rule' ? options : `(${options})`;
    }
    case 'repeat':
      return `${written(expression.item, 'repeat')}${count(expression.min, expression.max)}`;
    case 'rule':
      return expression.name;
  }
}

function count(min: number, max: number): string {
  if (max === Infinity) return min === 0 ? '*' : min === 1 ? '+' : `{${min},}`;
  if (min === 0 && max === 1) return '?';
  return min === max ? `{${min}}` : `{${min},${max}}`;
}

function quoted(text: string): string {
  return `"${[...text].map((char) => escaped(char.codePointAt(0)!, '"\\')).join('')}"`;
}

function characterClass(set: CodePoints): string {
  const inverse = set.complement();
  const [negation, shorter] =
    inverse.ranges.length < set.ranges.length ? ['^', inverse] : ['', set];
  if (shorter.ranges.length === 0) return '.';
  const parts = shorter.ranges.map(([first, last]) => {
    const [from, to] = [escaped(first, '\\]^-['), escaped(last, '\\]^-[')];
    return first === last ? from : `${from}-${to}`;
  });
  return `[${negation}${parts.join('')}]`;
}

function escaped(codePoint: number, special: string): string {
  const char = String.fromCodePoint(codePoint);
  if (char === '\n') return '\\n';
  if (char === '\r') return '\\r';
  if (char === '\t') return '\\t';
  if (special.includes(char)) {
    return char === '\\' || char === '"' || char === ']' ? `\\${char}` : hex(codePoint);
  }
  return codePoint >= 0x20 && codePoint <= 0x7e ? char : hex(codePoint);
}

function hex(codePoint: number): string {
  const digits = codePoint.toString(16);
  if (codePoint < 0x100) return `\\x${digits.padStart(2, '0')}`;
  if (codePoint < 0x10000) return `\\u${digits.padStart(4, '0')}`;
  return `\\U${digits.padStart(8, '0')}`;
}
