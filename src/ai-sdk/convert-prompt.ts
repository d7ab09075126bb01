/**
 * The AI SDK's prompt as chat messages: text of system, user and assistant turns.
 *
 * What the engine cannot read is refused by name; only reasoning of earlier turns is left out, as
 * chat templates do, with a warning.
 */
import type { LanguageModelV4Message, LanguageModelV4Prompt } from '@ai-sdk/provider';
import { UnsupportedFunctionalityError } from '@ai-sdk/provider';
import type { ChatMessage } from '../types.js';
import type { LoraxWarning } from './model-types.js';

export interface ConvertedPrompt {
  messages: ChatMessage[];
  warnings: LoraxWarning[];
}

export function convertPrompt(prompt: LanguageModelV4Prompt): ConvertedPrompt {
  const warnings: LoraxWarning[] = [];
  const messages = prompt.map((message): ChatMessage => {
    switch (message.role) {
      case 'system':
        return { role: 'system', content: message.content };
      case 'user':
      case 'assistant':
        return { role: message.role, content: joinText(message, warnings) };
      case 'tool':
        throw unsupported('tool messages');
    }
  });
  return { messages, warnings };
}

function joinText(
  { role, content }: LanguageModelV4Message & { role: 'user' | 'assistant' },
  warnings: LoraxWarning[],
): string {
  let text = '';
  for (const part of content) {
    if (part.type === 'text') {
      text += part.text;
    } else if (part.type === 'reasoning') {
      warnings.push({
        type: 'other',
        message: 'The reasoning of an earlier assistant message was left out of the prompt.',
      });
    } else if (part.type === 'file') {
      throw unsupported(`${role} message parts of media type ${part.mediaType}`);
    } else {
      throw unsupported(`${role} message parts of type ${part.type}`);
    }
  }
  return text;
}

export function unsupported(functionality: string): UnsupportedFunctionalityError {
  return new UnsupportedFunctionalityError({
    functionality,
    message: `lorax-js serves text only so far: ${functionality} are not supported.`,
  });
}
