/**
 * Shapes as grammar rules: the JSON text of every value of a Node, one rule a Node.
 *
 * Compact: a blank may follow a comma or a colon, nothing else is white space, so nothing runs away.
 * Properties come in the order in which they are declared. Called by json-schema.ts.
 */
import { NEVER, NOTHING, alternatives, optional, repeat, rule, sequence } from './expression.js';
import { text, type Expression } from './expression.js';
import { unsupported, type Place } from './faults.js';
import type { Grammar } from './gbnf.js';
import type { NumberRules } from './number-rules.js';
import { ObjectRules } from './object-rules.js';
import type { Node } from './schema-document.js';
import type { ArrayShape, Shape, Shapes } from './shapes.js';
import type { StringRules } from './string-rules.js';

const BLANK = optional(text(' '));
const COMMA = sequence(text(','), BLANK);
/** What the native compiler repeats; a longer maximum is held to this. */
const MAX_ITEMS = 65_536;

export class ShapeRules {
  private readonly names = new Map<string, string>();
  private readonly waiting: { name: string; node: Node }[] = [];
  private readonly objects: ObjectRules;

  constructor(
    private readonly grammar: Grammar,
    private readonly shapes: Shapes,
    private readonly strings: StringRules,
    private readonly numbers: NumberRules,
  ) {
    this.objects = new ObjectRules(grammar, strings, COMMA, (...member) => this.pair(...member));
  }

  /** The rule of a Node; `finish` defines it. */
  of(node: Node, stem: string): Expression {
    let name = this.names.get(node.key);
    if (name === undefined) {
      name = this.grammar.fresh(stem);
      this.names.set(node.key, name);
      this.waiting.push({ name, node });
    }
    return rule(name);
  }

  /** Defines every rule that was asked for, and those that they ask for. */
  async finish(): Promise<void> {
    for (let next = this.waiting.pop(); next !== undefined; next = this.waiting.pop()) {
      const { name, node } = next;
      const shapes = await this.shapes.of(node);
      const options: Expression[] = [];
      for (const shape of shapes) {
        if (!isText(shape)) options.push(await this.ofShape(shape, name));
      }
      const texts = shapes.filter(isText);
      if (texts.length > 0) {
        const values = texts.map(({ value }) => value);
        options.push(this.strings.oneOf(values, texts[0]!.place, name));
      }
      this.grammar.define(name, alternatives(...options));
    }
  }

  private async ofShape(shape: Shape, stem: string): Promise<Expression> {
    switch (shape.type) {
      case 'null':
        return text('null');
      case 'boolean':
        return alternatives(text('true'), text('false'));
      case 'constant':
        return constant(shape.value);
      case 'number':
        return this.numbers.expression(shape.of);
      case 'string':
        return this.strings.expression(shape.of);
      case 'array':
        return this.array(shape.of, stem);
      case 'object':
        return this.objects.expression(shape.of, stem);
    }
  }

  private pair(name: Expression, node: Node, stem: string): Expression {
    return sequence(name, text(':'), BLANK, this.of(node, stem));
  }

  private array({ first, rest, min, max, place }: ArrayShape, stem: string): Expression {
    if (min > MAX_ITEMS) throw tooMany(place, min);
    const longest = max === Infinity ? max : Math.min(max, MAX_ITEMS);
    const other = this.of(rest, `${stem}-item`);
    const restAfter = (count: number) => {
      const least = Math.max(0, min - count);
      return repeat(sequence(COMMA, other), least, longest - count);
    };
    let items = restAfter(first.length);
    if (first.length === 0) {
      items = sequence(other, repeat(sequence(COMMA, other), Math.max(0, min - 1), longest - 1));
      if (longest === 0) items = NEVER;
    }
    for (const [i, node] of [...first.entries()].reverse()) {
      const item = sequence(i === 0 ? NOTHING : COMMA, this.of(node, `${stem}-${i}`), items);
      items = i >= min && i > 0 ? optional(item) : item;
      // Groups in groups in groups are more than a reader of the grammar should bear.
      if (i % 16 === 1) items = this.grammar.define(this.grammar.fresh(`${stem}-rest`), items);
    }
    // Without any item, where that is allowed.
    return sequence(text('['), min === 0 ? optional(items) : items, text(']'));
  }
}

function isText(shape: Shape): shape is Shape & { type: 'constant'; value: string } {
  return shape.type === 'constant' && typeof shape.value === 'string';
}

/** A value as JSON.stringify writes it, with the blanks that may stand anywhere. */
function constant(value: unknown): Expression {
  if (typeof value !== 'object' || value === null) return text(JSON.stringify(value));
  const isArray = Array.isArray(value);
  const items = isArray
    ? value.map(constant)
    : Object.entries(value).map(([name, item]) =>
        sequence(text(`${JSON.stringify(name)}:`), BLANK, constant(item)),
      );
  const separated = items.flatMap((item, i) => (i === 0 ? [item] : [COMMA, item]));
  const [open, close] = isArray ? ['[', ']'] : ['{', '}'];
  return sequence(text(open!), ...separated, text(close!));
}

function tooMany(place: Place, min: number) {
  return unsupported(place, `asks for at least ${min} items, more than can be counted.`);
}
