/**
 * Chat messages, checked: known roles, text where text belongs, calls with arguments that are JSON.
 *
 * The result is plain data, ready for the worker's port. Called by generate-request.ts; throws
 * INVALID_OPTIONS.
 */
import {
  checkArray,
  checkJsonObject,
  checkObject,
  checkOneOf,
  checkString,
  invalidOptions,
} from './check-shape.js';
import type { ChatMessage, ToolCall } from './types.js';

const ROLES = ['system', 'user', 'assistant', 'tool'] as const;

const KEYS = {
  system: ['role', 'content'],
  user: ['role', 'content'],
  assistant: ['role', 'content', 'toolCalls', 'reasoning'],
  tool: ['role', 'content', 'toolCallId', 'name'],
} as const;

const ALL_KEYS = [...new Set(Object.values(KEYS).flat())];

export function checkMessages(messages: unknown): ChatMessage[] {
  if (!Array.isArray(messages) || messages.length === 0) {
    throw invalidOptions(
      'request.messages',
      'request.messages must be a non-empty array.',
      messages,
    );
  }
  return messages.map((message: unknown, index) =>
    checkMessage(message, `request.messages[${index}]`),
  );
}

function checkMessage(message: unknown, field: string): ChatMessage {
  const { role: given } = checkObject(message, field, ALL_KEYS);
  const role = required(checkOneOf(given, `${field}.role`, ROLES), `${field}.role`);
  const fields = checkObject(message, field, KEYS[role]);
  const content = text(fields.content, `${field}.content`);
  if (role === 'tool') {
    const toolCallId = checkString(fields.toolCallId, `${field}.toolCallId`);
    const name = checkString(fields.name, `${field}.name`);
    return {
      role,
      toolCallId: required(toolCallId, `${field}.toolCallId`),
      ...(name === undefined ? {} : { name }),
      content,
    };
  }
  if (role !== 'assistant') return { role, content };
  const toolCalls = checkArray(fields.toolCalls, `${field}.toolCalls`)?.map((call, index) =>
    checkToolCall(call, `${field}.toolCalls[${index}]`),
  );
  return {
    role,
    content,
    ...(toolCalls === undefined ? {} : { toolCalls }),
    ...(fields.reasoning === undefined
      ? {}
      : { reasoning: text(fields.reasoning, `${field}.reasoning`) }),
  };
}

function checkToolCall(call: unknown, field: string): ToolCall {
  const fields = checkObject(call, field, ['id', 'name', 'arguments']);
  return {
    id: required(checkString(fields.id, `${field}.id`), `${field}.id`),
    name: required(checkString(fields.name, `${field}.name`), `${field}.name`),
    arguments: checkJsonObject(fields.arguments, `${field}.arguments`),
  };
}

function text(value: unknown, field: string): string {
  if (typeof value === 'string') return value;
  throw invalidOptions(field, `${field} must be a string.`, value);
}

function required<T>(value: T | undefined, field: string): T {
  if (value !== undefined) return value;
  throw invalidOptions(field, `${field} is missing.`);
}
