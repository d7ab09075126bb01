/**
 * A PEFT LoRA directory -> what it adapts, and where its tensors lie.
 *
 * The tensors present are what is applied; the config gives their rank and scale. Where the two
 * disagree, or a tensor does not fit the base model, the adapter is refused and the error names
 * it: nothing is dropped, and nothing outside the directory is read. Only headers and, for the
 * content hash, bytes are read here; native code checks the values. Called by reading-threads.ts.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readdir, realpath } from 'node:fs/promises';
import path from 'node:path';

import { LoraxError } from '../../src/errors.js';
import type { DecoderConfig, NativeAdapterModule } from '../addon.js';
import { ADAPTER_CODES, fileError, readJsonObject } from './config-reader.js';
import { parsePeftConfig, type PeftConfig } from './peft-config.js';
import { isTable, projections, targets, type Projection, type Target } from './peft-targets.js';
import { groupTensors, nativeModule, type ModuleTensors } from './peft-tensors.js';
import { readSafetensors } from './safetensors.js';
import { readTorchFile } from './torch-file.js';

const CONFIG = 'adapter_config.json';
const WEIGHTS = 'adapter_model.safetensors';
/** Read where there are no safetensors. */
const TORCH_WEIGHTS = 'adapter_model.bin';

const HASHED_AT_A_TIME = 1 << 20;

export interface PeftAdapter {
  /** sha256 of the content, hex. */
  hash: string;
  files: string[];
  modules: NativeAdapterModule[];
  /** Why it has no part in a weighted mix, if it has none. */
  alone?: string;
  /** Of an activated LoRA. */
  invocationTokens?: readonly number[];
}

export async function readPeftAdapter(
  directory: string,
  base: DecoderConfig,
): Promise<PeftAdapter> {
  const root = path.resolve(directory);
  const { configFile, weightsFile, weightsName } = await findFiles(root);
  const values = await readJsonObject(configFile, ADAPTER_CODES);
  const peft = parsePeftConfig(configFile, values);
  const weights = weightsName.endsWith('.bin')
    ? await readTorchFile(weightsFile, ADAPTER_CODES)
    : await readSafetensors(weightsFile, 'ADAPTER_INVALID');

  const all = projections(base);
  const tensors = groupTensors(weights.tensors.values(), all, base, weightsFile);
  const wanted = new Map(
    targets(peft, all, base.tiedEmbeddings).map((target) => [target.name, target]),
  );
  checkParts(peft, tensors, wanted, weightsName);
  shareTiedWeights(peft, tensors, base);
  const modules = [...tensors].map(([name, parts]) => {
    const target = wanted.get(name) ?? { ...(all.get(name) as Projection), rank: 0, scale: 1 };
    return nativeModule(target, parts, weightsFile);
  });
  modules.sort((x, y) => x.layer - y.layer || x.module - y.module);
  const { invocationTokens } = peft;
  return {
    hash: await contentHash(values, weightsFile),
    files: [weightsFile],
    modules,
    ...aloneBecause(modules),
    ...(invocationTokens === undefined ? {} : { invocationTokens }),
  };
}

/** What the configuration asks for is there, and nothing else. */
function checkParts(
  peft: PeftConfig,
  tensors: ReadonlyMap<string, ModuleTensors>,
  wanted: ReadonlyMap<string, Target>,
  weightsName: string,
): void {
  const { reader, loraBias, useDora, modulesToSave } = peft;
  for (const [name, { a, b, bBias, magnitude, whole }] of tensors) {
    const hasLora = Boolean(a ?? b ?? bBias ?? magnitude);
    if (hasLora && !wanted.has(name)) {
      throw reader.invalid(
        'target_modules',
        `does not cover ${name}, but ${weightsName} holds LoRA tensors for it`,
      );
    }
    // PEFT has no bias for the B of an embedding.
    const wants = {
      lora_bias: loraBias && hasLora && !isTable(name),
      use_dora: useDora && hasLora,
    };
    const has = { lora_bias: bBias, use_dora: magnitude };
    for (const field of ['lora_bias', 'use_dora'] as const) {
      if (wants[field] === (has[field] !== undefined)) continue;
      const what = has[field]?.name ?? `none of its tensors for ${name}`;
      throw reader.invalid(field, `is ${wants[field]}, but ${weightsName} holds ${what}`);
    }
    if (hasLora && whole && isSaved(name, modulesToSave)) {
      throw reader.unsupported('modules_to_save', `${name}, which has a LoRA as well`);
    }
  }
  const lacking = [...wanted.keys()].filter((name) => {
    const parts = tensors.get(name);
    return !parts?.a && !parts?.b;
  });
  if (lacking.length > 0) {
    throw reader.invalid(
      'target_modules',
      `covers ${lacking[0]}${lacking.length > 1 ? ` and ${lacking.length - 1} more` : ''}, ` +
        `but ${weightsName} holds no LoRA tensors for it`,
    );
  }
  for (const name of modulesToSave) {
    if ([...tensors].some(([module, { whole }]) => whole && isSaved(module, [name]))) continue;
    throw reader.invalid('modules_to_save', `names ${name}, which ${weightsName} does not hold`);
  }
}

const isSaved = (name: string, modulesToSave: readonly string[]) =>
  modulesToSave.some((saved) => name === saved || name.endsWith(`.${saved}`));

/**
 * The base's own weights in the file take the place of the base's, which PEFT loads them into: of a tied
 * model they are head and embedding. Weights trained with modules_to_save are a copy, and are not.
 */
function shareTiedWeights(
  { modulesToSave }: PeftConfig,
  tensors: Map<string, ModuleTensors>,
  { tiedEmbeddings }: DecoderConfig,
): void {
  if (!tiedEmbeddings) return;
  const [head, embedding] = ['lm_head', 'model.embed_tokens'];
  for (const [from, to] of [
    [head, embedding],
    [embedding, head],
  ] as const) {
    const whole = tensors.get(from)?.whole;
    if (whole === undefined || isSaved(from, modulesToSave)) continue;
    if (tensors.get(to)?.whole === undefined) tensors.set(to, { ...tensors.get(to), whole });
  }
}

/** DoRA and whole modules take the place of what is there: they have no share of it. */
function aloneBecause(modules: readonly NativeAdapterModule[]): { alone?: string } {
  if (modules.some(({ magnitude }) => magnitude)) return { alone: 'is DoRA' };
  if (modules.every(({ whole }) => !whole)) return {};
  const baseCopies = 'base weights that save_embedding_layers=False leaves out';
  return { alone: `holds whole modules (modules_to_save, or ${baseCopies})` };
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

/** sha256 over the config, spelled canonically, and the bytes of the weights. */
async function contentHash(config: unknown, weightsFile: string): Promise<string> {
  try {
    const hash = createHash('sha256').update(`${canonicalJson(config)}\n`);
    const pieces = createReadStream(weightsFile, { highWaterMark: HASHED_AT_A_TIME });
    for await (const piece of pieces) hash.update(piece as Buffer);
    return hash.digest('hex');
  } catch (error) {
    throw fileError(weightsFile, 'ADAPTER_INVALID', error);
  }
}

/** Keys in order, no whitespace. */
function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const fields = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${fields.map(([key, each]) => `${JSON.stringify(key)}:${canonicalJson(each)}`).join(',')}}`;
}
