/**
 * What a schema asks of strings -> JSON string literals, quotes included.
 *
 * A string of which only the length is asked may use every escape of JSON (surrogates only as pairs,
 * each pair one character, as lengths are counted). Any other is an automaton over its characters,
 * each written in the one form that JSON.stringify gives it. Also tells whether a text matches, for
 * enums and property names. Called by shape-rules.ts and object-shape.ts.
 */
import { LengthRange, TextSet } from './automaton.js';
import { CodePoints } from './code-points.js';
import { conjunction, type Dfa, type Part } from './dfa.js';
import { dfaRules, type StateGraph } from './dfa-rules.js';
import { alternatives, isNever, repeat, sequence, set, text } from './expression.js';
import type { Expression } from './expression.js';
import { unsupported, type Place } from './faults.js';
import { STRING_FORMATS } from './formats.js';
import type { Grammar } from './gbnf.js';
import { matchAnywhere, wholeMatch } from './regex-automaton.js';
import { TextGraph } from './text-graph.js';
import { Work } from './work.js';

export interface StringShape {
  /** Each matches somewhere in the text. */
  patterns: string[];
  notPatterns: string[];
  /** Keys of STRING_FORMATS. */
  formats: string[];
  /** In code points. */
  min: number;
  max: number;
  /** None of these. */
  except: string[];
  /** Of the newest of these. */
  place: Place;
}

export const anyString = (place: Place): StringShape => ({
  ...{ patterns: [], notPatterns: [], formats: [], min: 0, max: Infinity, except: [], place },
});

/** What the native compiler repeats; a longer maximum is held to this. */
const MAX_LENGTH = 65_536;
/** The same where every length is a state of its own. */
const MAX_COUNTED = 4096;

export class StringRules {
  private readonly expressions = new Map<string, Promise<Expression>>();
  private readonly dfas = new Map<string, Promise<Dfa>>();
  private anyCharacter: Expression | undefined;
  private readonly characters = new Map<string, Expression>();

  constructor(
    private readonly grammar: Grammar,
    private readonly work: Work,
  ) {}

  expression(shape: StringShape, stem = 'string'): Promise<Expression> {
    const key = keyOf(shape);
    let expression = this.expressions.get(key);
    if (expression === undefined) {
      expression = this.make(shape, stem);
      this.expressions.set(key, expression);
    }
    return expression;
  }

  /** `wide`: where a format's pattern leaves something out, everything is let in instead. */
  async isEmpty(shape: StringShape, wide = false): Promise<boolean> {
    if (isPlain(shape)) return shape.max < shape.min;
    return (await this.dfa(wide ? widened(shape) : shape)).isEmpty;
  }

  async matches(shape: StringShape, value: string, wide = false): Promise<boolean> {
    return (await this.dfa(wide ? widened(shape) : shape)).matches(value);
  }

  /** Exactly these texts. */
  oneOf(texts: readonly string[], place: Place, stem: string): Expression {
    return this.written(new TextGraph(texts, this.work, place), this.grammar.fresh(stem));
  }

  private async make(shape: StringShape, stem: string): Promise<Expression> {
    const name = this.grammar.fresh(stem);
    const quote = text('"');
    if (isPlain(shape)) {
      const { min, max, place } = shape;
      if (min > MAX_LENGTH) throw tooLong(place, min);
      const longest = max === Infinity ? max : Math.min(max, MAX_LENGTH);
      const characters = repeat(this.plainCharacter(), min, longest);
      return this.grammar.define(name, sequence(quote, characters, quote));
    }
    return this.written(await this.dfa(shape), name);
  }

  private written(graph: StateGraph, name: string): Expression {
    const writing = { character: (on: CodePoints) => this.character(on), end: text('"') };
    const rest = dfaRules(this.grammar, graph, name, writing);
    return this.grammar.define(name, sequence(text('"'), rest));
  }

  private dfa(shape: StringShape): Promise<Dfa> {
    const key = keyOf(shape);
    let dfa = this.dfas.get(key);
    if (dfa === undefined) {
      dfa = this.build(shape);
      this.dfas.set(key, dfa);
    }
    return dfa;
  }

  private async build(shape: StringShape): Promise<Dfa> {
    const { patterns, notPatterns, formats, min, max, except, place } = shape;
    const { work } = this;
    const parts: Part[] = [
      ...patterns.map((each) => ({ automaton: matchAnywhere(each, work, place) })),
      ...notPatterns.map((each) => ({
        automaton: matchAnywhere(each, work, place),
        negated: true,
      })),
    ];
    for (const format of formats) parts.push({ automaton: await formatDfa(format) });
    if (except.length > 0) parts.push({ automaton: new TextSet(except), negated: true });
    if (min === 0 && max === Infinity) return conjunction(parts, work, place);
    if (min > MAX_COUNTED) throw tooLong(place, min);
    parts.push({ automaton: new LengthRange(min, Math.min(max, Math.max(MAX_COUNTED, min))) });
    return conjunction(parts, work, place);
  }

