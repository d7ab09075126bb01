/**
 * Engines shared by everything in the process that asks for the same engine options.
 *
 * A ScopedEngine is one provider's view: its adapters' names and its requests are its own, the
 * engine behind it is looked up at each call. The registry hangs on globalThis, so that the ESM and
 * CJS copies of the package and re-evaluated modules meet in it. An engine stops with the last
 * scope that uses it. Called by ai-sdk/provider.ts and default-provider.ts.
 */
import { realpathSync } from 'node:fs';
import { scopeOf, type AdapterScope } from './adapter-scope.js';
import type { ResolvedSource } from './adapter-source.js';
import { disposedError } from './client-errors.js';
import { clientAdapters } from './engine-adapters.js';
import type { Declaration } from './adapter-table.js';
import { EngineClient } from './engine-client.js';
import type { ResolvedEngineOptions } from './engine-options.js';
import { LoraxError } from './errors.js';
import { noticeOnce } from './notice.js';
import { TenantEngine, type Tenant } from './tenant-engine.js';
import { TokenStream } from './token-stream.js';
import type {
  DetokenizeResult,
  EmbedRequest,
  EmbedResult,
  Engine,
  EngineInfo,
  EngineAdapters,
  EngineStats,
  GenerateRequest,
  TenantOptions,
  TokenizeRequest,
  TokenizeResult,
} from './types.js';
import { connectWorker } from './worker-connection.js';
import type { Connect } from './worker-connection.js';

interface SharedEngine {
  key: string;
  /** Real path, or what was written where the hub has to be asked. */
  model: string;
  client: EngineClient;
  users: Set<Lease>;
  /** Replaced or stopped: nobody may start anything on it. */
  retired: boolean;
}

/** What a scope holds of the registry; outlives the scope's object until that is collected. */
interface Lease {
  scope: string;
  /** For calls that start now. */
  current: SharedEngine | undefined;
  /** Also those that were replaced and still finish this scope's requests. */
  engines: Set<SharedEngine>;
}

interface Registry {
  nextScope: number;
  engines: Map<string, SharedEngine>;
}

/** The layout's version is in the name: copies that would not understand each other do not meet. */
const REGISTRY = Symbol.for('lorax-js.engines');
const LAYOUT = 2;

function registry(): Registry {
  const holder = globalThis as { [REGISTRY]?: Map<number, Registry> };
  const byLayout = (holder[REGISTRY] ??= new Map<number, Registry>());
  let found = byLayout.get(LAYOUT);
  if (found === undefined) {
    found = { nextScope: 1, engines: new Map() };
    byLayout.set(LAYOUT, found);
  }
  return found;
}

/** A provider that was dropped without dispose() (a module run again) leaves nothing behind. */
const dropped = new FinalizationRegistry<Lease>((lease) => {
  void release(lease).catch(() => undefined);
});

/** Keeps a scope's object from being collected, and with it its engine, during its calls. */
const underWay = new Set<{ engine: ScopedEngine }>();

export class ScopedEngine implements Engine {
  readonly adapters: EngineAdapters;
  readonly #resolve: () => ResolvedEngineOptions;
  readonly #connect: Connect;
  /** Until there is an engine that knows them. */
  #declared: Declaration[] = [];
  #options: ResolvedEngineOptions | undefined;
  #lease: Lease | undefined;
  #disposing: Promise<void> | undefined;

