/**
 * Whose a name is. Names travel as `<provider>\0<tenant>\0<name>`, without the tenant where everybody's
 * are meant, and without the provider where an engine has one user.
 */
export interface AdapterScope {
  /** Before everybody's names; also of all tenants' together. */
  shared: string;
  tenant: string | undefined;
  /** Before this scope's own names. */
  own: string;
}

export function scopeOf(provider: string, tenant?: string): AdapterScope {
  const own = tenant === undefined ? provider : `${provider}${tenant}\0`;
  return { shared: provider, tenant, own };
}

/** The name as its scope knows it; undefined = it is another scope's. */
export function nameIn(own: string, full: string): string | undefined {
  if (!full.startsWith(own) || full.includes('\0', own.length)) return undefined;
  return full.slice(own.length);
}
