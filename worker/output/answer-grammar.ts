/**
 * The grammar of an answer: what may come, in which order, so that calls and structured answers
 * cannot be malformed.
 *
 *   answer     = [reasoning] ( text [calls] | calls | structured [or calls] )
 *
 * Where plain text may come first and no reasoning does, the text stays free and the grammar governs
 * from the calls' trigger on. Everything else is one grammar from the first byte, which also closes
 * what is open when the budget ends. Called by answer-plan.ts.
 */
import type { JsonSchema } from '../../src/types.js';
import type { CallFormat } from '../chat/call-format.js';
import type { ReasoningTags, Thinking } from '../chat/reasoning-tags.js';
import { argumentsGrammar } from '../grammar/arguments-grammar.js';
import { constraintGrammar } from '../grammar/constraint-grammar.js';
import type { WireConstraint } from '../protocol.js';
import { embedded, textUntil } from './gbnf.js';
import type { Markers } from './markers.js';

export interface CallableTool {
  name: string;
  parameters: JsonSchema;
  /** How errors call its parameters. */
  field: string;
}

export interface AnswerShape {
  format: CallFormat;
  markers: Markers;
  /** What may be called; null = nothing. */
  calls: { tools: readonly CallableTool[]; required: boolean; parallel: boolean } | null;
  /** What a structured answer matches; null = text, or nothing but calls. */
  structured: WireConstraint | null;
  reasoning: { tags: ReasoningTags; thinking: Exclude<Thinking, 'none'> } | null;
}

/** The answer begins as free text, which the grammar does not govern. */
export function beginsFree({ calls, structured, reasoning }: AnswerShape): boolean {
  return calls !== null && !calls.required && structured === null && reasoning === null;
}

/** Throws what a tool's schema or the constraint is refused for. */
export async function answerGrammar(shape: AnswerShape): Promise<string> {
  const { calls, structured, reasoning, format, markers } = shape;
  const rules: string[] = [];
  if (calls !== null) rules.push(...(await callRules(shape, calls)));
  if (structured !== null) rules.push(embedded(await constraintGrammar(structured), 'structured-'));

  if (beginsFree(shape)) {
    return [`root ::= ${firstCall(shape, format.trigger)} more-calls`, ...rules].join('\n');
  }
  const isText = structured === null && calls?.required !== true;
  if (isText) {
    rules.push(...until(markers, format.trigger, 'text-', 'triggered', true));
    rules.push(`triggered ::= ${firstCall(shape, format.trigger)} more-calls`);
    rules.push('answer ::= text-0');
  } else {
    const kinds = [];
    if (calls !== null) kinds.push('calls');
    if (structured !== null) kinds.push('structured-root');
    rules.push(`answer ::= ${kinds.join(' | ')}`);
  }
  return [...rootRules(reasoning, markers, isText), ...rules].join('\n');
}

/** `mayEnd`: nothing has to follow the reasoning, which then may take all there is. */
function rootRules(
  reasoning: AnswerShape['reasoning'],
  markers: Markers,
  mayEnd: boolean,
): string[] {
  if (reasoning === null) return ['root ::= answer'];
  const { tags, thinking } = reasoning;
  const thoughts = until(markers, tags.close, 'thoughts-', 'thought', mayEnd);
  const root =
    thinking === 'open'
      ? 'root ::= thoughts-0'
      : `root ::= answer | ${markers.terminals(tags.open)} thoughts-0`;
  return [root, ...thoughts, 'thought ::= "\\n"{0,2} answer'];
}

/** As textUntil; a special token cannot be met in text, so there the text is simply all text. */
function until(
  markers: Markers,
  marker: string,
  name: string,
  then: string,
  mayEnd: boolean,
): string[] {
  const token = markers.tokenOf(marker);
  if (token === null) return textUntil(marker, name, then, mayEnd);
  const rest = `<[${token}]> ${then}`;
  return [`${name}0 ::= .* ${mayEnd ? `( ${rest} )?` : rest}`];
}

async function callRules(
  shape: AnswerShape,
  { tools, parallel }: NonNullable<AnswerShape['calls']>,
): Promise<string[]> {
  const { format, markers } = shape;
  const call = tools.map(
    ({ name }, index) =>
      `${markers.terminals(name + format.after)} tool${index}-root ${markers.terminals(format.close)}`,
  );
  const inputs: string[] = [];
  for (const [index, { parameters, field }] of tools.entries()) {
    inputs.push(embedded(await argumentsGrammar(parameters, field), `tool${index}-`));
  }
  const next = `${markers.terminals(format.next + format.before)} named-call`;
  return [
    `calls ::= ${firstCall(shape, '')} more-calls`,
    `more-calls ::= ${parallel ? `( ${next} )* ` : ''}${markers.terminals(format.end)}`,
    `named-call ::= ${call.join(' | ')}`,
    ...inputs,
  ];
}

/** The first call, without the part of it that has been written already. */
function firstCall({ format, structured, markers }: AnswerShape, written: string): string {
  const lead = structured === null ? '' : format.besideJson;
  const opening = lead + format.first + format.before;
  return `${markers.terminals(opening.slice(written.length))} named-call`;
}
