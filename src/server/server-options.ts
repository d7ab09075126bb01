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
   * Requests that may wait for the engine to admit them (each of n counts); one more hears 429 at once,
   * under serveOnNode before any middleware. Default 1024.
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
  maxBodyBytes: number;
  maxWaiting: number;
  /** Which sources may be loaded; undefined: nothing may be changed. */
  adapterUpdates: AllowedSources | undefined;
  middleware: ServerMiddleware[];
}

const KEYS = [
  'engine',
  'modelName',
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
    maxBodyBytes:
      checkNumber(fields.maxBodyBytes, 'options.maxBodyBytes', bytes) ?? DEFAULT_MAX_BODY_BYTES,
    maxWaiting: checkNumber(fields.maxWaiting, 'options.maxWaiting', count) ?? 1024,
    adapterUpdates: adapterUpdatesOf(fields.adapterUpdates),
    middleware: middleware as ServerMiddleware[],
  };
}

function adapterUpdatesOf(value: unknown): AllowedSources | undefined {
  const field = 'options.adapterUpdates';
  if (typeof value !== 'object' || value === null) {
    return checkBoolean(value ?? undefined, field) === true ? () => true : undefined;
  }
  return checkAllowedSources(checkObject(value, field, ['sources']).sources, `${field}.sources`);
}
