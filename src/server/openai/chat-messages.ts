/**
 * OpenAI's messages as the engine's: texts in either form, calls and their results, reasoning of
 * earlier turns.
 *
 * Several texts of one message stand on lines of their own. What a text model cannot read is refused
 * by its place. Throws INVALID_OPTIONS.
 */
import {
  checkArray,
  checkOneOf,
  checkString,
  describe,
  invalidOptions,
  type Fields,
} from '../../check-shape.js';
import type { ChatMessage, ToolCall } from '../../types.js';

const ROLES = ['system', 'developer', 'user', 'assistant', 'tool'] as const;

export function chatMessagesOf(value: unknown): ChatMessage[] {
  const messages = checkArray(value, 'messages') ?? [];
  if (messages.length === 0) {
    throw invalidOptions('messages', 'messages must be a non-empty array.', value);
  }
  return messages.map((message, index) => messageOf(message, `messages[${index}]`));
}

function messageOf(message: unknown, field: string): ChatMessage {
  const fields = objectOf(message, field);
  const role = checkOneOf(fields.role ?? undefined, `${field}.role`, ROLES);
  const content = `${field}.content`;
  switch (role) {
    case undefined:
      throw invalidOptions(`${field}.role`, `${field}.role is missing.`);
    case 'system':
    case 'developer':
      return { role: 'system', content: textOf(fields.content, content) };
    case 'user':
      return { role, content: textOf(fields.content, content) };
    case 'assistant':
      return assistantMessage(fields, field);
    case 'tool': {
      const toolCallId = checkString(fields.tool_call_id ?? undefined, `${field}.tool_call_id`);
      if (toolCallId === undefined) {
        throw invalidOptions(`${field}.tool_call_id`, `${field}.tool_call_id is missing.`);
      }
      const name = checkString(fields.name ?? undefined, `${field}.name`);
      return {
        ...{ role, toolCallId, content: textOf(fields.content, content) },
        ...(name === undefined ? {} : { name }),
      };
    }
  }
}

function assistantMessage(fields: Fields, field: string): ChatMessage {
  const calls = checkArray(fields.tool_calls ?? undefined, `${field}.tool_calls`) ?? [];
  const toolCalls = calls.map((call, at) => toolCallOf(call, `${field}.tool_calls[${at}]`));
  // Beside calls there need be no text.
  const said = fields.content ?? fields.refusal ?? (toolCalls.length > 0 ? '' : undefined);
  const reasoning = fields.reasoning_content ?? fields.reasoning ?? undefined;
  return {
    role: 'assistant',
    content: textOf(said, `${field}.content`),
    ...(toolCalls.length === 0 ? {} : { toolCalls }),
    ...(reasoning === undefined
      ? {}
      : { reasoning: textOf(reasoning, `${field}.reasoning_content`) }),
  };
}

function toolCallOf(call: unknown, field: string): ToolCall {
  const fields = objectOf(call, field);
  const called = objectOf(fields.function, `${field}.function`);
  return {
    id: requiredText(fields.id, `${field}.id`),
    name: requiredText(called.name, `${field}.function.name`),
    arguments: argumentsOf(called.arguments, `${field}.function.arguments`),
  };
}

/** The JSON text that a model wrote; '' where there were none. */
export function argumentsOf(value: unknown, field: string): Record<string, unknown> {
  if (value === undefined || value === null || value === '') return {};
  let json: unknown;
  try {
    json = typeof value === 'string' ? (JSON.parse(value) as unknown) : value;
  } catch {
    throw invalidOptions(field, `${field} is not valid JSON.`, value);
  }
  return objectOf(json, field);
}

const TEXT_PARTS = ['text', 'input_text', 'output_text', 'refusal', 'reasoning_text'];

/** A string, or an array of parts that are text. */
export function textOf(content: unknown, field: string): string {
  if (typeof content === 'string') return content;
  if (!Array.isArray(content)) {
    throw invalidOptions(
      field,
      `${field} must be a string or an array of parts, not ${describe(content)}.`,
      content,
    );
  }
  return content.map((part: unknown, at) => textOfPart(part, `${field}[${at}]`)).join('\n');
}

function textOfPart(part: unknown, field: string): string {
  if (typeof part === 'string') return part;
  const fields = objectOf(part, field);
  const text = fields.text ?? fields.refusal;
  if (TEXT_PARTS.includes(String(fields.type)) && typeof text === 'string') return text;
  throw invalidOptions(
    field,
    `${field}: models here read text only, and this is a part of type ${describe(fields.type)}.`,
  );
}

export function objectOf(value: unknown, field: string): Fields {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Fields;
  throw invalidOptions(field, `${field} must be an object, not ${describe(value)}.`, value);
}

export function requiredText(value: unknown, field: string): string {
  const text = checkString(value ?? undefined, field);
  if (text === undefined) throw invalidOptions(field, `${field} is missing.`);
  return text;
}
