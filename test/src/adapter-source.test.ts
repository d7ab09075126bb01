// The shape of sources: what they mean, what is refused and by which name.
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { createLorax } from '../../src/ai-sdk/provider.js';
import { resolveAdapterSource } from '../../src/adapter-source.js';
import { LoraxError } from '../../src/errors.js';
import { parseHubRepository } from '../../src/hub-repository.js';
import { checkSources } from '../../src/name-sources.js';
import type { AdapterSource } from '../../src/types.js';

function refusal(run: () => unknown): LoraxError {
  try {
    run();
  } catch (error) {
    if (LoraxError.isInstance(error)) return error;
    throw error;
  }
  throw new Error('it was accepted');
}

const hub = { kind: 'hub', repository: 'acme/pirate' };
const s3 = { kind: 's3', bucket: 'loras', prefix: 'a/b' };
const keys = { accessKeyId: 'id', secretAccessKey: 'secret' };

describe('a source', () => {
  it.each<[AdapterSource, string, object]>([
    ['./pirate', path.resolve('pirate'), { kind: 'directory', directory: path.resolve('pirate') }],
    [{ directory: '/a' }, '/a', { kind: 'directory', directory: '/a' }],
    ['acme/pirate', path.resolve('acme/pirate'), { kind: 'directory' }],
    ['hf://acme/pirate', 'hf://acme/pirate@main', { ...hub, revision: 'main' }],
    [{ hub: 'acme/pirate@v2' }, 'hf://acme/pirate@v2', { ...hub, revision: 'v2' }],
    [{ hub: 'acme/pirate', token: 't' }, 'hf://acme/pirate@main', { ...hub, token: 't' }],
    [{ hub: 'acme/pirate', token: false }, 'hf://acme/pirate@main', { ...hub, token: false }],
    ['https://x.com/a?k=1', 'https://x.com/a', { kind: 'url', url: 'https://x.com/a?k=1' }],
    ['http://127.0.0.1:8080/a', 'http://127.0.0.1:8080/a', { kind: 'url' }],
    [{ url: 'https://x.com/a', headers: { A: 'b' } }, 'https://x.com/a', { headers: { a: 'b' } }],
    ['s3://loras/a/b/', 's3://loras/a/b', s3],
    ['s3://loras', 's3://loras', { ...s3, prefix: '' }],
    [{ s3: 's3://loras/a/b', endpoint: 'http://minio:9000', region: 'r' }, 's3://loras/a/b', s3],
    [{ s3: 's3://loras/a/b', credentials: keys }, 's3://loras/a/b', { credentials: keys }],
    [
      { s3: 's3://loras/a/b', credentials: async () => ({ ...keys, expiration: new Date() }) },
      's3://loras/a/b',
      { credentials: keys },
    ],
  ])('%j is %s', async (source, shown, wire) => {
    const resolved = resolveAdapterSource(source, 'source');
    expect(resolved.shown).toBe(shown);
    expect(await resolved.wire()).toMatchObject(wire);
  });

  it.each<[unknown, string, string?]>([
    ['', 'source'],
    [7, 'source'],
    [null, 'source'],
    [{}, 'source'],
    [{ dir: './a' }, 'source.dir', 'Known: directory, hub, url, s3'],
    [{ direktory: './a' }, 'source.direktory', 'Did you mean "directory"?'],
    [{ directory: '' }, 'source.directory'],
    [{ directory: './a', token: 't' }, 'source.token'],
    ['hf://acme', 'source.hub', 'org/name'],
    ['hf://acme/..', 'source.hub'],
    [{ hub: 'acme/pirate@../x' }, 'source.hub'],
    [{ hub: 'acme/pirate', Token: 't' }, 'source.Token', 'Did you mean "token"?'],
    [{ hub: 'acme/pirate', token: true }, 'source.token'],
    ['http://example.com/a', 'source.url', 'https://'],
    ['https://', 'source.url'],
    ['https://me:secret@example.com/a', 'source.url', 'source.headers'],
    [{ url: 'https://x.com', headers: { 'a b': 'c' } }, 'source.headers'],
    ['ftp://example.com/a', 'source', 's3://'],
    ['s3://', 'source.s3'],
    ['s3://Bucket/a', 'source.s3'],
    [{ s3: 's3://b1/a', endpoint: 'minio:9000' }, 'source.endpoint'],
    [{ s3: 's3://b1/a', credentials: {} }, 'source.credentials.accessKeyId'],
    [{ s3: 's3://b1/a', credentials: 'id:secret' }, 'source.credentials.accessKeyId'],
  ])('%j is refused by %s', (source, field, hint = '') => {
    const error = refusal(() => resolveAdapterSource(source as never, 'source'));
    expect(error.code).toBe('INVALID_OPTIONS');
    expect(error.data.field).toBe(field);
    expect(error.message).toContain(hint);
    expect(error.message).not.toContain('secret');
  });
});

