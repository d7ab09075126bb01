/**
 * One engine of one's own: the client behind the Engine interface, with names checked.
 *
 * Called through `lorax-js/engine`; shared engines have their own view (shared-engines.ts).
 */
import { scopeOf } from './adapter-scope.js';
import type { ResolvedSource } from './adapter-source.js';
import { EngineClient } from './engine-client.js';
import { clientAdapters } from './engine-adapters.js';
import { resolveEngineOptions } from './engine-options.js';
import { TenantEngine } from './tenant-engine.js';
import type { Engine, EngineOptions } from './types.js';
import { connectWorker } from './worker-connection.js';
import type { Connect } from './worker-connection.js';

/** Loads on the first call or ready(). Throws INVALID_OPTIONS for options of a wrong shape. */
export function createEngine(options: EngineOptions): Engine {
  return createEngineOn(connectWorker, options);
}

/** @internal With another way to a worker. */
export function createEngineOn(connect: Connect, options: EngineOptions): Engine {
  return createEngineWithNames(connect, options).engine;
}

/** @internal Likewise; `declare`: a name that is loaded when it is first asked for. */
export function createEngineWithNames(
  connect: Connect,
  options: EngineOptions,
): { engine: Engine; declare(name: string, source: ResolvedSource): void } {
  const resolved = resolveEngineOptions(options);
  const client = new EngineClient(resolved, connect);
  const everybody = scopeOf('');
  client.setProvider('', resolved);
  const engine: Engine = {
    ready: () => client.ready(),
    generate: (request) => client.open(request, everybody),
    embed: (request) => client.embed(request, everybody),
    tokenize: (request) => client.tokenize(request),
    detokenize: (tokenIds) => client.detokenize(tokenIds),
    adapters: clientAdapters((run) => run(client, everybody)),
    stats: () => client.stats(),
    tenant: (id, options) =>
      new TenantEngine(id, options, {
        open: (request, { id, weight }) => client.open(request, scopeOf('', id, weight)),
        call: ({ id, weight }, run) => run(client, scopeOf('', id, weight)),
        declare: (tenant, name, source) =>
          client.adapters.declare(scopeOf('', tenant), name, source),
      }),
    dispose: () => client.dispose(),
    [Symbol.asyncDispose]: () => client.dispose(),
  };
  return { engine, declare: (name, source) => client.adapters.declare(everybody, name, source) };
}
