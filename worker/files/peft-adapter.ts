/**
 * A PEFT LoRA directory -> NativeAdapterSpec.
 *
 * The tensors present are what is applied; the config gives their rank and scale. Where the two
 * disagree, or a tensor does not fit the base model, the adapter is refused and the error names
 * it: nothing is dropped, and nothing outside the directory is read. Only headers and, for the
 * content hash, bytes are read here; native code checks the values. Called by the adapter registry.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readdir, realpath } from 'node:fs/promises';
import path from 'node:path';

import { LoraxError } from '../../src/errors.js';
import type {
  DecoderConfig,
  NativeAdapterModule,
  NativeAdapterSpec,
  NativeTensor,
} from '../addon.js';
import { ADAPTER_CODES, fileError, readJsonObject, show } from './config-reader.js';
import { parsePeftConfig } from './peft-config.js';
import { projections, targets, type Projection, type Target } from './peft-targets.js';
import { readSafetensors, type SafetensorsTensor } from './safetensors.js';
import { readTorchFile } from './torch-file.js';

const CONFIG = 'adapter_config.json';
const WEIGHTS = 'adapter_model.safetensors';
/** Read where there are no safetensors. */
const TORCH_WEIGHTS = 'adapter_model.bin';

interface Pair {
  a?: SafetensorsTensor;
  b?: SafetensorsTensor;
}

export async function readPeftAdapter(
  directory: string,
  base: DecoderConfig,
): Promise<NativeAdapterSpec> {
  const root = path.resolve(directory);
  const { configFile, weightsFile, weightsName } = await findFiles(root);
  const values = await readJsonObject(configFile, ADAPTER_CODES);
  const peft = parsePeftConfig(configFile, values);
  const weights = weightsName.endsWith('.bin')
    ? await readTorchFile(weightsFile, ADAPTER_CODES)
    : await readSafetensors(weightsFile, 'ADAPTER_INVALID');

  const all = projections(base);
  const pairs = pairTensors(weights.tensors.values(), all, base, weightsFile);
  const wanted = new Map(targets(peft, all).map((target) => [target.name, target]));
  const modules: NativeAdapterModule[] = [];
  for (const [name, pair] of pairs) {
    const target = wanted.get(name);
    if (target === undefined) {
      throw peft.reader.invalid(
        'target_modules',
        `does not cover ${name}, but ${weightsName} holds LoRA tensors for it`,
      );
    }
    modules.push(nativeModule(target, pair, weightsFile));
  }
  const lacking = [...wanted.keys()].filter((name) => !pairs.has(name));
  if (lacking.length > 0) {
    throw peft.reader.invalid(
      'target_modules',
      `covers ${lacking[0]}${lacking.length > 1 ? ` and ${lacking.length - 1} more` : ''}, ` +
        `but ${weightsName} holds no LoRA tensors for it`,
    );
  }
  modules.sort((x, y) => x.layer - y.layer || x.module - y.module);
  return { hash: await contentHash(values, weightsFile), files: [weightsFile], modules };
}

/** Real paths of both files, neither of them outside the directory. */
async function findFiles(
  root: string,
): Promise<{ configFile: string; weightsFile: string; weightsName: string }> {
  let names: string[];
  let realRoot: string;
  try {
    names = await readdir(root);
    realRoot = await realpath(root);
  } catch (error) {
    throw fileError(root, 'ADAPTER_INVALID', error);
  }
  const find = async (name: string) => {
    const file = path.join(root, name);
    if (!names.includes(name)) throw missingFile(root, file, names);
    let real: string;
    try {
      real = await realpath(file);
    } catch (error) {
      throw fileError(file, 'ADAPTER_INVALID', error);
    }
    if (!isInside(real, realRoot) && !isHubBlob(real, realRoot)) {
      throw new LoraxError(
        'ADAPTER_INVALID',
        `${file}: a link to ${real}, which is outside the adapter's directory`,
        { data: { file } },
      );
    }
    return real;
  };
  const hasTorchOnly = names.includes(TORCH_WEIGHTS) && !names.includes(WEIGHTS);
  const weightsName = hasTorchOnly ? TORCH_WEIGHTS : WEIGHTS;
  return { configFile: await find(CONFIG), weightsFile: await find(weightsName), weightsName };
}

