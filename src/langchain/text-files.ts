/**
 * The text in a content block that holds a file: plain text, or a text type's bytes.
 *
 * A file behind a URL is not fetched. Called by convert-messages.ts.
 */
import type { ContentBlock } from '@langchain/core/messages';
import { invalidOptions } from '../check-shape.js';
import { decodeText, isTextType, underName } from '../text-file.js';

/** Of what is read, what the model's profile names. */
export const TEXT_FILE_TYPES = [
  ...['text/plain', 'text/markdown', 'text/csv', 'text/html', 'text/xml'],
  ...['application/json', 'application/xml', 'application/yaml'],
] as const;

const DATA_URL = /^data:([^,]*);base64,(.*)$/s;

/** Under the file's name, where it has one. undefined: the block is no file of text. */
export function textOfFile(block: ContentBlock, field: string): string | undefined {
  if (block.type !== 'text-plain' && block.type !== 'file') return undefined;
  if (typeof block.text === 'string') return underName(block.text, nameOf(block));
  const inUrl = typeof block.url === 'string' ? DATA_URL.exec(block.url) : null;
  const mimeType = inUrl?.[1] ?? block.mimeType;
  const isText = typeof mimeType === 'string' && isTextType(mimeType);
  if (block.type === 'file' && !isText) return undefined;
  const data = inUrl?.[2] ?? block.data;
  if (typeof data !== 'string' && !(data instanceof Uint8Array)) {
    throw invalidOptions(
      field,
      `${field} is a file that is not in the message: lorax-js fetches nothing, so give its text.`,
    );
  }
  const text = decodeText(data);
  if (text !== undefined) return underName(text, nameOf(block));
  throw invalidOptions(field, `${field} is a file of text that is not UTF-8.`);
}

function nameOf({ title, metadata }: ContentBlock): string | undefined {
  const { filename, name } = (metadata ?? {}) as Record<string, unknown>;
  return [title, filename, name].find((each) => typeof each === 'string') as string | undefined;
}
