/**
 * ServeOptions -> a running engine with everything a request needs: addon, weights, tokenizer,
 * defaults.
 *
 * Always holds: either all of it is there, or the promise rejects and nothing stays loaded. Called
 * by engine-port.ts; a later call after a failure begins afresh.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { homedir } from 'node:os';
import path from 'node:path';
import { LoraxError } from '../src/errors.js';
import type { EngineInfo } from '../src/types.js';
import type { EngineAddon, NativeEngine, StepEvents } from './addon.js';
import { readCheckpoint } from './files/checkpoint.js';
import { readGenerationDefaults, type GenerationDefaults } from './files/generation-defaults.js';
import { readAdapter, type ReadAdapter } from './files/reading-threads.js';
import type { ServeOptions } from './protocol.js';
import { Tokenizer } from './tokenizer/tokenizer.js';

export interface LoadedEngine {
  native: NativeEngine;
  tokenizer: Tokenizer;
  defaults: GenerationDefaults;
  readAdapter(directory: string): Promise<ReadAdapter>;
  info: EngineInfo;
}

export interface LoadEvents {
  onEvents(events: StepEvents): void;
  onProgress(loadedBytes: number, totalBytes: number): void;
  onNotice(code: string, message: string): void;
}

export type LoadEngine = (options: ServeOptions, events: LoadEvents) => Promise<LoadedEngine>;

export const loadEngine: LoadEngine = async (options, { onEvents, onProgress, onNotice }) => {
  const addon = loadAddon(options.addonPaths);
  const spec = await readCheckpoint(options.model);
  const { config } = spec;
  const precision = options.precision === 'auto' ? 'bfloat16' : options.precision;
  const loadingNative = addon.createEngine(
    {
      model: spec,
      device: options.device,
      precision,
      memoryBytes: options.memoryBytes,
      maxBatchTokens: options.maxBatchTokens,
      maxQueued: options.maxQueued,
      hostMemoryBytes: options.hostMemoryBytes || Math.floor(process.availableMemory() / 2),
      threads: 0,
      isa: 'auto',
      cuda: {
        plugin: options.cudaPluginPaths.find((candidate) => existsSync(candidate)) ?? '',
        device: 0,
        memoryFraction: options.memoryFraction,
        cacheDirectory: cacheDirectory(),
        deterministic: options.deterministic,
      },
    },
    onEvents,
    onProgress,
  );
  // The tokenizer is parsed while native threads read the weights.
  const [native, tokenizer, defaults] = await Promise.allSettled([
    loadingNative,
    Tokenizer.load(options.model),
    readGenerationDefaults(options.model, config.vocabSize),
  ]);
  if (native.status === 'rejected') throw native.reason;
  if (tokenizer.status === 'rejected' || defaults.status === 'rejected') {
    await native.value.stop();
    throw tokenizer.status === 'rejected'
      ? tokenizer.reason
      : (defaults as PromiseRejectedResult).reason;
  }
  native.value.setVocabulary(tokenizer.value.table.visible());
  const { ignored } = defaults.value;
  if (ignored.length > 0) {
    const message = `${options.model}/generation_config.json: not supported, ignored: ${ignored.join(', ')}.`;
    onNotice('LORAX_IGNORED_DEFAULTS', message);
  }
  const { device, deviceDescription, numPages, pageBytes, blockTokens } = native.value.info();
  return {
    native: native.value,
    tokenizer: tokenizer.value,
    defaults: defaults.value,
    readAdapter: (directory) => readAdapter(directory, config),
    info: {
      model: options.model,
      architecture: config.architecture,
      device,
      deviceDescription,
      precision,
      contextTokens: config.contextTokens,
      vocabSize: config.vocabSize,
      numPages,
      pageBytes,
      blockTokens,
    },
  };
};

/** Where what was measured on this machine is kept; '' where it has no place for it. */
function cacheDirectory(): string {
  const { XDG_CACHE_HOME: caches } = process.env;
  if (caches !== undefined && path.isAbsolute(caches)) return path.join(caches, 'lorax-js');
  const home = homedir();
  return home === '' ? '' : path.join(home, '.cache', 'lorax-js');
}

/** Opens the first of `paths` that exists. */
export function loadAddon(paths: readonly string[]): EngineAddon {
  const found = paths.find((candidate) => existsSync(candidate));
  if (found === undefined) {
    throw new LoraxError(
      'ADDON_NOT_BUILT',
      "The native engine (lorax.node) is not there: neither was this platform's package (an optional " +
        'dependency) installed, nor did the install script build it. ' +
        `Build it with \`npx lorax-js build\`. Looked at: ${paths.join(', ')}`,
      { data: { paths: [...paths] } },
    );
  }
  let addon: unknown;
  try {
    addon = createRequire(import.meta.url)(found);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new LoraxError(
      'ADDON_NOT_BUILT',
      `${found} cannot be opened on this machine: ${reason}. Build it here with ` +
        '`npx lorax-js build`.',
      { data: { paths: [found], reason }, cause },
    );
  }
  if (isAddon(addon)) return addon;
  throw new LoraxError(
    'ADDON_NOT_BUILT',
    `${found} is not this version's native engine. Build it with \`npx lorax-js build\`.`,
    { data: { paths: [found] } },
  );
}

function isAddon(value: unknown): value is EngineAddon {
  return (
    typeof value === 'object' &&
    value !== null &&
    typeof (value as { createEngine?: unknown }).createEngine === 'function'
  );
}
