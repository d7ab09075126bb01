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
import { Admissions } from './admissions.js';
import { doorOf, givenId, type Door } from './door.js';
import { errorResponse, HttpError } from './http-error.js';
import { registerHealth } from './health.js';
import { registerLoraxGenerate } from './lorax/generate.js';
import { registerLoraxInfo } from './lorax/info.js';
import { registerChatCompletions } from './openai/chat-completions.js';
import { registerCompletions } from './openai/completions.js';
import { registerEmbeddings } from './openai/embeddings.js';
import { registerModels } from './openai/models.js';
import { registerResponses } from './openai/responses.js';
import { registerLoraAdapters } from './vllm/lora-adapters.js';
import { registerTokenize } from './vllm/tokenize.js';
import type { EngineInfo } from '../types.js';
import { Pace } from './pace.js';
import { checkServerOptions } from './server-options.js';
import type { ServerOptions } from './server-options.js';
import { TokenTexts } from './token-texts.js';

export interface LoraxServer {
  /** A hono app: `app.route('/', ...)` in another one, or more routes on it. */
  app: ServerApp;
  fetch(request: Request): Response | Promise<Response>;
  /** Who would have to wait where no more may, as toNodeHandler asks before anything else. */
  door: Door;
}

const ROUTES: readonly RegisterRoutes[] = [
  registerModels,
  registerChatCompletions,
  registerCompletions,
  registerEmbeddings,
  registerResponses,
  registerLoraAdapters,
  registerTokenize,
  registerLoraxGenerate,
  registerLoraxInfo,
  registerHealth,
];

/** Throws INVALID_OPTIONS. */
export function createServer(options: ServerOptions): LoraxServer {
  const resolved = checkServerOptions(options);
  const { engine } = resolved;
  let info: Promise<EngineInfo> | undefined;
  const admissions = new Admissions(resolved.maxWaiting);
  const state: ServerState = {
    ...resolved,
    ...{ tokens: new TokenTexts(engine), admissions, pace: new Pace(admissions) },
    info: () => {
      info ??= engine.ready();
      info.catch(() => (info = undefined));
      return info;
    },
  };
  const app = new Hono<ServerEnv>().basePath(resolved.basePath);
  app.onError((error, c) => {
    // Nobody reads it; 499 is what logs call that.
    if (c.req.raw.signal.aborted) return new Response(null, { status: 499 });
    return errorResponse(error);
  });
  app.notFound((c) => errorResponse(unknownRoute(app, c.req.method, c.req.path)));
  app.use(async (c, next) => {
    const requestId = givenId(c.req.header('x-request-id')) ?? randomUUID();
    c.set('requestId', requestId);
    c.set('engine', engine);
    c.header('x-request-id', requestId);
    await next();
  });
  for (const middleware of state.middleware) app.use(middleware);
  for (const register of ROUTES) register(app, state);
  return {
    app,
    fetch: (request) => app.fetch(request),
    door: doorOf(admissions, resolved.basePath),
  };
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
