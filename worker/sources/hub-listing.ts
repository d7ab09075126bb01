/**
 * What a revision of a hub repository is: its commit and its files, with sizes and checksums, from
 * one request. Called by hub-source.ts.
 */
import type { Checksum } from './checksum.js';
import { FetchFailure } from './fetch-failure.js';
import type { FetchPolicy } from './fetch-policy.js';
import { httpRequest, readJson } from './http-response.js';
import { withRetries } from './retries.js';

export interface HubFile {
  name: string;
  size: number;
  checksum: Checksum;
}

export interface HubListing {
  commit: string;
  /** All there are. */
  names: string[];
  /** Those of which the hub tells size and checksum: to one who may not read them it does not. */
  files: HubFile[];
}

/** A repository of a hundred thousand files. */
const MAX_LISTING_BYTES = 64 << 20;

export async function listRevision(
  url: string,
  headers: Record<string, string>,
  policy: FetchPolicy,
  signal: AbortSignal,
): Promise<HubListing> {
  const answer = await withRetries(policy, signal, async () =>
    readJson(await httpRequest({ url, headers }, policy, signal), MAX_LISTING_BYTES),
  );
  const { sha, siblings } = (answer ?? {}) as { sha?: unknown; siblings?: unknown };
  // Both become names of files here.
  if (typeof sha !== 'string' || !/^[0-9a-f]{40}$/.test(sha) || !Array.isArray(siblings)) {
    throw new FetchFailure('server', 'the answer is no listing of a repository');
  }
  const names = siblings.flatMap(({ rfilename }: Sibling) =>
    typeof rfilename === 'string' ? [rfilename] : [],
  );
  return { commit: sha, names, files: siblings.flatMap(hubFile) };
}

interface Sibling {
  rfilename?: unknown;
  size?: unknown;
  blobId?: unknown;
  lfs?: { sha256?: unknown; size?: unknown } | null;
}

function hubFile({ rfilename: name, size: ownSize, blobId, lfs }: Sibling): HubFile[] {
  const size = lfs?.size ?? ownSize;
  if (typeof name !== 'string' || !Number.isSafeInteger(size)) return [];
  const file = { name, size: size as number };
  if (typeof lfs?.sha256 === 'string' && /^[0-9a-f]{64}$/.test(lfs.sha256)) {
    return [{ ...file, checksum: { algorithm: 'sha256', hex: lfs.sha256 } }];
  }
  if (lfs == null && typeof blobId === 'string' && /^[0-9a-f]{40}$/.test(blobId)) {
    return [{ ...file, checksum: { algorithm: 'git-sha1', hex: blobId } }];
  }
  return [];
}
