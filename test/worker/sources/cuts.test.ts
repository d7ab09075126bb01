// Every kind of source, cut in every request that it makes and at every stage of its answer: once, and
// the fetch goes on; for ever, and it fails with the reason, leaves nothing but what can go on, and the
// next fetch is whole.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import type { WireSource } from '../../../worker/protocol.js';
import { SourceFetcher } from '../../../worker/sources/source-fetcher.js';
import {
  IMPATIENT,
  adapterFiles,
  call,
  hub,
  litter,
  partials,
  startHub,
  temporaryDirectory,
} from './fixture.js';
import { failed, send, sha256, type Fault, type HubRequestLog } from './hub-server.js';

const FILES = ['adapter_config.json', 'adapter_model.safetensors'] as const;
const stops: (() => unknown)[] = [];
afterEach(async () => {
  for (const stop of stops.splice(0)) await stop();
});

interface Served {
  source: WireSource;
  endpoint: string;
  files: ReturnType<typeof adapterFiles>;
  /** Asked for each request, with its number from 1 on. */
  setFault(fault: (nth: number) => Fault): void;
  numRequests(): number;
}

/** Serves `files` below `folder`, as any web server and any S3 server do. */
async function serve(folder: string, makeSource: (url: string) => WireSource): Promise<Served> {
  const files = adapterFiles(60_000);
  let fault: (nth: number) => Fault = () => undefined;
  let count = 0;
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url ?? '', 'http://x');
    const entry: HubRequestLog = {
      ...{ host: 'cdn', method: request.method ?? '', path: pathname },
      ...{ range: request.headers.range, authorization: undefined },
    };
    const now = fault(++count);
    if (failed(response, now)) return;
    const content = Buffer.from(files[path.posix.basename(pathname) as keyof typeof files] ?? '');
    if (!pathname.startsWith(folder) || content.length === 0) {
      return void response.writeHead(404).end();
    }
    send(response, entry, content, now, { etag: `"${sha256(content)}"` });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  stops.push(() => {
    server.closeAllConnections();
    server.close();
  });
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    ...{ source: makeSource(url), endpoint: url, files, numRequests: () => count },
    setFault: (next) => {
      fault = next;
      count = 0;
    },
  };
}

const KINDS: Record<string, () => Promise<Served>> = {
  'the hub': async () => {
    const server = await startHub();
    const files = adapterFiles(60_000);
    server.add('acme/pirate', files);
    let from = 0;
    return {
      ...{ source: hub('acme/pirate'), endpoint: server.url, files },
      setFault: (fault) => {
        from = server.log.length;
        server.fault = () => fault(server.log.length - from);
      },
      numRequests: () => server.log.length - from,
    };
  },
  https: () =>
    serve('/loras/pirate/', (url) => ({ kind: 'url', url: `${url}/loras/pirate/`, headers: {} })),
  S3: () =>
    serve('/loras/team/pirate/', (endpoint) => ({
      ...{ kind: 's3', bucket: 'loras', prefix: 'team/pirate', endpoint, region: 'us-east-1' },
      credentials: { accessKeyId: 'a', secretAccessKey: 'b' },
    })),
};

describe.each(Object.entries(KINDS))('%s', (_, start) => {
  const fetcherIn = (root: string, endpoint: string) =>
    new SourceFetcher(
      { endpoint, cacheDirectory: path.join(root, 'hub'), token: false },
      { ...IMPATIENT, attempts: 2 },
      path.join(root, 'own'),
    );
  const expectWhole = (directory: string, files: Served['files']) => {
    for (const name of FILES) {
      expect(readFileSync(path.join(directory, name)).equals(Buffer.from(files[name]))).toBe(true);
    }
  };
  /** How many requests a fetch that nothing disturbs makes. */
  const undisturbed = async ({ source, endpoint, files, setFault, numRequests }: Served) => {
    setFault(() => undefined);
    const directory = await fetcherIn(temporaryDirectory(), endpoint).adapter(
      ...([source, undefined, call()] as const),
    );
    expectWhole(directory, files);
    return numRequests();
  };
  const CUTS: [string, Fault][] = [
    ['before its answer', { status: 503 }],
    ['at its first byte', { resetAfter: 0 }],
    ['in its midst', { resetAfter: 25_000 }],
    ['in silence', { hangAfter: 25_000 }],
  ];

  it.each(CUTS)('goes on when any request is cut once %s', { timeout: 60_000 }, async (_, cut) => {
    const served = await start();
    const { source, endpoint, files, setFault } = served;
    const total = await undisturbed(served);
    expect(total).toBeGreaterThan(1);
    for (let nth = 1; nth <= total; nth++) {
      const root = temporaryDirectory();
      setFault((request) => (request === nth ? cut : undefined));
      const fetcher = fetcherIn(root, endpoint);
      expectWhole(await fetcher.adapter(source, undefined, call()), files);
      expect([...litter(root), ...partials(root)], `request ${nth}`).toEqual([]);
    }
  });

  // Bytes that come each time are progress, with which it goes on.
  it.each(CUTS.slice(0, 2))(
    'fails with the reason when all are cut from one on, %s',
    { timeout: 60_000 },
    async (_, cut) => {
      const served = await start();
      const { source, endpoint, files, setFault } = served;
      const total = await undisturbed(served);
      for (let first = 1; first <= total; first++) {
        const root = temporaryDirectory();
        setFault((request) => (request >= first ? cut : undefined));
        const error: unknown = await fetcherIn(root, endpoint)
          .adapter(source, undefined, call())
          .then(
            () => 'it came all the same',
            (thrown: unknown) => thrown,
          );
        // A server that answers shorter files whole is none of these.
        if (error !== 'it came all the same') {
          expect(error, `from request ${first} on`).toMatchObject({
            ...{ code: 'ADAPTER_FETCH_FAILED', data: { reason: expect.any(String) as string } },
          });
        } else {
          expect(first, 'only what ends with its last bytes may come').toBeGreaterThan(1);
        }
        expect(litter(root)).toEqual([]);
        setFault(() => undefined);
        expectWhole(await fetcherIn(root, endpoint).adapter(source, undefined, call()), files);
        expect([...litter(root), ...partials(root)]).toEqual([]);
      }
    },
  );
});
