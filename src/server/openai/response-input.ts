/**
 * The `input` of /v1/responses (a text, or items) and its `instructions` as chat messages.
 *
 * A call and the text and reasoning before it are one turn of the assistant; its output is a message of
 * its own. Throws INVALID_OPTIONS.
 */
import {
  checkArray,
  checkOneOf,
  describe,
  invalidOptions,
  type Fields,
} from '../../check-shape.js';
import type { ChatMessage, ToolCall } from '../../types.js';
import { argumentsOf, objectOf, requiredText, textOf } from './chat-messages.js';

const ROLES = ['user', 'assistant', 'system', 'developer'] as const;

interface AssistantTurn {
  role: 'assistant';
  content: string;
  toolCalls?: ToolCall[];
  reasoning?: string;
}

export function responseMessagesOf({ input, instructions }: Fields): ChatMessage[] {
  const messages: ChatMessage[] =
    instructions === undefined
      ? []
      : [{ role: 'system', content: textOf(instructions, 'instructions') }];
  if (typeof input === 'string') return [...messages, { role: 'user', content: input }];
  const items = checkArray(input, 'input') ?? [];
  if (items.length === 0) {
    throw invalidOptions('input', 'input must be a text or a non-empty array of items.', input);
  }
  items.forEach((item, at) => addItem(messages, objectOf(item, `input[${at}]`), `input[${at}]`));
  return messages;
}

function addItem(messages: ChatMessage[], item: Fields, field: string): void {
  const type = item.type ?? 'message';
  switch (type) {
    case 'message':
      messages.push(messageOf(item, field, messages));
      return;
    case 'reasoning': {
      const parts = item.content ?? item.summary ?? [];
      const said = (checkArray(parts, `${field}.content`) ?? []).map((part, at) => {
        return requiredText(objectOf(part, `${field}[${at}]`).text, `${field}[${at}].text`);
      });
      if (said.length > 0) turnOf(messages, true).reasoning = said.join('\n');
      return;
    }
    case 'function_call': {
      const turn = turnOf(messages, false);
      (turn.toolCalls ??= []).push({
        id: requiredText(item.call_id, `${field}.call_id`),
        name: requiredText(item.name, `${field}.name`),
        arguments: argumentsOf(item.arguments, `${field}.arguments`),
      });
      return;
    }
    case 'function_call_output':
      messages.push({
        role: 'tool',
        toolCallId: requiredText(item.call_id, `${field}.call_id`),
        content: textOf(item.output, `${field}.output`),
      });
      return;
    default:
      throw invalidOptions(
        `${field}.type`,
        `${field}.type: ${describe(type)} is not supported; message, function_call, ` +
          'function_call_output and reasoning are.',
      );
  }
}

function messageOf(item: Fields, field: string, messages: ChatMessage[]): ChatMessage {
  const role = checkOneOf(item.role ?? undefined, `${field}.role`, ROLES);
  if (role === undefined) throw invalidOptions(`${field}.role`, `${field}.role is missing.`);
  const content = textOf(item.content, `${field}.content`);
  if (role === 'user') return { role, content };
  if (role !== 'assistant') return { role: 'system', content };
  const last = messages.at(-1);
  const thought = last?.role === 'assistant' && last.content === '' && last.reasoning !== undefined;
  // What it thought before it said this.
  if (thought) messages.pop();
  return { role, content, ...(thought ? { reasoning: last.reasoning as string } : {}) };
}

/** The assistant's turn that is being written, or a new one. */
function turnOf(messages: ChatMessage[], fresh: boolean): AssistantTurn {
  const last = messages.at(-1);
  if (last?.role === 'assistant' && !fresh) return last;
  const turn: AssistantTurn = { role: 'assistant', content: '' };
  messages.push(turn);
  return turn;
}
