/**
 * The text in a content block that holds a file: plain text, or a text type's bytes in base64.
 *
 * A file behind a URL is not fetched. Called by convert-messages.ts.
 */
import type { ContentBlock } from '@langchain/core/messages';
import { invalidOptions } from '../check-shape.js';

/** What can be read; also what the model's profile says. */
export const TEXT_FILE_TYPES = [
  ...['text/plain', 'text/markdown', 'text/csv', 'text/html', 'text/xml'],
  ...['application/json', 'application/xml', 'application/yaml'],
] as const;

const DATA_URL = /^data:([^;,]*)[^,]*;base64,(.*)$/s;

/** undefined: the block is no file of text. */
export function textOfFile(block: ContentBlock, field: string): string | undefined {
  if (block.type !== 'text-plain' && block.type !== 'file') return undefined;
  if (typeof block.text === 'string') return block.text;
  const inUrl = typeof block.url === 'string' ? DATA_URL.exec(block.url) : null;
  const mimeType = inUrl?.[1] ?? block.mimeType;
  if (block.type === 'file' && !isTextType(mimeType)) return undefined;
  const data = inUrl?.[2] ?? block.data;
  if (data instanceof Uint8Array) return decode(data, field);
  if (typeof data === 'string') return decode(Buffer.from(data, 'base64'), field);
  throw invalidOptions(
    field,
    `${field} is a file that is not in the message: lorax-js fetches nothing, so give its text.`,
  );
}

function isTextType(mimeType: unknown): boolean {
  if (typeof mimeType !== 'string') return false;
  const [essence] = mimeType.toLowerCase().split(';');
  return mimeType.startsWith('text/') || TEXT_FILE_TYPES.some((type) => type === essence?.trim());
}

function decode(bytes: Uint8Array, field: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw invalidOptions(field, `${field} is a file of text that is not UTF-8.`);
  }
}
