/**
 * Adapter names -> validated directories, content hashes and native handles.
 *
 * Always holds: one native copy per content hash, however many names and requests refer to it; it is
 * removed with the last of them. Changes of one name happen in the order they were asked for, and a
 * failed one leaves things as they were. A lease keeps its content loaded until it is released, so
 * a name may be given to other weights while requests on the old ones are on their way. Called by
 * engine-port.ts.
 */
import { adaptersIdentity, type WeightedAdapter } from '../src/adapter-mix.js';
import { LoraxError } from '../src/errors.js';
import type { AdapterIdentity, AdapterInfo } from '../src/types.js';
import type { NativeAdapterInfo, NativeAdapterSpec, NativeAdapterUse } from './addon.js';

export interface AdapterBackend {
  read(directory: string): Promise<NativeAdapterSpec>;
  add(spec: NativeAdapterSpec, name: string): Promise<number>;
  remove(handle: number): void;
  list(): NativeAdapterInfo[];
}

/** All the adapters of a request. */
export interface AdapterLease {
  /** Of distinct contents; empty = the base. */
  uses: NativeAdapterUse[];
  /** null = the base. */
  identity: AdapterIdentity | null;
  /** Once, when native code has taken the request or there will be none. */
  release(): void;
}

/** Weights as native code holds them. */
interface Content {
  hash: string;
  rank: number;
  handle: Promise<number>;
  /** Names and leases that refer to it. */
  references: number;
}

interface Entry {
  directory: string;
  content: Content;
  /** `content.handle`, resolved. */
  handle: number;
}

/** One adapter of a lease. */
interface Held extends WeightedAdapter {
  hash: string;
  handle: number;
  rank: number;
  release(): void;
}

/** What a row of a step has room for, over all adapters of a mix, in groups of 16 (native/cuda). */
const MAX_MIXED_RANK = 1024;
const RANK_GROUP = 16;

/** Names arrive as "<scope>\0<name>"; people are shown the name. */
export function shownName(name: string): string {
  return name.slice(name.lastIndexOf('\0') + 1);
}

export class AdapterRegistry {
  private readonly entries = new Map<string, Entry>();
  private readonly contents = new Map<string, Content>();
  /** The last change of each name that is still under way. */
  private readonly changes = new Map<string, Promise<void>>();

  constructor(private readonly backend: () => Promise<AdapterBackend>) {}

  /** Loads the directory's content under the name; one that had other content before is repointed. */
  add(name: string, directory: string): Promise<AdapterIdentity> {
    return this.inOrder(name, async () => {
      const backend = await this.backend();
      const spec = await backend.read(directory);
      const content = this.acquire(backend, spec, name);
      let handle: number;
      try {
        handle = await content.handle;
      } catch (error) {
        this.release(backend, content);
        throw error;
      }
      const before = this.entries.get(name);
      this.entries.set(name, { directory, content, handle });
      if (before !== undefined) this.release(backend, before.content);
      return { name: shownName(name), hash: content.hash };
    });
  }

  remove(name: string): Promise<void> {
    return this.inOrder(name, async () => {
      const entry = this.entries.get(name);
      if (entry === undefined) throw this.notFound(name);
      const backend = await this.backend();
      this.entries.delete(name);
      this.release(backend, entry.content);
    });
  }

  /**
   * The contents that the names stand for now, i.e. after every change asked for before: all of them
   * or none.
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
      checkRanks(held);
    } catch (error) {
      release();
      throw error;
    }
    const parts = held.map(({ name, hash, weight }) => ({ name, hash, weight }));
    return { uses: usesOf(held), identity: adaptersIdentity(parts), release };
  }

  private async hold({ name, weight }: WeightedAdapter): Promise<Held> {
    await this.changes.get(name);
    const backend = await this.backend();
    const entry = this.entries.get(name);
    if (entry === undefined) throw this.notFound(name);
    const { content, handle } = entry;
    const { hash, rank } = content;
    content.references++;
    const release = () => this.release(backend, content);
    return { name: shownName(name), hash, weight, handle, rank, release };
  }

  async list(): Promise<AdapterInfo[]> {
    const byHandle = new Map((await this.backend()).list().map((info) => [info.handle, info]));
    return [...this.entries].map(([name, { directory, content, handle }]) => {
      const native = byHandle.get(handle);
      return {
        name,
        hash: content.hash,
        directory,
        bytes: native?.bytes ?? 0,
        rank: content.rank,
        resident: native?.resident ?? false,
        activeRequests: native?.activeRequests ?? 0,
      };
    });
  }

  private acquire(backend: AdapterBackend, spec: NativeAdapterSpec, name: string): Content {
    const known = this.contents.get(spec.hash);
    if (known !== undefined) {
      known.references++;
      return known;
    }
    const rank = Math.max(0, ...spec.modules.map((module) => module.rank));
    const content = { hash: spec.hash, rank, handle: backend.add(spec, name), references: 1 };
    this.contents.set(spec.hash, content);
    // Those who wait for a failed handle all hear of it; nobody may find it afterwards.
    content.handle.catch(() => this.forget(content));
    return content;
  }

  private release(backend: AdapterBackend, content: Content): void {
    content.references--;
    if (content.references > 0) return;
    this.forget(content);
    // An engine that has ended freed everything itself.
    content.handle.then((handle) => backend.remove(handle)).catch(() => undefined);
  }

  private forget(content: Content): void {
    if (this.contents.get(content.hash) === content) this.contents.delete(content.hash);
  }

  private inOrder<T>(name: string, change: () => Promise<T>): Promise<T> {
    const result = (this.changes.get(name) ?? Promise.resolve()).then(change);
    const settled = result.then(
      () => undefined,
      () => undefined,
    );
    this.changes.set(name, settled);
    void settled.then(() => {
      if (this.changes.get(name) === settled) this.changes.delete(name);
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

/** Names of the same content are one use, with the sum of their weights. */
function usesOf(held: readonly Held[]): NativeAdapterUse[] {
  const weights = new Map<number, number>();
  for (const { handle, weight } of held) weights.set(handle, (weights.get(handle) ?? 0) + weight);
  return [...weights].map(([handle, weight]) => ({ handle, weight }));
}

/** One adapter may have any rank that native code takes. */
function checkRanks(held: readonly Held[]): void {
  if (held.length < 2) return;
  const ranks = new Map(held.map(({ handle, rank }) => [handle, rank]));
  let sum = 0;
  for (const rank of ranks.values()) sum += Math.ceil(rank / RANK_GROUP) * RANK_GROUP;
  if (sum <= MAX_MIXED_RANK) return;
  throw new LoraxError(
    'INVALID_OPTIONS',
    `request.adapter: the ranks of its ${ranks.size} adapters, each rounded up to a multiple of ` +
      `${RANK_GROUP}, add up to ${sum}; a mix may have ${MAX_MIXED_RANK} at most.`,
    { data: { field: 'request.adapter', rank: sum, maxRank: MAX_MIXED_RANK } },
  );
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
