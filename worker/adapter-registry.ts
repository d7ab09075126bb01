/**
 * Adapter names -> directories, content hashes and native handles.
 *
 * Always holds: one native copy per content and tenant, however many names refer to it, removed with the
 * last of them. Loads run at once; they take effect in the order they were asked for, and a failed one
 * leaves things as they were. A lease keeps its content loaded until its request has ended, so a
 * name may be given to other weights, or be removed, while requests on the old ones run. Called by
 * engine-port.ts.
 */
import { createHash } from 'node:crypto';
import { adaptersIdentity, type WeightedAdapter } from '../src/adapter-mix.js';
import { LoraxError } from '../src/errors.js';
import type { AdapterIdentity, RemovedAdapter } from '../src/types.js';
import type { LeasedUse } from './activation.js';
import type { NativeAdapterInfo, NativeAdapterSpec } from './addon.js';
import type { ReadAdapter } from './files/reading-threads.js';
import { checkMix, type MixedContent } from './mix-limits.js';
import type { LoadedAdapter, WireSource, WorkerAdapter } from './protocol.js';

export interface AdapterBackend {
  /** The directory of its files. */
  fetch(request: AddRequest, name: string): Promise<string>;
  read(directory: string): Promise<ReadAdapter>;
  /** `key`: what native code tells contents apart by. */
  add(adapter: ReadAdapter, key: string, name: string): Promise<number>;
  remove(handle: number): void;
  /** The same content is there, too. */
  relocate(handle: number, spec: NativeAdapterSpec): void;
  prefetch(handle: number): void;
  list(): NativeAdapterInfo[];
}

export interface AddRequest {
  source: WireSource;
  /** Whose it is; unset = everybody's. */
  tenant?: string | undefined;
  /** What its content must be. */
  hash?: string | undefined;
  signal: AbortSignal;
  onFetched(): void;
}

/** All the adapters of a request. */
export interface AdapterLease {
  /** Of distinct contents; empty = the base. */
  uses: LeasedUse[];
  /** null = the base. */
  identity: AdapterIdentity | null;
  /** Once, when the request has ended. */
  release(): void;
}

/** Weights as native code holds them. */
interface Content {
  hash: string;
  invocationTokens: readonly number[] | undefined;
  rank: number;
  /** ReadAdapter.alone */
  alone: string | undefined;
  handle: Promise<number>;
  /** `handle`, once it is there. */
  loaded: number | undefined;
  /** Names that refer to it, those that are replaced and still have leases too. */
  references: number;
  key: string;
}

/** What a name stands for, or stood for while it has leases. */
interface Entry {
  content: Content;
  /** `content.handle`, resolved. */
  handle: number;
  /** Of the add that made it. */
  order: number;
  leases: number;
  /** Set when the name stands for it no more; called with whether that freed its content. */
  onDrained: ((freed: boolean) => void) | undefined;
}

/** What was asked of a name and is not done yet, by order. */
interface Changes {
  adds: Map<number, Promise<void>>;
  removes: Map<number, Promise<void>>;
}

/** One adapter of a lease. */
interface Held extends MixedContent, WeightedAdapter, LeasedUse {
  hash: string;
  handle: number;
  release(): void;
}

/** Names arrive as "<scope>\0<name>"; people are shown the name. */
export function shownName(name: string): string {
  return name.slice(name.lastIndexOf('\0') + 1);
}

export class AdapterRegistry {
  private readonly entries = new Map<string, Entry>();
  /** By content and tenant. */
  private readonly contents = new Map<string, Content>();
  private readonly changes = new Map<string, Changes>();
  private lastOrder = 0;

  constructor(private readonly backend: () => Promise<AdapterBackend>) {}

  /**
   * Loads the source's content under the name. One that had other content before keeps it until this
   * is there, and its leases go on with it after that.
   */
  add(name: string, request: AddRequest): Promise<LoadedAdapter> {
    return this.change(name, 'adds', async (order) => {
      const backend = await this.backend();
      const { content, directory } = await this.load(backend, name, request);
      const handle = await content.handle;
      const before = this.entries.get(name);
      if (before !== undefined && before.order > order) {
        // Another that was asked for later has come before it.
        this.release(backend, content);
      } else {
        this.entries.set(name, { content, handle, order, leases: 0, onDrained: undefined });
        if (before !== undefined) void this.retire(backend, before);
      }
      return { hash: content.hash, directory };
    });
  }

