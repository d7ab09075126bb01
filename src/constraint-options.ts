/**
 * A request's constraint, checked as far as the main thread can: its form, and that a schema is JSON.
 *
 * What a schema, a pattern or a grammar says is judged in the worker (CONSTRAINT_INVALID,
 * CONSTRAINT_UNSUPPORTED, GRAMMAR_INVALID). Throws INVALID_OPTIONS. Called by generate-request.ts and
 * for the AI SDK's options.
 */
import type { WireConstraint } from '../worker/protocol.js';
import { checkArray, checkObject, checkOneOf, invalidOptions } from './check-shape.js';

const FIELDS = {
  json: 'schema',
  regex: 'pattern',
  choice: 'choices',
  grammar: 'grammar',
} as const;
const TYPES = Object.keys(FIELDS) as (keyof typeof FIELDS)[];

/** Characters of a schema's, a pattern's or a grammar's text, or of all choices. */
const MAX_LENGTH = 1 << 20;

export function checkConstraint(value: unknown, field: string): WireConstraint | undefined {
  if (value === undefined) return undefined;
  const given = (value as { type?: unknown } | null)?.type;
  const own = FIELDS[given as keyof typeof FIELDS] as string | undefined;
  const fields = checkObject(value, field, own === undefined ? ['type'] : ['type', own]);
  const type = checkOneOf(fields.type, `${field}.type`, TYPES);
  switch (type) {
    case undefined:
      throw invalidOptions(`${field}.type`, `${field}.type is missing: ${TYPES.join(', ')}.`);
    case 'json':
      return { type, schema: checkSchema(fields.schema, `${field}.schema`) };
    case 'regex':
      return { type, pattern: checkText(fields.pattern, `${field}.pattern`) };
    case 'choice':
      return { type, choices: checkChoices(fields.choices, `${field}.choices`) };
    case 'grammar':
      return { type, grammar: checkText(fields.grammar, `${field}.grammar`) };
  }
}

function checkSchema(schema: unknown, field: string): string {
  if (schema === undefined) return '{"type":"object"}';
  const isSchema =
    typeof schema === 'boolean' ||
    (typeof schema === 'object' && schema !== null && !Array.isArray(schema));
  if (!isSchema) throw invalidOptions(field, `${field} must be a JSON schema.`, schema);
  let text: string;
  try {
    text = JSON.stringify(schema);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw invalidOptions(field, `${field} is no JSON: ${reason}`, schema);
  }
  return checkLength(text, field);
}

function checkChoices(value: unknown, field: string): string[] {
  const choices = checkArray(value, field) ?? [];
  if (choices.length === 0) {
    throw invalidOptions(field, `${field} must have one text at least.`, value);
  }
  let length = 0;
  for (const [index, choice] of choices.entries()) {
    length += checkText(choice, `${field}[${index}]`).length;
    if (length > MAX_LENGTH) throw tooLong(field, length);
  }
  return [...(choices as string[])];
}

function checkText(value: unknown, field: string): string {
  if (typeof value !== 'string' || value === '') {
    throw invalidOptions(field, `${field} must be a non-empty string.`, value);
  }
  if (/\p{Surrogate}/u.test(value)) {
    throw invalidOptions(field, `${field} has half a surrogate pair, which is no text.`, value);
  }
  return checkLength(value, field);
}

function checkLength(text: string, field: string): string {
  if (text.length > MAX_LENGTH) throw tooLong(field, text.length);
  return text;
}

function tooLong(field: string, length: number) {
  const message = `${field} has more than ${MAX_LENGTH} characters (${length}).`;
  return invalidOptions(field, message);
}
