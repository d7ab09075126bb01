/**
 * An engine as one tenant sees it: its names, its requests, its stats.
 *
 * Nothing of other tenants can be asked for through it: every call carries the tenant's scope. It has
 * no state of its own. Made by create-engine.ts and shared-engines.ts.
 */
import type { AdapterScope } from './adapter-scope.js';
import type { ResolvedSource } from './adapter-source.js';
import { checkObject, checkString, invalidOptions } from './check-shape.js';
import { clientAdapters } from './engine-adapters.js';
import type { EngineClient } from './engine-client.js';
import { checkWeight } from './service-options.js';
import type { TokenStream } from './token-stream.js';
import type {
  DetokenizeResult,
  EmbedRequest,
  EmbedResult,
  EngineAdapters,
  EngineInfo,
  EngineView,
  GenerateRequest,
  TenantOptions,
  TenantStats,
  TokenizeRequest,
  TokenizeResult,
} from './types.js';

export interface Tenant extends TenantOptions {
  id: string;
}

/** The engine behind it. */
export interface TenantHost {
  open(request: GenerateRequest, tenant: Tenant): TokenStream;
  call<T>(
    tenant: Tenant,
    run: (client: EngineClient, scope: AdapterScope) => Promise<T>,
  ): Promise<T>;
  declare(tenant: string, name: string, source: ResolvedSource): void;
}

const MAX_LENGTH = 256;

export class TenantEngine implements EngineView {
  readonly adapters: EngineAdapters;
  readonly #tenant: Tenant;
  readonly #host: TenantHost;

  /** Throws INVALID_OPTIONS. */
  constructor(id: unknown, options: unknown, host: TenantHost) {
    const tenant = checkString(id, 'tenant');
    if (tenant === undefined || tenant.length > MAX_LENGTH) {
      const message = `tenant must be a string of 1 to ${MAX_LENGTH} characters.`;
      throw invalidOptions('tenant', message, id);
    }
    const { weight } = checkObject(options ?? {}, 'options', ['weight']);
    const checked = checkWeight(weight, 'options.weight');
    this.#tenant = checked === undefined ? { id: tenant } : { id: tenant, weight: checked };
    this.#host = host;
    this.adapters = clientAdapters((run) => host.call(this.#tenant, run));
  }

  declareAdapter(name: string, source: ResolvedSource): void {
    this.#host.declare(this.#tenant.id, name, source);
  }

  ready(): Promise<EngineInfo> {
    return this.#host.call(this.#tenant, (client) => client.ready());
  }

  generate(request: GenerateRequest): TokenStream {
    return this.#host.open(request, this.#tenant);
  }

  embed(request: EmbedRequest): Promise<EmbedResult> {
    return this.#host.call(this.#tenant, (client, scope) => client.embed(request, scope));
  }

  tokenize(request: TokenizeRequest): Promise<TokenizeResult> {
    return this.#host.call(this.#tenant, (client) => client.tokenize(request));
  }

  detokenize(tokenIds: readonly number[]): Promise<DetokenizeResult> {
    return this.#host.call(this.#tenant, (client) => client.detokenize(tokenIds));
  }

  stats(): Promise<TenantStats> {
    return this.#host.call(this.#tenant, (client, scope) => client.tenantStats(scope));
  }

  /** Ends this tenant's requests and forgets its adapters. */
  dispose(): Promise<void> {
    return this.#host.call(this.#tenant, (client, { own }) => client.endScope(own));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}
