/**
 * A process of its own that fetches one adapter and prints its directory. Bundled and started by
 * processes.test.ts.
 */
import { FETCH_POLICY } from '../../../worker/sources/fetch-policy.js';
import { SourceFetcher } from '../../../worker/sources/source-fetcher.js';

const [endpoint, root, repository] = process.argv.slice(2) as [string, string, string];
const fetcher = new SourceFetcher(
  { endpoint, cacheDirectory: `${root}/hub`, token: false },
  FETCH_POLICY,
  `${root}/own`,
);
const directory = await fetcher.adapter({ kind: 'hub', repository, revision: 'main' }, undefined, {
  signal: new AbortController().signal,
  onProgress: () => undefined,
});
process.stdout.write(directory);
