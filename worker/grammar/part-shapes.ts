/**
 * What the keywords of some Parts, taken together, ask of values of one type.
 *
 * All Parts are objects, and each is read by its own keywords alone (in-place.ts has multiplied out the
 * rest). Used by shapes.ts, and by value-match.ts one Part at a time.
 */
import { unsupported, type Place } from './faults.js';
import { HINT_FORMATS, NUMBER_FORMATS, PATTERNED_FORMATS, STRING_FORMATS } from './formats.js';
import type { NumberShape } from './number-rules.js';
import type { Part, SchemaDocument, SchemaObject } from './schema-document.js';
import { anyString, type StringShape } from './string-rules.js';

const ALL_TYPES = ['null', 'boolean', 'number', 'string', 'array', 'object'] as const;
export type TypeName = (typeof ALL_TYPES)[number];

/** The place of the first of these keywords that stands in any part; else of the parts. */
export function placeOf(parts: Part[], ...keywords: string[]): Place {
  for (const keyword of keywords) {
    const part = parts.find(({ schema }) => Object.hasOwn(schema as SchemaObject, keyword));
    if (part !== undefined) return { keyword, pointer: part.pointer };
  }
  return { keyword: keywords[0] ?? 'schema', pointer: parts[0]?.pointer ?? '#' };
}

/** The subschemas of one part's first items and of the rest, as draft 2020-12 or 7 says it. */
export function itemParts(part: Part, document: SchemaDocument): { first: Part[]; rest: Part[] } {
  const { prefixItems, items, additionalItems } = part.schema as Record<string, unknown>;
  const list = (keyword: string, length: number) =>
    Array.from({ length }, (_, i) => document.child(part, keyword, i));
  if (Array.isArray(items)) {
    const rest = additionalItems === undefined ? [] : [document.child(part, 'additionalItems')];
    return { first: list('items', items.length), rest };
  }
  const first = Array.isArray(prefixItems) ? list('prefixItems', prefixItems.length) : [];
  return { first, rest: items === undefined ? [] : [document.child(part, 'items')] };
}

/** What `type` (and OpenAPI's `nullable`) leaves; an integer counts as a number. */
export function typesOf(parts: Part[]): Set<TypeName> {
  const types = new Set<TypeName>(ALL_TYPES);
  for (const { schema } of parts) {
    const { type, nullable } = schema as SchemaObject;
    if (type === undefined) continue;
    const names = new Set(Array.isArray(type) ? type : [type]);
    if (names.has('integer')) names.add('number');
    if (nullable === true) names.add('null');
    for (const name of ALL_TYPES) if (!names.has(name)) types.delete(name);
  }
  return types;
}

/** Whether `type` asks a number to be whole. */
function isInteger({ schema }: Part): boolean {
  const { type } = schema as SchemaObject;
  const names = Array.isArray(type) ? type : [type];
  return names.includes('integer') && !names.includes('number');
}

export function numberShape(parts: Part[]): NumberShape {
  const place = placeOf(parts, 'multipleOf', 'minimum', 'maximum', 'exclusiveMinimum', 'format');
  const shape: NumberShape = {
    ...{ integer: parts.some(isInteger), min: -Infinity, max: Infinity, multiplesOf: [], place },
  };
  const atLeast = (min: number) => (shape.min = Math.max(shape.min, min));
  const atMost = (max: number) => (shape.max = Math.min(shape.max, max));
  for (const part of parts) {
    const schema = part.schema as Record<string, number | boolean | undefined>;
    const { minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf } = schema;
    if (typeof minimum === 'number') {
      // Draft 4 has it as a mark on the bound itself.
      atLeast(exclusiveMinimum === true ? next(minimum, 1) : minimum);
    }
    if (typeof maximum === 'number') {
      atMost(exclusiveMaximum === true ? next(maximum, -1) : maximum);
    }
    if (typeof exclusiveMinimum === 'number') atLeast(next(exclusiveMinimum, 1));
    if (typeof exclusiveMaximum === 'number') atMost(next(exclusiveMaximum, -1));
    if (typeof multipleOf === 'number' && !shape.multiplesOf.includes(multipleOf)) {
      shape.multiplesOf.push(multipleOf);
    }
    const format = formatOf(part, 'number');
    if (format !== undefined) {
      const [min, max] = NUMBER_FORMATS[format]!;
      atLeast(min);
      atMost(max);
    }
  }
  return shape;
}

/** The nearest double above (below). */
function next(value: number, direction: 1 | -1): number {
  if (value === 0) return direction * Number.MIN_VALUE;
  const bits = new BigInt64Array(1);
  const double = new Float64Array(bits.buffer);
  double[0] = value;
  bits[0]! += value > 0 === direction > 0 ? 1n : -1n;
  return double[0];
}

export function stringShape(parts: Part[]): StringShape {
  const shape = anyString(placeOf(parts, 'pattern', 'format', 'minLength', 'maxLength'));
  const unique = (texts: string[], more: string) => {
    if (!texts.includes(more)) texts.push(more);
  };
  for (const part of parts) {
    const { minLength, maxLength, pattern } = part.schema as SchemaObject;
    shape.min = Math.max(shape.min, (minLength as number | undefined) ?? 0);
    shape.max = Math.min(shape.max, (maxLength as number | undefined) ?? Infinity);
    if (pattern !== undefined) unique(shape.patterns, pattern as string);
    const format = formatOf(part, 'string');
    if (format !== undefined) unique(shape.formats, format);
  }
  const patterned = parts.find(({ schema }) =>
    PATTERNED_FORMATS.has(String((schema as SchemaObject).format)),
  );
  if (patterned !== undefined && shape.patterns.length === 0) {
    const { format } = patterned.schema as SchemaObject;
    const place = { keyword: 'format', pointer: patterned.pointer };
    throw unsupported(place, `is ${JSON.stringify(format)}, which needs a pattern beside it.`);
  }
  return shape;
}

/** The part's format if it speaks of this type. Throws for one that is not known. */
function formatOf({ schema, pointer }: Part, type: 'string' | 'number'): string | undefined {
  const { format } = schema as { format?: string };
  if (format === undefined || PATTERNED_FORMATS.has(format)) return undefined;
  if (HINT_FORMATS.has(format)) return undefined;
  if (Object.hasOwn(STRING_FORMATS, format)) return type === 'string' ? format : undefined;
  if (Object.hasOwn(NUMBER_FORMATS, format)) return type === 'number' ? format : undefined;
  throw unsupported({ keyword: 'format', pointer }, `${JSON.stringify(format)} is not known.`);
}
