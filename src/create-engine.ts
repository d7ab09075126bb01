/**
 * One engine of one's own: the client behind the Engine interface, with names checked.
 *
 * Called through `lorax-js/engine`; shared engines have their own view (shared-engines.ts).
 */
import { checkAdapterName } from './adapter-name.js';
import { EngineClient } from './engine-client.js';
import { resolveAdapterSource, resolveEngineOptions } from './engine-options.js';
import type { Engine, EngineOptions } from './types.js';
import { connectWorker } from './worker-connection.js';
import type { Connect } from './worker-connection.js';

/** Loads on the first call or ready(). Throws INVALID_OPTIONS for options of a wrong shape. */
export function createEngine(options: EngineOptions): Engine {
  return createEngineOn(connectWorker, options);
}

/** @internal With another way to a worker, for tests. */
export function createEngineOn(connect: Connect, options: EngineOptions): Engine {
  const resolved = resolveEngineOptions(options);
  const client = new EngineClient(resolved, connect);
  client.setProgressListener('', resolved.onProgress);
  return {
    ready: () => client.ready(),
    generate: (request) => client.open(request),
    embed: (request) => client.embed(request),
    adapters: {
      // async: what is wrong with the arguments rejects like every other failure.
      add: async (name, source) =>
        client.addAdapter(
          '',
          checkAdapterName(name, 'name'),
          resolveAdapterSource(source, 'source'),
        ),
      remove: (name) => client.removeAdapter('', name),
      identify: (name) => client.identifyAdapter('', name),
      list: () => client.listAdapters(''),
    },
    stats: () => client.stats(),
    dispose: () => client.dispose(),
    [Symbol.asyncDispose]: () => client.dispose(),
  };
}
