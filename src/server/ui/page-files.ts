/**
 * The dashboard's files, dist/ui, as they are: static, the same for everybody, with the headers that keep
 * the page to its own origin and to its own scripts.
 */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { ServerApp, ServerContext } from '../environment.js';
import { HttpError } from '../http-error.js';

/** Literal addresses: whoever traces files for a deployment finds them. */
const FILES = {
  page: new URL('./ui/index.html', import.meta.url),
  script: new URL('./ui/app.js', import.meta.url),
  style: new URL('./ui/app.css', import.meta.url),
  icon: new URL('./ui/icon.svg', import.meta.url),
};
export type PageFiles = typeof FILES;

/** Nothing from elsewhere, nothing inline, no text that becomes HTML, in nobody's frame. */
const POLICY = [
  ...["default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'"],
  ...["connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"],
  ...["require-trusted-types-for 'script'", "trusted-types 'none'"],
].join('; ');

export const PAGE_HEADERS: Readonly<Record<string, string>> = {
  'content-security-policy': POLICY,
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
};

export function registerPageFiles(app: ServerApp, files: PageFiles = FILES): void {
  // So that what the page names relative to itself is below it, whatever a proxy puts before.
  app.get('/ui', (c) => c.body(null, 302, { ...PAGE_HEADERS, location: 'ui/' }));
  const serve = (path: string, file: URL, type: string) => {
    const load = readOnce(file);
    app.get(path, async (c) => answer(c, await load(), type));
  };
  serve('/ui/', files.page, 'text/html; charset=utf-8');
  serve('/ui/app.js', files.script, 'text/javascript; charset=utf-8');
  serve('/ui/app.css', files.style, 'text/css; charset=utf-8');
  serve('/ui/icon.svg', files.icon, 'image/svg+xml');
}

interface Loaded {
  body: Uint8Array<ArrayBuffer>;
  tag: string;
}

function answer(c: ServerContext, { body, tag }: Loaded, type: string): Response {
  const headers = { ...PAGE_HEADERS, 'cache-control': 'no-cache', etag: tag };
  if (c.req.header('if-none-match') === tag) return c.body(null, 304, headers);
  return c.body(body, 200, { ...headers, 'content-type': type });
}

/** When first asked for. */
function readOnce(file: URL): () => Promise<Loaded> {
  let loaded: Promise<Loaded> | undefined;
  const read = async () => {
    const body = new Uint8Array(await readFile(file));
    return { body, tag: `"${createHash('sha256').update(body).digest('hex').slice(0, 24)}"` };
  };
  return () => {
    loaded ??= read().catch((cause: unknown) => {
      loaded = undefined;
      const message = 'The dashboard’s files are not there: they are in dist/ui of the package.';
      throw new HttpError(404, message, { cause });
    });
    return loaded;
  };
}
