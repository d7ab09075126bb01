/**
 * A request's body as a JSON object, within limits: of bytes, of depth, of what is JSON at all.
 *
 * Only application/json is read: what a page of another origin can send without asking first is not.
 * `null` means "unset", as clients write it, and is left out. Throws HttpErrors.
 */
import type { Fields } from '../check-shape.js';
import type { ServerContext } from './environment.js';
import { badRequest, HttpError } from './http-error.js';
import { turn } from './turns.js';

/** Of arrays and objects in one another; no API nests deeper, and recursion ends there. */
const MAX_DEPTH = 128;

export async function readBody(c: ServerContext, maxBytes: number): Promise<Fields> {
  // What follows is most of a request's cost here; who is refused before does not wait for a turn.
  await turn();
  const text = decode(await readBytes(c, maxBytes));
  checkDepth(text);
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    throw badRequest(null, 'The body is not valid JSON.');
  }
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    throw badRequest(null, 'The body must be a JSON object.');
  }
  return Object.fromEntries(Object.entries(body).filter(([, value]) => value !== null));
}

async function readBytes(c: ServerContext, maxBytes: number): Promise<Uint8Array[]> {
  const type = c.req.header('content-type')?.split(';', 1)[0]?.trim().toLowerCase();
  if (type !== 'application/json') {
    throw new HttpError(415, 'The body must be application/json, and its content-type say so.');
  }
  const encoding = c.req.header('content-encoding');
  if (encoding !== undefined && encoding.toLowerCase() !== 'identity') {
    throw new HttpError(415, 'The body must not be compressed (content-encoding).');
  }
  const known = c.req.header('content-length');
  if (known !== undefined) {
    // The common case, and the fast one: nothing is read that is too long.
    if (Number(known) > maxBytes) throw tooLarge(maxBytes);
    const bytes = new Uint8Array(await c.req.raw.arrayBuffer());
    if (bytes.byteLength > maxBytes) throw tooLarge(maxBytes);
    return [bytes];
  }
  const { body } = c.req.raw;
  const chunks: Uint8Array[] = [];
  if (body === null) return chunks;
  let length = 0;
  const reader = body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return chunks;
    length += value.byteLength;
    if (length > maxBytes) {
      await reader.cancel().catch(() => undefined);
      throw tooLarge(maxBytes);
    }
    chunks.push(value);
  }
}

function tooLarge(maxBytes: number): HttpError {
  return new HttpError(413, `The body has more than ${maxBytes} bytes.`);
}

function decode(chunks: Uint8Array[]): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(chunks));
  } catch {
    throw badRequest(null, 'The body is not UTF-8.');
  }
}

function checkDepth(text: string): void {
  let depth = 0;
  let inString = false;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (inString) {
      if (code === 0x5c) at++;
      else if (code === 0x22) inString = false;
    } else if (code === 0x22) inString = true;
    else if (code === 0x5b || code === 0x7b) {
      if (++depth > MAX_DEPTH) throw badRequest(null, `The body nests deeper than ${MAX_DEPTH}.`);
    } else if (code === 0x5d || code === 0x7d) depth--;
  }
}
