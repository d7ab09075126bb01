/**
 * What a request's answer may hold -> the grammar it is generated under and the way it is read.
 *
 * Both are made of the same strings, so that what is enforced is what is found. Called by
 * prepare-request.ts.
 */
import type { CallFormat } from '../chat/call-format.js';
import type { ReasoningTags, Thinking } from '../chat/reasoning-tags.js';
import { constraintGrammar } from '../grammar/constraint-grammar.js';
import type { WireConstraint, WireTools } from '../protocol.js';
import type { AddedToken } from '../tokenizer/control-tokens.js';
import { answerGrammar, beginsFree, type AnswerShape } from './answer-grammar.js';
import { AnswerParser, type AnswerSyntax } from './answer-parser.js';
import { Markers } from './markers.js';
import type { AnswerReading } from './text-output.js';

/** How the model writes. */
export interface AnswerStyle {
  callFormat: CallFormat;
  reasoningTags: ReasoningTags | null;
  special: readonly AddedToken[];
}

export interface AnswerRequest {
  tools?: WireTools;
  constraint?: WireConstraint;
  thinking: Thinking;
}

export interface AnswerPlan {
  /** null: the answer is free. */
  grammar: PlannedGrammar | null;
  /** null: it is nothing but text. */
  reading: AnswerReading | null;
}

export interface PlannedGrammar {
  /** Everything that the text depends on. */
  key: string;
  /** Throws what a tool's schema or the constraint is refused for. */
  text(): Promise<string>;
  /** Absent: it governs from the first byte. */
  triggers?: (string | number)[];
}

export function planAnswer(
  { callFormat: format, reasoningTags: tags, special }: AnswerStyle,
  { tools, constraint, thinking }: AnswerRequest,
): AnswerPlan {
  const isFree = tools === undefined && constraint === undefined;
  // Tokens alone are no reason to let a call or a structured answer wait for them.
  const mayReason = thinking !== 'none' && (tags?.inTemplate === true || isFree);
  const reasoning = tags === null || !mayReason ? null : { tags, thinking };
  if (tools === undefined && reasoning === null) {
    if (constraint === undefined) return { grammar: null, reading: null };
    const text = () => constraintGrammar(constraint);
    return { grammar: { key: JSON.stringify(constraint), text }, reading: null };
  }
  const calls = tools === undefined ? null : callsOf(tools);
  const shape: AnswerShape = {
    format,
    markers: new Markers(special, markingTexts(format, tags)),
    calls,
    structured: calls?.required === true ? null : (constraint ?? null),
    reasoning,
  };
  const reading = { parser: new AnswerParser(syntaxOf(shape)), signs: shape.markers.signs };
  if (calls === null && shape.structured === null) return { grammar: null, reading };
  const grammar: PlannedGrammar = {
    key: JSON.stringify([calls, shape.structured, reasoning]),
    text: () => answerGrammar(shape),
  };
  if (beginsFree(shape)) grammar.triggers = [shape.markers.trigger(format.trigger)];
  return { grammar, reading };
}

/** Those that the choice leaves. */
function callsOf({ definitions, choice, parallel }: WireTools): NonNullable<AnswerShape['calls']> {
  const all = definitions.map(({ name, parameters }, index) => {
    return { name, parameters, field: `request.tools[${index}].parameters` };
  });
  if (typeof choice === 'string') return { tools: all, required: choice === 'required', parallel };
  const tools = all.filter(({ name }) => name === choice.name);
  return { tools, required: true, parallel: false };
}

function syntaxOf({ format, markers, calls, structured, reasoning }: AnswerShape): AnswerSyntax {
  const openEnded = structured === null && calls?.required !== true;
  const syntax: AnswerSyntax = { reasoning: null, calls: null, openEnded };
  if (reasoning !== null) {
    const { open, close } = reasoning.tags;
    const tags = { ...reasoning.tags, open: markers.shown(open), close: markers.shown(close) };
    syntax.reasoning = { tags, thinking: reasoning.thinking };
  }
  if (calls !== null) {
    const headers = (lead: string) =>
      new Map(
        calls.tools.map(({ name }) => [
          markers.shown(lead + format.before + name + format.after),
          name,
        ]),
      );
    syntax.calls = {
      first: headers((structured === null ? '' : format.besideJson) + format.first),
      next: headers(format.next),
      close: markers.shown(format.close),
      atStartOnly: structured !== null || calls.required,
    };
  }
  return syntax;
}

function markingTexts(format: CallFormat, tags: ReasoningTags | null): string[] {
  const { first, next, after, close, besideJson } = format;
  return [first, next, after, close, besideJson, ...(tags === null ? [] : [tags.open, tags.close])];
}
