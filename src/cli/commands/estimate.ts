/**
 * `lorax-js estimate`: whether a model with N adapters fits a device: weights, KV, adapters.
 *
 * From the headers of the model's files; with --load from the engine itself, which then knows what
 * its buffers take and how adapters and KV fall into pages.
 */
import { createEngine } from '../../create-engine.js';
import { checkNumber, checkOneOf, invalidOptions } from '../../check-shape.js';
import type { EngineInfo } from '../../types.js';
import { adapterBytes, readCheckpoint, reportModel, TARGETS } from '../../../worker/offline.js';
import type { Command, OptionValues } from '../command-line.js';
import { cudaPlugin, listGpus } from '../devices.js';
import { formatBytes, formatCount, table } from '../format.js';
import { HUB_OPTIONS, hubOptions, interruptSignal, Places } from '../places.js';
import type { Terminal } from '../terminal.js';

/** The engine's default memoryFraction. */
const GPU_SHARE = 0.9;

interface Wanted {
  adapters: number;
  rank: number;
  targets: readonly string[];
  /** Adapters in use at once. */
  resident: number;
  sequences: number;
  tokens: number;
}

export const estimate: Command = {
  name: 'estimate',
  positionals: '<model>',
  minPositionals: 1,
  summary: 'does this model with N adapters fit this device?',
  options: {
    adapters: { type: 'number', help: 'how many (default 1)' },
    rank: { type: 'number', help: 'of each (default 16)' },
    targets: { type: 'string', value: '<q_proj,...>', help: 'their targets (default: all seven)' },
    resident: { type: 'number', help: 'adapters in use at once (default: all of them)' },
    sequences: { type: 'number', help: 'sequences at once (default 16)' },
    tokens: {
      type: 'number',
      help: 'of a sequence, prompt and answer (default 2048, or the context)',
    },
    device: { type: 'string', value: '<auto|cpu|cuda>', help: 'default auto' },
    precision: { type: 'string', value: '<bfloat16|float32>', help: 'default bfloat16' },
    memory: {
      type: 'bytes',
      help: 'of the device, instead of what is free here; with --load: of the page pool',
    },
    load: { type: 'boolean', help: 'load the model here and ask the engine' },
    ...HUB_OPTIONS,
  },
  async run({ positionals, values }, terminal) {
    const precision =
      checkOneOf(values.precision, '--precision', ['bfloat16', 'float32']) ?? 'bfloat16';
    const elementBytes = precision === 'float32' ? 4 : 2;
    const device = chooseDevice(values);
    const hub = hubOptions(values);
    const places = new Places(hub, terminal, interruptSignal());
    const directory = await places.model(positionals[0] as string);
    const spec = await readCheckpoint(directory);
    const model = reportModel(spec, elementBytes);
    const wanted = readWanted(values, model.contextTokens);
    const perAdapter = adapterBytes(spec.config, wanted.rank, wanted.targets, elementBytes);
    const need: Need = {
      weightBytes: model.weightBytes,
      adapterBytes: wanted.resident * perAdapter,
      kvBytes: wanted.sequences * wanted.tokens * model.kvBytesPerToken,
    };
    const info =
      values.load === true ? await load(directory, values, device, precision, terminal) : undefined;
    const memory = info === undefined ? deviceMemory(device, values.memory) : undefined;
    const pool =
      info === undefined
        ? byBytes(need, model.kvBytesPerToken, memory as number, device)
        : byPages(info, wanted, perAdapter);
    const report = {
      ...{ model: directory, device, precision, ...model, ...wanted },
      ...{ bytesPerAdapter: perAdapter, hostBytes: wanted.adapters * perAdapter },
      ...{ needBytes: need, memoryBytes: memory ?? null, engine: info ?? null },
      ...pool,
    };
    terminal.result(report, () => [
      ...table([
        ['model', `${model.architecture}, ${formatCount(model.parameters)} parameters`],
        ['weights', `${formatBytes(need.weightBytes)} in ${precision}`],
        ['KV', `${formatBytes(model.kvBytesPerToken)} a token`],
        [
          'an adapter',
          `${formatBytes(perAdapter)} (rank ${wanted.rank}, ${wanted.targets.length} targets)`,
        ],
        [
          'adapters in use',
          `${formatBytes(need.adapterBytes)} for ${formatCount(wanted.resident)}`,
        ],
        ['all in host memory', formatBytes(report.hostBytes)],
        [
          'sequences',
          `${formatBytes(need.kvBytes)} for ${wanted.sequences} of ${wanted.tokens} tokens`,
        ],
        info === undefined
          ? ['memory', `${formatBytes(memory as number)} on ${device}`]
          : [
              'pool',
              `${formatCount(info.numPages)} pages of ${formatBytes(info.pageBytes)} (${info.deviceDescription})`,
            ],
        ['left for KV', `${formatCount(pool.kvTokens)} tokens`],
      ]),
      pool.fits ? terminal.style('green', 'fits') : terminal.style('red', 'does not fit'),
    ]);
    return pool.fits ? 0 : 1;
  },
};

