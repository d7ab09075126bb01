/**
 * Chat messages and tools as Hugging Face's chat templates take them.
 *
 * Always holds: no text in them can become a control token (`shield`); a call's id has nine letters
 * and digits, as Mistral's templates demand, the same in call and result. Called by chat-template.ts.
 */
import { createHash } from 'node:crypto';
import type { ChatMessage, ToolDefinition } from '../../src/types.js';

/** The content with marks in it that keep it text; see ControlTokens. */
export type Shield = (content: string, role: string) => string;

export type TemplateMessage = Record<string, unknown> & { role: string; content: string };

export interface TemplateMessageOptions {
  shield: Shield;
  /** The template refuses more than one call a turn: each gets a turn of its own. */
  oneCallPerTurn: boolean;
}

export function templateMessages(
  messages: readonly ChatMessage[],
  { shield, oneCallPerTurn }: TemplateMessageOptions,
): TemplateMessage[] {
  const calls = callsById(messages);
  const turns = oneCallPerTurn ? oneCallATurn(messages) : messages;
  return turns.map((message): TemplateMessage => {
    const { role } = message;
    const content = shield(message.content, role === 'tool' ? 'user' : role);
    if (message.role === 'tool') {
      const name = message.name ?? calls.get(message.toolCallId)?.name;
      const id = templateCallId(message.toolCallId);
      return { role, content, tool_call_id: id, ...(name === undefined ? {} : { name }) };
    }
    if (message.role !== 'assistant') return { role, content };
    const turn: TemplateMessage = { role, content };
    if (message.reasoning !== undefined && message.reasoning !== '') {
      turn.reasoning_content = shield(message.reasoning, role);
    }
    if (message.toolCalls !== undefined && message.toolCalls.length > 0) {
      turn.tool_calls = message.toolCalls.map((call) => ({
        id: templateCallId(call.id),
        type: 'function',
        function: { name: call.name, arguments: shieldJson(call.arguments, shield) },
      }));
    }
    return turn;
  });
}

/** OpenAI's function objects, which templates print as JSON. */
export function templateTools(tools: readonly ToolDefinition[], shield: Shield): unknown[] {
  return tools.map(({ name, description, parameters }) => ({
    type: 'function',
    function: {
      name,
      // Some templates take it for granted.
      description: shield(description ?? '', 'user'),
      parameters: shieldJson(parameters, shield),
    },
  }));
}

/** Text in every depth, keys too; what a schema or an argument says is nobody's control token. */
function shieldJson(value: unknown, shield: Shield): unknown {
  if (typeof value === 'string') return shield(value, 'user');
  if (Array.isArray(value)) return value.map((item) => shieldJson(item, shield));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [shield(key, 'user'), shieldJson(item, shield)]),
  );
}

function templateCallId(id: string): string {
  if (/^[A-Za-z0-9]{9}$/.test(id)) return id;
  return createHash('sha256').update(id).digest('hex').slice(0, 9);
}

interface PlacedCall {
  name: string;
  place: number;
}

function callsById(messages: readonly ChatMessage[]): Map<string, PlacedCall> {
  const calls = new Map<string, PlacedCall>();
  for (const message of messages) {
    if (message.role !== 'assistant') continue;
    for (const { id, name } of message.toolCalls ?? []) calls.set(id, { name, place: calls.size });
  }
  return calls;
}

/** Sorts each run of results, since several templates show no ids; those of no call come last. */
export function inOrderOfCalls(messages: readonly ChatMessage[]): ChatMessage[] {
  const calls = callsById(messages);
  const ordered: ChatMessage[] = [];
  let run: (ChatMessage & { role: 'tool' })[] = [];
  const place = ({ toolCallId }: { toolCallId: string }) =>
    calls.get(toolCallId)?.place ?? calls.size;
  const endRun = () => {
    ordered.push(...run.sort((a, b) => place(a) - place(b)));
    run = [];
  };
  for (const message of messages) {
    if (message.role === 'tool') {
      run.push(message);
      continue;
    }
    endRun();
    ordered.push(message);
  }
  endRun();
  return ordered;
}

/** A turn with n calls and the results behind it -> n turns with one call and its result. */
function oneCallATurn(messages: readonly ChatMessage[]): ChatMessage[] {
  const turns: ChatMessage[] = [];
  for (let at = 0; at < messages.length; at++) {
    const message = messages[at] as ChatMessage;
    if (message.role !== 'assistant' || (message.toolCalls?.length ?? 0) < 2) {
      turns.push(message);
      continue;
    }
    const { toolCalls = [], reasoning, content } = message;
    const results: (ChatMessage & { role: 'tool' })[] = [];
    for (let next = messages[at + 1]; next?.role === 'tool'; next = messages[at + 1]) {
      results.push(next);
      at++;
    }
    for (const [index, call] of toolCalls.entries()) {
      const first =
        index === 0 ? { content, ...(reasoning === undefined ? {} : { reasoning }) } : {};
      turns.push({ role: 'assistant', content: '', ...first, toolCalls: [call] });
      turns.push(...results.filter(({ toolCallId }) => toolCallId === call.id));
    }
    turns.push(
      ...results.filter((result) => !toolCalls.some(({ id }) => id === result.toolCallId)),
    );
  }
  return turns;
}
