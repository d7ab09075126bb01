/**
 * Who asks, and what of the engine that opens: keys -> tenants -> adapters they may use; the admin scope apart.
 *
 * With keys configured, the engine that handlers fall back on is locked: a route that runs without a key
 * having been found gets nothing. Probes are open, they tell nothing. Made by start-server.ts from
 * the configuration.
 */
import {
  checkArray,
  checkBoolean,
  checkNumber,
  checkObject,
  checkString,
  invalidOptions,
} from '../../check-shape.js';
import type { Engine, EngineView } from '../../types.js';
import type { ServerMiddleware } from '../environment.js';
import { HttpError } from '../http-error.js';
import type { ServeConfig, TenantConfig } from '../serve-config.js';
import { isUiFile, UI_DATA } from '../ui/paths.js';
import { KeyRing } from './key-ring.js';
import { restrictView } from './restricted-view.js';
import { TenantAllowance } from './tenant-limits.js';

export interface Access {
  middleware: ServerMiddleware;
  /** For createServer: what a request has that no middleware gave a view. */
  engine: Engine;
  /** Nobody needs a key to generate. */
  open: boolean;
}

type Owner = { admin: true } | { admin: false; tenant: TenantAccess };

interface TenantAccess {
  id: string;
  view: EngineView<unknown>;
  allowance: TenantAllowance;
}

export type AccessConfig = Pick<
  ServeConfig,
  'apiKey' | 'adminKey' | 'tenants' | 'adapterUpdates' | 'adapterSources' | 'metrics' | 'ui'
>;

const ADMIN_PATHS: ReadonlySet<string> = new Set([
  ...['/v1/load_lora_adapter', '/v1/unload_lora_adapter'],
]);
/** The tenant of a server with one key. */
const ONE_TENANT = 'default';

/** Throws INVALID_OPTIONS. */
export function createAccess(engine: Engine, config: AccessConfig): Access {
  const tenants = checkTenants(config);
  const keys = new KeyRing<Owner>();
  const { adminKey, adapterUpdates = false, adapterSources = [] } = config;
  if (adapterUpdates && adminKey === undefined) {
    const message =
      'adapterUpdates needs an adminKey: whoever may load adapters may replace what others use.';
    throw invalidOptions('adapterUpdates', message);
  }
  if (adapterUpdates && adapterSources.length === 0) {
    const message =
      'adapterUpdates needs adapterSources: what may be loaded, e.g. "./adapters/*" or "hf://acme/*".';
    throw invalidOptions('adapterUpdates', message);
  }
  if (adminKey !== undefined) keys.add(adminKey, { admin: true }, 'adminKey');
  for (const tenant of tenants) {
    const owner: Owner = { admin: false, tenant: tenantAccess(engine, tenant) };
    tenant.keys.forEach((key, i) => keys.add(key, owner, `tenants.${tenant.id}.keys[${i}]`));
  }
  const open = tenants.length === 0;
  const usual = open && adminKey === undefined ? 'open' : 'admin';
  /** What shows the server -> who may see it. */
  const watching = new Map([
    ['/metrics', config.metrics ?? usual],
    [UI_DATA, config.ui ?? usual],
  ]);
  const isAdminPath = (path: string) => ADMIN_PATHS.has(path) || watching.get(path) === 'admin';
  const isPublic = (path: string) =>
    watching.get(path) === 'open' || (isUiFile(path) && config.ui !== 'off');
  const everything = {
    ...{ mayUse: () => true, mayUseBase: true, allowance: undefined },
    listShared: () => engine.adapters.list(),
  };
  const admin = restrictView(engine, { ...everything, mayChange: true });
  const anybody = restrictView(engine, { ...everything, mayChange: false });

  const middleware: ServerMiddleware = async (c, next) => {
    const { path } = c.req;
    if (isPublic(path)) return next();
    if (isAdminPath(path)) {
      const owner = identify(keys, c.req.header('authorization'));
      if (!owner.admin) throw new HttpError(403, 'This needs a key with the admin scope.');
      c.set('engine', admin);
      return next();
    }
    if (open) {
      c.set('engine', anybody);
      return next();
    }
    const owner = identify(keys, c.req.header('authorization'));
    if (owner.admin) {
      throw new HttpError(403, 'A key with the admin scope does not generate: use a tenant’s.');
    }
    const { tenant } = owner;
    if (c.req.method === 'POST') tenant.allowance.takeRequest();
    c.set('engine', tenant.view);
    c.set('tenant', tenant.id);
    await next();
  };
  return { middleware, engine: open ? engine : lockedEngine(engine), open };
}