  /** `resolve` runs at the first call; what it throws rejects that call. */
  constructor(resolve: () => ResolvedEngineOptions, connect: Connect = connectWorker) {
    this.#resolve = resolve;
    this.#connect = connect;
    this.adapters = clientAdapters((run) => this.#call(undefined, run));
  }

  /** Known from now on, loaded when first asked for. Touches nothing. */
  declareAdapter(name: string, source: ResolvedSource, tenant?: string): void {
    const lease = this.#lease;
    if (lease?.current === undefined) this.#declared.push({ name, source, tenant });
    else lease.current.client.adapters.declare(scopeOf(lease.scope, tenant), name, source);
  }

  tenant(id: string, options?: TenantOptions): TenantEngine {
    return new TenantEngine(id, options, {
      open: (request, tenant) => this.#open(request, tenant),
      call: (tenant, run) => this.#call(tenant, run),
      declare: (tenant, name, source) => this.declareAdapter(name, source, tenant),
    });
  }

  ready(): Promise<EngineInfo> {
    return this.#call(undefined, (client) => client.ready());
  }

  generate(request: GenerateRequest): TokenStream {
    return this.#open(request, undefined);
  }

  embed(request: EmbedRequest): Promise<EmbedResult> {
    return this.#call(undefined, (client, scope) => client.embed(request, scope));
  }

  tokenize(request: TokenizeRequest): Promise<TokenizeResult> {
    return this.#call(undefined, (client) => client.tokenize(request));
  }

  detokenize(tokenIds: readonly number[]): Promise<DetokenizeResult> {
    return this.#call(undefined, (client) => client.detokenize(tokenIds));
  }

  stats(): Promise<EngineStats> {
    return this.#call(undefined, (client) => client.stats());
  }

  dispose(): Promise<void> {
    return (this.#disposing ??= this.#dispose());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  async #dispose(): Promise<void> {
    if (this.#lease === undefined) return;
    dropped.unregister(this);
    await release(this.#lease);
  }

  #open(request: GenerateRequest, tenant: Tenant | undefined): TokenStream {
    try {
      const { client, scope } = this.#acquire();
      const stream = client.open(request, scopeOf(scope, tenant?.id, tenant?.weight));
      stream.owner = this;
      return stream;
    } catch (error) {
      return failedStream(request, error);
    }
  }

  async #call<T>(
    tenant: Tenant | undefined,
    run: (client: EngineClient, scope: AdapterScope) => Promise<T>,
  ): Promise<T> {
    const { client, scope } = this.#acquire();
    const call = { engine: this };
    underWay.add(call);
    try {
      return await run(client, scopeOf(scope, tenant?.id, tenant?.weight));
    } finally {
      underWay.delete(call);
    }
  }

  /** The engine for a call that starts now. */
  #acquire(): { client: EngineClient; scope: string } {
    if (this.#disposing !== undefined) throw disposedError();
    this.#options ??= this.#resolve();
    if (this.#lease === undefined) {
      const scope = `${registry().nextScope++}\u0000`;
      this.#lease = { scope, current: undefined, engines: new Set() };
      dropped.register(this, this.#lease, this);
    }
    const lease = this.#lease;
    const { scope } = lease;
    let shared = lease.current;
    if (shared === undefined || shared.retired) {
      // What the engine before knew, this one knows.
      const declared = shared?.client.adapters.declarations(scope) ?? this.#declared;
      shared = findOrCreate(this.#options, this.#connect);
      lease.current = shared;
      lease.engines.add(shared);
      shared.users.add(lease);
      shared.client.setProvider(scope, this.#options);
      for (const { name, source, tenant } of declared) {
        shared.client.adapters.declare(scopeOf(scope, tenant), name, source);
      }
      this.#declared = [];
    }
    return { client: shared.client, scope };
  }
}

function findOrCreate(options: ResolvedEngineOptions, connect: Connect): SharedEngine {
  const model = realModelPath(options);
  const { onProgress: _p, onAdapter: _a, sources: _s, ...settings } = { ...options, model };
  const key = JSON.stringify(Object.entries(settings).sort());
  const { engines } = registry();
  const found = engines.get(key);
  if (found !== undefined) return found;
  // In development an edit of the options should not leave the old engine's memory taken.
  const replaced =
    process.env.NODE_ENV === 'production'
      ? []
      : [...engines.values()].filter((other) => other.model === model);
  const gate = replaced.length === 0 ? undefined : Promise.allSettled(replaced.map(stopOnceIdle));
  if (replaced.length > 0) {
    noticeOnce(
      'LORAX_ENGINE_REPLACED',
      `The engine of ${model} is replaced by one with other options, as is done outside of ` +
        'production. With NODE_ENV=production both would run side by side.',
    );
  }
  const client = new EngineClient({ ...options, model }, connect, gate);
  const shared = { key, model, client, users: new Set<Lease>(), retired: false };
  engines.set(key, shared);
  return shared;
}

function realModelPath({ model, hubModel }: ResolvedEngineOptions): string {
  try {
    return realpathSync(model);
  } catch (cause) {
    if (hubModel !== undefined) return model;
    throw new LoraxError(
      'MODEL_INVALID',
      `There is no model directory ${model}: give the path of a Hugging Face model directory ` +
        '(config.json, *.safetensors, tokenizer.json), or org/name of the hub.',
      { data: { file: model }, cause },
    );
  }
}

/** Takes the engine out of the registry; its open requests may finish. */
function stopOnceIdle(shared: SharedEngine): Promise<void> {
  const idle = new Promise<void>((resolve) => {
    if (shared.client.numOpen === 0) resolve();
    else shared.client.onIdle = resolve;
  });
  retire(shared);
  return idle.then(async () => {
    await shared.client.dispose();
    for (const lease of shared.users) lease.engines.delete(shared);
  });
}

function retire(shared: SharedEngine): void {
  shared.retired = true;
  const { engines } = registry();
  if (engines.get(shared.key) === shared) engines.delete(shared.key);
}

/** Ends what the scope has on its engines, and each engine with its last user. */
async function release(lease: Lease): Promise<void> {
  const engines = [...lease.engines];
  lease.engines.clear();
  await Promise.all(
    engines.map((shared) => {
      shared.users.delete(lease);
      if (shared.users.size > 0) return shared.client.endScope(lease.scope);
      retire(shared);
      return shared.client.dispose();
    }),
  );
}

function failedStream(request: GenerateRequest, error: unknown): TokenStream {
  const stream = new TokenStream(() => undefined);
  stream.fail(error);
  const onUsage: unknown = (request as Partial<GenerateRequest> | undefined)?.onUsage;
  if (typeof onUsage === 'function') {
    const usage = { promptTokens: 0, cachedTokens: 0, outputTokens: 0 };
    const timing = { queueMs: 0, timeToFirstTokenMs: null, totalMs: 0 };
    queueMicrotask(() => (onUsage as NonNullable<GenerateRequest['onUsage']>)(usage, timing));
  }
  return stream;
}
