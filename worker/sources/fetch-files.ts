/**
 * Several files of one version at once, into the cache: all of them, or the first failure, which
 * stops the others. Called by hub-source.ts and url-source.ts.
 */
import type { BlobStore } from './blob-store.js';
import type { HttpFileContext, RemoteFile } from './http-file.js';

export interface NamedFile {
  name: string;
  /** What its blob is called; files of equal content share it. */
  blob: string;
  remote: RemoteFile;
}

export interface FetchFilesContext extends Pick<HttpFileContext, 'policy' | 'places' | 'signal'> {
  onProgress(fetchedBytes: number, totalBytes: number): void;
}

export async function fetchFiles(
  files: readonly NamedFile[],
  version: string,
  store: BlobStore,
  { policy, places, signal, onProgress }: FetchFilesContext,
): Promise<void> {
  const bytes = new Array<number>(files.length).fill(0);
  const totalBytes = files.reduce((sum, { remote }) => sum + (remote.size ?? 0), 0);
  const report = () => {
    const fetched = bytes.reduce((sum, each) => sum + each, 0);
    onProgress(fetched, Math.max(fetched, totalBytes));
  };
  const failed = new AbortController();
  const both = AbortSignal.any([signal, failed.signal]);
  const fetchOne = async ({ name, blob, remote }: NamedFile, index: number): Promise<void> => {
    const onBytes = (have: number) => {
      bytes[index] = have;
      report();
    };
    try {
      await store.fetch(blob, remote, { policy, places, signal: both, onBytes });
    } catch (thrown) {
      failed.abort();
      throw thrown;
    }
    await store.link(version, name, blob);
  };
  const results = await Promise.allSettled(files.map(fetchOne));
  const faults = results.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []));
  if (faults.length === 0) return;
  // The others were cancelled because of the first.
  throw faults.find(({ reason }) => reason !== 'cancelled') ?? faults[0];
}