  /** One character of a string of which nothing is asked, in any form. */
  private plainCharacter(): Expression {
    return (this.anyCharacter ??= this.grammar.define(
      this.grammar.fresh('char'),
      alternatives(set(ESCAPED_ONLY.complement()), sequence(text('\\'), anyEscape())),
    ));
  }

  /** One of these characters as JSON.stringify writes it. */
  private character(on: CodePoints): Expression {
    const key = on.ranges.join();
    const known = this.characters.get(key);
    if (known !== undefined) return known;
    const options = [set(on.minus(ESCAPED_ONLY)), ...escapes(on)].filter((it) => !isNever(it));
    const expression = alternatives(...options);
    const named =
      options.length > 1 ? this.grammar.define(this.grammar.fresh('char'), expression) : expression;
    this.characters.set(key, named);
    return named;
  }
}

/** By format: they are the same for every schema. */
const formatDfas = new Map<string, Promise<Dfa>>();

function formatDfa(format: string): Promise<Dfa> {
  let dfa = formatDfas.get(format);
  if (dfa === undefined) {
    const place = { keyword: 'format', pointer: format };
    const work = new Work();
    const automaton = wholeMatch(STRING_FORMATS[format]!.pattern, work, place);
    dfa = conjunction([{ automaton }], work, place);
    formatDfas.set(format, dfa);
  }
  return dfa;
}

function keyOf(shape: StringShape): string {
  const { patterns, notPatterns, formats, min, max, except } = shape;
  return JSON.stringify([patterns, notPatterns, formats, min, String(max), except]);
}

/** Nothing but a length is asked. */
function isPlain({ patterns, notPatterns, formats, except }: StringShape): boolean {
  return [patterns, notPatterns, formats, except].every((asked) => asked.length === 0);
}

function widened(shape: StringShape): StringShape {
  const formats = shape.formats.filter((each) => STRING_FORMATS[each]?.narrow !== true);
  return { ...shape, formats };
}

function tooLong(place: Place, min: number) {
  return unsupported(place, `asks for at least ${min} characters, more than can be counted.`);
}

/** Never as they are: quotes, backslashes, control characters. */
const ESCAPED_ONLY = CodePoints.of([
  [0, 0x1f],
  [0x22, 0x22],
  [0x5c, 0x5c],
]);

const SHORT_ESCAPES: readonly [codePoint: number, letter: string][] = [
  [0x08, 'b'],
  [0x09, 't'],
  [0x0a, 'n'],
  [0x0c, 'f'],
  [0x0d, 'r'],
  [0x22, '"'],
  [0x5c, '\\'],
];

function escapes(on: CodePoints): Expression[] {
  const short = SHORT_ESCAPES.filter(([codePoint]) => on.has(codePoint));
  const letters = set(CodePoints.ofText(short.map(([, letter]) => letter).join('')));
  const rows = [0x00, 0x10].map((row) => {
    const low = Array.from({ length: 16 }, (_, i) => i).filter(
      (i) => on.has(row + i) && !SHORT_ESCAPES.some(([codePoint]) => codePoint === row + i),
    );
    const digits = set(CodePoints.ofText(low.map((i) => i.toString(16)).join('')));
    return sequence(text(`\\u00${row >> 4}`), digits);
  });
  return [sequence(text('\\'), letters), ...rows];
}

/** After the backslash: a letter, or the four digits of what is no surrogate, or a pair. */
function anyEscape(): Expression {
  const digits = (chars: string) => set(CodePoints.ofText(chars));
  const hex = digits('0123456789abcdefABCDEF');
  const single = alternatives(
    sequence(digits('0123456789abcefABCEF'), repeat(hex, 3, 3)),
    sequence(digits('dD'), digits('01234567'), repeat(hex, 2, 2)),
  );
  const lead = sequence(digits('dD'), digits('89abAB'), repeat(hex, 2, 2));
  const trail = sequence(text('\\u'), digits('dD'), digits('cdefCDEF'), repeat(hex, 2, 2));
  return alternatives(
    digits('"\\/bfnrt'),
    sequence(text('u'), alternatives(single, sequence(lead, trail))),
  );
}