  /** Resolves when the last lease on it is released, and with it its memory. */
  async remove(name: string): Promise<RemovedAdapter> {
    const earlier = [...(this.changes.get(name)?.adds.values() ?? [])];
    const { hash, bytes, freed } = await this.change(name, 'removes', async (order) => {
      // Requests that wait for what is being loaded are to be served, too.
      await Promise.all(earlier);
      const backend = await this.backend();
      const entry = this.entries.get(name);
      if (entry === undefined) throw this.notFound(name);
      const { content, handle } = entry;
      const removed = { hash: content.hash, bytes: bytesOf(backend, handle) };
      // Another content has come since, with which the one that was meant has gone.
      if (entry.order > order) return { ...removed, freed: Promise.resolve(false) };
      this.entries.delete(name);
      return { ...removed, freed: this.retire(backend, entry) };
    });
    return { name: shownName(name), hash, freedBytes: (await freed) ? bytes : 0 };
  }

  /**
   * The contents that the names stand for now; a name that stands for nothing yet is waited for. All
   * of them or none.
   */
  async lease(adapters: readonly WeightedAdapter[]): Promise<AdapterLease> {
    const results = await Promise.allSettled(adapters.map((adapter) => this.hold(adapter)));
    const held = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
    let released = false;
    const release = () => {
      if (released) return;
      released = true;
      for (const each of held) each.release();
    };
    try {
      for (const result of results) if (result.status === 'rejected') throw result.reason;
      checkMix(held);
    } catch (error) {
      release();
      throw error;
    }
    const parts = held.map(({ name, hash, weight }) => ({ name, hash, weight }));
    return { uses: usesOf(held), identity: adaptersIdentity(parts), release };
  }

  async list(): Promise<WorkerAdapter[]> {
    const byHandle = new Map((await this.backend()).list().map((info) => [info.handle, info]));
    return [...this.entries].map(([name, { content, handle }]) => {
      const info = byHandle.get(handle);
      const { bytes = 0, inHost = false, resident = false, activeRequests = 0 } = info ?? {};
      return { name, bytes, rank: content.rank, inHost, resident, activeRequests };
    });
  }

  /** A request on it will come; what is not loaded is left alone. */
  async prefetch(name: string): Promise<void> {
    const backend = await this.backend();
    const entry = this.entries.get(name);
    if (entry !== undefined) backend.prefetch(entry.handle);
  }

  private async hold({ name, weight }: WeightedAdapter): Promise<Held> {
    const asked = this.lastOrder;
    const changes = this.changes.get(name);
    const backend = await this.backend();
    // What is asked for later does not concern this request.
    for (const [order, removal] of changes?.removes ?? []) if (order <= asked) await removal;
    while (!this.entries.has(name)) {
      const adds = [...(changes?.adds ?? [])].filter(([order]) => order <= asked);
      const newest = adds.at(-1)?.[1];
      if (newest === undefined) break;
      await newest;
    }
    const entry = this.entries.get(name);
    if (entry === undefined) throw this.notFound(name);
    entry.leases++;
    const { content, handle } = entry;
    const { hash, rank, alone, invocationTokens } = content;
    const release = () => {
      entry.leases--;
      if (entry.leases === 0) entry.onDrained?.(this.release(backend, content));
    };
    const held = { name: shownName(name), hash, weight, handle, rank, alone, invocationTokens };
    return { ...held, release };
  }

  private async load(
    backend: AdapterBackend,
    name: string,
    request: AddRequest,
  ): Promise<{ content: Content; directory: string }> {
    const { source, tenant, hash: expected } = request;
    const known = expected === undefined ? undefined : this.contents.get(keyOf(expected, tenant));
    if (known !== undefined && source.kind === 'directory') {
      known.references++;
      return { content: known, directory: source.directory };
    }
    const directory = await backend.fetch(request, name);
    request.onFetched();
    const adapter = await backend.read(directory);
    const { hash } = adapter.spec;
    if (expected !== undefined && hash !== expected) throw goneVersion(name, expected, hash);
    if (request.signal.aborted) throw request.signal.reason;
    const content = this.acquire(backend, adapter, name, tenant);
    try {
      await content.handle;
    } catch (error) {
      this.release(backend, content);
      throw error;
    }
    return { content, directory };
  }

  /** Once nobody leases it any more: whether its content is freed. */
  private retire(backend: AdapterBackend, entry: Entry): Promise<boolean> {
    if (entry.leases === 0) return Promise.resolve(this.release(backend, entry.content));
    return new Promise((resolve) => (entry.onDrained = resolve));
  }

