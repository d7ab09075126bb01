/**
 * The adapters an engine client knows, by full name (adapter-scope.ts): where each comes from, what it
 * has stood for, and which of them the worker has loaded.
 *
 * An adapter is loaded when first needed and again after the worker's death, then as the content that
 * its name stood for. A name that gets other weights keeps its old ones until the new are there. A load
 * that nobody waits for any more is cancelled. Called by engine-client.ts.
 */
import type { LoadedAdapter, WorkerAdapter } from '../worker/protocol.js';
import {
  AdapterLoads,
  restingState,
  type AdapterCommands,
  type AdapterEntry,
  type Load,
  type Need,
} from './adapter-load.js';
import { isAdapterName } from './adapter-name.js';
import { nameIn, scopeOf, type AdapterScope } from './adapter-scope.js';
import { directorySource, type ResolvedSource } from './adapter-source.js';
import { unknownAdapter, unknownVersion } from './client-errors.js';
import { LoraxError } from './errors.js';
import { AdapterVersions } from './adapter-versions.js';
import { NameLookups } from './name-lookups.js';
import type { NameSource } from './name-sources.js';
import type { AdapterEvent, AdapterInfo, AdapterState, RemovedAdapter } from './types.js';

/** A name as another engine should know it. */
export interface Declaration {
  name: string;
  tenant: string | undefined;
  source: ResolvedSource;
}

export class AdapterTable {
  readonly #entries = new Map<string, AdapterEntry>();
  /** Those that are on their way to replace one that is loaded. */
  readonly #replacements = new Map<string, Set<AdapterEntry>>();
  readonly #versions = new AdapterVersions();
  readonly #lookups: NameLookups;
  readonly #commands: AdapterCommands;
  readonly #loads: AdapterLoads;
  #lastOrder = 0;

