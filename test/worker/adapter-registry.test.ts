import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import {
  AdapterRegistry,
  type AdapterBackend,
  type AddRequest,
} from '../../worker/adapter-registry.js';
import type { NativeAdapterSpec } from '../../worker/addon.js';
import { packed, type ReadAdapter } from '../../worker/files/reading-threads.js';
import { Random } from './random.js';

const tick = () => new Promise((resolve) => setImmediate(resolve));

function from(directory: string, more: Partial<AddRequest> = {}): AddRequest {
  return {
    ...{ source: { kind: 'directory', directory }, signal: new AbortController().signal },
    ...{ onFetched: () => undefined, ...more },
  };
}

/**
 * A directory "x@7" holds content with hash "x"; "rank 500" in it is its largest rank, else 16, and what
 * has "DoRA" in it is that.
 */
class Backend implements AdapterBackend {
  readonly loaded = new Map<number, string>();
  readonly adds: string[] = [];
  private next = 1;
  delay: () => Promise<unknown> = tick;

  async fetch({ source }: AddRequest): Promise<string> {
    return (source as { directory: string }).directory;
  }

  async read(directory: string): Promise<ReadAdapter> {
    await this.delay();
    if (directory.startsWith('unreadable')) throw new Error(`cannot read ${directory}`);
    const tensor = { name: 't', file: 0, dtype: 'F32' as const, rows: 4, cols: 8, offset: 0 };
    const module = { layer: 0, module: 0, rank: 4, scale: 1, a: tensor, b: tensor };
    const hash = directory.split('@')[0] as string;
    const rank = Number(/rank (\d+)/.exec(hash)?.[1] ?? 16);
    const alone = hash.includes('DoRA') ? { alone: 'is DoRA' } : {};
    const modules = [module, { ...module, module: 1, rank }];
    return packed({ hash, files: [], modules, ...alone });
  }

  async add(_: ReadAdapter, key: string): Promise<number> {
    this.adds.push(key);
    await this.delay();
    if (key.startsWith('bad')) throw new Error(`NaN in ${key}`);
    const handle = this.next++;
    this.loaded.set(handle, key);
    return handle;
  }

  readonly relocated: number[] = [];
  readonly prefetched: number[] = [];

  relocate(handle: number, spec: NativeAdapterSpec): void {
    if (this.loaded.get(handle) !== spec.hash) throw new Error('that is other content');
    this.relocated.push(handle);
  }

  prefetch(handle: number): void {
    this.prefetched.push(handle);
  }

  remove(handle: number): void {
    if (!this.loaded.delete(handle)) throw new Error(`no handle ${handle}`);
  }

  list() {
    return [...this.loaded.keys()].map((handle) => ({
      handle,
      bytes: 100 * handle,
      inHost: true,
      resident: true,
      activeRequests: 0,
    }));
  }
}

function setUp() {
  const backend = new Backend();
  return { backend, registry: new AdapterRegistry(async () => backend) };
}

/** Of one adapter. */
async function lease(registry: AdapterRegistry, name: string) {
  const { uses, identity, release } = await registry.lease([{ name, weight: 1 }]);
  expect(uses).toEqual([{ handle: expect.any(Number) as number, weight: 1 }]);
  return { handle: uses[0]!.handle, identity: identity!, release };
}

