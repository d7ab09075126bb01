/**
 * The scripts of the fake engine: what a test writes down, as the events of one token after another.
 *
 * The order is a real answer's: reasoning, text, calls. Stop strings cut the text alone, as they
 * do there. Called by fake-engine.ts.
 */
import { createHash, randomUUID } from 'node:crypto';
import { adaptersName } from '../adapter-mix.js';
import type { CheckedRequest } from '../generate-request.js';
import type {
  ChatMessage,
  Constraint,
  FinishEvent,
  JsonSchema,
  Sampling,
  TokenEvent,
  ToolChoice,
  ToolDefinition,
} from '../types.js';

/** What a fake adapter answers: a reply, or a function of the request that gives one. */
export type FakeAnswer = FakeReply | ((request: FakeRequest) => FakeReply);

/** A text; an error before the first token; or a whole script. */
export type FakeReply = string | Error | FakeScript;

export interface FakeScript {
  reasoning?: string;
  text?: string;
  /** Not held against the request's tools: a test may want a call that is wrong. */
  toolCalls?: { name: string; arguments: unknown }[];
  /** After all of it, instead of the end. */
  thenFail?: Error;
}

export interface FakeRequest {
  /** Of a mix: "0.7*pirate + 0.3*json". */
  adapter: string;
  /** A prompt that is no chat arrives as one user message. */
  messages: ChatMessage[];
  sampling: Sampling;
  /** Not enforced: the script says what is answered. */
  constraint: Constraint | undefined;
  /** Empty where toolChoice is 'none'. */
  tools: ToolDefinition[];
  toolChoice: ToolChoice;
  parallelToolCalls: boolean;
  reasoning: boolean | undefined;
}

/** One token. */
export interface FakeStep {
  reasoning: boolean;
  events: TokenEvent[];
}

export interface FakePlay {
  steps: FakeStep[];
  reason: FinishEvent['reason'];
  rawReason: string;
}

export function askedOf(request: CheckedRequest): FakeRequest {
  const { adapters, sampling, tools, reasoning } = request;
  return {
    adapter: adaptersName(adapters),
    messages: messagesOf(request),
    sampling,
    constraint: constraintOf(request),
    tools: tools?.definitions ?? [],
    toolChoice: tools?.choice ?? 'none',
    parallelToolCalls: tools?.parallel ?? true,
    reasoning,
  };
}

function constraintOf({ constraint }: CheckedRequest): Constraint | undefined {
  if (constraint?.type !== 'json') return constraint;
  return { type: 'json', schema: JSON.parse(constraint.schema) as JsonSchema };
}

function messagesOf({ prompt }: CheckedRequest): ChatMessage[] {
  if (prompt.kind === 'messages') return prompt.messages;
  const content = prompt.kind === 'text' ? prompt.text : prompt.tokens.join(' ');
  return [{ role: 'user', content }];
}

export function countPromptTokens({ prompt }: CheckedRequest): number {
  if (prompt.kind === 'tokens') return prompt.tokens.length;
  const texts = prompt.kind === 'text' ? [prompt.text] : prompt.messages.map((m) => m.content);
  return texts.reduce((sum, text) => sum + splitTokens(text).length, 0);
}

/** What a request's stop strings and maximum leave of a script. */
export function playSteps(script: FakeScript, { stop, maxOutputTokens }: Sampling): FakePlay {
  const text = script.text ?? '';
  const hit = firstStop(text, stop ?? []);
  const calls = hit === undefined ? (script.toolCalls ?? []) : [];
  const steps = [
    ...splitTokens(script.reasoning ?? '').map(reasoningStep),
    ...splitTokens(hit === undefined ? text : text.slice(0, hit.at)).map(textStep),
    ...calls.flatMap(callSteps),
  ];
  if (maxOutputTokens !== undefined && steps.length > maxOutputTokens) {
    return {
      steps: steps.slice(0, maxOutputTokens),
      ...{ reason: 'length', rawReason: 'max-output-tokens' },
    };
  }
  if (hit !== undefined) return { steps, reason: 'stop', rawReason: `stop-string:${hit.string}` };
  return { steps, reason: calls.length > 0 ? 'tool-calls' : 'stop', rawReason: 'eos' };
}

function firstStop(text: string, stop: string[]): { string: string; at: number } | undefined {
  return stop
    .map((string) => ({ string, at: text.indexOf(string) }))
    .filter(({ at }) => at >= 0)
    .sort((a, b) => a.at - b.at)[0];
}

function textStep(token: string): FakeStep {
  return {
    reasoning: false,
    events: [{ type: 'delta', text: token, tokenIds: [tokenId(token)] }],
  };
}

/** The token's id, and beside it what the token says. */
function silent(token: string): TokenEvent {
  return { type: 'delta', text: '', tokenIds: [tokenId(token)] };
}

function reasoningStep(token: string): FakeStep {
  return { reasoning: true, events: [silent(token), { type: 'reasoning-delta', text: token }] };
}

function callSteps({ name, arguments: given }: { name: string; arguments: unknown }): FakeStep[] {
  const callId = randomUUID().replaceAll('-', '').slice(0, 9);
  const input = JSON.stringify(given);
  const steps = splitTokens(input).map((token): FakeStep => {
    return {
      reasoning: false,
      events: [silent(token), { type: 'tool-call-delta', callId, delta: token }],
    };
  });
  steps.at(-1)?.events.push({ type: 'tool-call-end', callId, name, input });
  const start: TokenEvent = { type: 'tool-call-start', callId, name };
  return [{ reasoning: false, events: [silent(name), start] }, ...steps];
}

export function splitTokens(text: string): string[] {
  return text.match(/\s*\S+|\s+$/g) ?? [];
}

/** The same word has the same id, always. */
export function tokenId(token: string): number {
  return createHash('sha256').update(token).digest().readUInt16LE(0);
}
