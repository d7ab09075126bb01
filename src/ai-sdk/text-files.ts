/**
 * Files in a prompt: those that are text are read into it, all others are refused by their type.
 *
 * Called by convert-prompt.ts and convert-tool-result.ts.
 */
import type { LanguageModelV4FilePart } from '@ai-sdk/provider';
import { decodeText, isTextType, underName } from '../text-file.js';
import { unsupported } from './unsupported.js';

type File = Pick<LanguageModelV4FilePart, 'data' | 'filename' | 'mediaType'>;

/** The text under the file's name. `where`: whose part it is, for the refusal. */
export function textOfFile({ data, filename, mediaType }: File, where: string): string {
  const text = data.type === 'text' ? data.text : isTextType(mediaType) ? decoded(data) : undefined;
  if (text === undefined) throw unsupported(`${where} of media type ${mediaType}`);
  return underName(text, filename);
}

/** undefined: it is somewhere else, or no UTF-8. */
function decoded(data: File['data']): string | undefined {
  return data.type === 'data' ? decodeText(data.data) : undefined;
}
