/**
 * What holds in one place at once: $ref, allOf, anyOf, oneOf and their like, multiplied out.
 *
 * The alternatives of a Node are lists of Parts: a value that fulfils all Parts of one list, each by
 * its own keywords alone, fulfils the Node. `oneOf` counts as `anyOf` only where no value can fulfil
 * two of its branches, else it is refused. Called by shapes.ts.
 */
import { invalid, unsupported } from './faults.js';
import { checkKeywords } from './keywords.js';
import { nodeOf, type Node, type Part, type SchemaDocument } from './schema-document.js';
import type { SchemaObject } from './schema-document.js';

type Alternatives = Part[][];

const EVERYTHING: Alternatives = [[]];
const MAX_ALTERNATIVES = 1000;
const MAX_CHAIN = 200;

export class InPlace {
  private readonly known = new Map<number, Alternatives>();
  private readonly open = new Set<number>();
  /** oneOf's branches that are to be told apart, by part. */
  private readonly apart = new Map<number, Part>();

  constructor(
    private readonly document: SchemaDocument,
    /** Tells whether some value fulfils both. */
    private readonly overlap: (a: Node, b: Node) => Promise<boolean>,
  ) {}

  alternatives({ parts }: Node): Alternatives {
    return parts.reduce((all, part) => this.product(all, this.ofPart(part), part), EVERYTHING);
  }

  /** Checks every oneOf met so far; throws for the first whose branches may overlap. */
  async checkApart(): Promise<void> {
    for (const [id, part] of this.apart) {
      this.apart.delete(id);
      const { oneOf } = part.schema as { oneOf: unknown[] };
      const branches = oneOf.map((_, i) => nodeOf([this.document.child(part, 'oneOf', i)]));
      for (const [i, first] of branches.entries()) {
        for (const [j, second] of branches.slice(0, i).entries()) {
          if (!(await this.overlap(first, second))) continue;
          throw unsupported(
            { keyword: 'oneOf', pointer: part.pointer },
            `has branches ${j} and ${i} that one value may fulfil both of; ` +
              'give them a property with different constants, or use anyOf.',
          );
        }
      }
    }
  }

  private ofPart(part: Part): Alternatives {
    if (typeof part.schema === 'boolean') return part.schema ? EVERYTHING : [];
    const known = this.known.get(part.id);
    if (known !== undefined) return known;
    if (this.open.has(part.id)) {
      throw invalid({ keyword: '$ref', pointer: part.pointer }, 'refers to itself without end.');
    }
    if (this.open.size > MAX_CHAIN) {
      throw unsupported({ keyword: '$ref', pointer: part.pointer }, 'is one of too long a chain.');
    }
    this.open.add(part.id);
    const alternatives = this.multipliedOut(part, part.schema);
    this.open.delete(part.id);
    this.known.set(part.id, alternatives);
    return alternatives;
  }

  private multipliedOut(part: Part, schema: SchemaObject): Alternatives {
    let all: Alternatives = checkKeywords(part) ? [[part]] : EVERYTHING;
    const child = (...path: (string | number)[]) => this.ofPart(this.document.child(part, ...path));
    const each = (keyword: string) =>
      ((schema[keyword] ?? []) as unknown[]).map((_, i) => child(keyword, i));
    const also = (more: Alternatives) => (all = this.product(all, more, part));
    if (schema.$ref !== undefined) also(this.ofPart(this.document.target(part, schema.$ref)));
    for (const more of each('allOf')) also(more);
    if (schema.anyOf !== undefined) also(each('anyOf').flat());
    if (schema.oneOf !== undefined) {
      if ((schema.oneOf as unknown[]).length > 1) this.apart.set(part.id, part);
      also(each('oneOf').flat());
    }
    if (schema.not !== undefined) also(this.not(part, schema.not));
    for (const keyword of ['dependentRequired', 'dependentSchemas', 'dependencies']) {
      for (const name of Object.keys((schema[keyword] ?? {}) as object)) {
        also(this.dependent(part, keyword, name));
      }
    }
    return all;
  }

  /** Only `not` of everything or nothing: what zod writes for never. */
  private not(part: Part, schema: unknown): Alternatives {
    const isEmpty = typeof schema === 'object' && Object.keys(schema as object).length === 0;
    if (schema === true || isEmpty) return [];
    if (schema === false) return EVERYTHING;
    throw unsupported({ keyword: 'not', pointer: part.pointer }, 'is supported for {} alone.');
  }

  /** Either the property is not there, or what depends on it holds too. */
  private dependent(part: Part, keyword: string, name: string): Alternatives {
    const value = (part.schema as Record<string, SchemaObject>)[keyword]![name];
    const derive = (what: string, schema: SchemaObject) =>
      this.document.derived(part, `${what} ${JSON.stringify(name)}`, schema);
    const without = derive('without', { properties: { [name]: false } });
    const withIt = derive('with', { required: [name] });
    const then = Array.isArray(value)
      ? this.ofPart(derive(keyword, { required: value }))
      : this.ofPart(this.document.child(part, keyword, name));
    return [...this.ofPart(without), ...this.product(this.ofPart(withIt), then, part)];
  }

  private product(a: Alternatives, b: Alternatives, { pointer }: Part): Alternatives {
    if (a.length * b.length > MAX_ALTERNATIVES) {
      const place = { keyword: 'schema', pointer };
      throw unsupported(place, 'combines too many alternatives (anyOf, oneOf and their like).');
    }
    return a.flatMap((first) => b.map((second) => nodeOf([...first, ...second]).parts));
  }
}
