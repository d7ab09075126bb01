/**
 * What handlers and middleware of one server share: the state that lives as long as it does, and what
 * is known of one request.
 *
 * Middleware that finds out whose request it is sets `engine` to that tenant's view; every handler asks
 * the engine through it, so no handler can forget to. Types only.
 */
import type { Context, Hono, MiddlewareHandler } from 'hono';
import type { Engine, EngineInfo, EngineView, Timing, Usage } from '../types.js';
import type { Admissions } from './admissions.js';
import type { Pace } from './pace.js';
import type { ResolvedServerOptions } from './server-options.js';
import type { TokenTexts } from './token-texts.js';

export interface ServerVariables {
  requestId: string;
  /** The whole engine, unless a middleware says whose view of it the request has. */
  engine: EngineView<unknown>;
  /** Whose key it came with. */
  tenant?: string;
  /** Hears of every generation's tokens, aborted and failed ones included; a middleware's to set. */
  onUsage?: (usage: Usage, timing: Timing) => void;
}

export type ServerEnv = { Variables: ServerVariables };
export type ServerApp = Hono<ServerEnv>;
export type ServerContext = Context<ServerEnv>;
/** Runs before every route; throws an HttpError to refuse. */
export type ServerMiddleware = MiddlewareHandler<ServerEnv>;

export interface ServerState extends ResolvedServerOptions {
  engine: Engine;
  /** Asked once; again after a failure. */
  info(): Promise<EngineInfo>;
  tokens: TokenTexts;
  admissions: Admissions;
  pace: Pace;
}

/** Adds one API's routes; its file has one job. */
export type RegisterRoutes = (app: ServerApp, state: ServerState) => void;
