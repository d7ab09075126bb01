/** Who may share the KV of a prompt's beginning: requests of one tenant and one `cacheScope`. */
import type { GenerateCommand } from './protocol.js';

/** As native code compares it; undefined = shared by all that have neither. */
export function cacheScopeOf(
  command: Pick<GenerateCommand, 'tenant' | 'cacheScope'>,
): string | undefined {
  const { tenant, cacheScope } = command;
  if (tenant === undefined && cacheScope === undefined) return undefined;
  return JSON.stringify([tenant ?? null, cacheScope ?? null]);
}
