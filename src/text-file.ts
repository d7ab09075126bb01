/**
 * Files in a prompt that are text: which media types are, and how their text stands in the prompt.
 *
 * Called by what converts frameworks' prompts (src/ai-sdk/, src/langchain/).
 */
const TEXT_TYPES =
  /^(?:text(?:\/.+)?|application\/(?:json|jsonl|xml|yaml|x-yaml|toml|javascript|typescript|sql|[\w.-]+\+(?:json|xml|yaml)))$/;

/** With or without parameters ("text/csv; charset=utf-8"). */
export function isTextType(mediaType: string): boolean {
  return TEXT_TYPES.test(mediaType.split(';', 1)[0]?.trim().toLowerCase() ?? '');
}

/** `data`: bytes, or base64 of them. undefined = they are no UTF-8. */
export function decodeText(data: string | Uint8Array): string | undefined {
  const bytes = typeof data === 'string' ? Buffer.from(data, 'base64') : data;
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

/** The text under the file's name. */
export function underName(text: string, filename: string | undefined): string {
  return filename === undefined ? text : `${filename}:\n${text}`;
}
