/**
 * EngineOptions, checked and completed: the one place where an engine's defaults are decided.
 *
 * Only the shape is looked at, never the disk; relative paths are resolved against the working
 * directory at the moment of the call. Called by createEngine and createLorax.
 */
import { resolve } from 'node:path';
import {
  checkBoolean,
  checkFunction,
  checkNumber,
  checkObject,
  checkOneOf,
  checkString,
  invalidOptions,
} from './check-shape.js';
import type { Fields } from './check-shape.js';
import { isHubAddress, parseHubRepository } from './hub-repository.js';
import type { HubRepository } from './hub-repository.js';
import { checkSources, type NameSource } from './name-sources.js';
import type {
  AdapterEvent,
  Device,
  EngineOptions,
  HubOptions,
  LoadProgress,
  Precision,
} from './types.js';

export const ENGINE_OPTION_KEYS = [
  'model',
  'device',
  'precision',
  'memoryBytes',
  'memoryFraction',
  'hostMemoryBytes',
  'maxBatchTokens',
  'deterministic',
  'maxQueued',
  'hub',
  'sources',
  'onProgress',
  'onAdapter',
] as const satisfies readonly (keyof EngineOptions)[];

export interface ResolvedEngineOptions {
  /** An absolute path; an hf:// address stays as it is. */
  model: string;
  /** What is meant where no such directory is there. */
  hubModel: HubRepository | undefined;
  hub: HubOptions;
  device: Device;
  precision: Precision;
  /** 0 = let the engine choose. */
  memoryBytes: number;
  memoryFraction: number;
  /** 0 = let the worker choose. */
  hostMemoryBytes: number;
  maxBatchTokens: number;
  deterministic: boolean;
  maxQueued: number;
  sources: readonly NameSource[];
  onProgress: ((progress: LoadProgress) => void) | undefined;
  onAdapter: ((event: AdapterEvent) => void) | undefined;
}

const MAX_INT32 = 2 ** 31 - 1;

export function resolveEngineOptions(options: EngineOptions): ResolvedEngineOptions {
  return pickEngineOptions(checkObject(options, 'options', ENGINE_OPTION_KEYS));
}

/** The engine's part of an object whose keys have been checked already. */
export function pickEngineOptions(fields: Fields): ResolvedEngineOptions {
  const model = checkString(fields.model, 'options.model');
  if (model === undefined) {
    throw invalidOptions(
      'options.model',
      'options.model is missing: give the path of a Hugging Face model directory, or org/name of ' +
        'the hub.',
    );
  }
  checkFunction(fields.onProgress, 'options.onProgress');
  checkFunction(fields.onAdapter, 'options.onAdapter');
  const device = checkOneOf(fields.device, 'options.device', ['auto', 'cpu', 'cuda']) ?? 'auto';
  const precision =
    checkOneOf(fields.precision, 'options.precision', ['auto', 'bfloat16', 'float32']) ?? 'auto';
  if (device === 'cuda' && precision === 'float32') {
    throw invalidOptions(
      'options.precision',
      "options.precision 'float32', the reference, runs on the CPU: use options.device 'cpu', or " +
        "'bfloat16' with 'cuda'.",
    );
  }
  if (
    fields.memoryFraction !== undefined &&
    (fields.memoryBytes !== undefined || device === 'cpu')
  ) {
    throw invalidOptions(
      'options.memoryFraction',
      fields.memoryBytes !== undefined
        ? 'options.memoryFraction and options.memoryBytes exclude each other: give one of them.'
        : "options.memoryFraction is of a GPU's memory: on the CPU give options.memoryBytes.",
    );
  }
  const count = { min: 1, max: MAX_INT32, integer: true };
  const bytes = { min: 1, max: Number.MAX_SAFE_INTEGER, integer: true };
  return {
    model: isHubAddress(model) ? model : resolve(model),
    hubModel: parseHubRepository(model),
    hub: checkHubOptions(fields.hub),
    device,
    precision,
    memoryBytes: checkNumber(fields.memoryBytes, 'options.memoryBytes', bytes) ?? 0,
    memoryFraction:
      checkNumber(fields.memoryFraction, 'options.memoryFraction', { min: 0.01, max: 1 }) ?? 0.9,
    hostMemoryBytes: checkNumber(fields.hostMemoryBytes, 'options.hostMemoryBytes', bytes) ?? 0,
    maxBatchTokens: checkNumber(fields.maxBatchTokens, 'options.maxBatchTokens', count) ?? 0,
    deterministic: checkBoolean(fields.deterministic, 'options.deterministic') ?? false,
    maxQueued: checkNumber(fields.maxQueued, 'options.maxQueued', count) ?? 1024,
    sources: checkSources(fields.sources, 'options.sources'),
    onProgress: fields.onProgress as ResolvedEngineOptions['onProgress'],
    onAdapter: fields.onAdapter as ResolvedEngineOptions['onAdapter'],
  };
}

function checkHubOptions(hub: unknown): HubOptions {
  if (hub === undefined) return {};
  const field = 'options.hub';
  const keys = ['token', 'endpoint', 'cacheDirectory', 'offline'];
  const fields = checkObject(hub, field, keys);
  const checked: HubOptions = {};
  const token = fields.token === false ? false : checkString(fields.token, `${field}.token`);
  if (token !== undefined) checked.token = token;
  const endpoint = checkString(fields.endpoint, `${field}.endpoint`);
  if (endpoint !== undefined) {
    if (!/^https?:\/\/[^/?#@]+(\/[^?#]*)?$/.test(endpoint)) {
      const message = `${field}.endpoint must be an http(s) address, e.g. https://huggingface.co.`;
      throw invalidOptions(`${field}.endpoint`, message, endpoint);
    }
    checked.endpoint = endpoint;
  }
  const directory = checkString(fields.cacheDirectory, `${field}.cacheDirectory`);
  if (directory !== undefined) checked.cacheDirectory = resolve(directory);
  const offline = checkBoolean(fields.offline, `${field}.offline`);
  if (offline !== undefined) checked.offline = offline;
  return checked;
}
