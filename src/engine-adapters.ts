/**
 * `engine.adapters` over an engine client: names checked, the client looked up at each call. Used by
 * create-engine.ts, shared-engines.ts and tenant-engine.ts.
 */
import { checkAdapterName } from './adapter-name.js';
import type { AdapterScope } from './adapter-scope.js';
import type { EngineClient } from './engine-client.js';
import type { EngineAdapters } from './types.js';

/** Runs a call on the engine of now, in the caller's scope. */
export type RunCall = <T>(
  run: (client: EngineClient, scope: AdapterScope) => Promise<T>,
) => Promise<T>;

export function clientAdapters(call: RunCall): EngineAdapters {
  return {
    // async: what is wrong with the arguments rejects like every other failure.
    add: async (name, source) => {
      checkAdapterName(name, 'name');
      return call((client, scope) => client.adapters.add(scope, name, source));
    },
    remove: (name) => call((client, scope) => client.adapters.remove(scope, name)),
    identify: (name) => call((client, scope) => client.adapters.identify(scope, name)),
    prefetch: (name) => {
      const loaded = call((client, scope) => client.adapters.prefetch(scope, name));
      // A hint that came to nothing is no unhandled rejection.
      loaded.catch(() => undefined);
      return loaded;
    },
    list: () => call((client, scope) => client.adapters.list(scope)),
  };
}
