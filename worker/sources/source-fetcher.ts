/**
 * Any source of an adapter or a model -> a local directory of its files, fetched where it must be.
 *
 * What a tenant's sources bring lies in a cache of that tenant's own: files that one tenant's
 * credentials have opened are never found by another's request, whatever the network says. Failures
 * are LoraxErrors, ADAPTER_FETCH_FAILED or MODEL_FETCH_FAILED with the source and the reason. Called
 * by engine-port.ts and load-engine.ts.
 */
import { createHash } from 'node:crypto';
import path from 'node:path';
import type { HubOptions } from '../../src/types.js';
import type { WireHubSource, WireSource } from '../protocol.js';
import { BlobStore } from './blob-store.js';
import { fetchError, shownUrl } from './fetch-failure.js';
import type { FetchFilesContext } from './fetch-files.js';
import { FETCH_POLICY, type FetchPolicy } from './fetch-policy.js';
import { findInFolder } from './folder-source.js';
import { HostPlaces } from './host-places.js';
import { hubSettings, hubToken, ownCache } from './hub-environment.js';
import { fetchFromHub, hubFolder } from './hub-source.js';
import { s3Request } from './s3-request.js';
import { fetchFromUrl, urlFolder, type UrlRequest } from './url-source.js';
import { VerifiedFiles } from './verified-files.js';
import { ADAPTER_FILES, MODEL_FILES, type WantedFiles } from './wanted-files.js';

export interface FetchCall {
  signal: AbortSignal;
  onProgress(fetchedBytes: number, totalBytes: number): void;
}

export class SourceFetcher {
  private readonly places: HostPlaces;
  private readonly verified: VerifiedFiles;
  private readonly underWay = new Set<Promise<unknown>>();

  constructor(
    private readonly hub: HubOptions,
    private readonly policy: FetchPolicy = FETCH_POLICY,
    private readonly cache: string = ownCache(),
  ) {
    this.places = new HostPlaces(policy.filesPerHost);
    this.verified = new VerifiedFiles(path.join(cache, 'verified'));
  }

  /** `tenant`: whose source it is. */
  adapter(source: WireSource, tenant: string | undefined, call: FetchCall): Promise<string> {
    return this.track(this.fetchAdapter(source, tenant, call));
  }

  model(source: WireHubSource, call: FetchCall): Promise<string> {
    return this.track(this.fetchModel(source, call));
  }

  /** When no fetch is under way: locks are released then, and files closed. */
  async settled(): Promise<void> {
    await Promise.allSettled([...this.underWay]);
  }

  private track<T>(fetch: Promise<T>): Promise<T> {
    this.underWay.add(fetch);
    const done = () => this.underWay.delete(fetch);
    fetch.then(done, done);
    return fetch;
  }

  private async fetchAdapter(
    source: WireSource,
    tenant: string | undefined,
    call: FetchCall,
  ): Promise<string> {
    try {
      switch (source.kind) {
        case 'directory':
          return source.directory;
        case 'folder':
          return await findInFolder(source.folder, source.name);
        case 'hub':
          return await this.fromHub(source, ADAPTER_FILES, tenant, call);
        case 'url':
        case 's3':
          return await this.fromUrl(source, tenant, call);
      }
    } catch (thrown) {
      throw fetchError('ADAPTER_FETCH_FAILED', shownSource(source), thrown);
    }
  }

  private async fetchModel(source: WireHubSource, call: FetchCall): Promise<string> {
    try {
      return await this.fromHub(source, MODEL_FILES, undefined, call);
    } catch (thrown) {
      throw fetchError('MODEL_FETCH_FAILED', shownSource(source), thrown);
    }
  }

  private async fromHub(
    source: WireHubSource,
    wanted: WantedFiles,
    tenant: string | undefined,
    call: FetchCall,
  ): Promise<string> {
    const { endpoint, offline, cache } = hubSettings(this.hub);
    const { repository, revision } = source;
    const given = source.token ?? this.hub.token;
    const token = given === undefined ? await hubToken() : given || undefined;
    const root = tenant === undefined ? cache : path.join(this.cacheOf(tenant), 'hub');
    const store = new BlobStore(root, hubFolder(repository), this.verified);
    return fetchFromHub(
      { repository, revision, token, endpoint, offline, shown: shownSource(source) },
      wanted,
      { ...this.context(call), store },
    );
  }

  private fromUrl(
    source: Extract<WireSource, { kind: 'url' | 's3' }>,
    tenant: string | undefined,
    call: FetchCall,
  ): Promise<string> {
    const shown = shownSource(source);
    const request: UrlRequest['request'] =
      source.kind === 's3'
        ? (file) => s3Request(source, file)
        : (file) => Promise.resolve({ url: fileUrl(source.url, file), headers: source.headers });
    const root = path.join(tenant === undefined ? this.cache : this.cacheOf(tenant), 'urls');
    const address = source.kind === 's3' ? `${source.endpoint ?? ''} ${shown}` : source.url;
    const store = new BlobStore(root, urlFolder(address), this.verified);
    return fetchFromUrl({ shown, request }, { ...this.context(call), store });
  }

  private context({ signal, onProgress }: FetchCall): FetchFilesContext {
    return { policy: this.policy, places: this.places, signal, onProgress };
  }

  /** Tenants may be called anything. */
  private cacheOf(tenant: string): string {
    const name = createHash('sha256').update(tenant).digest('hex').slice(0, 32);
    return path.join(this.cache, 'tenants', name);
  }
}

/** The file in the folder, whatever query the folder's address has. */
function fileUrl(folder: string, file: string): string {
  const url = new URL(folder);
  url.pathname = `${url.pathname.replace(/\/+$/, '')}/${file}`;
  return url.href;
}

/** As people write it, without credentials. */
export function shownSource(source: WireSource): string {
  switch (source.kind) {
    case 'directory':
      return source.directory;
    case 'folder':
      return `${source.folder}/${source.name}`;
    case 'hub':
      return `hf://${source.repository}@${source.revision}`;
    case 'url':
      return shownUrl(source.url);
    case 's3':
      return `s3://${source.bucket}${source.prefix === '' ? '' : `/${source.prefix}`}`;
  }
}
