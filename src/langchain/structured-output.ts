/**
 * withStructuredOutput(): a schema in any of its forms, and three ways to an answer that matches it.
 *
 * jsonSchema constrains the answer itself, functionCalling the arguments of a call that is forced,
 * jsonMode to some JSON object. Called by chat-lorax.ts.
 */
import type {
  BaseLanguageModelInput,
  StructuredOutputMethodOptions,
} from '@langchain/core/language_models/base';
import {
  assembleStructuredOutputPipeline,
  createContentParser,
  createFunctionCallingParser,
} from '@langchain/core/language_models/structured_output';
import type { AIMessageChunk, BaseMessage } from '@langchain/core/messages';
import type { Runnable } from '@langchain/core/runnables';
import { toJsonSchema } from '@langchain/core/utils/json_schema';
import { isSerializableSchema } from '@langchain/core/utils/standard_schema';
import { getSchemaDescription, isInteropZodSchema } from '@langchain/core/utils/types';
import type { InteropZodType } from '@langchain/core/utils/types';
import type { SerializableSchema } from '@langchain/core/utils/standard_schema';
import { checkOneOf, describe, invalidOptions } from '../check-shape.js';
import type { Constraint } from '../types.js';
import type { ChatLoraxCallOptions } from './call-options.js';
import { asOpenAITool } from './convert-tools.js';

/** zod 3 or 4, another Standard Schema, JSON Schema, or OpenAI's function with one. */
export type OutputSchema<T extends object> =
  InteropZodType<T> | SerializableSchema<T> | Record<string, unknown>;

export type StructuredOutput<T> = Runnable<
  BaseLanguageModelInput,
  T | { raw: BaseMessage; parsed: T }
>;

const METHODS = ['jsonSchema', 'functionCalling', 'jsonMode'] as const;

/** The part of a chat model that is needed here. */
interface Configurable {
  withConfig(
    config: Partial<ChatLoraxCallOptions>,
  ): Runnable<BaseLanguageModelInput, AIMessageChunk, ChatLoraxCallOptions>;
}

export function structuredOutput<T extends object>(
  model: Configurable,
  schema: OutputSchema<T>,
  options: StructuredOutputMethodOptions<boolean> = {},
): StructuredOutput<T> {
  if (typeof schema !== 'object' || schema === null) {
    throw invalidOptions(
      'schema',
      `The schema must be a zod schema or JSON Schema, not ${describe(schema)}.`,
      schema,
    );
  }
  const method = checkOneOf(options.method, 'options.method', METHODS) ?? 'jsonSchema';
  const wanted = describeOutput(schema, options.name);
  const traced = {
    ls_structured_output_format: { kwargs: { method }, schema: wanted.parameters },
  };
  if (method === 'functionCalling') {
    const { name } = wanted;
    const llm = model.withConfig({
      tools: [asOpenAITool(wanted)],
      tool_choice: name,
      parallel_tool_calls: false,
      ...traced,
    });
    const parser = createFunctionCallingParser(wanted.schema, name);
    return assembleStructuredOutputPipeline(llm, parser, options.includeRaw, RUN_NAME);
  }
  const constraint: Constraint =
    method === 'jsonMode' ? { type: 'json' } : { type: 'json', schema: wanted.parameters };
  const llm = model.withConfig({ constraint, ...traced });
  const parser = createContentParser(wanted.schema);
  return assembleStructuredOutputPipeline(llm, parser, options.includeRaw, RUN_NAME);
}

const RUN_NAME = 'StructuredOutput';

interface Wanted<T extends object> {
  /** What a parser validates with. */
  schema: OutputSchema<T>;
  name: string;
  description?: string;
  parameters: Record<string, unknown>;
}

function describeOutput<T extends object>(
  schema: OutputSchema<T>,
  givenName: string | undefined,
): Wanted<T> {
  const description = getSchemaDescription(schema);
  const described = description === undefined ? {} : { description };
  if (isInteropZodSchema(schema) || isSerializableSchema(schema)) {
    const parameters = toJsonSchema(schema) as Record<string, unknown>;
    return { schema, name: givenName ?? DEFAULT_NAME, ...described, parameters };
  }
  const { name, parameters } = schema;
  if (typeof name === 'string' && typeof parameters === 'object' && parameters !== null) {
    const own = parameters as Record<string, unknown>;
    return { schema: own, name: givenName ?? name, ...described, parameters: own };
  }
  return { schema, name: givenName ?? DEFAULT_NAME, ...described, parameters: schema };
}

const DEFAULT_NAME = 'extract';
