/**
 * Where names that are not registered are looked for: the `sources` option, in its order.
 *
 * Without it an unregistered name is ADAPTER_NOT_FOUND. A folder or a pattern serves everybody; a
 * function is asked for each tenant, and what it gives is that tenant's alone. Used by adapter-table.ts.
 */
import { resolve } from 'node:path';
import { hasKey, resolveAdapterSource, type ResolvedSource } from './adapter-source.js';
import { checkObject, checkString, describe, invalidOptions } from './check-shape.js';
import { LoraxError } from './errors.js';
import type { AdapterResolver, AdapterSource } from './types.js';

export interface NameSource {
  /** What it finds belongs to who asked, not to all. */
  perTenant: boolean;
  /** It does not know which names there are: a name that is not there is no failure. */
  guesses: boolean;
  /** undefined = it has no such name. */
  find(
    name: string,
    tenant: string | undefined,
  ): ResolvedSource | undefined | Promise<ResolvedSource | undefined>;
}

/** Throws INVALID_OPTIONS. */
export function checkSources(sources: unknown, field: string): NameSource[] {
  if (sources === undefined) return [];
  if (!Array.isArray(sources)) {
    throw invalidOptions(field, `${field} must be an array, not ${describe(sources)}.`, sources);
  }
  return sources.map((source, index) => checkSource(source, `${field}[${index}]`));
}

function checkSource(source: unknown, field: string): NameSource {
  if (typeof source === 'function') return resolverSource(source as AdapterResolver);
  const kind = ['folder', 'hub', 'url', 's3'].find((each) => hasKey(source, each));
  if (kind === 'folder') {
    const fields = checkObject(source, field, ['folder']);
    return folderSource(checkString(fields.folder, `${field}.folder`) ?? '', field);
  }
  if (kind === undefined) {
    checkObject(source, field, ['folder', 'hub', 'url', 's3']);
    const message = `${field} must be a function or have folder, hub, url or s3.`;
    throw invalidOptions(field, message, source);
  }
  return patternSource(source as Record<string, unknown>, kind, field);
}

function folderSource(path: string, field: string): NameSource {
  if (path === '') throw invalidOptions(`${field}.folder`, `${field}.folder is missing.`);
  const folder = resolve(path);
  return {
    ...{ perTenant: false, guesses: true },
    find: (name) => ({
      shown: `${folder}/${name}`,
      local: true,
      wire: () => ({ kind: 'folder', folder, name }),
    }),
  };
}

/** `{ hub: 'acme/*' }`: the name stands for the asterisk. */
function patternSource(source: Record<string, unknown>, kind: string, field: string): NameSource {
  const pattern = checkString(source[kind], `${field}.${kind}`) ?? '';
  if (pattern.split('*').length !== 2) {
    throw invalidOptions(
      `${field}.${kind}`,
      `${field}.${kind} must have one * where the adapter's name belongs, e.g. "${EXAMPLES[kind]}".`,
      pattern,
    );
  }
  const at = (name: string) => {
    const shown = kind === 'url' ? name.split('/').map(encodeURIComponent).join('/') : name;
    const filled = { ...source, [kind]: pattern.replace('*', () => shown) };
    return resolveAdapterSource(filled as unknown as AdapterSource, field);
  };
  // So that what is wrong with it is said now.
  at(kind === 'hub' && pattern.trim() === '*' ? 'org/name' : 'name');
  return {
    ...{ perTenant: false, guesses: true },
    find: (name) => {
      try {
        return at(name);
      } catch {
        // With this name it is no address.
        return undefined;
      }
    },
  };
}

const EXAMPLES: Record<string, string> = {
  hub: 'acme/*',
  url: 'https://example.com/adapters/*',
  s3: 's3://bucket/adapters/*',
};

function resolverSource(resolver: AdapterResolver): NameSource {
  return {
    ...{ perTenant: true, guesses: false },
    find: async (name, tenant) => {
      let source: AdapterSource | null | undefined;
      try {
        source = await resolver(name, tenant === undefined ? {} : { tenant });
        return source == null ? undefined : resolveAdapterSource(source, `source of ${name}`);
      } catch (cause) {
        if (LoraxError.isInstance(cause)) throw cause;
        const reason = cause instanceof Error ? cause.message : String(cause);
        throw new LoraxError(
          'ADAPTER_FETCH_FAILED',
          `The resolver of adapters failed for ${JSON.stringify(name)}: ${reason}`,
          { data: { adapter: name, reason: 'resolver' }, cause },
        );
      }
    },
  };
}
