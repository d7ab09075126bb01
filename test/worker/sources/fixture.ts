/** A hub, an empty cache and impatient downloads, for the tests of worker/sources. */
import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach } from 'vitest';
import type { WireHubSource } from '../../../worker/protocol.js';
import type { FetchPolicy } from '../../../worker/sources/fetch-policy.js';
import { SourceFetcher, type FetchCall } from '../../../worker/sources/source-fetcher.js';
import { HubServer } from './hub-server.js';

export const IMPATIENT: FetchPolicy = {
  ...{ silenceMs: 400, quietMs: 100, attempts: 3, backoffMs: 5 },
  ...{ maxRetryAfterMs: 2_000, filesPerHost: 4 },
};

export const CONFIG = JSON.stringify({ peft_type: 'LORA', r: 8 });

const cleanUp: (() => unknown)[] = [];
afterEach(async () => {
  for (const each of cleanUp.splice(0).reverse()) await each();
});

export function temporaryDirectory(): string {
  const directory = mkdtempSync(path.join(tmpdir(), 'lorax-sources-'));
  cleanUp.push(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

export async function startHub(): Promise<HubServer> {
  const server = await new HubServer().start();
  cleanUp.push(() => server.stop());
  return server;
}

export async function setUp(policy: Partial<FetchPolicy> = {}) {
  const server = await startHub();
  const root = temporaryDirectory();
  const cache = path.join(root, 'hub');
  const own = path.join(root, 'own');
  const anew = (offline = false, endpoint = server.url) =>
    new SourceFetcher(
      { endpoint, cacheDirectory: cache, offline, token: false },
      { ...IMPATIENT, ...policy },
      own,
    );
  return { server, root, cache, own, anew, fetcher: anew() };
}

export const hub = (
  repository: string,
  more: Partial<Omit<WireHubSource, 'kind'>> = {},
): WireHubSource => ({ kind: 'hub', repository, revision: 'main', ...more });

export const call = (more: Partial<FetchCall> = {}): FetchCall => ({
  signal: new AbortController().signal,
  onProgress: () => undefined,
  ...more,
});

export const adapterFiles = (bytes = 200_000) => ({
  'adapter_config.json': CONFIG,
  'adapter_model.safetensors': randomBytes(bytes),
  'README.md': '# not fetched',
});

/** Every file below, with paths from there. */
export function filesBelow(directory: string): string[] {
  if (!existsSync(directory)) return [];
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory())
    .map((entry) => path.relative(directory, path.join(entry.parentPath, entry.name)))
    .sort();
}

/** Locks and whatever is half written, except what can be resumed. */
export const litter = (directory: string) =>
  filesBelow(directory).filter((file) => /lock|tmp|stale/.test(file));

export const partials = (directory: string) =>
  filesBelow(directory).filter((file) => file.endsWith('.incomplete'));
