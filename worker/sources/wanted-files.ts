/**
 * Which files of a folder make an adapter or a model: what is fetched, and what has to be there.
 *
 * Pickle files are never fetched: opening one runs what is in it. Called by the sources.
 */
import { readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { LoraxError } from '../../src/errors.js';

export interface WantedFiles {
  /** Of all the names there are, those to fetch; throws a LoraxError where one is missing. */
  choose(names: readonly string[], source: string): string[];
  /** All of it is there. */
  isComplete(directory: string): Promise<boolean>;
}

export const ADAPTER_CONFIG = 'adapter_config.json';
export const ADAPTER_WEIGHTS = 'adapter_model.safetensors';
export const ADAPTER_NAMES: readonly string[] = [ADAPTER_CONFIG, ADAPTER_WEIGHTS];

export const ADAPTER_FILES: WantedFiles = {
  choose(names, source) {
    const missing = ADAPTER_NAMES.find((name) => !names.includes(name));
    if (missing === undefined) return [...ADAPTER_NAMES];
    const pickled = names.find((name) => /^adapter_model\.(bin|pt|pth)$/.test(name));
    if (missing === ADAPTER_WEIGHTS && pickled !== undefined) throw pickledAdapter(source, pickled);
    throw new LoraxError('ADAPTER_INVALID', `${source} has no ${missing}: it is no PEFT adapter.`, {
      data: { source, file: missing },
    });
  },
  async isComplete(directory) {
    const found = await Promise.all(ADAPTER_NAMES.map((name) => exists(directory, name)));
    return found.every(Boolean);
  },
};

export function pickledAdapter(source: string, file: string): LoraxError {
  return new LoraxError(
    'ADAPTER_UNSUPPORTED',
    `${source}: ${file} is a pickle, which can run code when it is read; only safetensors are ` +
      'loaded. Convert it: load the adapter with PEFT and save it with ' +
      'save_pretrained(..., safe_serialization=True).',
    { data: { source, file } },
  );
}

const MODEL_INDEX = 'model.safetensors.index.json';
const MODEL_TEXTS =
  /^(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|chat_template|model\.safetensors\.index)\.json$|^chat_template\.jinja$/;
const MODEL_WEIGHTS = /^model(-\d+-of-\d+)?\.safetensors$/;

export const MODEL_FILES: WantedFiles = {
  choose(names, source) {
    const weights = names.filter((name) => MODEL_WEIGHTS.test(name));
    if (weights.length === 0) {
      const other = names.find((name) => /\.(bin|pt|pth|gguf|onnx)$/.test(name));
      const there = other === undefined ? '' : ` (there is ${other})`;
      throw new LoraxError(
        'MODEL_UNSUPPORTED',
        `${source} has no model.safetensors${there}: only safetensors are supported; convert the ` +
          "model with transformers' save_pretrained.",
        { data: { source, file: other ?? null } },
      );
    }
    // Whole and in shards: the whole one is what checkpoint.ts reads.
    const whole = weights.filter((name) => name === 'model.safetensors');
    return [
      ...names.filter((name) => MODEL_TEXTS.test(name)),
      ...(whole.length > 0 ? whole : weights),
    ];
  },
  async isComplete(directory) {
    const texts = ['config.json', 'tokenizer.json'].map((name) => exists(directory, name));
    if (!(await Promise.all(texts)).every(Boolean)) return false;
    if (await exists(directory, 'model.safetensors')) return true;
    try {
      const index = JSON.parse(await readFile(path.join(directory, MODEL_INDEX), 'utf8')) as {
        weight_map: Record<string, string>;
      };
      const shards = [...new Set(Object.values(index.weight_map))];
      const found = await Promise.all(shards.map((name) => exists(directory, name)));
      return shards.length > 0 && found.every(Boolean);
    } catch {
      return false;
    }
  },
};

async function exists(directory: string, name: string): Promise<boolean> {
  return stat(path.join(directory, name)).then(
    (found) => found.isFile(),
    () => false,
  );
}
