// Adapters from a hub-shaped server: the cache it leaves, and every way the network can fail.
import { randomBytes } from 'node:crypto';
import {
  mkdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  readdirSync,
} from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { LoraxError } from '../../../src/errors.js';
import {
  adapterFiles,
  call,
  filesBelow,
  hub,
  litter,
  partials,
  setUp,
  temporaryDirectory,
} from './fixture.js';
import { gitSha1, sha256, type Fault, type HubRequestLog } from './hub-server.js';

const WEIGHTS = 'adapter_model.safetensors';

async function failure(promise: Promise<unknown>): Promise<LoraxError> {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (LoraxError.isInstance(error)) return error;
  throw error ?? new Error('it did not fail');
}

/** For files of Git LFS, where they come from. */
const onCdn = (fault: (request: HubRequestLog, nth: number) => Fault) => {
  let count = 0;
  return (request: HubRequestLog) => (request.host === 'cdn' ? fault(request, ++count) : undefined);
};

describe('an adapter of the hub', () => {
  it("lies in the cache as Python's huggingface_hub lays it out", async () => {
    const { server, cache, fetcher } = await setUp();
    const files = adapterFiles();
    const { commit } = server.add('acme/pirate', files);
    const reports: [number, number][] = [];
    const onProgress = (fetched: number, total: number) => reports.push([fetched, total]);
    const directory = await fetcher.adapter(hub('acme/pirate'), undefined, call({ onProgress }));

    const repository = path.join(cache, 'models--acme--pirate');
    const config = Buffer.from(files['adapter_config.json']);
    expect(directory).toBe(path.join(repository, 'snapshots', commit));
    expect(filesBelow(cache)).toEqual(
      [
        `blobs/${gitSha1(config)}`,
        `blobs/${sha256(files[WEIGHTS])}`,
        'refs/main',
        `snapshots/${commit}/adapter_config.json`,
        `snapshots/${commit}/${WEIGHTS}`,
      ]
        .map((file) => `models--acme--pirate/${file}`)
        .sort(),
    );
    expect(readFileSync(path.join(repository, 'refs/main'), 'utf8')).toBe(commit);
    expect(readlinkSync(path.join(directory, WEIGHTS))).toBe(
      `../../blobs/${sha256(files[WEIGHTS])}`,
    );
    expect(readFileSync(path.join(directory, WEIGHTS)).equals(files[WEIGHTS])).toBe(true);
    const total = config.length + files[WEIGHTS].length;
    expect(reports.at(-1)).toEqual([total, total]);
  });

  it('is not fetched again, and a commit is not even asked for', async () => {
    const { server, anew } = await setUp();
    const { commit } = server.add('acme/pirate', adapterFiles());
    const first = await anew().adapter(hub('acme/pirate'), undefined, call());
    const before = server.downloads().length;
    expect(await anew().adapter(hub('acme/pirate'), undefined, call())).toBe(first);
    expect(server.downloads().length).toBe(before);
    const requests = server.log.length;
    const pinned = hub('acme/pirate', { revision: commit });
    expect(await anew().adapter(pinned, undefined, call())).toBe(first);
    expect(server.log.length).toBe(requests);
  });

  it('gets a directory of its own for each commit, and shares what did not change', async () => {
    const { server, anew } = await setUp();
    const files = adapterFiles();
    server.add('acme/pirate', files);
    const first = await anew().adapter(hub('acme/pirate'), undefined, call());
    const weights = randomBytes(1000);
    server.add('acme/pirate', { ...files, [WEIGHTS]: weights });
    const second = await anew().adapter(hub('acme/pirate'), undefined, call());
    expect(second).not.toBe(first);
    expect(readFileSync(path.join(first, WEIGHTS)).equals(files[WEIGHTS])).toBe(true);
    expect(readFileSync(path.join(second, WEIGHTS)).equals(weights)).toBe(true);
    expect(server.downloads(/adapter_config/).length).toBe(1);
  });

  it('sends its token to the hub alone, not where the hub redirects to', async () => {
    const { server, fetcher } = await setUp();
    server.add('acme/secret', adapterFiles(), { token: 'hf_secret' });
    await fetcher.adapter(hub('acme/secret', { token: 'hf_secret' }), undefined, call());
    const sent = (host: string) =>
      server.log.filter((each) => each.host === host).map((each) => each.authorization);
    expect(new Set(sent('hub'))).toEqual(new Set(['Bearer hf_secret']));
    expect(sent('cdn')).toEqual([undefined]);
  });

  it.each<[string, Fault]>([
    ['500', { status: 500 }],
    ['503 with Retry-After', { status: 503, headers: { 'retry-after': '0' } }],
    ['429 with Retry-After', { status: 429, headers: { 'retry-after': '1' } }],
    ['silence', 'hang'],
    ['silence in the middle', { hangAfter: 50_000 }],
    ['a reset in the middle', { resetAfter: 50_000 }],
    ['a reset at once', { resetAfter: 0 }],
    ['wrong bytes, once', { wrongBytes: true }],
  ])('comes whole through %s', async (_, fault) => {
    const { server, cache, fetcher } = await setUp();
    const files = adapterFiles();
    server.add('acme/pirate', files);
    server.fault = onCdn((_request, nth) => (nth === 1 ? fault : undefined));
    const directory = await fetcher.adapter(hub('acme/pirate'), undefined, call());
    expect(readFileSync(path.join(directory, WEIGHTS)).equals(files[WEIGHTS])).toBe(true);
    expect(litter(cache)).toEqual([]);
    expect(partials(cache)).toEqual([]);
  });

  it('goes on where it was cut, as often as it gets anywhere', async () => {
    const { server, fetcher } = await setUp({ attempts: 2 });
    const files = adapterFiles(500_000);
    server.add('acme/pirate', files);
    server.fault = onCdn((_request, nth) => (nth <= 6 ? { resetAfter: 60_000 } : undefined));
    const directory = await fetcher.adapter(hub('acme/pirate'), undefined, call());
    expect(readFileSync(path.join(directory, WEIGHTS)).equals(files[WEIGHTS])).toBe(true);
    const starts = server
      .downloads(/\/blob\//)
      .map(({ range }) => parseInt(range?.slice(6) ?? '0'));
    expect(starts.length).toBe(7);
    expect(starts).toEqual([...starts].sort((a, b) => a - b));
    expect(new Set(starts).size).toBe(7);
  });

  it('begins anew where the server knows no ranges, and gives up in the end', async () => {
    const { server, fetcher } = await setUp();
    const files = adapterFiles(300_000);
    server.add('acme/pirate', files);
    server.fault = onCdn((_request, nth) =>
      nth === 1 ? { resetAfter: 90_000 } : { ignoreRange: true },
    );
    const directory = await fetcher.adapter(hub('acme/pirate'), undefined, call());
    expect(readFileSync(path.join(directory, WEIGHTS)).equals(files[WEIGHTS])).toBe(true);
    // Cut at the same place for ever: no progress, however many bytes came.
    server.add('acme/parrot', adapterFiles(300_001));
    server.fault = onCdn(() => ({ resetAfter: 90_000, ignoreRange: true }));
    server.log.length = 0;
    const error = await failure(fetcher.adapter(hub('acme/parrot'), undefined, call()));
    expect(error.data).toMatchObject({ reason: 'network' });
    expect(server.downloads(/\/blob\//).length).toBeLessThanOrEqual(4);
  });

  it.each<[string, Fault, object]>([
    ['500', { status: 500 }, { reason: 'server', status: 500 }],
    ['429', { status: 429 }, { reason: 'rate-limited', status: 429 }],
    ['429 for an hour', { status: 429, headers: { 'retry-after': '3600' } }, { status: 429 }],
    ['403', { status: 403 }, { reason: 'forbidden', status: 403 }],
    ['418', { status: 418 }, { reason: 'refused', status: 418 }],
    ['silence', 'hang', { reason: 'timeout' }],
    ['resets', { resetAfter: 0 }, { reason: 'network' }],
    ['wrong bytes', { wrongBytes: true }, { reason: 'hash-mismatch' }],
  ])('fails with the reason at %s for ever', async (_, fault, data) => {
    const { server, cache, fetcher } = await setUp();
    server.add('acme/pirate', adapterFiles());
    server.fault = onCdn(() => fault);
    const error = await failure(fetcher.adapter(hub('acme/pirate'), undefined, call()));
    expect(error.code).toBe('ADAPTER_FETCH_FAILED');
    expect(error.data).toMatchObject({ source: 'hf://acme/pirate@main', ...data });
    expect(error.message).not.toContain('signature');
    expect(litter(cache)).toEqual([]);
    expect(filesBelow(cache).filter((file) => file.includes('refs'))).toEqual([]);
  });

  it.each<[string, Parameters<typeof hub>, object]>([
    ['no such repository', ['acme/none'], { reason: 'unauthorized', status: 401 }],
    ['no such revision', ['acme/pirate', { revision: 'v9' }], { reason: 'not-found', status: 404 }],
    ['a private one', ['acme/secret'], { reason: 'unauthorized', status: 401 }],
    ['a wrong token', ['acme/secret', { token: 'hf_other' }], { reason: 'unauthorized' }],
    ['a gated one', ['acme/gated'], { reason: 'forbidden', status: 403 }],
    ['one that tells but names', ['acme/secretive'], { reason: 'forbidden' }],
  ])('refuses at once: %s', async (_, [repository, more], data) => {
    const { server, fetcher, cache } = await setUp();
    server.add('acme/pirate', adapterFiles());
    server.add('acme/secret', adapterFiles(), { token: 'hf_secret' });
    server.add('acme/gated', adapterFiles(), { gated: true });
    server.add('acme/secretive', adapterFiles(), { secretive: true });
    const error = await failure(fetcher.adapter(hub(repository, more), undefined, call()));
    expect(error).toMatchObject({ code: 'ADAPTER_FETCH_FAILED', data });
    expect(error.message).toContain(`hf://${repository}@`);
    expect(server.log.filter(({ path }) => path.startsWith('/api/')).length).toBe(1);
    expect(litter(cache)).toEqual([]);
  });

  it('of which the hub no longer lets one see anything is not taken from the cache', async () => {
    const { server, anew } = await setUp();
    const repository = server.add('acme/pirate', adapterFiles());
    await anew().adapter(hub('acme/pirate'), undefined, call());
    repository.token = 'hf_secret';
    const error = await failure(anew().adapter(hub('acme/pirate'), undefined, call()));
    expect(error.data).toMatchObject({ reason: 'unauthorized' });
  });

  it('as adapter_model.bin is fetched where there are no safetensors, and only there', async () => {
    const { server, anew, fetcher } = await setUp();
    server.add('acme/old', { 'adapter_config.json': '{}', 'adapter_model.bin': 'pickle' });
    const old = await fetcher.adapter(hub('acme/old'), undefined, call());
    expect(readdirSync(old).sort()).toEqual(['adapter_config.json', 'adapter_model.bin']);
    expect(await anew(true).adapter(hub('acme/old'), undefined, call())).toBe(old);
    server.add('acme/both', { ...adapterFiles(), 'adapter_model.bin': 'pickle' });
    const both = await fetcher.adapter(hub('acme/both'), undefined, call());
    expect(readdirSync(both).sort()).toEqual(['adapter_config.json', WEIGHTS]);
  });

  it('with neither kind of weights is refused before a byte of it is fetched', async () => {
    const { server, fetcher } = await setUp();
    server.add('acme/none', { 'adapter_config.json': '{}', 'adapter_model.pt': 'pickle' });
    const error = await failure(fetcher.adapter(hub('acme/none'), undefined, call()));
    expect(error.code).toBe('ADAPTER_INVALID');
    expect(error.message).toContain(`has no ${WEIGHTS}`);
    expect(server.downloads(/./)).toEqual([]);
  });

  it('serves from the cache where the hub cannot be reached, or is not to be asked', async () => {
    const { server, anew } = await setUp();
    server.add('acme/pirate', adapterFiles());
    const first = await anew().adapter(hub('acme/pirate'), undefined, call());
    const requests = server.log.length;
    expect(await anew(true).adapter(hub('acme/pirate'), undefined, call())).toBe(first);
    expect(server.log.length).toBe(requests);
    const nobody = anew(false, 'http://127.0.0.1:9');
    expect(await nobody.adapter(hub('acme/pirate'), undefined, call())).toBe(first);
    const error = await failure(anew(true).adapter(hub('acme/other'), undefined, call()));
    expect(error.data).toMatchObject({ reason: 'offline' });
    expect(error.message).toContain('HF_HUB_OFFLINE');
  });

  it.each([
    ['written over', (file: string) => writeFileSync(file, randomBytes(200_000))],
    ['cut short', (file: string) => truncateSync(file, 7)],
    ['gone', (file: string) => rmSync(file)],
  ])('whose blob was %s is fetched again', async (_, damage) => {
    const { server, anew } = await setUp();
    const files = adapterFiles();
    const { commit } = server.add('acme/pirate', files);
    const directory = await anew().adapter(hub('acme/pirate'), undefined, call());
    const file = path.join(directory, WEIGHTS);
    for (const revision of ['main', commit]) {
      damage(path.resolve(directory, readlinkSync(file)));
      const offline = await failure(anew(true).adapter(hub('acme/pirate'), undefined, call()));
      expect(offline.data).toMatchObject({ reason: 'offline' });
      await anew().adapter(hub('acme/pirate', { revision }), undefined, call());
      expect(readFileSync(file).equals(files[WEIGHTS])).toBe(true);
    }
  });

  it('is hashed once, not at each start', async () => {
    const { server, anew, own } = await setUp();
    server.add('acme/pirate', adapterFiles());
    await anew().adapter(hub('acme/pirate'), undefined, call());
    const marks = () => filesBelow(own).map((file) => statSync(path.join(own, file)).mtimeMs);
    const before = marks();
    expect(before.length).toBe(2);
    await anew().adapter(hub('acme/pirate'), undefined, call());
    expect(marks()).toEqual(before);
  });

  it('whose disk is full says so and leaves nothing', async () => {
    const { server, anew, cache } = await setUp();
    server.add('acme/pirate', adapterFiles());
    // A device that is always full stands where the partial file would be.
    const weights = sha256(server.repositories.get('acme/pirate')!.files[WEIGHTS]!);
    const blobs = path.join(cache, 'models--acme--pirate/blobs');
    mkdirSync(blobs, { recursive: true });
    symlinkSync('/dev/full', path.join(blobs, `${weights}.lorax.incomplete`));
    const error = await failure(anew().adapter(hub('acme/pirate'), undefined, call()));
    expect(error.data).toMatchObject({ reason: 'disk' });
    expect(error.message).toContain('the disk is full (make room');
    expect(partials(cache)).toEqual([]);
    expect(litter(cache)).toEqual([]);
    await anew().adapter(hub('acme/pirate'), undefined, call());
  });

  it('stops when it is cancelled, and goes on the next time', async () => {
    const { server, anew, cache } = await setUp();
    const files = adapterFiles(400_000);
    server.add('acme/pirate', files);
    server.fault = onCdn(() => ({ bytesPerTick: 20_000 }));
    const abort = new AbortController();
    const onProgress = (fetched: number) => {
      if (fetched > 150_000) abort.abort();
    };
    const cancelled = anew().adapter(
      hub('acme/pirate'),
      undefined,
      call({ signal: abort.signal, onProgress }),
    );
    expect((await failure(cancelled)).data).toMatchObject({ reason: 'cancelled' });
    expect(litter(cache)).toEqual([]);
    expect(partials(cache).length).toBe(1);
    server.fault = () => undefined;
    const directory = await anew().adapter(hub('acme/pirate'), undefined, call());
    expect(readFileSync(path.join(directory, WEIGHTS)).equals(files[WEIGHTS])).toBe(true);
    expect(server.downloads(/\/blob\//).at(-1)?.range).toMatch(/^bytes=1[5-9]\d{4}-$/);
    expect(partials(cache)).toEqual([]);
  });

  it('is fetched once for all who want it at once', async () => {
    const { server, fetcher } = await setUp();
    server.add('acme/pirate', adapterFiles());
    server.fault = onCdn(() => ({ bytesPerTick: 40_000 }));
    const all = Array.from({ length: 6 }, () =>
      fetcher.adapter(hub('acme/pirate'), undefined, call()),
    );
    expect(new Set(await Promise.all(all)).size).toBe(1);
    expect(server.downloads(/\/blob\//).length).toBe(1);
  });

  it("of a tenant lies where no other tenant's requests look, network or not", async () => {
    const { server, anew } = await setUp();
    server.add('acme/secret', adapterFiles(), { token: 'hf_a' });
    const mine = hub('acme/secret', { token: 'hf_a' });
    const theirs = hub('acme/secret', { token: false });
    const first = await anew().adapter(mine, 'a', call());
    for (const fetcher of [anew(), anew(true), anew(false, 'http://127.0.0.1:9')]) {
      for (const tenant of ['b', undefined]) {
        const error = await failure(fetcher.adapter(theirs, tenant, call()));
        expect(error.code).toBe('ADAPTER_FETCH_FAILED');
      }
    }
    expect(await anew(true).adapter(mine, 'a', call())).toBe(first);
  });

  it('from hosts that hang delays nobody, not even others of that host', async () => {
    const { server, anew } = await setUp({ silenceMs: 3_000, filesPerHost: 2, attempts: 1 });
    for (const name of ['h1', 'h2', 'h3', 'ok']) server.add(`acme/${name}`, adapterFiles(1000));
    const hanging = ['h1', 'h2', 'h3'].map(
      (name) => `/blob/${sha256(server.repositories.get(`acme/${name}`)!.files[WEIGHTS]!)}`,
    );
    server.fault = ({ path }) => (hanging.includes(path) ? 'hang' : undefined);
    const fetcher = anew();
    const hung = ['h1', 'h2', 'h3'].map((name) =>
      failure(fetcher.adapter(hub(`acme/${name}`), undefined, call())),
    );
    await new Promise((resolve) => setTimeout(resolve, 50));
    const startedAt = performance.now();
    await fetcher.adapter(hub('acme/ok'), undefined, call());
    expect(performance.now() - startedAt).toBeLessThan(1_500);
    for (const each of await Promise.all(hung)) expect(each.data.reason).toBe('timeout');
  });
});

describe('a model of the hub', () => {
  const model = () => ({
    'config.json': '{}',
    'tokenizer.json': '{}',
    'model-00001-of-00002.safetensors': randomBytes(100_000),
    'model-00002-of-00002.safetensors': randomBytes(90_000),
    'model.safetensors.index.json': JSON.stringify({
      weight_map: { a: 'model-00001-of-00002.safetensors', b: 'model-00002-of-00002.safetensors' },
    }),
    'consolidated.safetensors': 'not fetched',
    'pytorch_model.bin': 'not fetched',
    'onnx/model.onnx': 'not fetched',
  });

  it('comes with its shards and texts, and nothing else', async () => {
    const { server, fetcher, anew } = await setUp();
    const { commit } = server.add('acme/base', model());
    const directory = await fetcher.model(hub('acme/base'), call());
    expect(directory).toMatch(new RegExp(`models--acme--base/snapshots/${commit}$`));
    expect(filesBelow(directory)).toEqual([
      'config.json',
      'model-00001-of-00002.safetensors',
      'model-00002-of-00002.safetensors',
      'model.safetensors.index.json',
      'tokenizer.json',
    ]);
    expect(await anew(true).model(hub('acme/base'), call())).toBe(directory);
    rmSync(path.join(directory, 'model-00002-of-00002.safetensors'));
    const error = await failure(anew(true).model(hub('acme/base'), call()));
    expect(error).toMatchObject({ code: 'MODEL_FETCH_FAILED', data: { reason: 'offline' } });
  });

  it('without safetensors is refused before a byte is fetched', async () => {
    const { server, fetcher } = await setUp();
    server.add('acme/old', { 'config.json': '{}', 'pytorch_model.bin': 'pickle' });
    const error = await failure(fetcher.model(hub('acme/old'), call()));
    expect(error.code).toBe('MODEL_UNSUPPORTED');
    expect(server.downloads(/./)).toEqual([]);
  });
});

describe('a directory', () => {
  it('is itself', async () => {
    const { fetcher } = await setUp();
    const directory = temporaryDirectory();
    expect(await fetcher.adapter({ kind: 'directory', directory }, undefined, call())).toBe(
      directory,
    );
  });
});
