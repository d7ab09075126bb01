/**
 * A repository of the Hugging Face hub -> a local directory of its files, in the cache that Python's
 * huggingface_hub uses.
 *
 * A revision that is a commit and all here is not asked for again. Where the hub cannot be reached, or
 * `offline` is set, the files that were fetched last serve; where it refuses, it refuses. Called by
 * source-fetcher.ts.
 */
import { readdir } from 'node:fs/promises';
import type { BlobStore } from './blob-store.js';
import { FetchFailure } from './fetch-failure.js';
import { fetchFiles, type FetchFilesContext, type NamedFile } from './fetch-files.js';
import { listRevision, type HubFile, type HubListing } from './hub-listing.js';
import type { WantedFiles } from './wanted-files.js';

export interface HubRequest {
  /** org/name */
  repository: string;
  revision: string;
  token: string | undefined;
  endpoint: string;
  offline: boolean;
  /** As people write it. */
  shown: string;
}

export interface HubContext extends FetchFilesContext {
  store: BlobStore;
}

const COMMIT = /^[0-9a-f]{40}$/;

export function hubFolder(repository: string): string {
  return `models--${repository.replaceAll('/', '--')}`;
}

export async function fetchFromHub(
  request: HubRequest,
  wanted: WantedFiles,
  context: HubContext,
): Promise<string> {
  const { revision, offline } = request;
  const { store } = context;
  if (offline) {
    const directory = await cached(request, wanted, context);
    if (directory !== undefined) return directory;
    throw new FetchFailure(
      'offline',
      'it is not all in the cache, and the hub is not to be asked',
      {
        hint: 'HF_HUB_OFFLINE or the option `offline` is set',
      },
    );
  }
  if (COMMIT.test(revision)) {
    const directory = await cached(request, wanted, context);
    if (directory !== undefined) return directory;
  }
  let listing: HubListing;
  try {
    listing = await list(request, context);
  } catch (thrown) {
    const directory = isUnreachable(thrown) ? await cached(request, wanted, context) : undefined;
    if (directory === undefined) throw thrown;
    return directory;
  }
  const names = wanted.choose(listing.names, request.shown);
  const files = listing.files.filter(({ name }) => names.includes(name));
  const untold = names.find((name) => !files.some((file) => file.name === name));
  if (untold !== undefined) {
    throw new FetchFailure('forbidden', `the hub does not tell the checksum of ${untold}`, {
      hint: 'the repository may be gated: ask for access on its page, and give the token of that account',
    });
  }
  await fetchFiles(
    files.map((file) => remoteFile(request, listing.commit, file)),
    listing.commit,
    store,
    context,
  );
  await store.writeRef(revision, listing.commit);
  return store.snapshot(listing.commit);
}

/** The directory, where all that is wanted is here and what it should be. */
async function cached(
  { revision, shown }: HubRequest,
  wanted: WantedFiles,
  { store, policy, places, signal }: HubContext,
): Promise<string | undefined> {
  const commit = COMMIT.test(revision) ? revision : await store.readRef(revision);
  // A ref is a file that others may write as well.
  if (commit === undefined || !COMMIT.test(commit)) return undefined;
  const directory = store.snapshot(commit);
  if (!(await wanted.isComplete(directory))) return undefined;
  const files = wanted.choose(await readdir(directory), shown);
  const onBytes = () => undefined;
  const sound = await store.isSound(commit, files, { policy, places, signal, onBytes });
  return sound ? directory : undefined;
}

function list(
  { repository, revision, endpoint, token }: HubRequest,
  { policy, signal }: HubContext,
): Promise<HubListing> {
  const url = `${endpoint}/api/models/${repository}/revision/${encodeURIComponent(revision)}?blobs=true`;
  return listRevision(url, authorization(token), policy, signal);
}

function remoteFile(
  { repository, endpoint, token }: HubRequest,
  commit: string,
  { name, size, checksum }: HubFile,
): NamedFile {
  const file = name.split('/').map(encodeURIComponent).join('/');
  const url = `${endpoint}/${repository}/resolve/${commit}/${file}`;
  // fetch() leaves the token out where a redirect leads to another host.
  const headers = authorization(token);
  return {
    name,
    blob: checksum.hex,
    remote: { request: () => Promise.resolve({ url, headers }), size, checksum },
  };
}

function authorization(token: string | undefined): Record<string, string> {
  return token === undefined ? {} : { authorization: `Bearer ${token}` };
}

function isUnreachable(thrown: unknown): boolean {
  if (!(thrown instanceof FetchFailure)) return false;
  return ['network', 'timeout', 'server', 'rate-limited'].includes(thrown.reason);
}
