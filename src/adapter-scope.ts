/**
 * Whose a name is. Names travel as `<provider>\0<tenant>\0<name>`, without the tenant where everybody's
 * are meant, and without the provider where an engine has one user.
 */
export interface AdapterScope {
  /** Before everybody's names; also of all tenants' together. */
  shared: string;
  tenant: string | undefined;
  /** Of the tenant's turns; unset: 1. */
  weight?: number;
  /** Before this scope's own names. */
  own: string;
}

export function scopeOf(provider: string, tenant?: string, weight?: number): AdapterScope {
  const own = tenant === undefined ? provider : `${provider}${tenant}\0`;
  const scope = { shared: provider, tenant, own };
  return weight === undefined ? scope : { ...scope, weight };
}

/** What the worker is told of it. */
export function tenantOf({ tenant, weight }: AdapterScope): {
  tenant?: string;
  tenantWeight?: number;
} {
  if (tenant === undefined) return {};
  return weight === undefined ? { tenant } : { tenant, tenantWeight: weight };
}

/** The name as its scope knows it; undefined = it is another scope's. */
export function nameIn(own: string, full: string): string | undefined {
  if (!full.startsWith(own) || full.includes('\0', own.length)) return undefined;
  return full.slice(own.length);
}