function isInside(file: string, directory: string): boolean {
  const relative = path.relative(directory, file);
  return relative !== '' && !relative.startsWith('..') && !path.isAbsolute(relative);
}

/**
 * Hugging Face's cache: models--x/snapshots/<revision>/<name> links to models--x/blobs/<hash>, which
 * may be a link to blobs/<xx>/<hash> of the whole cache.
 */
function isHubBlob(file: string, directory: string): boolean {
  const snapshots = path.dirname(directory);
  if (path.basename(snapshots) !== 'snapshots') return false;
  const repository = path.dirname(snapshots);
  const folder = path.dirname(file);
  return (
    folder === path.join(repository, 'blobs') ||
    path.dirname(folder) === path.join(path.dirname(repository), 'blobs')
  );
}

function missingFile(root: string, file: string, names: string[]): LoraxError {
  const pickled = names.find((name) => /^adapter_model\.(pt|pth)$/.test(name));
  if (path.basename(file) === WEIGHTS && pickled !== undefined) {
    return new LoraxError(
      'ADAPTER_UNSUPPORTED',
      `${path.join(root, pickled)}: PEFT reads ${WEIGHTS} or ${TORCH_WEIGHTS}; load the adapter ` +
        'and save it with save_pretrained()',
      { data: { file: path.join(root, pickled) } },
    );
  }
  return new LoraxError('ADAPTER_INVALID', `${file}: no such file`, { data: { file } });
}

/** Groups the file's tensors by projection; a tensor that is not A or B of one is refused. */
function pairTensors(
  tensors: Iterable<SafetensorsTensor>,
  all: ReadonlyMap<string, Projection>,
  base: DecoderConfig,
  file: string,
): Map<string, Pair> {
  const pairs = new Map<string, Pair>();
  for (const tensor of tensors) {
    const match = /^(?:base_model\.model\.)?(.+)\.lora_(A|B)(?:\.default)?\.weight$/.exec(
      tensor.name,
    );
    if (match === null) throw notALora(tensor, file);
    const [, name, half] = match as unknown as [string, string, 'A' | 'B'];
    if (!all.has(name)) throw notAProjection(tensor, name, base, file);
    const pair = pairs.get(name) ?? {};
    const key = half === 'A' ? 'a' : 'b';
    if (pair[key] !== undefined) {
      throw invalid(file, tensor.name, `names the same weight as ${pair[key].name}`);
    }
    pair[key] = tensor;
    pairs.set(name, pair);
  }
  if (pairs.size === 0) {
    throw new LoraxError('ADAPTER_INVALID', `${file}: holds no LoRA tensors`, { data: { file } });
  }
  return pairs;
}

function nativeModule(target: Target, pair: Pair, file: string): NativeAdapterModule {
  const { name, layer, module, rank, scale } = target;
  for (const [key, letter] of [
    ['a', 'A'],
    ['b', 'B'],
  ] as const) {
    if (pair[key] === undefined) {
      const other = pair[key === 'a' ? 'b' : 'a']?.name ?? name;
      throw invalid(file, `${name}.lora_${letter}.weight`, `missing, though ${other} is there`);
    }
  }
  const { a, b } = pair as Required<Pair>;
  if (a.shape[0] === 0 || b.shape[1] === 0) {
    throw invalid(file, a.name, `rank 0 (shape ${show(a.shape)})`);
  }
  const tensor = (from: SafetensorsTensor, expected: [number, number]): NativeTensor => {
    checkShape(from, expected, rank, file);
    const { dtype, offset } = from;
    if (dtype !== 'F32' && dtype !== 'F16' && dtype !== 'BF16') {
      throw unsupported(file, from.name, `dtype ${dtype}; use F32, F16 or BF16`);
    }
    return { name: from.name, file: 0, dtype, rows: expected[0], cols: expected[1], offset };
  };
  return {
    layer,
    module,
    rank,
    scale,
    a: tensor(a, [rank, target.inputSize]),
    b: tensor(b, [target.outputSize, rank]),
  };
}