function chooseDevice(values: OptionValues): 'cpu' | 'cuda' {
  const device = checkOneOf(values.device, '--device', ['auto', 'cpu', 'cuda']) ?? 'auto';
  if (device !== 'auto') return device;
  return cudaPlugin() !== undefined && listGpus().length > 0 ? 'cuda' : 'cpu';
}

function deviceMemory(device: 'cpu' | 'cuda', given: OptionValues[string]): number {
  if (typeof given === 'number') return given;
  if (device === 'cpu') return process.availableMemory();
  const [gpu] = listGpus();
  if (gpu === undefined) {
    throw invalidOptions(
      '--device',
      'There is no GPU here: say how large it is, e.g. --memory 80GB.',
    );
  }
  return gpu.freeBytes;
}

function readWanted(values: OptionValues, contextTokens: number): Wanted {
  const count = { min: 0, max: 1e9, integer: true };
  const positive = { ...count, min: 1 };
  const adapters = checkNumber(values.adapters, '--adapters', count) ?? 1;
  const tokens = { ...positive, max: contextTokens };
  return {
    adapters,
    rank: checkNumber(values.rank, '--rank', positive) ?? 16,
    targets: readTargets(values.targets),
    resident: Math.min(adapters, checkNumber(values.resident, '--resident', count) ?? adapters),
    sequences: checkNumber(values.sequences, '--sequences', positive) ?? 16,
    tokens: checkNumber(values.tokens, '--tokens', tokens) ?? Math.min(2048, contextTokens),
  };
}

function readTargets(given: OptionValues[string]): readonly string[] {
  if (typeof given !== 'string') return TARGETS;
  const names = given.split(',').map((name) => name.trim());
  for (const name of names) checkOneOf(name, '--targets', TARGETS);
  return [...new Set(names)];
}

interface Need {
  weightBytes: number;
  adapterBytes: number;
  kvBytes: number;
}

interface Pool {
  poolBytes: number;
  /** Beside the adapters in use. */
  kvTokens: number;
  fits: boolean;
}

/** Buffers for steps are not in it: --load knows them. */
function byBytes(need: Need, kvBytesPerToken: number, memory: number, device: string): Pool {
  const rest = Math.max(0, memory - need.weightBytes);
  const poolBytes = Math.floor(device === 'cuda' ? rest * GPU_SHARE : rest);
  const forKv = poolBytes - need.adapterBytes;
  const kvTokens = Math.max(0, Math.floor(forKv / kvBytesPerToken));
  return { poolBytes, kvTokens, fits: forKv >= need.kvBytes };
}

/** An adapter takes whole pages, a sequence's last block too. */
function byPages(
  { numPages, pageBytes, blockTokens }: EngineInfo,
  { resident, sequences, tokens }: Wanted,
  bytesPerAdapter: number,
): Pool {
  const forKv = numPages - resident * Math.ceil(bytesPerAdapter / pageBytes);
  const needed = sequences * Math.ceil(tokens / blockTokens);
  return {
    poolBytes: numPages * pageBytes,
    kvTokens: Math.max(0, forKv) * blockTokens,
    fits: forKv >= needed,
  };
}

async function load(
  model: string,
  values: OptionValues,
  device: 'cpu' | 'cuda',
  precision: 'bfloat16' | 'float32',
  terminal: Terminal,
): Promise<EngineInfo> {
  const { memory } = values;
  await using engine = createEngine({
    ...{ model, device, precision },
    ...(typeof memory === 'number' ? { memoryBytes: memory } : {}),
    onProgress: ({ name, loadedBytes, totalBytes }) =>
      terminal.progress(name, loadedBytes, totalBytes),
  });
  const info = await engine.ready();
  terminal.clearProgress();
  return info;
}
