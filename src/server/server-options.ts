/**
 * ServerOptions, checked and completed. Throws INVALID_OPTIONS. Called by createServer.
 */
import {
  checkArray,
  checkBoolean,
  checkFunction,
  checkNumber,
  checkObject,
  checkString,
  describe,
  invalidOptions,
} from '../check-shape.js';
import type { Engine } from '../types.js';
import { checkAllowedSources, type AllowedSources } from './allowed-sources.js';
import type { ServerMiddleware } from './environment.js';

export interface ServerOptions {
  /** Stays its owner's: the server never disposes it. */
  engine: Engine;
  /**
   * What clients call the base model, in `model` and in `/v1/models`. Default: the last part of the
   * model's path or repository.
   */
  modelName?: string;
  /**
   * What comes before every route where the server is mounted with whole URLs, e.g. '/api/ai' in a route
   * handler of Next.js. Not under Express's or Hono's own mounting, which take it off. Default: nothing.
   */
  basePath?: string;
  /**
   * Requests that may wait for the engine to admit them (each of n counts); one more hears 429 at once,
   * with serveOnNode and toNodeHandler before any middleware. Default 1024.
   */
  maxWaiting?: number;
  /** Of a request's body. Default 8 MiB. */
  maxBodyBytes?: number;
  /**
   * vLLM's load_lora_adapter and unload_lora_adapter. Default false: clients change nothing. With
   * sources ('./adapters/*', 'hf://my-org/*', 'https://host/adapters/*', ...): only from these; true:
   * from anywhere this process can reach, as vLLM does it.
   */
  adapterUpdates?: boolean | { sources: string[] };
  /** Run in this order before every route: who asks, and how much they may. */
  middleware?: ServerMiddleware[];
}

export interface ResolvedServerOptions {
  modelName: string | undefined;
  /** '' or '/path'. */
  basePath: string;
  maxBodyBytes: number;
  maxWaiting: number;
  /** Which sources may be loaded; undefined: nothing may be changed. */
  adapterUpdates: AllowedSources | undefined;
  middleware: ServerMiddleware[];
}

const KEYS = [
  'engine',
  'modelName',
  'basePath',
  'maxBodyBytes',
  'maxWaiting',
  'adapterUpdates',
  'middleware',
] as const satisfies readonly (keyof ServerOptions)[];

const DEFAULT_MAX_BODY_BYTES = 8 << 20;

export function checkServerOptions(
  options: ServerOptions,
): ResolvedServerOptions & { engine: Engine } {
  const fields = checkObject(options, 'options', KEYS);
  const engine = fields.engine as Partial<Engine> | undefined;
  if (typeof engine !== 'object' || engine === null || typeof engine.generate !== 'function') {
    const message = 'options.engine must be an engine: createEngine({ model }) of lorax-js/engine.';
    throw invalidOptions('options.engine', `${message} It is ${describe(engine)}.`, engine);
  }
  const middleware = checkArray(fields.middleware, 'options.middleware') ?? [];
  middleware.forEach((each, index) => checkFunction(each, `options.middleware[${index}]`));
  const count = { min: 1, max: 2 ** 31 - 1, integer: true };
  const bytes = { min: 1, max: 2 ** 30, integer: true };
  return {
    engine: engine as Engine,
    modelName: checkString(fields.modelName, 'options.modelName'),
    basePath: basePathOf(fields.basePath),
    maxBodyBytes:
      checkNumber(fields.maxBodyBytes, 'options.maxBodyBytes', bytes) ?? DEFAULT_MAX_BODY_BYTES,
    maxWaiting: checkNumber(fields.maxWaiting, 'options.maxWaiting', count) ?? 1024,
    adapterUpdates: adapterUpdatesOf(fields.adapterUpdates),
    middleware: middleware as ServerMiddleware[],
  };
}

function basePathOf(value: unknown): string {
  const field = 'options.basePath';
  const text = checkString(value, field) ?? '';
  if (text === '' || text === '/') return '';
  if (/^(\/[\w.~-]+)+\/?$/.test(text)) return text.replace(/\/$/, '');
  throw invalidOptions(field, `${field} must be a path like '/api/ai'.`, value);
}

function adapterUpdatesOf(value: unknown): AllowedSources | undefined {
  const field = 'options.adapterUpdates';
  if (typeof value !== 'object' || value === null) {
    return checkBoolean(value ?? undefined, field) === true ? () => true : undefined;
  }
  return checkAllowedSources(checkObject(value, field, ['sources']).sources, `${field}.sources`);
}
