/**
 * What a PEFT adapter is: ranks, targets, size, and whether it can be served; nothing is loaded.
 *
 * With a base model the verdict is that of loading, word for word, since it is the same reading;
 * without one only the configuration and the tensors' headers are looked at. What is wrong is part of
 * the report, not thrown. Called by `lorax-js inspect` and `ls`.
 */
import { stat } from 'node:fs/promises';
import path from 'node:path';
import { LoraxError } from '../../src/errors.js';
import { MODULES, type DecoderConfig, type NativeAdapterModule } from '../addon.js';
import { ADAPTER_CODES, readJsonObject, type JsonObject } from '../files/config-reader.js';
import { readPeftAdapter } from '../files/peft-adapter.js';
import { parsePeftConfig } from '../files/peft-config.js';
import { readSafetensors } from '../files/safetensors.js';
import { readTorchFile } from '../files/torch-file.js';
import { ADAPTER_CONFIG, ADAPTER_TORCH_WEIGHTS, ADAPTER_WEIGHTS } from '../sources/wanted-files.js';

export interface AdapterReport {
  directory: string;
  /** As adapter_config.json names the model it was trained on. */
  trainedOn?: string;
  /** Of any module, ascending. */
  ranks: number[];
  /** Last parts of the modules' names. */
  targets: string[];
  alpha?: number;
  /** What it has beside plain A and B. */
  features: string[];
  fileBytes: number;
  /** Of its own weights in the type that the engine keeps them in; unset where the base is not known. */
  engineBytes?: number;
  /** sha256 of its content. Likewise. */
  hash?: string;
  base: 'fits' | 'does-not-fit' | 'not-given';
  /** Why it cannot be served. */
  problem?: { code: string; message: string };
}

/** `base`: of the model it is to be served with. */
export async function reportAdapter(
  directory: string,
  base: DecoderConfig | undefined,
  elementBytes = 2,
): Promise<AdapterReport> {
  const report: AdapterReport = {
    ...{ directory: path.resolve(directory), ranks: [], targets: [], features: [] },
    ...{ fileBytes: 0, base: 'not-given' },
  };
  try {
    await describeFiles(report);
    if (base !== undefined) await describeOnBase(report, base, elementBytes);
  } catch (error) {
    if (!LoraxError.isInstance(error)) throw error;
    report.problem = { code: error.code, message: error.message };
    if (base !== undefined) report.base = 'does-not-fit';
  }
  return report;
}

async function describeFiles(report: AdapterReport): Promise<void> {
  const { directory } = report;
  const configFile = path.join(directory, ADAPTER_CONFIG);
  const values = await readJsonObject(configFile, ADAPTER_CODES);
  describeConfig(report, values);
  const safetensors = path.join(directory, ADAPTER_WEIGHTS);
  const torch = path.join(directory, ADAPTER_TORCH_WEIGHTS);
  const isTorch = (await sizeOf(safetensors)) === 0 && (await sizeOf(torch)) > 0;
  const file = isTorch ? torch : safetensors;
  const weights = isTorch
    ? await readTorchFile(file, ADAPTER_CODES)
    : await readSafetensors(file, 'ADAPTER_INVALID');
  report.fileBytes = await sizeOf(file);
  const ranks = new Set<number>();
  const targets = new Set<string>();
  for (const { name, shape } of weights.tensors.values()) {
    const match = /([^.]+)\.lora_(?:A|embedding_A)(?:\.|$)/.exec(name);
    if (match === null) continue;
    targets.add(match[1] as string);
    ranks.add(shape[0] as number);
  }
  report.ranks = ascending(ranks);
  report.targets = inOrder(targets);
  // Refuses what is not supported by name; the last thing, so that the rest is in the report.
  parsePeftConfig(configFile, values);
}

/** Fields as they stand, whether or not they can be served. */
function describeConfig(report: AdapterReport, values: JsonObject): void {
  const { base_model_name_or_path: trainedOn, lora_alpha: alpha } = values;
  if (typeof trainedOn === 'string' && trainedOn !== '') report.trainedOn = trainedOn;
  if (typeof alpha === 'number') report.alpha = alpha;
  const features: [string, unknown][] = [
    ['DoRA', values.use_dora],
    ['rsLoRA', values.use_rslora],
    ['biases of B', values.lora_bias],
    ['activated LoRA', filled(values.alora_invocation_tokens)],
    ['rank pattern', filled(values.rank_pattern)],
    ['alpha pattern', filled(values.alpha_pattern)],
    ['whole modules', filled(values.modules_to_save)],
  ];
  report.features = features.filter(([, has]) => has === true).map(([name]) => name);
}

async function describeOnBase(
  report: AdapterReport,
  base: DecoderConfig,
  elementBytes: number,
): Promise<void> {
  const { modules, hash } = await readPeftAdapter(report.directory, base);
  report.hash = hash;
  report.ranks = ascending(new Set(modules.map(({ rank }) => rank).filter((rank) => rank > 0)));
  report.targets = inOrder(new Set(modules.map(({ module }) => MODULES[module] as string)));
  report.engineBytes = modules.reduce((sum, module) => sum + valuesOf(module), 0) * elementBytes;
  report.base = 'fits';
}

function valuesOf({ a, b, whole }: NativeAdapterModule): number {
  return [a, b, whole].reduce((sum, each) => sum + (each ? each.rows * each.cols : 0), 0);
}

const sizeOf = (file: string) =>
  stat(file).then(
    ({ size }) => size,
    () => 0,
  );
const filled = (value: unknown) =>
  typeof value === 'object' && value !== null && Object.keys(value).length > 0;
const ascending = (values: ReadonlySet<number>) => [...values].sort((a, b) => a - b);

/** As MODULES has them; names it does not know come last. */
function inOrder(names: ReadonlySet<string>): string[] {
  const place = (name: string) => {
    const index = (MODULES as readonly string[]).indexOf(name);
    return index < 0 ? MODULES.length : index;
  };
  return [...names].sort((a, b) => place(a) - place(b) || a.localeCompare(b));
}
