/**
 * One JSON Schema: its parts by place, and what its references mean.
 *
 * A Part is a subschema and the JSON pointer it stands at; equal pointers are the same Part. A Node is
 * the conjunction of some Parts (what a value must be that several subschemas speak of); none = any
 * value. Throws for references that lead nowhere or outside, and for schemas nested too deeply.
 */
import { invalid, unsupported } from './faults.js';

export type SchemaObject = Record<string, unknown>;

export interface Part {
  id: number;
  schema: SchemaObject | boolean;
  pointer: string;
}

export interface Node {
  /** Equal for equal conjunctions. */
  key: string;
  parts: Part[];
}

const MAX_DEPTH = 200;

export class SchemaDocument {
  readonly root: Part;
  private readonly parts = new Map<string, Part>();
  private anchors: Map<string, string> | undefined;

  /** `place`: what pointers in errors begin with, before their #. */
  constructor(
    private readonly schema: unknown,
    private readonly place = '',
  ) {
    checkDepth(schema, place);
    this.root = this.part(schema, `${place}#`);
  }

  /** The subschema under a keyword (and an index or name) of a part. */
  child(of: Part, ...path: (string | number)[]): Part {
    let value: unknown = of.schema;
    let pointer = of.pointer;
    for (const step of path) {
      value = (value as Record<string, unknown>)[step];
      pointer += `/${String(step).replaceAll('~', '~0').replaceAll('/', '~1')}`;
    }
    return this.part(value, pointer);
  }

  /** A part that stands nowhere: what a keyword of `of` comes down to. */
  derived(of: Part, name: string, schema: SchemaObject | boolean): Part {
    return this.part(schema, `${of.pointer}(${name})`);
  }

  target(of: Part, reference: unknown): Part {
    const place = { keyword: '$ref', pointer: of.pointer };
    if (typeof reference !== 'string') throw invalid(place, 'is no text.');
    const { $id } = (typeof this.schema === 'object' ? this.schema : {}) as { $id?: unknown };
    const local =
      typeof $id === 'string' && reference.startsWith(`${$id.replace(/#$/, '')}#`)
        ? reference.slice(reference.indexOf('#'))
        : reference;
    if (local !== '' && !local.startsWith('#')) {
      throw unsupported(place, `leads outside of the schema: ${JSON.stringify(reference)}.`);
    }
    const fragment = decoded(local.slice(1));
    const pointer = fragment === '' || fragment.startsWith('/') ? fragment : this.anchor(fragment);
    if (pointer === undefined) {
      throw invalid(place, `leads nowhere: ${JSON.stringify(reference)}.`);
    }
    let value: unknown = this.schema;
    for (const step of pointer.split('/').slice(1)) {
      const name = step.replaceAll('~1', '/').replaceAll('~0', '~');
      const isThere = typeof value === 'object' && value !== null && Object.hasOwn(value, name);
      if (!isThere) throw invalid(place, `leads nowhere: ${JSON.stringify(reference)}.`);
      value = (value as Record<string, unknown>)[name];
    }
    return this.part(value, `${this.place}#${pointer}`);
  }

  private part(schema: unknown, pointer: string): Part {
    const known = this.parts.get(pointer);
    if (known !== undefined) return known;
    const isSchema =
      typeof schema === 'boolean' ||
      (typeof schema === 'object' && schema !== null && !Array.isArray(schema));
    if (!isSchema) {
      throw invalid({ keyword: 'schema', pointer }, 'must be an object, true or false.');
    }
    const part = { id: this.parts.size, schema: schema as SchemaObject | boolean, pointer };
    this.parts.set(pointer, part);
    return part;
  }

  private anchor(name: string): string | undefined {
    if (this.anchors === undefined) {
      this.anchors = new Map();
      for (const { value, pointer } of everyObject(this.schema)) {
        if (typeof value.$anchor === 'string') this.anchors.set(value.$anchor, pointer);
      }
    }
    return this.anchors.get(name);
  }
}

export function nodeOf(parts: Iterable<Part>): Node {
  const unique = new Map<number, Part>();
  for (const part of parts) if (!isAnything(part.schema)) unique.set(part.id, part);
  const key = [...unique.keys()].sort((a, b) => a - b).join();
  return { key, parts: [...unique.values()] };
}

function isAnything(schema: Part['schema']): boolean {
  return schema === true || (schema !== false && Object.keys(schema).length === 0);
}

/** The names under a keyword that holds an object. */
export function keysOf({ schema }: Part, keyword: string): string[] {
  return Object.keys(((schema as SchemaObject)[keyword] ?? {}) as object);
}

function decoded(fragment: string): string {
  try {
    return decodeURIComponent(fragment);
  } catch {
    return fragment;
  }
}

function* everyObject(root: unknown): Generator<{ value: SchemaObject; pointer: string }> {
  const stack = [{ value: root, pointer: '' }];
  for (let at = stack.pop(); at !== undefined; at = stack.pop()) {
    if (typeof at.value !== 'object' || at.value === null) continue;
    if (!Array.isArray(at.value)) yield { value: at.value as SchemaObject, pointer: at.pointer };
    for (const [name, value] of Object.entries(at.value)) {
      const step = name.replaceAll('~', '~0').replaceAll('/', '~1');
      stack.push({ value, pointer: `${at.pointer}/${step}` });
    }
  }
}

function checkDepth(schema: unknown, place: string): void {
  const stack = [{ value: schema, depth: 0 }];
  for (let at = stack.pop(); at !== undefined; at = stack.pop()) {
    if (at.depth > MAX_DEPTH) {
      const where = { keyword: 'schema', pointer: `${place}#` };
      throw unsupported(where, `nests more than ${MAX_DEPTH} levels deep.`);
    }
    if (typeof at.value !== 'object' || at.value === null) continue;
    for (const value of Object.values(at.value)) stack.push({ value, depth: at.depth + 1 });
  }
}
