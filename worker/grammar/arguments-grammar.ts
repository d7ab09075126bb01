/**
 * The parameters of a tool -> the grammar of a call's arguments, an object in JSON.
 *
 * The same tools come with every request of an app, so grammars are remembered, the latest hundred.
 * Throws as constraint-grammar.ts does, naming the tool. Called by prepare-request.ts.
 */
import type { JsonSchema } from '../../src/types.js';
import { invalid } from './faults.js';
import { JsonGrammar } from './json-schema.js';

const MAX_REMEMBERED = 100;
const remembered = new Map<string, Promise<string>>();

/** `field`: how errors call the schema. */
export function argumentsGrammar(parameters: JsonSchema, field: string): Promise<string> {
  const key = `${field}\n${JSON.stringify(parameters)}`;
  const known = remembered.get(key);
  // Least recently used first.
  remembered.delete(key);
  const grammar = known ?? makeGrammar(parameters, field);
  remembered.set(key, grammar);
  for (const oldest of remembered.keys()) {
    if (remembered.size <= MAX_REMEMBERED) break;
    remembered.delete(oldest);
  }
  return grammar;
}

async function makeGrammar(parameters: JsonSchema, field: string): Promise<string> {
  const json = new JsonGrammar();
  const root = await json.schema(objectSchema(parameters), field);
  const place = { keyword: 'parameters', pointer: field };
  const text = json.grammar.text(root, place);
  if (text === null) throw invalid(place, 'is fulfilled by no object.');
  return text;
}

/** A tool is called with an object, also where its schema would allow something else. */
function objectSchema(parameters: JsonSchema): JsonSchema {
  if (parameters === true) return { type: 'object', additionalProperties: true };
  return parameters === false ? false : { ...parameters, type: 'object' };
}
