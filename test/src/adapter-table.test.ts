// What names mean to the engine client: sources, versions, tenants, states; on a worker of this test.
import { describe, expect, it } from 'vitest';
import { scopeOf, type AdapterScope } from '../../src/adapter-scope.js';
import { directorySource, resolveAdapterSource } from '../../src/adapter-source.js';
import type { AddCommand, Need } from '../../src/adapter-load.js';
import { AdapterTable } from '../../src/adapter-table.js';
import { LoraxError } from '../../src/errors.js';
import { checkSources } from '../../src/name-sources.js';
import type { LoadedAdapter, WireSource } from '../../worker/protocol.js';

const everybody = scopeOf('1\0');
const tenant = (id: string) => scopeOf('1\0', id);

interface Sent extends AddCommand {
  resolve(loaded: LoadedAdapter): void;
  reject(error: unknown): void;
  fetched(): void;
  cancelled: boolean;
}

const placeOf = (source: WireSource): string => {
  if (source.kind === 'directory') return source.directory;
  if (source.kind === 'folder') return `${source.folder}/${source.name}`;
  return source.kind === 'hub' ? source.repository : source.kind;
};

/** Loads answer by themselves unless `held` says otherwise; a place with "missing" has no adapter. */
function setUp({ held = () => false }: { held?: (place: string) => boolean } = {}) {
  const sent: Sent[] = [];
  const removed: string[] = [];
  const prefetched: string[] = [];
  const events: string[] = [];
  const content = new Map<string, string>();
  const table = new AdapterTable(
    {
      add: (command, fetched) => {
        const place = placeOf(command.source);
        const entry = { ...command, fetched, cancelled: false } as Sent;
        const result = new Promise<LoadedAdapter>((resolve, reject) => {
          Object.assign(entry, { resolve, reject });
        });
        sent.push(entry);
        const hash = content.get(place) ?? hashOf(place);
        if (place.includes('missing')) entry.reject(failure('ADAPTER_NOT_FOUND', {}));
        else if (place.includes('broken')) entry.reject(failure('ADAPTER_INVALID', {}));
        else if (place.includes('unreachable')) {
          entry.reject(failure('ADAPTER_FETCH_FAILED', { reason: 'timeout' }));
        } else if (!held(place)) entry.resolve({ hash, directory: place });
        const cancel = () => {
          entry.cancelled = true;
          entry.reject(failure('ADAPTER_FETCH_FAILED', { reason: 'cancelled' }));
        };
        return { result, cancel };
      },
      prefetch: async (name) => prefetched.push(name),
      remove: async (name) => {
        removed.push(name);
        return { name, hash: 'h', freedBytes: 10 };
      },
    },
    (full, { state, tenant: whose }) => {
      events.push(`${whose ?? ''}/${full.slice(full.lastIndexOf('\0') + 1)} ${state}`);
    },
  );
  return { table, sent, removed, prefetched, events, content };
}

const failure = (
  code: 'ADAPTER_NOT_FOUND' | 'ADAPTER_INVALID' | 'ADAPTER_FETCH_FAILED',
  data: object,
) => new LoraxError(code, code, { data: { ...data } });

/** 64 digits that tell the text. */
function hashOf(text: string): string {
  return [...text]
    .map((char) => char.charCodeAt(0).toString(16))
    .join('')
    .padEnd(64, '0')
    .slice(-64);
}

const arrive = async ({ loading, name }: Need): Promise<string> => (await loading) ?? name;
const code = async (run: () => Promise<unknown> | Need): Promise<string> => {
  try {
    const result = run();
    await ('loading' in result ? result.loading : result);
    return 'no error';
  } catch (error) {
    return LoraxError.isInstance(error) ? error.code : String(error);
  }
};
const turn = () => new Promise((resolve) => setImmediate(resolve));

