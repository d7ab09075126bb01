/**
 * A request's tools, checked: distinct names, parameters that are JSON Schema, a choice that can be
 * made.
 *
 * Whether a schema's keywords are supported is the worker's to say. Called by generate-request.ts;
 * throws INVALID_OPTIONS.
 */
import type { WireTools } from '../worker/protocol.js';
import {
  checkArray,
  checkBoolean,
  checkJsonObject,
  checkObject,
  checkOneOf,
  invalidOptions,
} from './check-shape.js';
import type { Fields } from './check-shape.js';
import type { JsonSchema, ToolChoice, ToolDefinition } from './types.js';

const CHOICES = ['auto', 'none', 'required'] as const;
const TOOL_NAME = /^[A-Za-z0-9_.:/-]{1,128}$/;

/** undefined: the request can call nothing. */
export function checkTools(request: Fields): WireTools | undefined {
  const definitions = checkArray(request.tools, 'request.tools')?.map((tool, index) =>
    checkTool(tool, `request.tools[${index}]`),
  );
  const names = (definitions ?? []).map(({ name }) => name);
  const twice = names.find((name, index) => names.indexOf(name) < index);
  if (twice !== undefined) {
    throw invalidOptions('request.tools', `request.tools has two tools named "${twice}".`, twice);
  }
  const choice = checkChoice(request.toolChoice, names);
  const parallel = checkBoolean(request.parallelToolCalls, 'request.parallelToolCalls') ?? true;
  if (choice === 'none' || definitions === undefined || definitions.length === 0) return undefined;
  return { definitions, choice, parallel };
}

function checkTool(tool: unknown, field: string): ToolDefinition {
  const fields = checkObject(tool, field, ['name', 'description', 'parameters', 'strict']);
  const { name, description, parameters } = fields;
  if (typeof name !== 'string' || !TOOL_NAME.test(name)) {
    throw invalidOptions(
      `${field}.name`,
      `${field}.name must be 1 to 128 letters, digits and _ . : / -`,
      name,
    );
  }
  if (description !== undefined && typeof description !== 'string') {
    throw invalidOptions(
      `${field}.description`,
      `${field}.description must be a string.`,
      description,
    );
  }
  const strict = checkBoolean(fields.strict, `${field}.strict`);
  return {
    name,
    ...(description === undefined ? {} : { description }),
    parameters: checkParameters(parameters, `${field}.parameters`),
    ...(strict === undefined ? {} : { strict }),
  };
}

function checkParameters(parameters: unknown, field: string): JsonSchema {
  if (typeof parameters === 'boolean') return parameters;
  const schema = checkJsonObject(parameters, field);
  const { type } = schema;
  if (type === undefined || type === 'object') return schema;
  if (Array.isArray(type) && type.includes('object')) return schema;
  throw invalidOptions(`${field}.type`, `${field}.type must be "object": arguments are one.`, type);
}

function checkChoice(choice: unknown, names: readonly string[]): ToolChoice {
  const field = 'request.toolChoice';
  if (typeof choice !== 'object' || choice === null) {
    const simple = checkOneOf(choice, field, CHOICES) ?? 'auto';
    if (simple === 'required' && names.length === 0) {
      throw invalidOptions(field, `${field} is "required", but the request has no tools.`, simple);
    }
    return simple;
  }
  const { name } = checkObject(choice, field, ['name']);
  if (typeof name === 'string' && names.includes(name)) return { name };
  const known = names.length === 0 ? 'it has none' : `it has ${names.join(', ')}`;
  throw invalidOptions(
    `${field}.name`,
    `${field}.name must be one of the request's tools: ${known}.`,
    name,
  );
}
