/**
 * The options of one call of ChatLorax, and the engine's request made of them.
 *
 * LangChain and its graphs pass options of their own along; what is not named here is not looked
 * at. Options of the call come before those of the model. Throws INVALID_OPTIONS.
 */
import type {
  BaseChatModelCallOptions,
  BindToolsInput,
} from '@langchain/core/language_models/chat_models';
import type { RunnableConfig } from '@langchain/core/runnables';
import { responseFormatConstraint } from '../asked-constraints.js';
import { checkArray, checkBoolean } from '../check-shape.js';
import type { Fields } from '../check-shape.js';
import { pickService } from '../service-options.js';
import type {
  AdapterMix,
  ChatMessage,
  Constraint,
  GenerateRequest,
  JsonSchema,
  Sampling,
  ServiceOptions,
} from '../types.js';
import { convertToolChoice, convertTools } from './convert-tools.js';
import { pickSampling } from './model-fields.js';
import type { SamplingFields } from './model-fields.js';

/** As OpenAI's models and createAgent() write it. */
export type ResponseFormat =
  | { type: 'text' }
  | { type: 'json_object' }
  | { type: 'json_schema'; json_schema: { name?: string; schema: JsonSchema; strict?: boolean } };

export interface ChatLoraxCallOptions
  extends BaseChatModelCallOptions, SamplingFields, ServiceOptions {
  /** Another than the model's own; a name, or names with weights. */
  adapter?: string | AdapterMix;
  /** What bindTools() sets. */
  tools?: BindToolsInput[];
  /** false: one call at most. */
  parallel_tool_calls?: boolean;
  response_format?: ResponseFormat;
  /** What the answer must match, token by token; beyond JSON: a pattern, choices, a grammar. */
  constraint?: Constraint;
  /** Whether a model that can think before it answers does. */
  reasoning?: boolean;
}

export const CHAT_CALL_KEYS = [
  ...['adapter', 'tools', 'tool_choice', 'parallel_tool_calls'],
  ...['response_format', 'constraint', 'reasoning', 'priority', 'deadline'],
] as const satisfies readonly (keyof ChatLoraxCallOptions)[];

export interface ModelSettings {
  sampling: Sampling;
  reasoning: boolean | undefined;
}

/** All but whom to ask, and for how long. */
export function buildRequest(
  messages: ChatMessage[],
  options: Omit<ChatLoraxCallOptions, keyof RunnableConfig>,
  model: ModelSettings,
): GenerateRequest {
  const { parallel_tool_calls: parallel } = options;
  const tools = checkArray(options.tools, 'options.tools') as BindToolsInput[] | undefined;
  const constraint =
    options.constraint ??
    responseFormatConstraint(options.response_format, 'options.response_format');
  const toolChoice = convertToolChoice(options.tool_choice);
  const reasoning = checkBoolean(options.reasoning, 'options.reasoning') ?? model.reasoning;
  return {
    messages,
    sampling: { ...model.sampling, ...pickSampling(options as Fields) },
    ...(tools === undefined ? {} : { tools: convertTools(tools) }),
    ...(toolChoice === undefined ? {} : { toolChoice }),
    ...(parallel === undefined ? {} : { parallelToolCalls: parallel }),
    ...(constraint === undefined ? {} : { constraint }),
    ...(reasoning === undefined ? {} : { reasoning }),
    ...pickService(options as Fields, 'options'),
  };
}