describe('AdapterRegistry', () => {
  it('shares one native copy between names of the same content', async () => {
    const { backend, registry } = setUp();
    const [a, b] = await Promise.all([
      registry.add('a', from('x@1')),
      registry.add('b', from('x@2')),
    ]);
    expect(a).toEqual({ hash: 'x', directory: 'x@1' });
    expect(b).toEqual({ hash: 'x', directory: 'x@2' });
    expect(backend.adds).toEqual(['x']);
    await registry.remove('a');
    await tick();
    expect([...backend.loaded.values()]).toEqual(['x']);
    await registry.remove('b');
    await tick();
    expect(backend.loaded.size).toBe(0);
  });

  it('says where a content lies when it comes from elsewhere', async () => {
    const { backend, registry } = setUp();
    await registry.add('a', from('x@1'));
    expect(backend.relocated).toEqual([]);
    await registry.add('b', from('x@2'));
    expect(backend.relocated).toEqual([...backend.loaded.keys()]);
  });

  it('hands hints on, of what is loaded', async () => {
    const { backend, registry } = setUp();
    await registry.add('a', from('x@1'));
    await registry.prefetch('a');
    await registry.prefetch('nobody');
    expect(backend.prefetched).toEqual([...backend.loaded.keys()]);
  });

  it('repoints a name; a lease keeps the old content until it is released', async () => {
    const { backend, registry } = setUp();
    await registry.add('a', from('x@1'));
    const held = await lease(registry, 'a');
    await registry.add('a', from('y@1'));
    await tick();
    expect([...backend.loaded.values()].sort()).toEqual(['x', 'y']);
    expect(backend.loaded.get(held.handle)).toBe('x');
    held.release();
    held.release();
    await tick();
    expect([...backend.loaded.values()]).toEqual(['y']);
    const after = await lease(registry, 'a');
    expect(after.identity).toEqual({ name: 'a', hash: 'y' });
    after.release();
  });

  it('changes one name in order, and a lease sees every change asked for before it', async () => {
    const { backend, registry } = setUp();
    const adds = [
      registry.add('a', from('x')),
      registry.add('a', from('y')),
      registry.add('a', from('z')),
    ];
    const leased = lease(registry, 'a');
    const removed = registry.remove('a');
    expect((await leased).identity.hash).toBe('z');
    (await leased).release();
    expect((await Promise.all(adds)).map((identity) => identity.hash)).toEqual(['x', 'y', 'z']);
    await removed;
    await tick();
    expect(backend.loaded.size).toBe(0);
    await expect(lease(registry, 'a')).rejects.toMatchObject({ code: 'ADAPTER_NOT_FOUND' });
  });

  it('leaves nothing behind when adding fails, and keeps what was there', async () => {
    const { backend, registry } = setUp();
    await registry.add('a', from('x'));
    await expect(registry.add('a', from('bad'))).rejects.toThrow('NaN in bad');
    await expect(registry.add('a', from('unreadable'))).rejects.toThrow('cannot read');
    const both = await Promise.allSettled([
      registry.add('b', from('bad')),
      registry.add('c', from('bad')),
    ]);
    expect(both.map((result) => result.status)).toEqual(['rejected', 'rejected']);
    expect((await registry.list()).map((info) => info.name)).toEqual(['a']);
    expect([...backend.loaded.values()]).toEqual(['x']);
    // Asked for again, it is tried again.
    await expect(registry.add('b', from('bad'))).rejects.toThrow('NaN in bad');
  });

  it('names up to three near names, of the same scope only, without the scope', async () => {
    const { registry } = setUp();
    for (const name of ['pirate', 'pirates', 'pilate', 'private', 'json']) {
      await registry.add(`p1\0${name}`, from(name));
    }
    await registry.add('p2\0pirata', from('secret'));
    const error = await lease(registry, 'p1\0pirat').catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({
      code: 'ADAPTER_NOT_FOUND',
      message: 'There is no adapter named "pirat". Did you mean "pirate", "pilate", "pirates"?',
      data: { adapter: 'pirat', near: ['pirate', 'pilate', 'pirates'] },
    });
    await expect(lease(registry, 'p2\0json')).rejects.toMatchObject({ data: { near: [] } });
    expect(await registry.remove('p1\0json')).toEqual({
      ...{ name: 'json', hash: 'json', freedBytes: 500 },
    });
  });

  it('lists names as they were given, with rank and native facts', async () => {
    const { registry } = setUp();
    await registry.add('p\0a', from('x@1'));
    expect(await registry.list()).toEqual([
      {
        name: 'p\0a',
        bytes: 100,
        rank: 16,
        inHost: true,
        resident: true,
        activeRequests: 0,
      },
    ]);
  });

  it('leases a mix: all of its contents or none, as of receipt', async () => {
    const { backend, registry } = setUp();
    await Promise.all([registry.add('p\0a', from('x')), registry.add('p\0b', from('y'))]);
    const mix = [
      { name: 'p\0b', weight: 0.5 },
      { name: 'p\0a', weight: -2 },
    ];
    const held = await registry.lease(mix);
    const handleOf = (hash: string) => [...backend.loaded].find(([, has]) => has === hash)![0];
    expect(held.uses).toEqual([
      { handle: handleOf('y'), weight: 0.5 },
      { handle: handleOf('x'), weight: -2 },
    ]);
    expect(held.identity).toEqual({
      name: '0.5*b + -2*a',
      hash: createHash('sha256').update('x -2\ny 0.5\n').digest('hex'),
      mix: [
        { name: 'b', hash: 'y', weight: 0.5 },
        { name: 'a', hash: 'x', weight: -2 },
      ],
    });
    // What comes after receipt does not concern it, although one of its names is still being loaded.
    const adding = registry.add('p\0c', from('z'));
    const later = registry.lease([...mix, { name: 'p\0c', weight: 1 }]);
    const removals = [registry.remove('p\0a')];
    await adding;
    expect((await later).uses).toHaveLength(3);
    await expect(registry.lease(mix)).rejects.toMatchObject({ data: { adapter: 'a' } });
    removals.push(registry.remove('p\0b'), registry.remove('p\0c'));
    await tick();
    expect([...backend.loaded.values()].sort()).toEqual(['x', 'y', 'z']);
    (await later).release();
    await tick();
    expect([...backend.loaded.values()].sort()).toEqual(['x', 'y']);
    held.release();
    held.release();
    // Each tells what it freed, when that is free.
    expect((await Promise.all(removals)).map(({ freedBytes }) => freedBytes)).toEqual([
      ...[100, 200, 300],
    ]);
    expect(backend.loaded.size).toBe(0);
  });

  it('goes on with what a name stands for until the new content is there', async () => {
    const { backend, registry } = setUp();
    await registry.add('a', from('x'));
    let arrive = () => {};
    backend.delay = () => new Promise<void>((resolve) => (arrive = resolve));
    const replaced = registry.add('a', from('y'));
    await tick();
    const before = await lease(registry, 'a');
    expect(before.identity.hash).toBe('x');
    backend.delay = tick;
    arrive();
    await replaced;
    expect((await lease(registry, 'a')).identity.hash).toBe('y');
    expect([...backend.loaded.values()].sort()).toEqual(['x', 'y']);
    before.release();
    expect([...backend.loaded.values()]).toEqual(['y']);
  });

  it('lets no slow load delay another, of the same name or not', async () => {
    const { backend, registry } = setUp();
    let arrive = () => {};
    const slow = new Promise<void>((resolve) => (arrive = resolve));
    backend.fetch = async ({ source }) => {
      const { directory } = source as { directory: string };
      if (directory === 'slow') await slow;
      return directory;
    };
    const late = registry.add('a', from('slow'));
    await registry.add('b', from('x'));
    await registry.add('a', from('y'));
    expect((await lease(registry, 'a')).identity.hash).toBe('y');
    arrive();
    // It was asked for before the other, so it changes nothing.
    expect(await late).toMatchObject({ hash: 'slow' });
    expect((await lease(registry, 'a')).identity.hash).toBe('y');
    expect([...backend.loaded.values()].sort()).toEqual(['x', 'y']);
  });

  it('takes a version only as the content it is', async () => {
    const { backend, registry } = setUp();
    await registry.add('a', from('x@1'));
    await registry.add('a@x', from('x@1', { hash: 'x' }));
    expect(backend.adds).toEqual(['x']);
    await expect(registry.add('a@w', from('x@1', { hash: 'wanted' }))).rejects.toMatchObject({
      code: 'ADAPTER_NOT_FOUND',
      data: { adapter: 'a@w', hash: 'wanted', found: 'x' },
    });
    // What is here already need not be read again, wherever its files have gone.
    await registry.add('a', from('y'));
    await registry.add('a', from('unreadable', { hash: 'x' }));
    expect((await lease(registry, 'a')).identity.hash).toBe('x');
  });

  it('shares nothing between tenants, and tells native code they are different', async () => {
    const { backend, registry } = setUp();
    await registry.add('t1\0a', from('x', { tenant: 't1' }));
    await registry.add('t2\0a', from('x', { tenant: 't2' }));
    await registry.add('a', from('x'));
    expect(backend.loaded.size).toBe(3);
    expect(new Set(backend.adds).size).toBe(3);
    const [one, two] = [await lease(registry, 't1\0a'), await lease(registry, 't2\0a')];
    expect(one.handle).not.toBe(two.handle);
    expect(one.identity.hash).toBe('x');
    expect(two.identity.hash).toBe('x');
  });

  it('adds the weights of names that stand for the same content', async () => {
    const { registry } = setUp();
    for (const name of ['a', 'b', 'c'])
      await registry.add(name, from(name === 'c' ? 'y' : `x@${name}`));
    const weights = (a: number, b: number) => [
      { name: 'a', weight: a },
      { name: 'c', weight: 1 },
      { name: 'b', weight: b },
    ];
    const one = await registry.lease(weights(0.25, 0.5));
    expect(one.uses.map(({ weight }) => weight)).toEqual([0.75, 1]);
    expect(one.identity).toMatchObject({ name: '0.25*a + 1*c + 0.5*b', mix: { length: 3 } });
    const same = await registry.lease(weights(0.5, 0.25));
    expect(same.identity?.hash).toBe(one.identity?.hash);
    const other = await registry.lease(weights(0.5, 0.5));
    expect(other.identity?.hash).not.toBe(one.identity?.hash);
    const base = await registry.lease([]);
    expect(base).toMatchObject({ uses: [], identity: null });
  });

  it('refuses a mix of more ranks than a step has room for, and holds nothing of it', async () => {
    const { backend, registry } = setUp();
    for (const name of ['a', 'b']) await registry.add(name, from(`rank 500 of ${name}`));
    await registry.add('c', from('small'));
    const mix = (...names: string[]) => names.map((name) => ({ name, weight: 1 }));
    const fits = await registry.lease(mix('a', 'b'));
    await expect(registry.lease(mix('a', 'b', 'c'))).rejects.toMatchObject({
      code: 'INVALID_OPTIONS',
      message: expect.stringContaining('add up to 1040; a mix may have 1024 at most') as string,
      data: { field: 'request.adapter', rank: 1040, maxRank: 1024 },
    });
    fits.release();
    for (const name of ['a', 'b', 'c']) await registry.remove(name);
    await tick();
    expect(backend.loaded.size).toBe(0);
  });

  it('refuses a mix with what takes the place of the base, and holds nothing of it', async () => {
    const { backend, registry } = setUp();
    await registry.add('a', from('DoRA'));
    await registry.add('same', from('DoRA@again'));
    await registry.add('b', from('plain'));
    const refused = async (...adapters: [string, number][]) => {
      const mix = adapters.map(([name, weight]) => ({ name, weight }));
      await expect(registry.lease(mix)).rejects.toMatchObject({
        code: 'ADAPTER_UNSUPPORTED',
        message: expect.stringMatching(/^"(a|same)" is DoRA: .*mixed/) as string,
      });
    };
    await refused(['a', 1], ['b', 1]);
    await refused(['b', 0.5], ['a', 0.5]);
    await refused(['a', 0.5]);
    await refused(['a', 1], ['same', 1]);
    (await registry.lease([{ name: 'a', weight: 1 }])).release();
    const halves = await registry.lease([
      { name: 'a', weight: 0.5 },
      { name: 'same', weight: 0.5 },
    ]);
    expect(halves.uses).toEqual([{ handle: expect.any(Number) as number, weight: 1 }]);
    halves.release();
    for (const name of ['a', 'same', 'b']) await registry.remove(name);
    await tick();
    expect(backend.loaded.size).toBe(0);
  });

  it('holds exactly what its names and leases need, under random commands', async () => {
    for (let seed = 0; seed < 60; seed++) {
      const random = new Random(seed);
      const { backend, registry } = setUp();
      backend.delay = async () => {
        for (let i = random.below(3); i > 0; i--) await tick();
      };
      const pending: Promise<unknown>[] = [];
      const start = (change: Promise<unknown>) => {
        change.catch(() => undefined);
        pending.push(change);
      };
      const leases: Awaited<ReturnType<typeof lease>>[] = [];
      for (let i = 0; i < 40; i++) {
        const name = random.pick(['a', 'b', 'c']);
        const kind = random.below(5);
        if (kind < 2) start(registry.add(name, from(random.pick(['x', 'y', 'z', 'bad']))));
        else if (kind === 2) start(registry.remove(name));
        else if (kind === 3) start(lease(registry, name).then((l) => leases.push(l)));
        else leases.splice(random.below(leases.length + 1), 1).forEach((l) => l.release());
        if (random.below(3) === 0) await tick();
        for (const { handle, identity } of leases) {
          expect(backend.loaded.get(handle)).toBe(identity.hash);
        }
      }
      let settled = false;
      void Promise.allSettled(pending).then(() => (settled = true));
      // Removals wait for the leases.
      while (!settled) {
        await tick();
        leases.splice(0).forEach(({ release }) => release());
      }
      leases.forEach(({ release }) => release());
      await tick();
      const named = new Set<string>();
      for (const { name } of await registry.list()) {
        const { identity, release } = await lease(registry, name);
        named.add(identity.hash);
        release();
      }
      expect([...backend.loaded.values()].sort(), `seed ${seed}`).toEqual([...named].sort());
    }
  });
});
