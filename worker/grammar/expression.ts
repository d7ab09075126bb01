/**
 * The right side of a grammar rule, before it is text.
 *
 * The makers simplify as they go, so that an expression without alternatives (`NEVER`) makes every
 * sequence it is part of one too. Written out by gbnf.ts; made everywhere in worker/grammar/.
 */
import type { CodePoints } from './code-points.js';

export type Expression =
  | { kind: 'text'; text: string }
  | { kind: 'set'; set: CodePoints }
  | { kind: 'sequence'; items: Expression[] }
  /** None = nothing matches. */
  | { kind: 'alternatives'; options: Expression[] }
  | { kind: 'repeat'; item: Expression; min: number; max: number }
  | { kind: 'rule'; name: string };

export const NEVER: Expression = { kind: 'alternatives', options: [] };
/** Matches the empty text. */
export const NOTHING: Expression = { kind: 'text', text: '' };

export const isNever = (it: Expression): boolean =>
  it.kind === 'alternatives' && it.options.length === 0;
const isNothing = (it: Expression): boolean => it.kind === 'text' && it.text === '';

export function text(value: string): Expression {
  return { kind: 'text', text: value };
}

export function set(value: CodePoints): Expression {
  if (value.isEmpty) return NEVER;
  return value.only === null ? { kind: 'set', set: value } : text(String.fromCodePoint(value.only));
}

export function rule(name: string): Expression {
  return { kind: 'rule', name };
}

export function sequence(...parts: Expression[]): Expression {
  const items: Expression[] = [];
  for (const part of parts) {
    if (isNever(part)) return NEVER;
    for (const item of part.kind === 'sequence' ? part.items : [part]) {
      const last = items.at(-1);
      if (isNothing(item)) continue;
      if (item.kind === 'text' && last?.kind === 'text') {
        items[items.length - 1] = text(last.text + item.text);
      } else {
        items.push(item);
      }
    }
  }
  if (items.length === 0) return NOTHING;
  return items.length === 1 ? items[0]! : { kind: 'sequence', items };
}

export function alternatives(...parts: Expression[]): Expression {
  const options = parts.flatMap((part) => (part.kind === 'alternatives' ? part.options : [part]));
  return options.length === 1 ? options[0]! : { kind: 'alternatives', options };
}

export function repeat(item: Expression, min: number, max: number): Expression {
  if (max < min) return NEVER;
  if (isNever(item)) return min === 0 ? NOTHING : NEVER;
  if (max === 0 || isNothing(item)) return NOTHING;
  return min === 1 && max === 1 ? item : { kind: 'repeat', item, min, max };
}

export function optional(item: Expression): Expression {
  return repeat(item, 0, 1);
}