describe('options.sources', () => {
  it.each<[unknown, string, string | undefined]>([
    [{ folder: '/adapters' }, 'pirate', '/adapters/pirate'],
    [{ hub: 'acme/*' }, 'pirate', 'hf://acme/pirate@main'],
    [{ hub: 'acme/lora-*' }, 'pirate@v2', 'hf://acme/lora-pirate@v2'],
    [{ hub: '*' }, 'acme/pirate', 'hf://acme/pirate@main'],
    [{ hub: 'acme/*' }, 'acme/pirate', undefined],
    [{ url: 'https://x.com/a/*/' }, 'team/pirate', 'https://x.com/a/team/pirate/'],
    [{ url: 'https://x.com/a/*' }, 'a@b:c', 'https://x.com/a/a%40b%3Ac'],
    [{ s3: 's3://loras/*' }, 'team/pirate', 's3://loras/team/pirate'],
    [() => ({ hub: 'acme/mine' }), 'pirate', 'hf://acme/mine@main'],
    [async () => undefined, 'pirate', undefined],
    [() => null, 'pirate', undefined],
  ])('%j finds %s at %s', async (source, name, shown) => {
    const [found] = checkSources([source], 'options.sources');
    expect((await found!.find(name, undefined))?.shown).toBe(shown);
  });

  it.each<[unknown, string, string?]>([
    [{ folder: './a' }, 'options.sources'],
    [['./a'], 'options.sources[0]'],
    [[{ folder: '' }], 'options.sources[0].folder'],
    [[{ folders: './a' }], 'options.sources[0].folders', 'Did you mean "folder"?'],
    [[{ hub: 'acme' }], 'options.sources[0].hub', 'acme/*'],
    [[{ hub: 'acme/a*b*' }], 'options.sources[0].hub'],
    [[{ hub: 'a b/*' }], 'options.sources[0].hub'],
    [[{ url: 'http://x.com/*' }], 'options.sources[0].url'],
    [[{ s3: 's3://loras' }], 'options.sources[0].s3', 's3://bucket/adapters/*'],
    [[{ hub: 'acme/*', tokens: 't' }], 'options.sources[0].tokens', 'Did you mean "token"?'],
  ])('%j is refused by %s', (sources, field, hint = '') => {
    const error = refusal(() => createLorax({ model: 'm', sources: sources as never }));
    expect(error.code).toBe('INVALID_OPTIONS');
    expect(error.data.field).toBe(field);
    expect(error.message).toContain(hint);
  });

  it('fails the call where a function fails or gives what is no source', async () => {
    const [failing, wrong] = checkSources(
      [() => Promise.reject(new Error('no database')), () => ({ dir: './a' }) as never],
      'options.sources',
    );
    await expect(failing!.find('pirate', undefined)).rejects.toMatchObject({
      code: 'ADAPTER_FETCH_FAILED',
      message: 'The resolver of adapters failed for "pirate": no database',
    });
    await expect(wrong!.find('pirate', undefined)).rejects.toMatchObject({
      ...{ code: 'INVALID_OPTIONS', data: { field: 'source of pirate.dir' } },
    });
  });
});

describe('a repository of the hub', () => {
  it.each([
    ['acme/pirate', { repository: 'acme/pirate', revision: 'main' }],
    ['hf://acme/pirate', { repository: 'acme/pirate', revision: 'main' }],
    ['acme/pirate@refs/pr/1', { repository: 'acme/pirate', revision: 'refs/pr/1' }],
    ...[
      './acme/pirate',
      '/acme/pirate',
      '../pirate',
      'acme',
      'a/b/c',
      'acme/',
      'acme/../x',
      '',
    ].map((text): [string, undefined] => [text, undefined]),
    ...['a/b@', 'a/b@../x', 'a/b@/x', 'a/b@x//y', 'a/b@.x', 'a/b@x y', 'hf://'].map(
      (text): [string, undefined] => [text, undefined],
    ),
  ])('%j', (text, parsed) => {
    expect(parseHubRepository(text)).toEqual(parsed);
  });
});
