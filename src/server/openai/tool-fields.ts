/**
 * OpenAI's tools and the choice among them as the engine's, in the form of either of its APIs. Throws
 * INVALID_OPTIONS; what a schema says is judged by the engine.
 */
import {
  checkArray,
  checkBoolean,
  checkOneOf,
  describe,
  invalidOptions,
  type Fields,
} from '../../check-shape.js';
import type { GenerateRequest, JsonSchema, ToolChoice, ToolDefinition } from '../../types.js';
import { objectOf, requiredText } from './chat-messages.js';

/** Without arguments, where a tool says nothing of them. */
const NO_ARGUMENTS: JsonSchema = { type: 'object', properties: {}, additionalProperties: false };

type ToolRequest = Pick<GenerateRequest, 'tools' | 'toolChoice' | 'parallelToolCalls'>;

/** `nested`: a tool is `{ type, function: { name, ... } }`, as in chats; else all in one object. */
export function toolsOf(fields: Fields, nested: boolean): ToolRequest {
  const tools = checkArray(fields.tools, 'tools')?.map((tool, at) =>
    toolOf(tool, `tools[${at}]`, nested),
  );
  const choice = toolChoiceOf(fields.tool_choice, nested);
  const parallel = checkBoolean(fields.parallel_tool_calls, 'parallel_tool_calls');
  if (tools === undefined || tools.length === 0) {
    // What is said of tools where there are none says nothing, unless it wants one.
    if (choice === undefined || choice === 'auto' || choice === 'none') return {};
    throw invalidOptions('tool_choice', 'tool_choice asks for a call, but there are no tools.');
  }
  if (typeof choice === 'object' && !tools.some(({ name }) => name === choice.name)) {
    const message = `tool_choice names no tool of the request: ${describe(choice.name)}.`;
    throw invalidOptions('tool_choice', message);
  }
  return {
    tools,
    ...(choice === undefined ? {} : { toolChoice: choice }),
    ...(parallel === undefined ? {} : { parallelToolCalls: parallel }),
  };
}

function toolOf(tool: unknown, field: string, nested: boolean): ToolDefinition {
  const outer = objectOf(tool, field);
  if (outer.type !== 'function') {
    const message = `${field}.type must be "function": this server runs no tools itself.`;
    throw invalidOptions(`${field}.type`, message, outer.type);
  }
  const at = nested ? `${field}.function` : field;
  const { name, description, parameters, strict } = nested ? objectOf(outer.function, at) : outer;
  if (description !== undefined && description !== null && typeof description !== 'string') {
    throw invalidOptions(`${at}.description`, `${at}.description must be a string.`, description);
  }
  const isStrict = checkBoolean(strict ?? undefined, `${at}.strict`);
  return {
    name: requiredText(name, `${at}.name`),
    ...(typeof description === 'string' ? { description } : {}),
    parameters:
      parameters === undefined || parameters === null
        ? NO_ARGUMENTS
        : objectOf(parameters, `${at}.parameters`),
    ...(isStrict === undefined ? {} : { strict: isStrict }),
  };
}

function toolChoiceOf(choice: unknown, nested: boolean): ToolChoice | undefined {
  const field = 'tool_choice';
  if (choice === undefined) return undefined;
  if (typeof choice === 'string') {
    return checkOneOf(choice, field, ['none', 'auto', 'required'] as const);
  }
  const outer = objectOf(choice, field);
  if (outer.type !== 'function') {
    const message = `${field}.type must be "function", not ${describe(outer.type)}.`;
    throw invalidOptions(`${field}.type`, message, outer.type);
  }
  const at = nested ? `${field}.function` : field;
  return { name: requiredText((nested ? objectOf(outer.function, at) : outer).name, `${at}.name`) };
}
