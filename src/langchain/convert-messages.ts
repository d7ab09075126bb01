/**
 * LangChain's messages as chat messages: text in any of the forms it comes in, calls and their
 * results, reasoning of earlier turns.
 *
 * What a text model cannot read (images, audio, files that are no text) is INVALID_OPTIONS with the
 * message and block at fault. Called for every request of a chat.
 */
import type { AIMessage, BaseMessage, ContentBlock, ToolMessage } from '@langchain/core/messages';
import { invalidOptions } from '../check-shape.js';
import type { ChatMessage, ToolCall } from '../types.js';
import { textOfFile } from './text-files.js';

export function convertMessages(messages: BaseMessage[]): ChatMessage[] {
  return messages.map((message, index) => convertMessage(message, index));
}

function convertMessage(message: BaseMessage, index: number): ChatMessage {
  const field = `messages[${index}]`;
  switch (message.type) {
    case 'system':
    case 'developer':
      return { role: 'system', content: textOf(message, field) };
    case 'human':
      return { role: 'user', content: textOf(message, field) };
    case 'ai':
      return convertAnswer(message as AIMessage, index);
    case 'tool':
      return convertResult(message as ToolMessage, field);
    case 'generic':
      return convertGeneric(message, field);
    default:
      throw unreadable(field, `a message of type "${message.type}"`);
  }
}

function convertAnswer(message: AIMessage, index: number): ChatMessage {
  let content = '';
  let reasoning = reasoningBesideContent(message);
  message.contentBlocks.forEach((block, at) => {
    if (CALL_BLOCKS.has(block.type)) return;
    if (block.type === 'reasoning') reasoning += (block as ContentBlock.Reasoning).reasoning;
    else content += textOfBlock(block, `messages[${index}].content[${at}]`);
  });
  // Examples written by hand often have no ids; a result then names none either.
  const toolCalls = (message.tool_calls ?? []).map(({ id, name, args }, at): ToolCall => ({
    id: id ?? `call-${index}-${at}`,
    name,
    arguments: args,
  }));
  return {
    role: 'assistant',
    content,
    ...(toolCalls.length === 0 ? {} : { toolCalls }),
    ...(reasoning === '' ? {} : { reasoning }),
  };
}

/** Blocks that say again what `tool_calls` says, in the forms of several providers. */
const CALL_BLOCKS: ReadonlySet<string> = new Set([
  ...['tool_call', 'tool_call_chunk', 'invalid_tool_call'],
  ...['tool_use', 'input_json_delta', 'function_call', 'functionCall'],
]);

/** As providers have it whose content is a string; those that LangChain translates are in blocks. */
function reasoningBesideContent(message: AIMessage): string {
  const { reasoning_content: beside } = message.additional_kwargs;
  const isBlock = message.contentBlocks.some(({ type }) => type === 'reasoning');
  return typeof beside === 'string' && !isBlock ? beside : '';
}

function convertResult(message: ToolMessage, field: string): ChatMessage {
  const { tool_call_id: toolCallId, name } = message;
  return {
    role: 'tool',
    toolCallId,
    ...(name === undefined || name === '' ? {} : { name }),
    content: textOf(message, field),
  };
}

function convertGeneric(message: BaseMessage, field: string): ChatMessage {
  const { role } = message as BaseMessage & { role?: unknown };
  if (role === 'system' || role === 'user' || role === 'assistant') {
    return { role, content: textOf(message, field) };
  }
  throw unreadable(field, `a message of role ${JSON.stringify(role)}`);
}

function textOf(message: BaseMessage, field: string): string {
  return message.contentBlocks
    .map((block, at) => textOfBlock(block, `${field}.content[${at}]`))
    .join('');
}

function textOfBlock(block: ContentBlock, field: string): string {
  if (block.type === 'text' && typeof block.text === 'string') return block.text;
  const text = textOfFile(block, field);
  if (text !== undefined) return text;
  throw unreadable(field, `a content block of type "${block.type}"`);
}

function unreadable(field: string, what: string): Error {
  return invalidOptions(field, `${field} is ${what}, and lorax-js reads text only.`);
}