describe('names', () => {
  it('are loaded when first needed, once for all who wait', async () => {
    const { table, sent, events } = setUp();
    table.declare(everybody, 'pirate', resolveAdapterSource('hf://acme/pirate', 's'));
    expect(sent).toEqual([]);
    const needs = [table.need(everybody, 'pirate'), table.need(everybody, 'pirate')];
    sent[0]!.fetched();
    expect(await Promise.all(needs.map(arrive))).toEqual(['1\0pirate', '1\0pirate']);
    expect(table.need(everybody, 'pirate').loading).toBeUndefined();
    expect(sent.length).toBe(1);
    expect(events).toEqual(['/pirate fetching', '/pirate on-disk', '/pirate host']);
  });

  it('are cancelled when nobody waits any more, but not what was asked for as such', async () => {
    const { table, sent } = setUp({ held: () => true });
    for (const name of ['a', 'b', 'c']) table.declare(everybody, name, directorySource(`/${name}`));
    const [one, two] = [table.need(everybody, 'a'), table.need(everybody, 'a')];
    one.leave();
    one.leave();
    expect(sent[0]!.cancelled).toBe(false);
    two.leave();
    expect(sent[0]!.cancelled).toBe(true);
    expect(await code(() => two)).toBe('ADAPTER_FETCH_FAILED');
    // Who comes now does not hear of that.
    const again = table.need(everybody, 'a');
    sent[1]!.resolve({ hash: 'x', directory: '/a' });
    expect(await arrive(again)).toBe('1\0a');
    void table.identify(everybody, 'b');
    table.need(everybody, 'b').leave();
    const added = table.add(everybody, 'c', directorySource('/c2'));
    table.need(everybody, 'c').leave();
    expect(sent.map(({ cancelled }) => cancelled)).toEqual([true, false, false, false]);
    sent[3]!.resolve({ hash: 'y', directory: '/c2' });
    await added;
  });

  it('go on with what they stand for while something else is on its way', async () => {
    const { table, sent } = setUp({ held: (place) => place === '/slow' });
    await table.add(everybody, 'a', directorySource('/one'));
    const slow = table.add(everybody, 'a', directorySource('/slow'));
    expect(table.need(everybody, 'a').loading).toBeUndefined();
    await table.add(everybody, 'a', directorySource('/two'));
    sent
      .find(({ source }) => placeOf(source) === '/slow')!
      .resolve({ hash: 's', directory: '/slow' });
    await slow;
    expect((await table.identify(everybody, 'a')).directory).toBe('/two');
    expect(await code(() => table.add(everybody, 'a', directorySource('/broken')))).toBe(
      'ADAPTER_INVALID',
    );
    expect((await table.identify(everybody, 'a')).directory).toBe('/two');
  });

  it('are loaded by a hint, which the worker hears of then', async () => {
    const { table, prefetched } = setUp();
    table.declare(everybody, 'pirate', directorySource('/pirate'));
    const hinted = table.prefetch(everybody, 'pirate');
    expect(prefetched).toEqual([]);
    expect((await hinted).directory).toBe('/pirate');
    expect(prefetched).toHaveLength(1);
    expect(await code(() => table.prefetch(everybody, 'nobody'))).toBe('ADAPTER_NOT_FOUND');
  });

  it('keep what they stand for when the worker dies, though their source has moved on', async () => {
    const { table, sent, content } = setUp();
    table.declare(everybody, 'pirate', resolveAdapterSource('hf://acme/pirate', 's'));
    const first = await table.identify(everybody, 'pirate');
    content.set('acme/pirate', hashOf('newer'));
    table.forgetLoaded();
    await arrive(table.need(everybody, 'pirate'));
    expect(sent[1]).toMatchObject({
      source: { kind: 'directory', directory: first.directory },
      hash: first.hash,
    });
  });
});

