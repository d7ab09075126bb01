/**
 * What a request's answer may hold -> the grammar it is generated under and the way it is read.
 *
 * Both are made of the same strings, so that what is enforced is what is found. Called by
 * prepare-request.ts.
 */
import type { JsonSchema } from '../../src/types.js';
import type { CallFormat } from '../chat/call-format.js';
import type { ReasoningTags, Thinking } from '../chat/reasoning-tags.js';
import type { WireTools } from '../protocol.js';
import type { AddedToken } from '../tokenizer/control-tokens.js';
import {
  answerGrammar,
  type AnswerGrammar,
  type AnswerShape,
  type CallableTool,
} from './answer-grammar.js';
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
  /** Grammar of a structured answer; null = text. */
  structured: string | null;
  thinking: Thinking;
}

export interface AnswerPlan {
  /** null: the answer is free. */
  grammar: AnswerGrammar | null;
  /** null: it is nothing but text. */
  reading: AnswerReading | null;
}

/** A schema's grammar; `field` names it in refusals. */
export type SchemaGrammar = (schema: JsonSchema, field: string) => Promise<string>;

export async function planAnswer(
  style: AnswerStyle,
  { tools, structured, thinking }: AnswerRequest,
  schemaGrammar: SchemaGrammar,
): Promise<AnswerPlan> {
  const { callFormat: format, reasoningTags: tags } = style;
  const calls =
    tools === undefined
      ? null
      : {
          tools: await callableTools(tools, schemaGrammar),
          required: tools.choice !== 'auto',
          parallel: tools.parallel && typeof tools.choice !== 'object',
        };
  const shape: AnswerShape = {
    format,
    markers: new Markers(style.special, markingTexts(format, tags)),
    calls,
    structured: calls?.required === true ? null : structured,
    reasoning: tags === null || thinking === 'none' ? null : { tags, thinking },
  };
  if (calls === null && shape.reasoning === null) {
    return { grammar: structured === null ? null : { text: structured }, reading: null };
  }
  const parser = new AnswerParser(syntaxOf(shape));
  return { grammar: answerGrammar(shape), reading: { parser, signs: shape.markers.signs } };
}

function syntaxOf({ format, markers, calls, structured, reasoning }: AnswerShape): AnswerSyntax {
  const syntax: AnswerSyntax = { reasoning: null, calls: null };
  if (reasoning !== null) {
    const { open, close } = reasoning.tags;
    const tags = { open: markers.shown(open), close: markers.shown(close) };
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

/** Those that the choice leaves. */
async function callableTools(
  { definitions, choice }: WireTools,
  schemaGrammar: SchemaGrammar,
): Promise<CallableTool[]> {
  const callable: CallableTool[] = [];
  for (const [index, { name, parameters }] of definitions.entries()) {
    if (typeof choice === 'object' && choice.name !== name) continue;
    const field = `request.tools[${index}].parameters`;
    callable.push({ name, argumentsGrammar: await schemaGrammar(parameters, field) });
  }
  return callable;
}

function markingTexts(format: CallFormat, tags: ReasoningTags | null): string[] {
  const { first, next, after, close, besideJson } = format;
  return [first, next, after, close, besideJson, ...(tags === null ? [] : [tags.open, tags.close])];
}
