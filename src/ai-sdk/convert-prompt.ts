/**
 * The AI SDK's prompt as chat messages.
 *
 * Several texts of one turn, text files among them, stand on lines of their own. What the engine
 * cannot read is refused by name; what only other providers understand is left out with a warning.
 */
import type { LanguageModelV4Message, LanguageModelV4Prompt } from '@ai-sdk/provider';
import type { ChatMessage, ToolCall } from '../types.js';
import { toolMessage } from './convert-tool-result.js';
import type { LoraxWarning } from './model-types.js';
import { textOfFile } from './text-files.js';

export interface ConvertedPrompt {
  messages: ChatMessage[];
  warnings: LoraxWarning[];
}

type Message<ROLE extends string> = LanguageModelV4Message & { role: ROLE };

export function convertPrompt(prompt: LanguageModelV4Prompt): ConvertedPrompt {
  const warnings: LoraxWarning[] = [];
  const messages = prompt.flatMap((message): ChatMessage[] => {
    switch (message.role) {
      case 'system':
        return [{ role: 'system', content: message.content }];
      case 'user':
        return [{ role: 'user', content: userText(message) }];
      case 'assistant':
        return assistantTurn(message, warnings);
      case 'tool':
        // Approvals are of calls that a provider makes itself, which this one does not.
        return message.content.flatMap((part) =>
          part.type === 'tool-result' ? [toolMessage(part)] : [],
        );
    }
  });
  return { messages, warnings };
}

function userText({ content }: Message<'user'>): string {
  return content
    .map((part) => (part.type === 'text' ? part.text : textOfFile(part, 'user message parts')))
    .join('\n');
}

/** The turn, and behind it the results of calls that another provider made in it. */
function assistantTurn({ content }: Message<'assistant'>, warnings: LoraxWarning[]): ChatMessage[] {
  const texts: string[] = [];
  const reasoning: string[] = [];
  const toolCalls: ToolCall[] = [];
  const results: ChatMessage[] = [];
  for (const part of content) {
    switch (part.type) {
      case 'text':
        texts.push(part.text);
        break;
      case 'reasoning':
        reasoning.push(part.text);
        break;
      case 'file':
        texts.push(textOfFile(part, 'assistant message parts'));
        break;
      case 'tool-call':
        toolCalls.push({
          id: part.toolCallId,
          name: part.toolName,
          arguments: argumentsOf(part.input),
        });
        break;
      case 'tool-result':
        results.push(toolMessage(part));
        break;
      default:
        warnings.push({
          type: 'other',
          message: `A ${part.type} part of an assistant message was left out of the prompt.`,
        });
    }
  }
  const turn: ChatMessage = { role: 'assistant', content: texts.join('\n') };
  if (toolCalls.length > 0) turn.toolCalls = toolCalls;
  if (reasoning.length > 0) turn.reasoning = reasoning.join('\n');
  return [turn, ...results];
}

/** Arguments are an object; what another model gave instead is kept as one. */
function argumentsOf(input: unknown): Record<string, unknown> {
  if (typeof input === 'object' && input !== null && !Array.isArray(input)) {
    return input as Record<string, unknown>;
  }
  return input === undefined ? {} : { input };
}
