/**
 * What a request asks its output to match: OpenAI's `response_format`, vLLM's `structured_outputs` and
 * the `guided_*` fields that came before it. One at most. Throws INVALID_OPTIONS.
 */
import {
  checkJsonSchema,
  onlyConstraint,
  responseFormatConstraint,
  type AskedConstraint,
} from '../../asked-constraints.js';
import { checkBoolean, checkObject, invalidOptions, type Fields } from '../../check-shape.js';
import type { Constraint } from '../../types.js';

export function constraintOf(fields: Fields): Constraint | undefined {
  const format = responseFormatConstraint(fields.response_format, 'response_format');
  const asked: AskedConstraint[] =
    format === undefined ? [] : [{ name: 'response_format', constraint: format }];
  const guided = Object.fromEntries(KINDS.map((kind) => [kind, fields[`guided_${kind}`]]));
  asked.push(...constraintsIn(guided, 'guided_'));
  if (fields.structured_outputs !== undefined) {
    const field = 'structured_outputs';
    const { json_object: any, ...outputs } = checkObject(fields.structured_outputs, field, [
      ...KINDS,
      'json_object',
    ]);
    asked.push(...constraintsIn(outputs, `${field}.`));
    if (checkBoolean(any ?? undefined, `${field}.json_object`) === true) {
      asked.push({ name: `${field}.json_object`, constraint: { type: 'json' } });
    }
  }
  return onlyConstraint(asked);
}

const KINDS = ['json', 'regex', 'choice', 'grammar'] as const;

function constraintsIn(fields: Fields, prefix: string): AskedConstraint[] {
  const asked: AskedConstraint[] = [];
  for (const kind of KINDS) {
    const value = fields[kind] ?? undefined;
    if (value === undefined) continue;
    const name = `${prefix}${kind}`;
    asked.push({ name, constraint: constraintOfKind(kind, value, name) });
  }
  return asked;
}

function constraintOfKind(kind: (typeof KINDS)[number], value: unknown, name: string): Constraint {
  switch (kind) {
    case 'json':
      return { type: 'json', schema: checkJsonSchema(parsed(value, name), name) };
    case 'regex':
      return { type: 'regex', pattern: text(value, name) };
    case 'choice':
      if (!Array.isArray(value) || value.length === 0) {
        throw invalidOptions(name, `${name} must be a non-empty array of texts.`, value);
      }
      return { type: 'choice', choices: value.map((each, at) => text(each, `${name}[${at}]`)) };
    case 'grammar':
      return { type: 'grammar', grammar: text(value, name) };
  }
}

/** vLLM takes a schema as its text, too. */
function parsed(value: unknown, name: string): unknown {
  if (typeof value !== 'string') return value;
  try {
    return JSON.parse(value) as unknown;
  } catch {
    throw invalidOptions(name, `${name} is not valid JSON.`, value);
  }
}

function text(value: unknown, name: string): string {
  if (typeof value === 'string' && value !== '') return value;
  throw invalidOptions(name, `${name} must be a non-empty string.`, value);
}
