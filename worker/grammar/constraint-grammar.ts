/**
 * What a request's output must match -> GBNF text (worker/addon.ts says in which dialect).
 *
 * Throws CONSTRAINT_INVALID and CONSTRAINT_UNSUPPORTED; takes its turns with other work of the thread.
 * A constraint of type 'grammar' is GBNF already: native code judges it. Called by grammar-cache.ts.
 */
import type { WireConstraint } from '../protocol.js';
import { conjunction } from './dfa.js';
import { dfaRules, type StateGraph } from './dfa-rules.js';
import { NOTHING, set } from './expression.js';
import { invalid, type Place } from './faults.js';
import { Grammar } from './gbnf.js';
import { JsonGrammar } from './json-schema.js';
import { wholeMatch } from './regex-automaton.js';
import { TextGraph } from './text-graph.js';
import { Work } from './work.js';

export async function constraintGrammar(constraint: WireConstraint): Promise<string> {
  switch (constraint.type) {
    case 'grammar':
      return constraint.grammar;
    case 'json':
      return jsonGrammar(JSON.parse(constraint.schema));
    case 'regex': {
      const place = { keyword: 'pattern', pointer: 'constraint.pattern' };
      const work = new Work();
      const automaton = wholeMatch(constraint.pattern, work, place);
      return plainGrammar(await conjunction([{ automaton }], work, place), work, place);
    }
    case 'choice': {
      const place = { keyword: 'choices', pointer: 'constraint.choices' };
      const work = new Work();
      return plainGrammar(new TextGraph(constraint.choices, work, place), work, place);
    }
  }
}

async function jsonGrammar(schema: unknown): Promise<string> {
  const json = new JsonGrammar();
  const root = await json.schema(schema);
  const place = { keyword: 'schema', pointer: '#' };
  return textOf(json.grammar.text(root, place), place, 'is fulfilled by no value');
}

/** The automaton's texts as they are. */
function plainGrammar(graph: StateGraph, work: Work, place: Place): string {
  const grammar = new Grammar(work);
  const root = dfaRules(grammar, graph, 'state', { character: set, end: NOTHING });
  return textOf(grammar.text(root, place), place, 'is matched by no text');
}

function textOf(text: string | null, place: Place, why: string): string {
  if (text === null) throw invalid(place, `${why}.`);
  return text;
}
