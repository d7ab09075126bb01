/** Whose turn a request has, and with whom it shares the KV of its prompt's beginning. */
import type { NativeService } from './addon.js';
import type { GenerateCommand } from './protocol.js';

type Service = Pick<GenerateCommand, 'tenant' | 'cacheScope' | 'priority'>;

export function serviceOf({ tenant, cacheScope, priority }: Service): NativeService {
  const service: NativeService = {};
  if (tenant !== undefined) service.tenant = tenant;
  if (priority !== undefined) service.priority = priority;
  // Of one tenant and one scope; what has neither is shared by all that have neither.
  if (tenant !== undefined || cacheScope !== undefined) {
    service.cacheScope = JSON.stringify([tenant ?? null, cacheScope ?? null]);
  }
  return service;
}
