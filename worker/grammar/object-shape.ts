/**
 * What a schema asks of objects: the properties it names, in their order, and which others may be.
 *
 * Other names fall into classes by the patterns of `patternProperties` that they match. Where a schema
 * names properties and says nothing of others (no `additionalProperties`), none are written, though
 * they would be valid: `isOpen` tells. Called by shapes.ts.
 */
import { unsupported, type Place } from './faults.js';
import { placeOf } from './part-shapes.js';
import { keysOf, nodeOf, type Node, type Part, type SchemaObject } from './schema-document.js';
import type { ShapeContext, Shapes } from './shapes.js';
import { anyString, type StringShape } from './string-rules.js';

interface Property {
  name: string;
  node: Node;
  required: boolean;
}

export interface ObjectShape {
  properties: Property[];
  /** By classes of names that exclude each other; the last is of those that match no pattern. */
  others: { names: StringShape; node: Node }[];
  /** Whether names of no pattern are written too. */
  isOpen: boolean;
  min: number;
  max: number;
  place: Place;
}

const MAX_PATTERNS = 5;
const MAX_PROPERTIES = 1000;

/** A name that careful parsers of JSON refuse (the AI SDK's does). */
const NEVER_WRITTEN = ['__proto__'];

export async function objectShape(
  parts: Part[],
  shapes: Shapes,
  context: ShapeContext,
): Promise<ObjectShape> {
  return new ObjectMerge(parts, shapes, context).shape();
}

class ObjectMerge {
  private readonly place: Place;
  /** Of all parts, each once. */
  private readonly patterns: string[];

  constructor(
    private readonly parts: Part[],
    private readonly shapes: Shapes,
    private readonly context: ShapeContext,
  ) {
    this.place = placeOf(parts, 'properties', 'patternProperties', 'additionalProperties');
    this.patterns = [...new Set(parts.flatMap((part) => keysOf(part, 'patternProperties')))];
    if (this.patterns.length > MAX_PATTERNS) {
      const place = placeOf(parts, 'patternProperties');
      throw unsupported(place, `has more than ${MAX_PATTERNS} patterns.`);
    }
  }

  async shape(): Promise<ObjectShape> {
    const names = await this.nameShapes();
    const required = new Set(this.parts.flatMap(({ schema }) => listOf(schema, 'required')));
    const named = new Set(this.parts.flatMap((part) => keysOf(part, 'properties')));
    for (const name of required) named.add(name);
    const declared = named.size;
    for (const name of names.listed) named.add(name);
    if (named.size > MAX_PROPERTIES) {
      throw unsupported(this.place, `names more than ${MAX_PROPERTIES} properties.`);
    }
    const properties: Property[] = [];
    for (const name of named) {
      const node = nodeOf(await this.partsOf(name));
      properties.push({ name, node, required: required.has(name) });
    }
    let min = 0;
    let max = Infinity;
    for (const { schema } of this.parts) {
      const { minProperties, maxProperties } = schema as Record<string, number | undefined>;
      min = Math.max(min, minProperties ?? 0);
      max = Math.min(max, maxProperties ?? Infinity);
    }
    const says = this.parts.some(({ schema }) =>
      Object.hasOwn(schema as SchemaObject, 'additionalProperties'),
    );
    const isOpen = says || (declared === 0 && this.patterns.length === 0) || min > named.size;
    const others = this.others(names.free, [...named, ...NEVER_WRITTEN]);
    return { properties, others, isOpen, min, max, place: this.place };
  }

  /** All that speaks of one property's value. */
  private async partsOf(name: string): Promise<Part[]> {
    const { document, match } = this.context;
    const found: Part[] = [];
    for (const part of this.parts) {
      found.push(...(await match.propertyParts(part, name)));
      const { propertyNames } = part.schema as SchemaObject;
      if (propertyNames === undefined) continue;
      const isName = await match.fulfils(nodeOf([document.child(part, 'propertyNames')]), name);
      if (!isName) found.push(document.derived(part, 'no such name', false));
    }
    return found;
  }

  /** What propertyNames leaves: listed names, and shapes of all others. */
  private async nameShapes(): Promise<{ listed: string[]; free: StringShape[] }> {
    const { document } = this.context;
    const asking = this.parts.filter(({ schema }) =>
      Object.hasOwn(schema as SchemaObject, 'propertyNames'),
    );
    if (asking.length === 0) return { listed: [], free: [anyString(this.place)] };
    return this.shapes.ofTexts(nodeOf(asking.map((part) => document.child(part, 'propertyNames'))));
  }

  private others(free: StringShape[], except: string[]): ObjectShape['others'] {
    const { document } = this.context;
    const others: ObjectShape['others'] = [];
    const { patterns } = this;
    for (let mask = 2 ** patterns.length - 1; mask >= 0; mask--) {
      const inside = patterns.filter((_, i) => (mask >> i) & 1);
      const outside = patterns.filter((_, i) => !((mask >> i) & 1));
      const node = nodeOf(
        this.parts.flatMap((part) => {
          const own = keysOf(part, 'patternProperties').filter((each) => inside.includes(each));
          if (own.length > 0) {
            return own.map((pattern) => document.child(part, 'patternProperties', pattern));
          }
          const says = Object.hasOwn(part.schema as SchemaObject, 'additionalProperties');
          return says ? [document.child(part, 'additionalProperties')] : [];
        }),
      );
      for (const shape of free) {
        const names = {
          ...shape,
          patterns: [...new Set([...shape.patterns, ...inside])],
          notPatterns: outside,
          except,
        };
        others.push({ names, node });
      }
    }
    return others;
  }
}

function listOf(schema: Part['schema'], keyword: string): string[] {
  return ((schema as SchemaObject)[keyword] ?? []) as string[];
}
