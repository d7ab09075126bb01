/**
 * Looks names up that are not registered, in the sources of their provider, one after another: the
 * first that has the name serves it.
 *
 * Names come from apps' clients: all who want one at a time share one lookup, and a name that nothing
 * has leaves nothing behind. Used by adapter-table.ts.
 */
import { isMissing, type Need } from './adapter-load.js';
import { isAdapterName } from './adapter-name.js';
import type { AdapterScope } from './adapter-scope.js';
import type { ResolvedSource } from './adapter-source.js';
import { unknownAdapter } from './client-errors.js';
import type { NameSource } from './name-sources.js';

export interface LookupHost {
  load(full: string, source: ResolvedSource, tenant: string | undefined): Need;
}

interface Lookup {
  result: Promise<string>;
  waiting: number;
  /** What is being loaded. */
  need: Need | undefined;
}

export class NameLookups {
  /** By provider. */
  readonly #sources = new Map<string, readonly NameSource[]>();
  readonly #underWay = new Map<string, Lookup>();
  readonly #host: LookupHost;

  constructor(host: LookupHost) {
    this.#host = host;
  }

  setSources(shared: string, sources: readonly NameSource[]): void {
    if (sources.length === 0) this.#sources.delete(shared);
    else this.#sources.set(shared, sources);
  }

  forget(shared: string): void {
    this.#sources.delete(shared);
  }

  /** Throws ADAPTER_NOT_FOUND where there is nothing to ask. */
  need(scope: AdapterScope, name: string, known: string[]): Need {
    const sources = this.#sources.get(scope.shared);
    if (sources === undefined || !isPlainName(name)) throw unknownAdapter(name, known);
    const key = scope.own + name;
    const lookup = this.#underWay.get(key) ?? this.#start(key, scope, name, sources, known);
    lookup.waiting++;
    let waits = true;
    const leave = () => {
      if (waits) lookup.waiting--;
      waits = false;
      if (lookup.waiting > 0) return;
      lookup.need?.leave();
      if (this.#underWay.get(key) === lookup) this.#underWay.delete(key);
    };
    return { name: key, loading: lookup.result, leave };
  }

  #start(
    key: string,
    scope: AdapterScope,
    name: string,
    sources: readonly NameSource[],
    known: string[],
  ): Lookup {
    const lookup: Lookup = { result: Promise.resolve(''), waiting: 0, need: undefined };
    lookup.result = this.#run(lookup, scope, name, sources, known).finally(() => {
      if (this.#underWay.get(key) === lookup) this.#underWay.delete(key);
    });
    // Who waited may have left.
    lookup.result.catch(() => undefined);
    this.#underWay.set(key, lookup);
    return lookup;
  }

  async #run(
    lookup: Lookup,
    scope: AdapterScope,
    name: string,
    sources: readonly NameSource[],
    known: string[],
  ): Promise<string> {
    const asked: string[] = [];
    for (const { perTenant, guesses, find } of sources) {
      const source = await find(name, scope.tenant);
      if (source === undefined) continue;
      if (lookup.waiting === 0) break;
      const full = (perTenant ? scope.own : scope.shared) + name;
      lookup.need = this.#host.load(full, source, perTenant ? scope.tenant : undefined);
      try {
        return await (lookup.need.loading ?? full);
      } catch (error) {
        if (!guesses || !isMissing(error)) throw error;
        asked.push(source.shown);
      }
    }
    throw unknownAdapter(name, known, asked);
  }
}

/** Names become paths here: no part of one may be empty or begin with a dot. */
function isPlainName(name: string): boolean {
  return isAdapterName(name) && name.split('/').every((part) => part !== '' && part[0] !== '.');
}