describe('names that are not registered', () => {
  const looking = (table: AdapterTable, sources: unknown[]) =>
    table.setSources('1\0', checkSources(sources, 'options.sources'));

  it('are unknown without a source that may serve them', async () => {
    const { table, sent } = setUp();
    expect(await code(() => table.need(everybody, 'acme/pirate'))).toBe('ADAPTER_NOT_FOUND');
    looking(table, [{ folder: '/adapters' }]);
    for (const name of ['../x', 'a/../b', '/etc', '.x', 'a/.b', 'a//b', 'a/', 'a\0b', '']) {
      expect(await code(() => table.need(everybody, name)), name).toBe('ADAPTER_NOT_FOUND');
    }
    expect(sent).toEqual([]);
  });

  it('are asked for in the order of the sources, until one has them', async () => {
    const { table, sent } = setUp();
    looking(table, [{ folder: '/missing' }, () => null, { hub: 'acme/*' }, { hub: 'other/*' }]);
    expect(await arrive(table.need(everybody, 'pirate'))).toBe('1\0pirate');
    expect(sent.map(({ source }) => placeOf(source))).toEqual(['/missing/pirate', 'acme/pirate']);
    expect(table.list(everybody, [])).toMatchObject([
      { name: 'pirate', source: 'hf://acme/pirate@main', state: 'host' },
    ]);
  });

  it('leave nothing behind where nothing has them', async () => {
    const { table, events } = setUp();
    looking(table, [{ folder: '/missing' }, { hub: 'missing/*' }]);
    const error = await arrive(table.need(everybody, 'pirate')).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({
      code: 'ADAPTER_NOT_FOUND',
      cause: { message: 'It is not at /missing/pirate, hf://missing/pirate@main.' },
    });
    // Which is for logs, not for who asks.
    expect(
      JSON.stringify([(error as LoraxError).message, (error as LoraxError).data]),
    ).not.toContain('missing/');
    expect(events).toEqual(['/pirate fetching', '/pirate removed']);
    expect(table.list(everybody, [])).toEqual([]);
    looking(table, [{ folder: '/unreachable' }, { hub: 'acme/*' }]);
    expect(await code(() => table.need(everybody, 'pirate'))).toBe('ADAPTER_FETCH_FAILED');
    expect(table.list(everybody, [])).toEqual([]);
  });

  it('share one lookup, and no hanging one delays another', async () => {
    const { table, sent } = setUp({ held: (place) => place.endsWith('slow') });
    let asked = 0;
    looking(table, [
      (name: string) => {
        asked++;
        return name === 'never' ? new Promise<never>(() => undefined) : null;
      },
      { folder: '/missing' },
      { hub: 'acme/*' },
    ]);
    const never = table.need(everybody, 'never');
    const slow = [1, 2, 3].map(() => table.need(everybody, 'slow'));
    expect(await arrive(table.need(everybody, 'pirate'))).toBe('1\0pirate');
    expect(asked).toBe(3);
    sent
      .find(({ source }) => placeOf(source) === 'acme/slow')!
      .resolve({ hash: 's', directory: '' });
    expect(await Promise.all(slow.map(arrive))).toEqual(['1\0slow', '1\0slow', '1\0slow']);
    never.leave();
  });
});

describe('versions', () => {
  async function setUpVersions() {
    const made = setUp();
    const { table } = made;
    for (const place of ['/one', '/two', '/three']) {
      await table.add(everybody, 'pirate', directorySource(place));
    }
    const hashes = ['/one', '/two', '/three'].map(hashOf);
    return { ...made, hashes };
  }

  it('are pinned by the first digits of their hash', async () => {
    const { table, sent, hashes } = await setUpVersions();
    const pinned = `pirate@${hashes[0]!.slice(0, 64)}`;
    expect(await arrive(table.need(everybody, pinned))).toBe(`1\0${pinned}`);
    expect(sent.at(-1)).toMatchObject({ source: { directory: '/one' }, hash: hashes[0] });
    expect((await table.identify(everybody, 'pirate')).hash).toBe(hashes[2]);
    expect(table.names(everybody)).toEqual(['pirate']);
  });

  it.each(['pirate@deadbeef', 'pirate@2f6f', 'pirate@2F6F6E65', 'other@2f6f6e65'])(
    '%s is none',
    async (name) => {
      const { table } = await setUpVersions();
      expect(await code(() => table.need(everybody, name))).toBe('ADAPTER_NOT_FOUND');
    },
  );

  it('are what a name is pointed back to', async () => {
    const { table, sent, hashes } = await setUpVersions();
    expect((await table.addVersion(everybody, 'pirate', hashes[1]!)).hash).toBe(hashes[1]);
    expect(sent.at(-1)).toMatchObject({ source: { directory: '/two' }, hash: hashes[1] });
    expect((await table.identify(everybody, 'pirate')).hash).toBe(hashes[1]);
    expect(() => table.addVersion(everybody, 'pirate', 'deadbeef')).toThrow(/no one version/);
  });

  it('of a name that was never loaded are known once it is', async () => {
    const { table } = setUp();
    table.declare(everybody, 'pirate', directorySource('/one'));
    const name = `pirate@${hashOf('/one')}`;
    expect(await arrive(table.need(everybody, name))).toBe(`1\0${name}`);
    expect(await code(() => table.need(everybody, 'pirate@deadbeef'))).toBe('ADAPTER_NOT_FOUND');
  });

  it('go with their name', async () => {
    const { table, removed, hashes } = await setUpVersions();
    const pinned = `pirate@${hashes[0]}`;
    await arrive(table.need(everybody, pinned));
    expect(await table.remove('1\0', 'pirate')).toMatchObject({
      ...{ name: 'pirate', hash: hashes[2], freedBytes: 20 },
    });
    expect(removed.sort()).toEqual(['1\0pirate', `1\0${pinned}`]);
    expect(await code(() => table.need(everybody, pinned))).toBe('ADAPTER_NOT_FOUND');
  });
});

