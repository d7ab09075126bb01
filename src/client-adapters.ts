/**
 * What can be done with the adapters of one engine client, by any of its scopes: the table and the
 * worker behind it, errors in the caller's names. Used by engine-client.ts, which owns it, and by the
 * views of engines (engine-adapters.ts).
 */
import type { WorkerAdapter } from '../worker/protocol.js';
import type { AdapterScope } from './adapter-scope.js';
import { hasKey, resolveAdapterSource, type ResolvedSource } from './adapter-source.js';
import type { AdapterTable, Declaration } from './adapter-table.js';
import { checkObject, checkString, invalidOptions } from './check-shape.js';
import { unknownAdapter, withoutScopes } from './client-errors.js';
import type { LoraxError } from './errors.js';
import type {
  AdapterIdentity,
  AdapterInfo,
  AdapterSource,
  AdapterVersion,
  RemovedAdapter,
} from './types.js';

export interface ClientAdaptersHost {
  /** Throws where the engine takes no calls any more. */
  check(): void;
  list(): Promise<WorkerAdapter[]>;
}

export class ClientAdapters {
  readonly #table: AdapterTable;
  readonly #host: ClientAdaptersHost;

  constructor(table: AdapterTable, host: ClientAdaptersHost) {
    this.#table = table;
    this.#host = host;
  }

  /** Knows the adapter from now on; loads it when it is first asked for. */
  declare(scope: AdapterScope, name: string, source: ResolvedSource): void {
    this.#table.declare(scope, name, source);
  }

  /** What a provider and its tenants have registered. */
  declarations(provider: string): Declaration[] {
    return this.#table.declarations(provider);
  }

  add(
    scope: AdapterScope,
    name: string,
    source: AdapterSource | AdapterVersion,
  ): Promise<AdapterIdentity> {
    return this.#inScope(scope, async () => {
      const { hash } = await (hasKey(source, 'hash')
        ? this.#table.addVersion(scope, name, checkHash(source))
        : this.#table.add(scope, name, resolveAdapterSource(source as AdapterSource, 'source')));
      return { name, hash };
    });
  }

  identify(scope: AdapterScope, name: string): Promise<AdapterIdentity> {
    return this.#inScope(scope, async () => {
      const { hash } = await this.#table.identify(scope, name);
      return { name, hash };
    });
  }

  prefetch(scope: AdapterScope, name: string): Promise<AdapterIdentity> {
    return this.#inScope(scope, async () => {
      const { hash } = await this.#table.prefetch(scope, name);
      return { name, hash };
    });
  }

  remove(scope: AdapterScope, name: string): Promise<RemovedAdapter> {
    return this.#inScope(scope, async () => {
      const removed = await this.#table.remove(scope.own, name);
      if (removed === undefined) throw unknownAdapter(name, this.#table.names(scope));
      return removed;
    });
  }

  list(scope: AdapterScope): Promise<AdapterInfo[]> {
    return this.#inScope(scope, async () => {
      const infos = this.#table.list(scope, await this.#host.list());
      for (const info of infos) {
        if (info.error !== undefined) info.error = withoutScopes(info.error, scope) as LoraxError;
      }
      return infos;
    });
  }

  async #inScope<T>(scope: AdapterScope, run: () => Promise<T>): Promise<T> {
    this.#host.check();
    try {
      return await run();
    } catch (error) {
      throw withoutScopes(error, scope);
    }
  }
}

function checkHash(version: unknown): string {
  const { hash } = checkObject(version, 'source', ['hash']);
  const text = checkString(hash, 'source.hash') ?? '';
  if (/^[0-9a-f]{8,64}$/.test(text)) return text;
  const message = "source.hash must be a version's hash: 8 to 64 hexadecimal digits of it.";
  throw invalidOptions('source.hash', message, hash);
}
