/**
 * Tools for chat templates that know none: told in the system message, called and answered in plain
 * turns of assistant and user.
 *
 * Always holds: what comes out has only text turns of system, user and assistant, and as many user
 * turns in a row as went in, so that a template that wants alternating roles gets them. The form is
 * PLAIN's (call-format.ts). Called by chat-template.ts.
 */
import type { ChatMessage, ToolDefinition } from '../../src/types.js';
import { PLAIN } from './call-format.js';

export function plainMessages(
  messages: readonly ChatMessage[],
  tools: readonly ToolDefinition[],
): ChatMessage[] {
  const plain: ChatMessage[] = [];
  const names = new Map<string, string>();
  /** The last turn holds results: the user's own words join it. */
  let resultsLast = false;
  for (const message of messages) {
    if (message.role === 'tool') {
      const name = message.name ?? names.get(message.toolCallId) ?? 'the tool';
      appendUser(plain, `Result of ${name}:\n${message.content}`, resultsLast);
      resultsLast = true;
      continue;
    }
    if (message.role === 'user' && resultsLast) {
      appendUser(plain, message.content, true);
    } else if (message.role === 'assistant') {
      for (const { id, name } of message.toolCalls ?? []) names.set(id, name);
      plain.push(assistantTurn(message));
    } else {
      plain.push(message);
    }
    resultsLast = false;
  }
  return tools.length === 0 ? plain : withTools(plain, tools);
}

function appendUser(plain: ChatMessage[], content: string, join: boolean): void {
  const last = plain.at(-1);
  if (join && last?.role === 'user') {
    plain[plain.length - 1] = { role: 'user', content: `${last.content}\n\n${content}` };
  } else {
    plain.push({ role: 'user', content });
  }
}

function assistantTurn(message: ChatMessage & { role: 'assistant' }): ChatMessage {
  const { toolCalls = [], ...turn } = message;
  const { before, after, close, next } = PLAIN;
  const calls = toolCalls.map(
    (call) => before + call.name + after + JSON.stringify(call.arguments) + close,
  );
  return { ...turn, content: [message.content, ...calls].filter((part) => part !== '').join(next) };
}

function withTools(plain: ChatMessage[], tools: readonly ToolDefinition[]): ChatMessage[] {
  const list = tools.map(({ name, description, parameters }) =>
    JSON.stringify({ name, description, parameters }),
  );
  const { before, after, close } = PLAIN;
  const told =
    `You can call these functions:\n${list.join('\n')}\n\n` +
    'To call one, answer with one line of JSON and nothing after it:\n' +
    `${before}<name of the function>${after}<its arguments, an object>${close}\n` +
    'Several calls take a line each. Their results come in the next message.';
  const [first, ...rest] = plain;
  if (first?.role !== 'system') return [{ role: 'system', content: told }, ...plain];
  return [{ role: 'system', content: `${first.content}\n\n${told}` }, ...rest];
}

/** For templates without a system role: its text at the head of the first user turn. */
export function foldSystem(messages: readonly ChatMessage[]): ChatMessage[] {
  const [system, user, ...rest] = messages;
  if (system?.role !== 'system' || user?.role !== 'user') return [...messages];
  return [{ role: 'user', content: `${system.content}\n\n${user.content}` }, ...rest];
}
