/**
 * What is known of the HTTP request that a generation belongs to, wherever the code that runs it is:
 * for logs and spans, which watch the engine and see no headers.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { context, propagation, ROOT_CONTEXT, type Context } from '@opentelemetry/api';
import type { ServerMiddleware } from '../environment.js';

export interface RequestScope {
  requestId: string;
  /** Of the caller's trace, where it sent one and a propagator is registered. */
  trace: Context;
  /** 1, 2, ...: a request may generate several times. */
  generations: number;
}

const scopes = new AsyncLocalStorage<RequestScope>();

export const currentScope = (): RequestScope | undefined => scopes.getStore();

export const scopeMiddleware: ServerMiddleware = (c, next) => {
  const headers = Object.fromEntries(c.req.raw.headers);
  const active = context.active();
  const trace = propagation.extract(active === ROOT_CONTEXT ? ROOT_CONTEXT : active, headers);
  return scopes.run({ requestId: c.get('requestId'), trace, generations: 0 }, next);
};