  private acquire(
    backend: AdapterBackend,
    adapter: ReadAdapter,
    name: string,
    tenant: string | undefined,
  ): Content {
    const { spec, rank, alone, invocationTokens } = adapter;
    const key = keyOf(spec.hash, tenant);
    const known = this.contents.get(key);
    if (known !== undefined) {
      known.references++;
      // The directory that it came from may be gone, or changed.
      if (known.loaded !== undefined) backend.relocate(known.loaded, spec);
      return known;
    }
    const handle = backend.add(adapter, key, name);
    const content: Content = {
      ...{ hash: spec.hash, rank, alone, invocationTokens, handle },
      ...{ references: 1, key },
      loaded: undefined,
    };
    this.contents.set(key, content);
    handle.then(
      (loaded) => (content.loaded = loaded),
      // Those who wait for a failed handle all hear of it; nobody may find it afterwards.
      () => this.forget(content),
    );
    return content;
  }

  /** Whether that was the last reference. */
  private release(backend: AdapterBackend, content: Content): boolean {
    content.references--;
    if (content.references > 0) return false;
    this.forget(content);
    try {
      if (content.loaded !== undefined) backend.remove(content.loaded);
    } catch {
      // An engine that has ended freed everything itself.
    }
    return true;
  }

  private forget(content: Content): void {
    if (this.contents.get(content.key) === content) this.contents.delete(content.key);
  }

  /** Runs a change that others can wait for. */
  private async change<T>(
    name: string,
    kind: keyof Changes,
    run: (order: number) => Promise<T>,
  ): Promise<T> {
    const order = ++this.lastOrder;
    const changes = this.changes.get(name) ?? { adds: new Map(), removes: new Map() };
    this.changes.set(name, changes);
    const result = run(order);
    const settled = result.then(
      () => undefined,
      () => undefined,
    );
    changes[kind].set(order, settled);
    void settled.then(() => {
      changes[kind].delete(order);
      const idle = changes.adds.size === 0 && changes.removes.size === 0;
      if (idle && this.changes.get(name) === changes) this.changes.delete(name);
    });
    return result;
  }

  private notFound(name: string): LoraxError {
    const scope = name.slice(0, name.lastIndexOf('\0') + 1);
    const shown = shownName(name);
    const near = [...this.entries.keys()]
      .filter((other) => other.slice(0, other.lastIndexOf('\0') + 1) === scope)
      .map(shownName)
      .map((other) => ({ other, distance: editDistance(shown.slice(0, 64), other.slice(0, 64)) }))
      .filter(
        ({ other, distance }) =>
          distance < other.length && distance <= Math.max(2, Math.ceil(other.length / 3)),
      )
      .sort((a, b) => a.distance - b.distance || a.other.localeCompare(b.other))
      .slice(0, 3)
      .map(({ other }) => other);
    const hint = near.length === 0 ? '' : ` Did you mean ${near.map(quoted).join(', ')}?`;
    return new LoraxError(
      'ADAPTER_NOT_FOUND',
      `There is no adapter named ${quoted(shown)}.${hint}`,
      {
        data: { adapter: shown, near },
      },
    );
  }
}

/**
 * Tenants share nothing, not even equal weights: how busy a copy is, or what of it is cached (native
 * caches go by this as the hash), would show.
 */
function keyOf(hash: string, tenant: string | undefined): string {
  if (tenant === undefined) return hash;
  return createHash('sha256').update(`${tenant}\0${hash}`).digest('hex');
}

function bytesOf(backend: AdapterBackend, handle: number): number {
  return backend.list().find((info) => info.handle === handle)?.bytes ?? 0;
}

function goneVersion(name: string, expected: string, hash: string): LoraxError {
  const [want, found] = [expected, hash].map((each) => each.slice(0, 12));
  return new LoraxError(
    'ADAPTER_NOT_FOUND',
    `Version ${want} of ${quoted(shownName(name))} is not there any more: its files hold ${found}.`,
    { data: { adapter: shownName(name), hash: expected, found: hash } },
  );
}

/** Names of the same content are one use, with the sum of their weights. */
function usesOf(held: readonly Held[]): LeasedUse[] {
  const uses = new Map<number, LeasedUse>();
  for (const { handle, weight, invocationTokens } of held) {
    const before = uses.get(handle)?.weight ?? 0;
    uses.set(handle, { handle, weight: before + weight, invocationTokens });
  }
  return [...uses.values()];
}

const quoted = (name: string) => JSON.stringify(name);

/** Levenshtein distance, one row at a time. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const above = row;
    row = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitute = (above[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1);
      row.push(Math.min(substitute, (above[j] as number) + 1, (row[j - 1] as number) + 1));
    }
  }
  return row[b.length] as number;
}