  constructor(
    commands: AdapterCommands,
    onEvent: (full: string, event: Omit<AdapterEvent, 'name'>) => void,
  ) {
    this.#commands = commands;
    this.#loads = new AdapterLoads((...command) => commands.add(...command), onEvent);
    this.#lookups = new NameLookups({
      load: (full, source, tenant) => this.#loadFound(full, source, tenant),
    });
  }

  setSources(shared: string, sources: readonly NameSource[]): void {
    this.#lookups.setSources(shared, sources);
  }

  /** Those of a scope and those it shares with others; no versions, and no paths of directories. */
  names(scope: AdapterScope): string[] {
    const names = [...this.#entries].flatMap(([full, { hash }]) => {
      const name = nameIn(scope.own, full) ?? nameIn(scope.shared, full);
      return hash === undefined && name !== undefined && isAdapterName(name) ? [name] : [];
    });
    return [...new Set(names)].sort();
  }

  declare(scope: AdapterScope, name: string, source: ResolvedSource): void {
    const full = scope.own + name;
    if (this.#entries.get(full)?.source.shown === source.shown) return;
    this.#entries.set(full, this.#entry(source, scope.tenant));
  }

  /** Of a provider and its tenants. */
  declarations(shared: string): Declaration[] {
    return [...this.#entries].flatMap(([full, { tenant, source }]) => {
      const name = nameIn(scopeOf(shared, tenant).own, full);
      return name === undefined ? [] : [{ name, tenant, source }];
    });
  }

  /** Loads, also when it is loaded already: its files may have changed. */
  add(scope: AdapterScope, name: string, source: ResolvedSource): Promise<LoadedAdapter> {
    return this.#add(scope.own + name, this.#entry(source, scope.tenant));
  }

  /** Points the name at a content that it has stood for. */
  addVersion(scope: AdapterScope, name: string, hash: string): Promise<LoadedAdapter> {
    const full = scope.own + name;
    const version = this.#versions.find(full, hash);
    if (version === undefined) throw unknownVersion(name, hash, this.#versions.hashes(full));
    const source = directorySource(version.directory);
    return this.#add(full, this.#entry(source, scope.tenant, version.hash));
  }

  /** Throws ADAPTER_NOT_FOUND. */
  need(scope: AdapterScope, name: string): Need {
    const full = this.#find(scope, name);
    if (full !== undefined) return this.#needEntry(full);
    const pinned = this.#needUnloadedVersion(scope, name);
    if (pinned !== undefined) return pinned;
    return this.#lookups.need(scope, name, this.names(scope));
  }

  /** Loads it unless it is loaded. */
  async identify(scope: AdapterScope, name: string): Promise<LoadedAdapter> {
    return (await this.#loaded(scope, name)).loaded;
  }

  /** Likewise; on from there it is the worker's. */
  async prefetch(scope: AdapterScope, name: string): Promise<LoadedAdapter> {
    const { full, loaded } = await this.#loaded(scope, name);
    await this.#commands.prefetch(full);
    return loaded;
  }

  async #loaded(
    scope: AdapterScope,
    name: string,
  ): Promise<{ full: string; loaded: LoadedAdapter }> {
    const need = this.need(scope, name);
    const full = need.loading === undefined ? need.name : await need.loading;
    const loaded = this.#entries.get(full)?.loaded;
    if (loaded === undefined) throw unknownAdapter(name, this.names(scope));
    return { full, loaded };
  }

  /** undefined = there is no such adapter. */
  async remove(own: string, name: string): Promise<RemovedAdapter | undefined> {
    const full = own + name;
    const entry = this.#entries.get(full);
    if (entry === undefined) return undefined;
    const versions = [...this.#entries].flatMap(([other, { hash }]) =>
      hash !== undefined && other.startsWith(`${full}@`) ? [other] : [],
    );
    this.#versions.forget(full);
    const removed = await Promise.all([full, ...versions].map((each) => this.#remove(each)));
    const freedBytes = removed.reduce((sum, each) => sum + each.freedBytes, 0);
    const { hash } = entry.known ?? {};
    return { name, ...(hash === undefined ? {} : { hash }), freedBytes };
  }

  /** All names that begin so, tenants' too. */
  async removeScope(prefix: string): Promise<void> {
    const names = [...this.#entries.keys()].filter((full) => full.startsWith(prefix));
    this.#lookups.forget(prefix);
    for (const full of names) this.#versions.forget(full);
    await Promise.allSettled(names.map((full) => this.#remove(full)));
  }

  list(scope: AdapterScope, loaded: readonly WorkerAdapter[]): AdapterInfo[] {
    const byName = new Map(loaded.map((each) => [each.name, each]));
    const infos = [...this.#entries].flatMap(([full, entry]) => {
      const name = nameIn(scope.own, full);
      return name === undefined ? [] : [infoOf(name, entry, byName.get(full))];
    });
    return infos.sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** The worker is gone, and what it had loaded with it. */
  forgetLoaded(): void {
    for (const [full, entry] of this.#entries) {
      entry.loaded = undefined;
      if (entry.state === 'host') this.#loads.change(full, entry, restingState(entry));
    }
  }

  #entry(source: ResolvedSource, tenant: string | undefined, hash?: string): AdapterEntry {
    const state = source.local ? 'on-disk' : 'absent';
    const order = ++this.#lastOrder;
    return {
      ...{ source, tenant, hash, order, state, removed: false, looked: false, told: false },
      ...{ error: undefined, loaded: undefined, known: undefined, loading: undefined },
    };
  }

  async #add(full: string, entry: AdapterEntry): Promise<LoadedAdapter> {
    const before = this.#entries.get(full);
    const replaces = before?.loaded !== undefined;
    if (!replaces) this.#entries.set(full, entry);
    const replacements = this.#replacements.get(full) ?? new Set();
    if (replaces) this.#replacements.set(full, replacements.add(entry));
    const load = this.#start(full, entry);
    load.kept = true;
    try {
      const loaded = await load.result;
      // An add that was asked for later may have come before it.
      const order = this.#entries.get(full)?.order ?? 0;
      if (replaces && !entry.removed && order < entry.order) this.#entries.set(full, entry);
      return loaded;
    } catch (error) {
      // What was refused is not known; what was there before still is.
      if (this.#entries.get(full) === entry) {
        if (before === undefined) this.#entries.delete(full);
        else this.#entries.set(full, before);
      }
      throw error;
    } finally {
      replacements.delete(entry);
      if (replacements.size === 0) this.#replacements.delete(full);
    }
  }

  /** What a name means to a scope: its own, or everybody's, or a version of one. */
  #find({ own, shared, tenant }: AdapterScope, name: string): string | undefined {
    const prefixes = own === shared ? [own] : [own, shared];
    for (const prefix of prefixes) {
      const entry = this.#entries.get(prefix + name);
      if (entry !== undefined && !entry.looked) return prefix + name;
    }
    const pin = versionIn(name);
    for (const prefix of pin === undefined ? [] : prefixes) {
      const version = this.#versions.find(prefix + pin!.name, pin!.hash);
      if (version === undefined) continue;
      const owner = prefix === own ? tenant : undefined;
      const source = directorySource(version.directory);
      this.#entries.set(prefix + name, this.#entry(source, owner, version.hash));
      return prefix + name;
    }
    return undefined;
  }

  /** `name@hash` where `name` was never loaded, so nobody knows yet what it stands for. */
  #needUnloadedVersion(scope: AdapterScope, name: string): Need | undefined {
    const pin = versionIn(name);
    const full = pin && this.#find(scope, pin.name);
    if (full === undefined || this.#entries.get(full)?.loaded !== undefined) return undefined;
    const base = this.#needEntry(full);
    let version: Need | undefined;
    const loading = (base.loading ?? Promise.resolve(full)).then(() => {
      const found = this.#find(scope, name);
      if (found === undefined) throw unknownAdapter(name, this.names(scope));
      version = this.#needEntry(found);
      return version.loading ?? found;
    });
    loading.catch(() => undefined);
    return {
      ...{ name, loading },
      leave: () => {
        base.leave();
        version?.leave();
      },
    };
  }

  #needEntry(full: string): Need {
    const entry = this.#entries.get(full) as AdapterEntry;
    if (entry.loaded !== undefined) return { name: full, loading: undefined, leave: nothing };
    const load = entry.loading ?? this.#start(full, entry);
    load.waiting++;
    let waits = true;
    const leave = () => {
      if (waits) load.waiting--;
      waits = false;
      if (load.waiting === 0 && !load.kept) load.cancel();
    };
    const loading = load.result.then(() => full);
    // Who waited may have left.
    loading.catch(nothing);
    return { name: full, loading, leave };
  }

  /** Of a lookup: what cannot be loaded is not known afterwards. */
  #loadFound(full: string, source: ResolvedSource, tenant: string | undefined): Need {
    let entry = this.#entries.get(full);
    if (entry === undefined) {
      entry = this.#entry(source, tenant);
      entry.looked = true;
      this.#entries.set(full, entry);
    }
    const need = this.#needEntry(full);
    need.loading?.catch(() => {
      if (this.#entries.get(full) === entry) this.#entries.delete(full);
    });
    return need;
  }

  #start(full: string, entry: AdapterEntry): Load {
    const load = this.#loads.start(full, entry);
    if (entry.hash === undefined) {
      load.result.then((loaded) => this.#versions.add(full, loaded), nothing);
    }
    return load;
  }

  async #remove(full: string): Promise<RemovedAdapter> {
    const entry = this.#entries.get(full);
    this.#entries.delete(full);
    const others = [...(this.#replacements.get(full) ?? [])];
    let sent = false;
    for (const each of entry === undefined ? others : [entry, ...others]) {
      each.removed = true;
      // Requests that wait for it are served before it goes.
      if (each.loading?.waiting === 0) each.loading.cancel();
      sent ||= each.loading !== undefined || each.loaded !== undefined;
    }
    if (entry !== undefined) this.#loads.tellRemoved(full, entry);
    if (!sent) return { name: full, freedBytes: 0 };
    try {
      return await this.#commands.remove(full);
    } catch (error) {
      // What was on its way did not come.
      if (LoraxError.isInstance(error) && error.code === 'ADAPTER_NOT_FOUND') {
        return { name: full, freedBytes: 0 };
      }
      throw error;
    }
  }
}

function nothing(): void {}

/** `pirate@1a2b3c4d` */
function versionIn(name: string): { name: string; hash: string } | undefined {
  const match = /^(.+)@([0-9a-f]{8,64})$/.exec(name);
  return match === null ? undefined : { name: match[1] as string, hash: match[2] as string };
}

/** What is loaded moves between disk, host memory and page pool as the engine likes. */
function stateOf({ state }: AdapterEntry, loaded: WorkerAdapter | undefined): AdapterState {
  if (state !== 'host' || loaded === undefined) return state;
  if (loaded.resident) return 'resident';
  return loaded.inHost ? 'host' : 'on-disk';
}

function infoOf(name: string, entry: AdapterEntry, loaded: WorkerAdapter | undefined): AdapterInfo {
  const { source, error, known } = entry;
  return {
    name,
    state: stateOf(entry, loaded),
    source: source.shown,
    ...(error === undefined ? {} : { error }),
    ...(known === undefined ? {} : { hash: known.hash, directory: known.directory }),
    bytes: loaded?.bytes ?? 0,
    rank: loaded?.rank ?? 0,
    activeRequests: loaded?.activeRequests ?? 0,
  };
}
