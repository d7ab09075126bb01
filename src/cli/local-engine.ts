/**
 * An engine in the command's own process, with the adapters that its options name. Used by `chat` and
 * `bench`; `serve` has start-server.ts.
 */
import { adaptersInFolder } from '../adapter-folder.js';
import { isAdapterName } from '../adapter-name.js';
import { resolveAdapterSource } from '../adapter-source.js';
import { invalidOptions } from '../check-shape.js';
import { createEngineWithNames } from '../create-engine.js';
import type { Engine, EngineOptions } from '../types.js';
import { connectWorker } from '../worker-connection.js';
import type { OptionSpecs, OptionValues } from './command-line.js';
import type { Terminal } from './terminal.js';

export const ENGINE_OPTIONS = {
  'adapter-folder': { type: 'string', value: '<dir>', help: 'every subfolder is an adapter' },
  adapter: { type: 'string', multiple: true, value: '<name=source>', help: 'an adapter' },
  device: { type: 'string', value: '<auto|cpu|cuda>', help: 'default auto' },
  precision: { type: 'string', value: '<bfloat16|float32>', help: 'default bfloat16' },
  memory: { type: 'bytes', help: 'of the page pool' },
} as const satisfies OptionSpecs;

export interface LocalEngine {
  engine: Engine;
  /** Of adapters. */
  names: string[];
}

/** Throws INVALID_OPTIONS. */
export function openEngine(model: string, values: OptionValues, terminal: Terminal): LocalEngine {
  const { device, precision, memory } = values;
  const given = { device, precision, memoryBytes: memory };
  const { engine, declare } = createEngineWithNames(connectWorker, {
    ...Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)),
    model,
    onProgress: ({ name, loadedBytes, totalBytes }) =>
      terminal.progress(name, loadedBytes, totalBytes),
  } as EngineOptions);
  const folder = values['adapter-folder'];
  const adapters = {
    ...(typeof folder === 'string' ? adaptersInFolder(folder, '--adapter-folder') : {}),
    ...Object.fromEntries(named(values.adapter)),
  };
  for (const [name, source] of Object.entries(adapters)) {
    declare(name, resolveAdapterSource(source, `adapter ${name}`));
  }
  return { engine, names: Object.keys(adapters).sort() };
}

function named(values: OptionValues[string]): [string, string][] {
  return (Array.isArray(values) ? values : []).map((text) => {
    const at = text.indexOf('=');
    if (at > 0 && at < text.length - 1 && isAdapterName(text.slice(0, at))) {
      return [text.slice(0, at), text.slice(at + 1)];
    }
    throw invalidOptions('--adapter', '--adapter must be name=source.', text);
  });
}
