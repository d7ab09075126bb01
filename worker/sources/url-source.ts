/**
 * An adapter's two files below an address -> a local directory of them, in this package's cache.
 *
 * The server's ETag (or date and size) is a file's version: a version that is here is not fetched
 * again, one that is new gets a directory of its own. A server that names no version is asked for
 * all of it each time. Where it cannot be reached, what was fetched last serves. Called by
 * source-fetcher.ts for https:// and s3://.
 */
import { createHash } from 'node:crypto';
import type { BlobStore } from './blob-store.js';
import { FetchFailure } from './fetch-failure.js';
import { fetchFiles, type FetchFilesContext, type NamedFile } from './fetch-files.js';
import { httpRequest, type HttpRequest } from './http-response.js';
import { withRetries } from './retries.js';
import {
  ADAPTER_CONFIG,
  ADAPTER_FILES,
  ADAPTER_TORCH_WEIGHTS,
  ADAPTER_WEIGHTS,
} from './wanted-files.js';

export interface UrlRequest {
  /** As people write it. */
  shown: string;
  /** The request for a file of the folder, signed anew each time. */
  request(file: string): Promise<HttpRequest>;
}

export interface UrlContext extends FetchFilesContext {
  store: BlobStore;
}

const LATEST = 'latest';

export function urlFolder(address: string): string {
  return `urls--${shortHash(address)}`;
}

export async function fetchFromUrl(source: UrlRequest, context: UrlContext): Promise<string> {
  const { store } = context;
  let files: NamedFile[];
  try {
    files = await Promise.all([
      remoteFile(source, ADAPTER_CONFIG, context),
      remoteWeights(source, context),
    ]);
  } catch (thrown) {
    const directory = isUnreachable(thrown) ? await latest(store) : undefined;
    if (directory !== undefined) return directory;
    throw thrown;
  }
  const version = shortHash(files.map(({ blob }) => blob).join('\n'));
  await fetchFiles(files, version, store, context);
  await store.writeRef(LATEST, version);
  return store.snapshot(version);
}

async function latest(store: BlobStore): Promise<string | undefined> {
  const version = await store.readRef(LATEST);
  if (version === undefined || !/^[0-9a-f]{32}$/.test(version)) return undefined;
  const directory = store.snapshot(version);
  return (await ADAPTER_FILES.isComplete(directory)) ? directory : undefined;
}

/** Asks for one byte: some servers answer no HEAD, and a signed address is for one method. */
async function remoteFile(
  source: UrlRequest,
  name: string,
  { policy, signal }: UrlContext,
): Promise<NamedFile> {
  const request = () => source.request(name);
  const { headers, status } = await withRetries(policy, signal, async () => {
    const { url, headers } = await request();
    const ranged = { url, headers: { ...headers, range: 'bytes=0-0' } };
    const answer = await httpRequest(ranged, policy, signal);
    answer.close();
    return answer.response;
  });
  const etag = headers.get('etag');
  const total = status === 206 ? /\/(\d+)$/.exec(headers.get('content-range') ?? '')?.[1] : null;
  const length = total ?? (status === 200 ? headers.get('content-length') : null);
  const size = length === null ? undefined : Number(length);
  const version = etag ?? headers.get('last-modified');
  const { pathname } = new URL((await request()).url);
  // Without a version the name is new each time, so nothing that is here is taken for it.
  const key = version === null ? `${Date.now()} ${Math.random()}` : `${version}\n${size}`;
  return {
    name,
    blob: `url-${shortHash(`${pathname}\n${key}`)}`,
    // A weak ETag says that two versions mean the same, not that their bytes are.
    remote: { request, size, etag: etag === null || etag.startsWith('W/') ? undefined : etag },
  };
}

/** Safetensors; where there are none, what torch.save wrote. */
async function remoteWeights(source: UrlRequest, context: UrlContext): Promise<NamedFile> {
  const isMissing = (thrown: unknown) => (thrown as Partial<FetchFailure>).reason === 'not-found';
  try {
    return await remoteFile(source, ADAPTER_WEIGHTS, context);
  } catch (thrown) {
    if (!isMissing(thrown)) throw thrown;
    return remoteFile(source, ADAPTER_TORCH_WEIGHTS, context).catch((other: unknown) => {
      throw isMissing(other) ? thrown : other;
    });
  }
}

function isUnreachable(thrown: unknown): boolean {
  if (!(thrown instanceof FetchFailure)) return false;
  return ['network', 'timeout', 'server', 'rate-limited'].includes(thrown.reason);
}

function shortHash(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 32);
}
