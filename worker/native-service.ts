/** Whose turn a request has, until when, and with whom it shares the KV of its prompt's beginning. */
import type { NativeService } from './addon.js';
import type { WireService } from './protocol.js';

/** Called when native code is given the request: what is left of its time counts from then. */
export function serviceOf(command: WireService & { cacheScope?: string }): NativeService {
  const { tenant, tenantWeight, priority, deadlineAt, cacheScope } = command;
  const service: NativeService = {};
  if (tenant !== undefined) service.tenant = tenant;
  if (tenantWeight !== undefined) service.tenantWeight = tenantWeight;
  if (priority !== undefined) service.priority = priority;
  if (deadlineAt !== undefined) service.deadlineMs = deadlineAt - Date.now();
  // Of one tenant and one scope; what has neither is shared by all that have neither.
  if (tenant !== undefined || cacheScope !== undefined) {
    service.cacheScope = JSON.stringify([tenant ?? null, cacheScope ?? null]);
  }
  return service;
}
