/**
 * What lies in the cache of the Hugging Face hub: models and adapters with their revisions and sizes.
 *
 * Only the layout that blob-store.ts writes (and Python's huggingface_hub) is read; whatever else is
 * there is left out. Called by `lorax-js ls`.
 */
import { readdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { ADAPTER_CONFIG } from '../sources/wanted-files.js';

export interface CachedRepository {
  /** org/name */
  repository: string;
  kind: 'model' | 'adapter' | 'other';
  /** Branches and tags that were asked for -> commits. */
  refs: Record<string, string>;
  commits: string[];
  /** Of its files, each once. */
  bytes: number;
  /** Bytes of files that did not arrive whole; pull goes on with them. */
  partialBytes: number;
  directory: string;
}

export async function reportCache(cache: string): Promise<CachedRepository[]> {
  const found: CachedRepository[] = [];
  for (const name of await names(cache)) {
    const match = /^models--(.+?)--(.+)$/.exec(name);
    if (match === null) continue;
    const repository = `${match[1]}/${match[2]}`;
    found.push(await reportRepository(path.join(cache, name), repository));
  }
  return found.sort((a, b) => a.repository.localeCompare(b.repository));
}

async function reportRepository(directory: string, repository: string): Promise<CachedRepository> {
  const commits = await names(path.join(directory, 'snapshots'));
  let [bytes, partialBytes] = [0, 0];
  for (const blob of await names(path.join(directory, 'blobs'))) {
    const size = await stat(path.join(directory, 'blobs', blob)).then(
      (found) => found.size,
      () => 0,
    );
    if (blob.endsWith('.incomplete')) partialBytes += size;
    else bytes += size;
  }
  const files = new Set<string>();
  for (const commit of commits) {
    for (const file of await names(path.join(directory, 'snapshots', commit))) files.add(file);
  }
  const kind = files.has(ADAPTER_CONFIG) ? 'adapter' : files.has('config.json') ? 'model' : 'other';
  const refs = await refsOf(path.join(directory, 'refs'));
  return { repository, kind, refs, commits, bytes, partialBytes, directory };
}

/** Branches may have slashes. */
async function refsOf(folder: string, prefix = ''): Promise<Record<string, string>> {
  const refs: Record<string, string> = {};
  for (const name of await names(folder)) {
    const file = path.join(folder, name);
    const text = await readFile(file, 'utf8').catch(() => undefined);
    if (text === undefined) Object.assign(refs, await refsOf(file, `${prefix}${name}/`));
    else refs[`${prefix}${name}`] = text.trim();
  }
  return refs;
}

/** Sorted; none where there is no such folder. */
async function names(folder: string): Promise<string[]> {
  return (await readdir(folder).catch(() => [])).sort();
}
