/**
 * A Node as a union of shapes: for each type of JSON value, all that is asked of values of it.
 *
 * Merging is exact: a value is of one of the shapes if and only if it fulfils the Node (but for what
 * StringShape calls narrow). Constants become shapes of their own, those that the rest of the schema
 * lets through. Read by shape-rules.ts (what to write) and overlap.ts (whether there is anything).
 */
import { unsupported, type Place } from './faults.js';
import type { InPlace } from './in-place.js';
import type { NumberShape } from './number-rules.js';
import { objectShape, type ObjectShape } from './object-shape.js';
import { itemParts, numberShape, placeOf, stringShape, typesOf } from './part-shapes.js';
import type { TypeName } from './part-shapes.js';
import { nodeOf, type Node, type Part, type SchemaDocument } from './schema-document.js';
import type { SchemaObject } from './schema-document.js';
import type { StringShape } from './string-rules.js';
import type { ValueMatch } from './value-match.js';
import type { Work } from './work.js';

export interface ArrayShape {
  /** Of the first items. */
  first: Node[];
  /** Of all others. */
  rest: Node;
  min: number;
  max: number;
  place: Place;
}

export type Shape =
  | { type: 'null' }
  | { type: 'boolean' }
  | { type: 'constant'; value: unknown; place: Place }
  | { type: 'number'; of: NumberShape }
  | { type: 'string'; of: StringShape }
  | { type: 'array'; of: ArrayShape }
  | { type: 'object'; of: ObjectShape };

export interface ShapeContext {
  document: SchemaDocument;
  inPlace: InPlace;
  match: ValueMatch;
  work: Work;
}

export class Shapes {
  private readonly known = new Map<string, Promise<Shape[]>>();

  constructor(private readonly context: ShapeContext) {}

  of(node: Node): Promise<Shape[]> {
    let shapes = this.known.get(node.key);
    if (shapes === undefined) {
      shapes = this.make(node);
      this.known.set(node.key, shapes);
    }
    return shapes;
  }

  /** Only what is asked of texts: names of properties may be described by what describes objects. */
  async ofTexts(node: Node): Promise<{ listed: string[]; free: StringShape[] }> {
    const listed: string[] = [];
    const free: StringShape[] = [];
    for (const parts of this.context.inPlace.alternatives(node)) {
      const constants = await this.constants(parts);
      if (constants !== null) {
        for (const { value } of constants) if (typeof value === 'string') listed.push(value);
      } else if (typesOf(parts).has('string')) {
        free.push(stringShape(parts));
      }
    }
    return { listed, free };
  }

  private async make(node: Node): Promise<Shape[]> {
    const shapes: Shape[] = [];
    const { inPlace, work } = this.context;
    for (const parts of inPlace.alternatives(node)) {
      work.spend(10 + parts.length, placeOf(parts, 'schema'));
      await work.turn();
      const constants = await this.constants(parts);
      if (constants !== null) {
        shapes.push(...constants);
      } else {
        for (const type of typesOf(parts)) shapes.push(await this.ofType(type, parts));
      }
    }
    return shapes;
  }

  /** The listed values that fulfil all parts; null where none lists any. */
  private async constants(parts: Part[]): Promise<(Shape & { type: 'constant' })[] | null> {
    const constants = constantsOf(parts);
    if (constants === null) return null;
    const shapes: (Shape & { type: 'constant' })[] = [];
    for (const value of constants.values) {
      if (!(await this.context.match.fulfilsAll(parts, value))) continue;
      shapes.push({ type: 'constant', value, place: constants.place });
    }
    return shapes;
  }

  private async ofType(type: TypeName, parts: Part[]): Promise<Shape> {
    switch (type) {
      case 'null':
      case 'boolean':
        return { type };
      case 'number':
        return { type, of: numberShape(parts) };
      case 'string':
        return { type, of: stringShape(parts) };
      case 'array':
        return { type, of: this.arrayShape(parts) };
      case 'object':
        return { type, of: await objectShape(parts, this, this.context) };
    }
  }

  private arrayShape(parts: Part[]): ArrayShape {
    const { document } = this.context;
    let min = 0;
    let max = Infinity;
    const items = parts.map((part) => itemParts(part, document));
    for (const part of parts) {
      const { minItems, maxItems, uniqueItems } = part.schema as Record<string, number | boolean>;
      min = Math.max(min, (minItems as number) ?? 0);
      max = Math.min(max, (maxItems as number) ?? Infinity);
      if (uniqueItems === true && max > 1) {
        const place = { keyword: 'uniqueItems', pointer: part.pointer };
        throw unsupported(place, 'is not supported: no grammar can compare items.');
      }
    }
    const numFirst = Math.max(0, ...items.map(({ first }) => first.length));
    const at = (i: number) => nodeOf(items.flatMap(({ first, rest }) => first[i] ?? rest));
    return {
      first: Array.from({ length: Math.min(numFirst, max) }, (_, i) => at(i)),
      rest: at(numFirst),
      ...{ min, max, place: placeOf(parts, 'minItems', 'maxItems', 'items') },
    };
  }
}

/** The values of the part with the fewest; null where none lists any. */
function constantsOf(parts: Part[]): { values: unknown[]; place: Place } | null {
  let fewest: { values: unknown[]; place: Place } | null = null;
  for (const { schema, pointer } of parts) {
    const object = schema as SchemaObject;
    for (const keyword of ['const', 'enum']) {
      if (object[keyword] === undefined) continue;
      const values = keyword === 'const' ? [object.const] : (object.enum as unknown[]);
      if (fewest !== null && fewest.values.length <= values.length) continue;
      fewest = { values, place: { keyword, pointer } };
    }
  }
  return fewest;
}
