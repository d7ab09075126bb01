/**
 * Which contents a name has stood for, so that it can be pinned (`name@hash`) and pointed back.
 *
 * The newest 16 of each name; a version is where its files lie, and is there as long as they are.
 * Used by adapter-table.ts.
 */
import type { LoadedAdapter } from '../worker/protocol.js';

const MAX_VERSIONS = 16;

export class AdapterVersions {
  /** By full name, oldest first. */
  readonly #byName = new Map<string, LoadedAdapter[]>();

  add(full: string, loaded: LoadedAdapter): void {
    const others = (this.#byName.get(full) ?? []).filter(({ hash }) => hash !== loaded.hash);
    this.#byName.set(full, [...others, loaded].slice(-MAX_VERSIONS));
  }

  /** The one version whose hash begins so. */
  find(full: string, prefix: string): LoadedAdapter | undefined {
    const found = (this.#byName.get(full) ?? []).filter(({ hash }) => hash.startsWith(prefix));
    return found.length === 1 ? found[0] : undefined;
  }

  hashes(full: string): string[] {
    return (this.#byName.get(full) ?? []).map(({ hash }) => hash);
  }

  forget(full: string): void {
    this.#byName.delete(full);
  }
}
