/**
 * Files in a prompt: those that are text are read into it, all others are refused by their type.
 *
 * Called by convert-prompt.ts and convert-tool-result.ts.
 */
import type { LanguageModelV4FilePart } from '@ai-sdk/provider';
import { unsupported } from './unsupported.js';

type File = Pick<LanguageModelV4FilePart, 'data' | 'filename' | 'mediaType'>;

const TEXT_TYPES =
  /^(?:text(?:\/.+)?|application\/(?:json|jsonl|xml|yaml|x-yaml|toml|javascript|typescript|sql|[\w.-]+\+(?:json|xml|yaml)))$/;

/** The text under the file's name. `where`: whose part it is, for the refusal. */
export function textOfFile({ data, filename, mediaType }: File, where: string): string {
  const type = mediaType.split(';', 1)[0]?.trim().toLowerCase() ?? '';
  const text = data.type === 'text' ? data.text : TEXT_TYPES.test(type) ? decoded(data) : undefined;
  if (text === undefined) throw unsupported(`${where} of media type ${mediaType}`);
  return filename === undefined ? text : `${filename}:\n${text}`;
}

/** undefined: it is somewhere else, or no UTF-8. */
function decoded(data: File['data']): string | undefined {
  if (data.type !== 'data') return undefined;
  const bytes = typeof data.data === 'string' ? Buffer.from(data.data, 'base64') : data.data;
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    return undefined;
  }
}
