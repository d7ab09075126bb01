/**
 * Tools in the forms LangChain's users have them, and the choice among them, as the engine's.
 *
 * Four forms: StructuredTool, RunnableToolLike, OpenAI's function object, and a plain
 * { name, description, schema } with a zod schema or JSON Schema. Throws INVALID_OPTIONS; that a
 * schema's keywords are supported and a chosen tool exists is the engine's to say.
 */
import type { BindToolsInput } from '@langchain/core/language_models/chat_models';
import type { ToolChoice as LangChainToolChoice } from '@langchain/core/language_models/chat_models';
import type { ToolDefinition as OpenAITool } from '@langchain/core/language_models/base';
import { toJsonSchema } from '@langchain/core/utils/json_schema';
import { checkBoolean, describe, invalidOptions } from '../check-shape.js';
import type { JsonSchema, ToolChoice, ToolDefinition } from '../types.js';

/** Without arguments, where a tool says nothing of them. */
const NO_ARGUMENTS: JsonSchema = { type: 'object', properties: {}, additionalProperties: false };

export function convertTools(tools: readonly BindToolsInput[]): ToolDefinition[] {
  return tools.map((tool, index) => convertTool(tool, `tools[${index}]`));
}

/** The form that traces and caches show: plain JSON, which LangChain's own tools are not. */
export function asOpenAITool({
  name,
  description,
  parameters,
  strict,
}: ToolDefinition): OpenAITool {
  const schema = typeof parameters === 'boolean' ? {} : parameters;
  return {
    type: 'function',
    function: {
      name,
      ...(description === undefined ? {} : { description }),
      parameters: schema,
      ...(strict === undefined ? {} : { strict }),
    },
  };
}

/** undefined: nothing is said of it. */
export function convertToolChoice(choice: LangChainToolChoice | undefined): ToolChoice | undefined {
  if (choice === undefined) return undefined;
  if (typeof choice === 'string') return namedChoice(choice);
  const field = 'options.tool_choice';
  if (typeof choice === 'object' && choice !== null) {
    const { type, name } = choice;
    const inFunction = (choice.function as { name?: unknown } | undefined)?.name;
    for (const named of [inFunction, name]) if (typeof named === 'string') return { name: named };
    if (typeof type === 'string' && type !== 'function' && type !== 'tool')
      return namedChoice(type);
  }
  throw invalidOptions(
    field,
    `${field} must be "auto", "any", "required", "none", a tool's name, or ` +
      `{ type: "function", function: { name } }, not ${JSON.stringify(choice)}.`,
    choice,
  );
}

function namedChoice(choice: string): ToolChoice {
  if (choice === 'any') return 'required';
  if (choice === 'auto' || choice === 'none' || choice === 'required') return choice;
  return { name: choice };
}

function convertTool(tool: unknown, field: string): ToolDefinition {
  if (typeof tool !== 'object' || tool === null) throw noTool(field, tool);
  const fields = 'function' in tool ? tool.function : tool;
  if (typeof fields !== 'object' || fields === null) throw noTool(field, tool);
  const { name, description, parameters, schema, strict } = fields as Record<string, unknown>;
  if (typeof name !== 'string') throw noTool(field, tool);
  const ownStrict = checkBoolean(strict, `${field}.strict`);
  return {
    name,
    ...(typeof description === 'string' && description !== '' ? { description } : {}),
    parameters: convertSchema(schema ?? parameters, `${field}.schema`),
    ...(ownStrict === undefined ? {} : { strict: ownStrict }),
  };
}

function convertSchema(schema: unknown, field: string): JsonSchema {
  if (schema === undefined || schema === null) return NO_ARGUMENTS;
  if (typeof schema === 'object') return toJsonSchema(schema) as JsonSchema;
  throw invalidOptions(
    field,
    `${field} must be a zod schema or JSON Schema, not ${describe(schema)}.`,
    schema,
  );
}

function noTool(field: string, tool: unknown): Error {
  return invalidOptions(
    field,
    `${field} must be a LangChain tool, an OpenAI function object or { name, description, schema }, ` +
      `not ${describe(tool)}.`,
    tool,
  );
}
