/**
 * Whether one value fulfils a Node: what decides which of an enum's values are left.
 *
 * The same keywords as in shapes.ts, asked of a value instead of merged. Patterns are asked of their
 * automata: JavaScript's own engine could be kept busy for ever. Called by shapes.ts and object-shape.ts.
 */
import type { InPlace } from './in-place.js';
import type { NumberRules } from './number-rules.js';
import { itemParts, numberShape, stringShape, typesOf, type TypeName } from './part-shapes.js';
import { keysOf, nodeOf, type Node, type Part, type SchemaDocument } from './schema-document.js';
import type { SchemaObject } from './schema-document.js';
import { anyString, type StringRules } from './string-rules.js';
import type { Work } from './work.js';

export class ValueMatch {
  constructor(
    private readonly document: SchemaDocument,
    private readonly inPlace: InPlace,
    private readonly strings: StringRules,
    private readonly numbers: NumberRules,
    private readonly work: Work,
    /** See StringRules.isEmpty. */
    private readonly wide: boolean,
  ) {}

  async fulfils(node: Node, value: unknown): Promise<boolean> {
    for (const parts of this.inPlace.alternatives(node)) {
      if (await this.fulfilsAll(parts, value)) return true;
    }
    return false;
  }

  /** Each by its own keywords alone, as one of in-place.ts's alternatives. */
  async fulfilsAll(parts: Part[], value: unknown): Promise<boolean> {
    for (const part of parts) if (!(await this.fulfilsOne(part, value))) return false;
    return true;
  }

  /** The subschemas of one part that speak of a property of this name. */
  async propertyParts(part: Part, name: string): Promise<Part[]> {
    const found: Part[] = [];
    if (keysOf(part, 'properties').includes(name)) {
      found.push(this.document.child(part, 'properties', name));
    }
    for (const pattern of keysOf(part, 'patternProperties')) {
      const place = { keyword: 'patternProperties', pointer: part.pointer };
      const shape = { ...anyString(place), patterns: [pattern] };
      if (!(await this.strings.matches(shape, name))) continue;
      found.push(this.document.child(part, 'patternProperties', pattern));
    }
    const says = Object.hasOwn(part.schema as SchemaObject, 'additionalProperties');
    if (found.length === 0 && says) found.push(this.document.child(part, 'additionalProperties'));
    return found;
  }

  private async fulfilsOne(part: Part, value: unknown): Promise<boolean> {
    this.work.spend(10, { keyword: 'enum', pointer: part.pointer });
    await this.work.turn();
    const schema = part.schema as SchemaObject;
    if (!typesOf([part]).has(typeName(value))) return false;
    if (schema.const !== undefined && !isEqual(schema.const, value)) return false;
    const { enum: list } = schema as { enum?: unknown[] };
    if (list !== undefined && !list.some((each) => isEqual(each, value))) return false;
    if (typeof value === 'number') return this.numbers.matches(numberShape([part]), value);
    if (typeof value === 'string') return this.isText(part, value);
    if (Array.isArray(value)) return this.isArray(part, value);
    if (typeof value === 'object' && value !== null) return this.isObject(part, value);
    return true;
  }

  private isText(part: Part, value: string): Promise<boolean> {
    return this.strings.matches(stringShape([part]), value, this.wide);
  }

  private async isArray(part: Part, value: unknown[]): Promise<boolean> {
    const { minItems, maxItems, uniqueItems } = part.schema as Record<string, number | boolean>;
    if (value.length < ((minItems as number) ?? 0)) return false;
    if (value.length > ((maxItems as number) ?? Infinity)) return false;
    const isRepeated = value.some((each, i) => value.slice(0, i).some((it) => isEqual(it, each)));
    if (uniqueItems === true && isRepeated) return false;
    const { first, rest } = itemParts(part, this.document);
    for (const [i, item] of value.entries()) {
      const speaking = first[i] === undefined ? rest : [first[i]];
      if (!(await this.fulfils(nodeOf(speaking), item))) return false;
    }
    return true;
  }

  private async isObject(part: Part, value: object): Promise<boolean> {
    const schema = part.schema as SchemaObject;
    const { minProperties, maxProperties } = schema as Record<string, number | undefined>;
    const entries = Object.entries(value);
    if (entries.length < (minProperties ?? 0)) return false;
    if (entries.length > (maxProperties ?? Infinity)) return false;
    const required = (schema.required ?? []) as string[];
    if (!required.every((name) => Object.hasOwn(value, name))) return false;
    for (const [name, item] of entries) {
      if (schema.propertyNames !== undefined) {
        const names = nodeOf([this.document.child(part, 'propertyNames')]);
        if (!(await this.fulfils(names, name))) return false;
      }
      const speaking = await this.propertyParts(part, name);
      if (!(await this.fulfils(nodeOf(speaking), item))) return false;
    }
    return true;
  }
}

function typeName(value: unknown): TypeName {
  if (value === null) return 'null';
  return Array.isArray(value) ? 'array' : (typeof value as TypeName);
}

/** Equal as JSON values: the order of properties does not count. */
function isEqual(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const keys = Object.keys(a);
  return (
    keys.length === Object.keys(b).length &&
    keys.every(
      (key) =>
        Object.hasOwn(b, key) &&
        isEqual((a as Record<string, unknown>)[key], (b as Record<string, unknown>)[key]),
    )
  );
}