describe('tenants', () => {
  it("have names of their own before everybody's, and see no other's", async () => {
    const { table, sent } = setUp();
    await table.add(everybody, 'voice', directorySource('/everybody'));
    await table.add(tenant('a'), 'voice', directorySource('/a'));
    await table.add(tenant('a'), 'secret', directorySource('/a-secret'));
    const placeFor = async (scope: AdapterScope) =>
      (await table.identify(scope, 'voice')).directory;
    expect(await Promise.all([everybody, tenant('a'), tenant('b')].map(placeFor))).toEqual([
      ...['/everybody', '/a', '/everybody'],
    ]);
    expect(sent.map((each) => each.tenant)).toEqual([undefined, 'a', 'a']);
    for (const scope of [everybody, tenant('b'), tenant('A'), tenant('a\0'), scopeOf('2\0', 'a')]) {
      expect(await code(() => table.need(scope, 'secret'))).toBe('ADAPTER_NOT_FOUND');
    }
    expect(table.names(tenant('b'))).toEqual(['voice']);
    expect(table.list(tenant('b'), [])).toEqual([]);
    expect(table.list(tenant('a'), []).map(({ name }) => name)).toEqual(['secret', 'voice']);
    expect(table.list(everybody, []).map(({ source }) => source)).toEqual(['/everybody']);
    // Nor can a tenant remove what is everybody's.
    expect(await table.remove(tenant('b').own, 'voice')).toBeUndefined();
  });

  it("keep what a function gave them; what a pattern finds is everybody's", async () => {
    const { table, sent } = setUp();
    const asked: unknown[] = [];
    table.setSources(
      '1\0',
      checkSources(
        [
          (name: string, context: { tenant?: string }) => {
            asked.push([name, context]);
            const { tenant: id } = context;
            return name === 'private' && id !== undefined
              ? { hub: `${id}/private`, token: id }
              : null;
          },
          { hub: 'acme/*' },
        ],
        'options.sources',
      ),
    );
    expect(await arrive(table.need(tenant('a'), 'private'))).toBe('1\0a\0private');
    expect(await arrive(table.need(tenant('b'), 'private'))).toBe('1\0b\0private');
    expect(await arrive(table.need(tenant('a'), 'public'))).toBe('1\0public');
    expect(await arrive(table.need(tenant('b'), 'public'))).toBe('1\0public');
    expect(asked.slice(0, 2)).toEqual([
      ['private', { tenant: 'a' }],
      ['private', { tenant: 'b' }],
    ]);
    expect(sent.map((each) => [placeOf(each.source), each.tenant])).toEqual([
      ...[
        ['a/private', 'a'],
        ['b/private', 'b'],
        ['acme/public', undefined],
      ],
    ]);
  });

  it('have versions of their own', async () => {
    const { table } = setUp();
    await table.add(tenant('a'), 'voice', directorySource('/a'));
    await table.add(tenant('b'), 'voice', directorySource('/b'));
    const name = `voice@${hashOf('/a')}`;
    expect(await arrive(table.need(tenant('a'), name))).toBe(`1\0a\0${name}`);
    expect(await code(() => table.need(tenant('b'), name))).toBe('ADAPTER_NOT_FOUND');
    expect(await code(() => table.need(everybody, name))).toBe('ADAPTER_NOT_FOUND');
  });

  it('go with their provider', async () => {
    const { table, removed } = setUp();
    await table.add(everybody, 'x', directorySource('/x'));
    await table.add(tenant('a'), 'y', directorySource('/y'));
    await table.add(scopeOf('11\0'), 'z', directorySource('/z'));
    await table.removeScope('1\0');
    expect(removed.sort()).toEqual(['1\0a\0y', '1\0x']);
    await turn();
    expect(table.names(scopeOf('11\0'))).toEqual(['z']);
  });
});
