// Adapters below an address: https:// (a plain server here) and s3:// (a real S3 server, s3rver).
import S3rver from '@20minutes/s3rver';
import { AwsClient } from 'aws4fetch';
import { randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { mkdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import type { WireSource } from '../../../worker/protocol.js';
import { s3Request } from '../../../worker/sources/s3-request.js';
import { SourceFetcher } from '../../../worker/sources/source-fetcher.js';
import {
  CONFIG,
  IMPATIENT,
  call,
  filesBelow,
  litter,
  partials,
  temporaryDirectory,
} from './fixture.js';
import { failed, send, sha256, type Fault, type HubRequestLog } from './hub-server.js';

const WEIGHTS = 'adapter_model.safetensors';
const stops: (() => unknown)[] = [];
afterEach(async () => {
  for (const stop of stops.splice(0)) await stop();
});

/** Serves `files` by path; `versions` = what it says of their versions. */
async function startServer(versions: (content: Buffer) => Record<string, string>) {
  const files = new Map<string, Buffer>();
  const log: HubRequestLog[] = [];
  const state = {
    fault: (_: HubRequestLog): Fault => undefined,
    key: undefined as string | undefined,
  };
  const server = createServer((request, response) => {
    const { method = '', headers } = request;
    const { pathname } = new URL(request.url ?? '', 'http://x');
    const entry: HubRequestLog = {
      ...{ host: 'cdn', method, path: pathname, range: headers.range },
      authorization: headers.authorization,
    };
    log.push(entry);
    if (state.key !== undefined && headers.authorization !== state.key) {
      return void response.writeHead(403).end();
    }
    const fault = state.fault(entry);
    if (failed(response, fault)) return;
    const content = files.get(pathname);
    if (content === undefined) return void response.writeHead(404).end();
    send(response, entry, content, fault, versions(content));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  stops.push(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  const put = (weights: Buffer) => {
    files.set('/loras/pirate/adapter_config.json', Buffer.from(CONFIG));
    files.set(`/loras/pirate/${WEIGHTS}`, weights);
  };
  const source: WireSource = {
    ...{ kind: 'url', url: `http://127.0.0.1:${port}/loras/pirate/?key=secret`, headers: {} },
  };
  const bodies = () =>
    log.filter(({ path, range }) => path.endsWith(WEIGHTS) && range !== 'bytes=0-0');
  return { files, log, state, put, source, bodies };
}

const byEtag = (content: Buffer) => ({ etag: `"${sha256(content).slice(0, 16)}"` });

function fetcherIn(own: string): SourceFetcher {
  return new SourceFetcher({ cacheDirectory: path.join(own, 'hub') }, IMPATIENT, own);
}

describe('an adapter below an address', () => {
  it.each<[string, (content: Buffer) => Record<string, string>, number]>([
    ['an ETag', byEtag, 1],
    ['a weak ETag', (content) => ({ etag: `W/${byEtag(content).etag}` }), 1],
    ['a date', () => ({ 'last-modified': 'Sun, 29 Nov 2026 10:00:00 GMT' }), 1],
    ['nothing', () => ({}), 2],
  ])('whose version is told by %s is fetched when it must be', async (_, versions, times) => {
    const { put, source, bodies } = await startServer(versions);
    const own = temporaryDirectory();
    const weights = randomBytes(100_000);
    put(weights);
    const first = await fetcherIn(own).adapter(source, undefined, call());
    const second = await fetcherIn(own).adapter(source, undefined, call());
    expect(bodies().length).toBe(times);
    if (times === 1) expect(second).toBe(first);
    // Another length: a date alone would not tell.
    const changed = randomBytes(100_001);
    put(changed);
    const third = await fetcherIn(own).adapter(source, undefined, call());
    expect(readFileSync(path.join(first, WEIGHTS)).equals(weights)).toBe(true);
    expect(readFileSync(path.join(third, WEIGHTS)).equals(changed)).toBe(true);
    expect(filesBelow(third)).toEqual(['adapter_config.json', WEIGHTS]);
    expect([...litter(own), ...partials(own)]).toEqual([]);
  });

  it('goes on where it was cut', async () => {
    const { put, state, source, bodies } = await startServer(byEtag);
    const own = temporaryDirectory();
    const first = randomBytes(100_000);
    put(first);
    state.fault = ({ path }) => (path.endsWith(WEIGHTS) ? { resetAfter: 60_000 } : undefined);
    const directory = await fetcherIn(own).adapter(source, undefined, call());
    expect(readFileSync(path.join(directory, WEIGHTS)).equals(first)).toBe(true);
    expect(bodies()[0]?.range).toBeUndefined();
    expect(bodies().at(-1)?.range).toMatch(/^bytes=[1-9]\d*-$/);
  });

  it('serves as it was fetched last where the server cannot be reached', async () => {
    const { put, state, source } = await startServer(byEtag);
    const own = temporaryDirectory();
    put(randomBytes(1000));
    const first = await fetcherIn(own).adapter(source, undefined, call());
    state.fault = () => ({ status: 503 });
    expect(await fetcherIn(own).adapter(source, undefined, call())).toBe(first);
    state.fault = () => ({ status: 403 });
    await expect(fetcherIn(own).adapter(source, undefined, call())).rejects.toMatchObject({
      code: 'ADAPTER_FETCH_FAILED',
      data: { reason: 'forbidden', status: 403 },
    });
  });

  it('that was written over in the cache is fetched again', async () => {
    const { put, source } = await startServer(byEtag);
    const own = temporaryDirectory();
    const weights = randomBytes(1000);
    put(weights);
    const directory = await fetcherIn(own).adapter(source, undefined, call());
    const file = path.join(directory, WEIGHTS);
    writeFileSync(path.resolve(directory, readlinkSync(file)), randomBytes(1000));
    await fetcherIn(own).adapter(source, undefined, call());
    expect(readFileSync(file).equals(weights)).toBe(true);
  });

  it('is asked for with its headers and its query, which no error shows', async () => {
    const { put, state, source, files } = await startServer(byEtag);
    const own = temporaryDirectory();
    put(randomBytes(1000));
    state.key = 'Bearer mine';
    const mine = { ...source, headers: { authorization: 'Bearer mine' } } as WireSource;
    await fetcherIn(own).adapter(mine, undefined, call());
    const refused = fetcherIn(temporaryDirectory()).adapter(source, undefined, call());
    const error = (await refused.catch((thrown: unknown) => thrown)) as Error & { data: object };
    expect(error.message).toMatch(
      /^http:\/\/127\.0\.0\.1:\d+\/loras\/pirate\/ cannot be fetched: /,
    );
    expect(JSON.stringify([error.message, error.data])).not.toMatch(/secret|mine/);
    files.delete(`/loras/pirate/${WEIGHTS}`);
    const missing = fetcherIn(temporaryDirectory()).adapter(mine, undefined, call());
    await expect(missing).rejects.toMatchObject({ data: { reason: 'not-found' } });
    files.set('/loras/pirate/adapter_model.bin', Buffer.from('pickle'));
    const directory = await fetcherIn(own).adapter(mine, undefined, call());
    expect(readFileSync(path.join(directory, 'adapter_model.bin'), 'utf8')).toBe('pickle');
  });
});

describe('an adapter in S3', () => {
  async function startS3() {
    const directory = temporaryDirectory();
    const server = new S3rver({
      ...{ address: '127.0.0.1', port: 0, silent: true, directory },
      configureBuckets: [{ name: 'loras', configs: [] }],
    });
    const { port } = await server.run();
    stops.push(() => server.close());
    const endpoint = `http://127.0.0.1:${port}`;
    // The server's only account.
    const credentials = { accessKeyId: 'S3RVER', secretAccessKey: 'S3RVER' };
    const aws = new AwsClient({ ...credentials, service: 's3', region: 'us-east-1' });
    const put = async (key: string, body: Buffer | string) => {
      const answer = await aws.fetch(`${endpoint}/loras/${key}`, { method: 'PUT', body });
      expect(answer.status).toBe(200);
    };
    const source: WireSource = {
      ...{ kind: 's3', bucket: 'loras', prefix: 'team a/pirate', endpoint, credentials },
    };
    return { put, source };
  }

  it('is fetched with signed requests, and again when it changes', async () => {
    const { put, source } = await startS3();
    const own = temporaryDirectory();
    const weights = randomBytes(300_000);
    await put('team%20a/pirate/adapter_config.json', CONFIG);
    await put(`team%20a/pirate/${WEIGHTS}`, weights);
    const first = await fetcherIn(own).adapter(source, undefined, call());
    expect(readFileSync(path.join(first, WEIGHTS)).equals(weights)).toBe(true);
    expect(await fetcherIn(own).adapter(source, undefined, call())).toBe(first);
    const changed = randomBytes(300_000);
    await put(`team%20a/pirate/${WEIGHTS}`, changed);
    const second = await fetcherIn(own).adapter(source, undefined, call());
    expect(readFileSync(path.join(second, WEIGHTS)).equals(changed)).toBe(true);
  });

  it('is refused to wrong credentials, and what is not there is said', async () => {
    const { put, source } = await startS3();
    await put('team%20a/pirate/adapter_config.json', CONFIG);
    const fetcher = fetcherIn(temporaryDirectory());
    const wrong = {
      ...source,
      credentials: { accessKeyId: 'S3RVER', secretAccessKey: 'wrong' },
    } as WireSource;
    await expect(fetcher.adapter(wrong, undefined, call())).rejects.toMatchObject({
      code: 'ADAPTER_FETCH_FAILED',
      data: { source: 's3://loras/team a/pirate', reason: 'forbidden', status: 403 },
    });
    await expect(fetcher.adapter(source, undefined, call())).rejects.toMatchObject({
      data: { reason: 'not-found', status: 404 },
    });
  });

  const at = (more: object): Extract<WireSource, { kind: 's3' }> => ({
    ...{ kind: 's3', bucket: 'loras', prefix: 'a/b' },
    ...more,
  });
  it.each([
    [{}, {}, 'https://loras.s3.us-east-1.amazonaws.com/a/b/f'],
    [{ region: 'eu-west-3' }, {}, 'https://loras.s3.eu-west-3.amazonaws.com/a/b/f'],
    [{}, { AWS_REGION: 'eu-west-1' }, 'https://loras.s3.eu-west-1.amazonaws.com/a/b/f'],
    [{ bucket: 'a.b', prefix: '' }, {}, 'https://s3.us-east-1.amazonaws.com/a.b/f'],
    [{ endpoint: 'http://minio:9000/' }, {}, 'http://minio:9000/loras/a/b/f'],
    [{}, { AWS_ENDPOINT_URL_S3: 'http://minio:9000' }, 'http://minio:9000/loras/a/b/f'],
  ])('is found by %j with %j', async (more, env, url) => {
    expect(await s3Request(at(more), 'f', env)).toEqual({ url, headers: {} });
  });

  it("takes the environment's credentials where it has none of its own", async () => {
    const env = { AWS_ACCESS_KEY_ID: 'EnvKey', AWS_SECRET_ACCESS_KEY: 's', AWS_SESSION_TOKEN: 't' };
    const { headers } = await s3Request(at({}), 'f', env);
    expect(headers.authorization).toMatch(/^AWS4-HMAC-SHA256 Credential=EnvKey\//);
    expect(headers['x-amz-security-token']).toBe('t');
    const own = { accessKeyId: 'OwnKey', secretAccessKey: 's' };
    const signed = await s3Request(at({ credentials: own }), 'f', env);
    expect(signed.headers.authorization).toContain('Credential=OwnKey/');
    expect(signed.headers).not.toHaveProperty('x-amz-security-token');
  });
});

describe('a folder of adapters', () => {
  const directoryOf = (root: string, name: string) => {
    const directory = path.join(root, name);
    mkdirSync(directory, { recursive: true });
    writeFileSync(path.join(directory, 'adapter_config.json'), CONFIG);
    return directory;
  };

  async function setUpFolder() {
    const root = temporaryDirectory();
    const folder = path.join(root, 'adapters');
    directoryOf(folder, 'pirate');
    directoryOf(folder, 'team/json');
    directoryOf(folder, '.hidden');
    directoryOf(root, 'secret');
    directoryOf(root, 'adapters-of-others');
    mkdirSync(path.join(folder, 'empty'));
    const { symlinkSync } = await import('node:fs');
    symlinkSync('../secret', path.join(folder, 'link-out'));
    symlinkSync('../adapters-of-others', path.join(folder, 'link-beside'));
    symlinkSync('pirate', path.join(folder, 'link-in'));
    symlinkSync('..', path.join(folder, 'up'));
    symlinkSync('loop', path.join(folder, 'loop'));
    const find = (name: string) =>
      fetcherIn(root).adapter({ kind: 'folder', folder, name }, undefined, call());
    return { folder, find };
  }

  it.each([
    ['pirate', 'pirate'],
    ['team/json', 'team/json'],
    ['link-in', 'pirate'],
  ])('serves %s', async (name, directory) => {
    const { folder, find } = await setUpFolder();
    expect(await find(name)).toBe(path.join(folder, directory));
  });

  it.each([
    ...['none', 'empty', 'team', '', '.', '..', '../secret', 'pirate/../../secret', '/etc'],
    ...['pirate/..', 'pirate/.', './pirate', 'pirate/', '/pirate', 'team//json', '.hidden'],
    ...['link-out', 'link-beside', 'up/secret', 'up', 'loop', 'pi\0rate', '..\\secret', 'C:secret'],
    ...['adapter_config.json', 'pirate/adapter_config.json'],
  ])('has no adapter %j', async (name) => {
    const { find } = await setUpFolder();
    await expect(find(name)).rejects.toMatchObject({ code: 'ADAPTER_NOT_FOUND' });
  });

  it('that is not there has none', async () => {
    const { folder } = await setUpFolder();
    const gone = { kind: 'folder' as const, folder: `${folder}/gone`, name: 'pirate' };
    await expect(fetcherIn(folder).adapter(gone, undefined, call())).rejects.toMatchObject({
      code: 'ADAPTER_NOT_FOUND',
    });
  });
});
