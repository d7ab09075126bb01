/**
 * Whether one value may fulfil two Nodes at once: what allows a oneOf to be written as a choice.
 *
 * Errs on one side: "no" is certain. A Node has a value if one of its shapes does; a value is finite,
 * so a Node that is asked for within its own answer adds nothing there. Called by in-place.ts.
 */
import type { NumberRules } from './number-rules.js';
import { nodeOf, type Node, type SchemaObject } from './schema-document.js';
import type { ArrayShape, Shape, Shapes } from './shapes.js';
import type { ObjectShape } from './object-shape.js';
import type { StringRules } from './string-rules.js';
import type { Work } from './work.js';

export class Overlap {
  private readonly possible = new Set<string>();

  /** `shapes`: with formats taken widely. */
  constructor(
    private readonly shapes: Shapes,
    private readonly strings: StringRules,
    private readonly numbers: NumberRules,
    private readonly work: Work,
  ) {}

  between(a: Node, b: Node): Promise<boolean> {
    return this.hasValue(nodeOf([...a.parts, ...b.parts]), new Set());
  }

  private async hasValue(node: Node, within: Set<string>): Promise<boolean> {
    if (this.possible.has(node.key)) return true;
    if (within.has(node.key)) return false;
    this.work.spend(100, { keyword: 'oneOf', pointer: node.parts[0]?.pointer ?? '#' });
    const inside = new Set(within).add(node.key);
    for (const shape of await this.shapes.of(node)) {
      if (!(await this.isPossible(shape, inside))) continue;
      this.possible.add(node.key);
      return true;
    }
    return false;
  }

  private async isPossible(shape: Shape, within: Set<string>): Promise<boolean> {
    switch (shape.type) {
      case 'null':
      case 'boolean':
      case 'constant':
        return true;
      case 'number':
        return !(await this.numbers.isEmpty(shape.of));
      case 'string':
        return !(await this.strings.isEmpty(shape.of, true));
      case 'array':
        return this.isArrayPossible(shape.of, within);
      case 'object':
        return this.isObjectPossible(shape.of, within);
    }
  }

  private async isArrayPossible(array: ArrayShape, within: Set<string>): Promise<boolean> {
    const { first, rest, min, max } = array;
    if (min > max) return false;
    const needed = first.slice(0, min);
    if (min > first.length) needed.push(rest);
    return this.haveValues(needed, within);
  }

  private async isObjectPossible(object: ObjectShape, within: Set<string>): Promise<boolean> {
    const { properties, min, max } = object;
    const needed = properties.filter(({ required }) => required).map(({ node }) => node);
    if (min > max || needed.length > max) return false;
    return this.haveValues(needed, within);
  }

  private async haveValues(nodes: Node[], within: Set<string>): Promise<boolean> {
    // Constants first: they are what branches are told apart by.
    const sorted = [...nodes].sort((a, b) => Number(hasConstant(b)) - Number(hasConstant(a)));
    for (const node of sorted) if (!(await this.hasValue(node, within))) return false;
    return true;
  }
}

function hasConstant({ parts }: Node): boolean {
  return parts.some(({ schema }) => {
    const { const: constant, enum: list } = (schema || {}) as SchemaObject;
    return constant !== undefined || list !== undefined;
  });
}
