/**
 * What a tool gave, or why it gave nothing, as the text that the model reads.
 *
 * Called by convert-prompt.ts.
 */
import type {
  LanguageModelV4ToolResultOutput,
  LanguageModelV4ToolResultPart,
} from '@ai-sdk/provider';
import type { ChatMessage } from '../types.js';
import { textOfFile } from './text-files.js';
import { unsupported } from './unsupported.js';

export function toolMessage({
  toolCallId,
  toolName,
  output,
}: Omit<LanguageModelV4ToolResultPart, 'type'>): ChatMessage {
  return { role: 'tool', toolCallId, name: toolName, content: textOfOutput(output) };
}

function textOfOutput(output: LanguageModelV4ToolResultOutput): string {
  switch (output.type) {
    case 'text':
    case 'error-text':
      return output.value;
    case 'json':
    case 'error-json':
      return JSON.stringify(output.value);
    case 'execution-denied':
      return output.reason ?? 'The user did not allow this call.';
    case 'content':
      return output.value
        .map((part) => {
          if (part.type === 'text') return part.text;
          if (part.type === 'file') return textOfFile(part, 'tool results');
          throw unsupported(`tool results of type ${part.type}`);
        })
        .join('\n');
  }
}
