/**
 * `createServer({ engine })`: an engine behind HTTP, as a fetch-style handler.
 *
 * A request goes through the request id, the options' middleware, then the route of the API it speaks;
 * whatever is thrown on that way becomes an answer in http-error.ts. Listens nowhere itself:
 * serve-on-node.ts does, or the server's `fetch` is mounted in an app there is.
 */
import { randomUUID } from 'node:crypto';
import { Hono } from 'hono';
import type { RegisterRoutes, ServerApp, ServerEnv, ServerState } from './environment.js';
import { errorResponse, HttpError } from './http-error.js';
import { registerModels } from './openai/models.js';
import { checkServerOptions } from './server-options.js';
import type { ServerOptions } from './server-options.js';

export interface LoraxServer {
  /** A hono app: `app.route('/', ...)` in another one, or more routes on it. */
  app: ServerApp;
  fetch(request: Request): Response | Promise<Response>;
}

const ROUTES: readonly RegisterRoutes[] = [registerModels];

/** Throws INVALID_OPTIONS. */
export function createServer(options: ServerOptions): LoraxServer {
  const state: ServerState = checkServerOptions(options);
  const app = new Hono<ServerEnv>();
  app.onError((error) => errorResponse(error));
  app.notFound((c) => errorResponse(unknownRoute(app, c.req.method, c.req.path)));
  app.use(async (c, next) => {
    const requestId = givenId(c.req.header('x-request-id')) ?? randomUUID();
    c.set('requestId', requestId);
    c.set('engine', state.engine);
    c.header('x-request-id', requestId);
    await next();
  });
  for (const middleware of state.middleware) app.use(middleware);
  for (const register of ROUTES) register(app, state);
  return { app, fetch: (request) => app.fetch(request) };
}

/** A caller's own, where it is fit for a header and a log line. */
function givenId(header: string | undefined): string | undefined {
  return header !== undefined && /^[\w.:-]{1,128}$/.test(header) ? header : undefined;
}

function unknownRoute(app: ServerApp, method: string, path: string): HttpError {
  const methods = app.routes
    .filter((route) => route.method !== 'ALL' && route.path === path)
    .map((route) => route.method);
  if (methods.length === 0) {
    return new HttpError(404, `There is no ${shown(method)} ${shown(path)} here.`);
  }
  const allow = [...new Set(methods)].join(', ');
  return new HttpError(405, `${shown(path)} takes ${allow}, not ${shown(method)}.`, {
    headers: { allow },
  });
}

function shown(text: string): string {
  return text.length > 100 ? `${text.slice(0, 100)}...` : text;
}
