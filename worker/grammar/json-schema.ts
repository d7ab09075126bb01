/**
 * JSON Schemas -> rules of a grammar whose texts are values of theirs, as compact JSON.
 *
 * Every text that matches is valid against the schema (checked with ajv in test/worker/grammar). Not
 * everything valid can be written: properties come in declared order, white space is a blank after a
 * comma or colon, names that a schema does not speak of are left out unless it says
 * additionalProperties. Used by constraint-grammar.ts and for the arguments of tools.
 */
import type { Expression } from './expression.js';
import { Grammar } from './gbnf.js';
import { InPlace } from './in-place.js';
import { NumberRules } from './number-rules.js';
import { Overlap } from './overlap.js';
import { SchemaDocument, nodeOf, type Node } from './schema-document.js';
import { ShapeRules } from './shape-rules.js';
import { Shapes } from './shapes.js';
import { StringRules } from './string-rules.js';
import { ValueMatch } from './value-match.js';
import { Work } from './work.js';

export class JsonGrammar {
  readonly work = new Work();
  readonly grammar = new Grammar(this.work);
  private readonly strings = new StringRules(this.grammar, this.work);
  private readonly numbers = new NumberRules(this.grammar, this.work);

  /**
   * What writes a value of `schema`. `place`: what stands before the # of pointers in errors;
   * `stem`: of rules' names.
   */
  async schema(schema: unknown, place = '', stem = 'value'): Promise<Expression> {
    const { strings, numbers, work } = this;
    const document = new SchemaDocument(schema, place);
    const overlaps = (a: Node, b: Node): Promise<boolean> => overlap.between(a, b);
    const inPlace = new InPlace(document, overlaps);
    const shapesOf = (wide: boolean): Shapes => {
      const match = new ValueMatch(document, inPlace, strings, numbers, work, wide);
      return new Shapes({ document, inPlace, match, work });
    };
    const overlap: Overlap = new Overlap(shapesOf(true), strings, numbers, work);
    const rules = new ShapeRules(this.grammar, shapesOf(false), strings, numbers);
    const root = rules.of(nodeOf([document.root]), stem);
    await rules.finish();
    await inPlace.checkApart();
    return root;
  }
}
