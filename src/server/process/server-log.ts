/**
 * What the server logs: one line for each request and each generation, with the request's id, and the
 * engine's fortunes. Prompts and answers are in none of them unless `logPrompts` is set.
 *
 * pino, JSON to stderr: stdout is the command's. Middleware and an observer of the engine.
 */
import pino, { type DestinationStream, type Logger } from 'pino';
import { LoraxError } from '../../errors.js';
import type { ServerMiddleware } from '../environment.js';
import type { ServeConfig } from '../serve-config.js';
import { isUiPath } from '../ui/paths.js';
import type { EngineObserver } from './observed-engine.js';
import { currentScope } from './request-scope.js';

export type ServerLog = Logger;

export function createLog(
  { logLevel = 'info' }: Pick<ServeConfig, 'logLevel'>,
  destination: DestinationStream = pino.destination(2),
): ServerLog {
  return pino({ name: 'lorax-js', level: logLevel }, destination);
}

/** Paths that machines ask every second, and those that only watch. */
const QUIET: ReadonlySet<string> = new Set(['/health', '/ready', '/metrics']);
const isQuiet = (path: string) => QUIET.has(path) || isUiPath(path);

/** Bodies only where prompts may be logged, which is never the default. */
export function logMiddleware(log: ServerLog, logPrompts: boolean): ServerMiddleware {
  return async (c, next) => {
    const begin = performance.now();
    if (logPrompts && c.req.method === 'POST' && log.isLevelEnabled('debug')) {
      const body = await c.req.raw
        .clone()
        .text()
        .catch(() => '');
      log.debug({ requestId: c.get('requestId'), body: body.slice(0, 64 << 10) }, 'body');
    }
    await next();
    const { method, path } = c.req;
    const level = isQuiet(path) ? 'debug' : 'info';
    log[level](
      {
        ...{ requestId: c.get('requestId'), tenant: c.get('tenant'), method },
        ...{ path: path.slice(0, 200), status: c.res.status, ms: sinceMs(begin) },
      },
      'request',
    );
  };
}

export function logObserver(log: ServerLog): EngineObserver {
  return ({ kind, adapters, tenant }) => {
    const scope = currentScope();
    const generation = scope === undefined ? 1 : ++scope.generations;
    const known = { requestId: scope?.requestId, generation, kind, adapters, tenant };
    return {
      end: ({ outcome, reason, error, usage, timing }) => {
        const facts = {
          ...known,
          ...{ outcome, reason, code: LoraxError.isInstance(error) ? error.code : undefined },
          ...{ promptTokens: usage.promptTokens, cachedTokens: usage.cachedTokens },
          ...{ outputTokens: usage.outputTokens, queueMs: Math.round(timing.queueMs) },
          ...{ firstTokenMs: timing.timeToFirstTokenMs, totalMs: Math.round(timing.totalMs) },
        };
        if (outcome === 'failed') log.warn(facts, 'generation');
        else log.info(facts, 'generation');
      },
    };
  };
}

const sinceMs = (begin: number) => Math.round((performance.now() - begin) * 10) / 10;
