/**
 * What frameworks and HTTP clients write for a constraint, as the engine's: a response format in
 * OpenAI's form, and the choice among several ways to say it. Throws INVALID_OPTIONS.
 */
import { checkObject, checkOneOf, invalidOptions } from './check-shape.js';
import type { Constraint, JsonSchema } from './types.js';

/** `name`: of the field that asks for it. */
export interface AskedConstraint {
  name: string;
  constraint: Constraint;
}

/** An output has one at most. */
export function onlyConstraint(asked: readonly AskedConstraint[]): Constraint | undefined {
  const [first, second] = asked;
  if (second !== undefined) {
    const names = asked.map(({ name }) => name).join(' and ');
    throw invalidOptions(second.name, `An output has one constraint at most, not ${names}.`);
  }
  return first?.constraint;
}

/** `{ type: 'json_schema', json_schema: { schema } }` and the like. */
export function responseFormatConstraint(format: unknown, field: string): Constraint | undefined {
  if (format === undefined || format === null) return undefined;
  const { type, json_schema: described } = checkObject(format, field, ['type', 'json_schema']);
  switch (checkOneOf(type, `${field}.type`, ['text', 'json_object', 'json_schema'])) {
    case 'text':
      return undefined;
    case 'json_object':
      return { type: 'json' };
    case 'json_schema': {
      const at = `${field}.json_schema`;
      const keys = ['name', 'description', 'schema', 'strict'];
      const { schema } = checkObject(described, at, keys);
      return { type: 'json', schema: checkJsonSchema(schema, `${at}.schema`) };
    }
    default:
      throw invalidOptions(`${field}.type`, `${field}.type is missing.`);
  }
}

export function checkJsonSchema(schema: unknown, field: string): JsonSchema {
  if (typeof schema === 'boolean') return schema;
  if (typeof schema === 'object' && schema !== null && !Array.isArray(schema)) {
    return schema as JsonSchema;
  }
  throw invalidOptions(field, `${field} must be JSON Schema.`, schema);
}