/** Throws 401 where the key is missing or nobody's. */
function identify(keys: KeyRing<Owner>, header: string | undefined): Owner {
  const key = /^bearer +(\S+) *$/i.exec(header ?? '')?.[1];
  // A wrong key and none at all take the same way.
  const owner = keys.find(key ?? '');
  if (owner !== undefined && key !== undefined) return owner;
  const message =
    key === undefined
      ? 'A key is needed: authorization: Bearer <key>.'
      : 'This key is not known here.';
  throw new HttpError(401, message, {
    code: 'invalid_api_key',
    headers: { 'www-authenticate': 'Bearer' },
  });
}

function tenantAccess(
  engine: Engine,
  { id, weight, adapters, base = true, ...limits }: TenantConfig,
): TenantAccess {
  const allowance = new TenantAllowance(limits);
  const view = engine.tenant(id, weight === undefined ? {} : { weight });
  const mayUse = (name: string) =>
    adapters === undefined || adapters.some((pattern) => matches(name, pattern));
  return {
    ...{ id, allowance },
    view: restrictView(view, {
      ...{ mayUse, mayUseBase: base, allowance, mayChange: false },
      listShared: () => engine.adapters.list(),
    }),
  };
}

/** `team-*` is every name that begins so; anything else is itself. */
function matches(name: string, pattern: string): boolean {
  return pattern.endsWith('*') ? name.startsWith(pattern.slice(0, -1)) : name === pattern;
}

const TENANT_KEYS = [
  ...(['id', 'keys', 'adapters', 'base', 'weight'] as const),
  ...(['requestsPerMinute', 'tokensPerMinute', 'maxConcurrent'] as const),
] satisfies readonly (keyof TenantConfig)[];

function checkTenants({ tenants, apiKey }: AccessConfig): TenantConfig[] {
  if (apiKey !== undefined && tenants !== undefined) {
    const message = 'apiKey is the one key of a server without tenants: give it to one of them.';
    throw invalidOptions('apiKey', message);
  }
  if (apiKey !== undefined) return [{ id: ONE_TENANT, keys: [apiKey] }];
  const checked = (checkArray(tenants, 'tenants') ?? []).map((each, i) =>
    checkTenant(each, `tenants[${i}]`),
  );
  const ids = checked.map(({ id }) => id);
  const twice = ids.find((id, i) => ids.indexOf(id) !== i);
  if (twice !== undefined) throw invalidOptions('tenants', `tenants has two called ${twice}.`);
  return checked;
}

function checkTenant(value: unknown, field: string): TenantConfig {
  const fields = checkObject(value, field, TENANT_KEYS);
  const id = checkString(fields.id, `${field}.id`);
  const keys = strings(fields.keys, `${field}.keys`) ?? [];
  if (id === undefined) throw invalidOptions(`${field}.id`, `${field}.id is missing.`);
  if (keys.length === 0) throw invalidOptions(`${field}.keys`, `${field}.keys: give one at least.`);
  const rate = { min: 1, max: 1e12 };
  const numbers = {
    requestsPerMinute: checkNumber(fields.requestsPerMinute, `${field}.requestsPerMinute`, rate),
    tokensPerMinute: checkNumber(fields.tokensPerMinute, `${field}.tokensPerMinute`, rate),
    maxConcurrent: checkNumber(fields.maxConcurrent, `${field}.maxConcurrent`, {
      ...{ min: 1, max: 1e6, integer: true },
    }),
    weight: checkNumber(fields.weight, `${field}.weight`, { min: 0.001, max: 1000 }),
  };
  const adapters = strings(fields.adapters, `${field}.adapters`);
  const base = checkBoolean(fields.base, `${field}.base`);
  return {
    ...{ id, keys },
    ...Object.fromEntries(
      Object.entries({ ...numbers, adapters, base }).filter(([, each]) => each !== undefined),
    ),
  };
}

function strings(value: unknown, field: string): string[] | undefined {
  return checkArray(value, field)?.map((each, i) => {
    const text = checkString(each, `${field}[${i}]`);
    if (text === undefined) throw invalidOptions(`${field}[${i}]`, `${field}[${i}] is missing.`);
    return text;
  });
}

/**
 * What a request has that came past the keys: no generation and no adapter. The server itself asks it
 * what the model is and what tokens spell.
 */
function lockedEngine(engine: Engine): Engine {
  const refuse = () => {
    throw new HttpError(401, 'A key is needed: authorization: Bearer <key>.');
  };
  const reject = () => Promise.resolve().then(refuse);
  return {
    ready: () => engine.ready(),
    tokenize: (request) => engine.tokenize(request),
    detokenize: (tokenIds) => engine.detokenize(tokenIds),
    ...{ generate: refuse, embed: reject, tenant: refuse },
    ...{ stats: reject, dispose: reject, [Symbol.asyncDispose]: reject },
    adapters: {
      ...{ add: reject, remove: reject, identify: reject, prefetch: reject },
      list: () => Promise.resolve([]),
    },
  };
}