/** Tells a wrong rank (config and tensors disagree) from a wrong size (another base model). */
function checkShape(
  tensor: SafetensorsTensor,
  expected: [number, number],
  rank: number,
  file: string,
): void {
  const { shape, name } = tensor;
  if (shape.length === 2 && shape[0] === expected[0] && shape[1] === expected[1]) return;
  const rankAxis = /\.lora_A\./.test(name) ? 0 : 1;
  const sizeAxis = 1 - rankAxis;
  const why =
    shape.length !== 2
      ? 'a LoRA weight has two dimensions'
      : shape[sizeAxis] !== expected[sizeAxis]
        ? 'it was trained on another base model'
        : `${CONFIG} gives rank ${rank} (r, rank_pattern), the tensor has ${shape[rankAxis]}`;
  throw new LoraxError(
    'ADAPTER_INVALID',
    `${file}: ${name}: expected shape ${show(expected)}, found ${show(shape)}: ${why}`,
    { data: { file, field: name, expected, found: shape } },
  );
}

function notALora({ name }: SafetensorsTensor, file: string): LoraxError {
  if (/\.lora_magnitude_vector(\.|$)/.test(name)) return unsupported(file, name, 'DoRA');
  if (/\.lora_embedding_[AB](\.|$)/.test(name)) {
    return unsupported(file, name, 'LoRA on heads and embeddings');
  }
  if (/\.lora_[AB](\.default)?\.bias$/.test(name)) return unsupported(file, name, 'lora_bias');
  if (/(^|\.)(embed_tokens|lm_head)\./.test(name)) {
    return unsupported(file, name, 'a whole embedding or head saved with the adapter');
  }
  if (/\.lora_[AB]\./.test(name)) {
    return invalid(file, name, 'not named as PEFT saves adapters (".lora_A.weight")');
  }
  return unsupported(file, name, 'a tensor beside the LoRA (modules_to_save, bias)');
}

function notAProjection(
  tensor: SafetensorsTensor,
  name: string,
  base: DecoderConfig,
  file: string,
): LoraxError {
  if (/(^|\.)(embed_tokens|lm_head)$/.test(name)) {
    return unsupported(file, tensor.name, 'LoRA on heads and embeddings');
  }
  const layer = /^model\.layers\.(\d+)\./.exec(name)?.[1];
  if (layer !== undefined && Number(layer) >= base.numLayers) {
    return invalid(
      file,
      tensor.name,
      `the base model has ${base.numLayers} layers: it was trained on another base model`,
    );
  }
  return invalid(file, tensor.name, `a ${base.architecture} has no projection ${name}`);
}

function invalid(file: string, field: string, message: string): LoraxError {
  return new LoraxError('ADAPTER_INVALID', `${file}: ${field}: ${message}`, {
    data: { file, field },
  });
}

function unsupported(file: string, field: string, what: string): LoraxError {
  return new LoraxError('ADAPTER_UNSUPPORTED', `${file}: ${field}: ${what}: not supported`, {
    data: { file, field },
  });
}

/** sha256 over the config, spelled canonically, and the bytes of the weights. */
async function contentHash(config: unknown, weightsFile: string): Promise<string> {
  const hash = createHash('sha256').update(`${canonicalJson(config)}\n`);
  try {
    for await (const chunk of createReadStream(weightsFile, { highWaterMark: 1 << 20 })) {
      hash.update(chunk as Buffer);
    }
  } catch (error) {
    throw fileError(weightsFile, 'ADAPTER_INVALID', error);
  }
  return hash.digest('hex');
}

/** Keys in order, no whitespace. */
function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const fields = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${fields.map(([key, each]) => `${JSON.stringify(key)}:${canonicalJson(each)}`).join(',')}}`;
}
