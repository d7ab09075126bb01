/**
 * The AI SDK's tools and tool choice as the engine's.
 *
 * Only function tools can be called; a tool that another provider would run is left out with a
 * warning. Called by language-model.ts.
 */
import type { LanguageModelV4CallOptions } from '@ai-sdk/provider';
import type { GenerateRequest, ToolChoice, ToolDefinition } from '../types.js';
import type { LoraxWarning } from './model-types.js';

export interface ConvertedTools {
  request: Pick<GenerateRequest, 'tools' | 'toolChoice'>;
  warnings: LoraxWarning[];
}

export function convertTools({
  tools = [],
  toolChoice,
}: Pick<LanguageModelV4CallOptions, 'tools' | 'toolChoice'>): ConvertedTools {
  const warnings: LoraxWarning[] = [];
  const definitions: ToolDefinition[] = [];
  for (const tool of tools) {
    if (tool.type !== 'function') {
      warnings.push({
        type: 'unsupported',
        feature: `provider tool ${tool.id}`,
        details: 'lorax-js runs no tools itself; this one is left out.',
      });
      continue;
    }
    const { name, description, inputSchema, strict } = tool;
    definitions.push({
      name,
      ...(description === undefined ? {} : { description }),
      parameters: inputSchema as ToolDefinition['parameters'],
      ...(strict === undefined ? {} : { strict }),
    });
  }
  const request: ConvertedTools['request'] = {};
  if (definitions.length > 0) request.tools = definitions;
  if (toolChoice !== undefined && tools.length > 0) request.toolChoice = choiceOf(toolChoice);
  return { request, warnings };
}

function choiceOf(choice: NonNullable<LanguageModelV4CallOptions['toolChoice']>): ToolChoice {
  return choice.type === 'tool' ? { name: choice.toolName } : choice.type;
}
