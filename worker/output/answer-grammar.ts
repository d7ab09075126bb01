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
import type { CallFormat } from '../chat/call-format.js';
import type { ReasoningTags, Thinking } from '../chat/reasoning-tags.js';
import { embedded, textUntil } from './gbnf.js';
import type { Markers } from './markers.js';

export interface CallableTool {
  name: string;
  /** Grammar of its arguments' JSON text. */
  argumentsGrammar: string;
}

export interface AnswerShape {
  format: CallFormat;
  markers: Markers;
  /** What may be called; null = nothing. */
  calls: { tools: readonly CallableTool[]; required: boolean; parallel: boolean } | null;
  /** Grammar of a structured answer; null = text, or nothing but calls. */
  structured: string | null;
  reasoning: { tags: ReasoningTags; thinking: Exclude<Thinking, 'none'> } | null;
}

export interface AnswerGrammar {
  text: string;
  /** Absent: it governs from the first byte. */
  triggers?: (string | number)[];
}

/** null: the answer is free. */
export function answerGrammar(shape: AnswerShape): AnswerGrammar | null {
  const { calls, structured, reasoning, format, markers } = shape;
  if (calls === null && structured === null) return null;
  const rules = calls === null ? [] : callRules(shape, calls);
  if (structured !== null) rules.push(embedded(structured, 'structured-'));

  const isFree = structured === null && calls?.required !== true;
  if (isFree && reasoning === null) {
    const root = `root ::= ${firstCall(shape, format.trigger)} more-calls`;
    return { text: [root, ...rules].join('\n'), triggers: [markers.trigger(format.trigger)] };
  }
  if (isFree) {
    rules.push(...until(markers, format.trigger, 'text-', 'triggered', true));
    rules.push(`triggered ::= ${firstCall(shape, format.trigger)} more-calls`);
    rules.push('answer ::= text-0');
  } else {
    const kinds = [];
    if (calls !== null) kinds.push('calls');
    if (structured !== null) kinds.push('structured-root');
    rules.push(`answer ::= ${kinds.join(' | ')}`);
  }
  return { text: [rootOf(shape), ...rules].join('\n') };
}

function rootOf({ reasoning, markers }: AnswerShape): string {
  if (reasoning === null) return 'root ::= answer';
  const { tags, thinking } = reasoning;
  const thoughts = until(markers, tags.close, 'thoughts-', 'thought', false);
  const gap = 'thought ::= "\\n"{0,2} answer';
  const root =
    thinking === 'open'
      ? 'root ::= thoughts-0'
      : `root ::= answer | ${markers.terminals(tags.open)} thoughts-0`;
  return [root, ...thoughts, gap].join('\n');
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

function callRules(
  shape: AnswerShape,
  { tools, parallel }: NonNullable<AnswerShape['calls']>,
): string[] {
  const { format, markers } = shape;
  const call = tools.map(
    ({ name }, index) =>
      `${markers.terminals(name + format.after)} tool${index}-root ${markers.terminals(format.close)}`,
  );
  const next = `${markers.terminals(format.next + format.before)} named-call`;
  return [
    `calls ::= ${firstCall(shape, '')} more-calls`,
    `more-calls ::= ${parallel ? `( ${next} )* ` : ''}${markers.terminals(format.end)}`,
    `named-call ::= ${call.join(' | ')}`,
    ...tools.map(({ argumentsGrammar }, index) => embedded(argumentsGrammar, `tool${index}-`)),
  ];
}

/** The first call, without the part of it that has been written already. */
function firstCall({ format, structured, markers }: AnswerShape, written: string): string {
  const lead = structured === null ? '' : format.besideJson;
  const opening = lead + format.first + format.before;
  return `${markers.terminals(opening.slice(written.length))} named-call`;
}
