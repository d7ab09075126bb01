/**
 * Call options of spec V3 (ai 6) as V4's.
 *
 * They differ in how files are carried, in messages and in results of tools; everything else is the
 * same. Called by ai6.ts.
 */
import type {
  LanguageModelV3CallOptions,
  LanguageModelV3FilePart,
  LanguageModelV3Message,
  LanguageModelV3ToolResultPart,
  LanguageModelV4CallOptions,
  LanguageModelV4FilePart,
  LanguageModelV4Message,
  LanguageModelV4ToolResultPart,
} from '@ai-sdk/provider';

type OutputV3 = LanguageModelV3ToolResultPart['output'];
type OutputV4 = LanguageModelV4ToolResultPart['output'];
type ContentV4 = Extract<OutputV4, { type: 'content' }>['value'][number];

export function optionsFromV3(options: LanguageModelV3CallOptions): LanguageModelV4CallOptions {
  return { ...options, prompt: options.prompt.map(messageFromV3) };
}

function messageFromV3(message: LanguageModelV3Message): LanguageModelV4Message {
  if (message.role === 'system') return message;
  const content = message.content.map((part) => {
    if (part.type === 'file') return fileFromV3(part);
    return part.type === 'tool-result' ? { ...part, output: outputFromV3(part.output) } : part;
  });
  // Each role keeps its kinds of parts.
  return { ...message, content } as LanguageModelV4Message;
}

function fileFromV3({ data, ...part }: LanguageModelV3FilePart): LanguageModelV4FilePart {
  return {
    ...part,
    data: data instanceof URL ? { type: 'url', url: data } : { type: 'data', data },
  };
}

function outputFromV3(output: OutputV3): OutputV4 {
  if (output.type !== 'content') return output;
  return {
    type: 'content',
    value: output.value.map((part): ContentV4 => {
      switch (part.type) {
        case 'text':
        case 'custom':
          return part;
        case 'file-data':
        case 'image-data':
          return { ...part, type: 'file', data: { type: 'data', data: part.data } };
        default:
          // Somewhere else: what it is, is told by its type alone.
          return {
            type: 'file',
            mediaType: part.type,
            data: { type: 'url', url: new URL(`v3:${part.type}`) },
          };
      }
    }),
  };
}
