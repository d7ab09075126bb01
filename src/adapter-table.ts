/**
 * The adapters an engine client knows, by full name, and which of them its worker has loaded.
 *
 * An adapter is loaded when first needed and again after the worker's death. Commands for one name
 * never overlap. Called by engine-client.ts.
 */
import type { AdapterIdentity } from './types.js';

interface Entry {
  directory: string;
  /** Of what the present worker has loaded; undefined = nothing. */
  identity: AdapterIdentity | undefined;
  loading: Promise<AdapterIdentity> | undefined;
}

export class AdapterTable {
  readonly #entries = new Map<string, Entry>();
  /** The last command of each name that is under way. */
  readonly #tails = new Map<string, Promise<unknown>>();
  readonly #send: (name: string, directory: string) => Promise<AdapterIdentity>;

  constructor(send: (name: string, directory: string) => Promise<AdapterIdentity>) {
    this.#send = send;
  }

  has(name: string): boolean {
    return this.#entries.has(name);
  }

  names(scope: string): string[] {
    return [...this.#entries.keys()]
      .filter((name) => name.startsWith(scope))
      .map((name) => name.slice(scope.length))
      .sort();
  }

  declare(name: string, directory: string): void {
    if (this.#entries.get(name)?.directory === directory) return;
    this.#entries.set(name, { directory, identity: undefined, loading: undefined });
  }

  /** Loads, also when it is loaded already: its files may have changed. */
  async add(name: string, directory: string): Promise<AdapterIdentity> {
    const before = this.#entries.get(name);
    const entry: Entry = { directory, identity: undefined, loading: undefined };
    this.#entries.set(name, entry);
    try {
      return await this.#start(name, entry);
    } catch (error) {
      // What was refused is not known; what was there before still is.
      if (this.#entries.get(name) === entry) {
        if (before === undefined) this.#entries.delete(name);
        else this.#entries.set(name, before);
      }
      throw error;
    }
  }

  /** undefined = it is loaded; else when it will be. */
  load(name: string): Promise<AdapterIdentity> | undefined {
    const entry = this.#entries.get(name);
    if (entry === undefined || entry.identity !== undefined) return undefined;
    return entry.loading ?? this.#start(name, entry);
  }

  /** Loads it unless it is loaded. undefined = there is no such adapter. */
  async identify(name: string): Promise<AdapterIdentity | undefined> {
    return (await this.load(name)) ?? this.#entries.get(name)?.identity;
  }

  /** Tries each; one that cannot be loaded says why when it is asked for. */
  async loadAll(scope: string): Promise<void> {
    const names = [...this.#entries.keys()].filter((name) => name.startsWith(scope));
    await Promise.allSettled(names.map((name) => this.load(name)));
  }

  /** False if there is no such adapter. */
  async remove(name: string, send: (name: string) => Promise<null>): Promise<boolean> {
    const entry = this.#entries.get(name);
    if (entry === undefined) return false;
    this.#entries.delete(name);
    await this.#inOrder(name, async () => {
      if (entry.identity !== undefined) await send(name);
    });
    return true;
  }

  async removeScope(scope: string, send: (name: string) => Promise<null>): Promise<void> {
    const names = [...this.#entries.keys()].filter((name) => name.startsWith(scope));
    await Promise.allSettled(names.map((name) => this.remove(name, send)));
  }

  /** The worker is gone, and what it had loaded with it. */
  forgetLoaded(): void {
    for (const entry of this.#entries.values()) entry.identity = undefined;
  }

  #start(name: string, entry: Entry): Promise<AdapterIdentity> {
    const loading = this.#inOrder(name, async () => {
      try {
        const identity = await this.#send(name, entry.directory);
        entry.identity = identity;
        return identity;
      } finally {
        entry.loading = undefined;
      }
    });
    entry.loading = loading;
    return loading;
  }

  #inOrder<T>(name: string, command: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(name);
    const result = before === undefined ? command() : before.then(command, command);
    const tail = result.then(
      () => undefined,
      () => undefined,
    );
    this.#tails.set(name, tail);
    void tail.then(() => {
      if (this.#tails.get(name) === tail) this.#tails.delete(name);
    });
    return result;
  }
}
