/**
 * The parameters of a tool -> the grammar of a call's arguments, an object in JSON.
 *
 * Throws as constraint-grammar.ts does, naming the tool. Called by output/answer-grammar.ts.
 */
import type { JsonSchema } from '../../src/types.js';
import { invalid } from './faults.js';
import { JsonGrammar } from './json-schema.js';

/** `field`: how errors call the schema. */
export async function argumentsGrammar(parameters: JsonSchema, field: string): Promise<string> {
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
