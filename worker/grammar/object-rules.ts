/**
 * One ObjectShape as grammar rules: braces, properties in order, commas between those that are there.
 *
 * A rule stands for a place: before which property, after how many. How many counts only as far as it
 * matters: whether a comma is due, and for minProperties and maxProperties. Used by shape-rules.ts.
 */
import { NEVER, NOTHING, alternatives, isNever, optional, repeat, sequence } from './expression.js';
import { text, type Expression } from './expression.js';
import { unsupported } from './faults.js';
import type { Grammar } from './gbnf.js';
import type { ObjectShape } from './object-shape.js';
import type { Node } from './schema-document.js';
import type { StringRules } from './string-rules.js';

/** name, value -> the member's text. */
type Pair = (name: Expression, node: Node, stem: string) => Expression;

/** Where properties are counted, a place is a rule for every count. */
const MAX_COUNTED = 200;
/** What the native compiler repeats; a longer maximum is held to this. */
const MAX_REPEATED = 65_536;

export class ObjectRules {
  constructor(
    private readonly grammar: Grammar,
    private readonly strings: StringRules,
    private readonly comma: Expression,
    private readonly pair: Pair,
  ) {}

  async expression(shape: ObjectShape, stem: string): Promise<Expression> {
    const { properties, min, max, place } = shape;
    const others = await this.others(shape, stem);
    if (others !== null && min > properties.length + 1) {
      throw unsupported(
        { keyword: 'minProperties', pointer: place.pointer },
        `asks for ${min - properties.length} properties beside the named ones: ` +
          'no grammar can keep their names apart.',
      );
    }
    const isCounted = min > 1 || max < properties.length || (others !== null && max < Infinity);
    if (isCounted && properties.length > MAX_COUNTED) {
      const keyword = max < Infinity ? 'maxProperties' : 'minProperties';
      const limit = `is not supported beside more than ${MAX_COUNTED} named properties.`;
      throw unsupported({ keyword, pointer: place.pointer }, limit);
    }
    const members = properties.map(({ name, node, required }) => ({
      member: this.pair(text(JSON.stringify(name)), node, name),
      required,
    }));
    const body = new Members(this.grammar, this.comma, members, others, shape, stem).from(0, 0);
    return sequence(text('{'), body, text('}'));
  }

  /** A member of any other name; null where there may be none. */
  private async others(shape: ObjectShape, stem: string): Promise<Expression | null> {
    const { others, isOpen } = shape;
    const members: Expression[] = [];
    for (const { names, node } of others) {
      if (names.patterns.length === 0 && !isOpen) continue;
      if (node.parts.some((part) => part.schema === false)) continue;
      const name = await this.strings.expression(names, `${stem}-name`);
      members.push(this.pair(name, node, `${stem}-value`));
    }
    return members.length === 0 ? null : alternatives(...members);
  }
}

class Members {
  private readonly known = new Map<string, Expression>();
  /** Counting further changes nothing. */
  private readonly enough: number;

  constructor(
    private readonly grammar: Grammar,
    private readonly comma: Expression,
    private readonly members: { member: Expression; required: boolean }[],
    private readonly others: Expression | null,
    private readonly shape: ObjectShape,
    private readonly stem: string,
  ) {
    const { min, max } = shape;
    const most = others === null ? members.length : Infinity;
    this.enough = max < most ? max : Math.max(1, min);
  }

  /** All from member `index` on, after `count` that are there. */
  from(index: number, count: number): Expression {
    const key = `${index}:${count}`;
    const known = this.known.get(key);
    if (known !== undefined) return known;
    let expression = this.make(index, count);
    // Reached by two ways, of which one leaves the member before out.
    const isLong = expression.kind === 'sequence' || expression.kind === 'alternatives';
    if (index > 0 && !this.members[index - 1]!.required && isLong && !isNever(expression)) {
      expression = this.grammar.define(this.grammar.fresh(`${this.stem}-members`), expression);
    }
    this.known.set(key, expression);
    return expression;
  }

  private make(index: number, count: number): Expression {
    const next = this.members[index];
    if (next === undefined) return this.rest(count);
    const isFull = count >= this.shape.max;
    const taken = isFull
      ? NEVER
      : sequence(
          count === 0 ? NOTHING : this.comma,
          next.member,
          this.from(index + 1, Math.min(count + 1, this.enough)),
        );
    return next.required ? taken : alternatives(taken, this.from(index + 1, count));
  }

  private rest(count: number): Expression {
    const { min, max } = this.shape;
    const least = Math.max(0, min - count);
    if (this.others === null) return least === 0 ? NOTHING : NEVER;
    // Names may repeat, so that two members may be one property.
    if (least > 1) return NEVER;
    const member = this.others;
    const more = (from: number, to: number) =>
      repeat(sequence(this.comma, member), from, to === Infinity ? to : Math.min(to, MAX_REPEATED));
    if (count > 0) return more(least, max - count);
    if (max === 0) return NOTHING;
    const some = sequence(member, more(0, max - 1));
    return least === 0 ? optional(some) : some;
  }
}
