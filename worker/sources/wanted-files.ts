/**
 * Which files of a folder make an adapter or a model: what is fetched, and what has to be there.
 *
 * A model's pickle files are never fetched; an adapter's .bin is read without running it
 * (worker/files/torch-pickle.ts). Called by the sources.
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
/** What torch.save wrote: wanted where there are no safetensors. */
export const ADAPTER_TORCH_WEIGHTS = 'adapter_model.bin';

export const ADAPTER_FILES: WantedFiles = {
  choose(names, source) {
    const weights = [ADAPTER_WEIGHTS, ADAPTER_TORCH_WEIGHTS].find((name) => names.includes(name));
    if (weights !== undefined && names.includes(ADAPTER_CONFIG)) return [ADAPTER_CONFIG, weights];
    const file = weights === undefined ? ADAPTER_WEIGHTS : ADAPTER_CONFIG;
    throw new LoraxError('ADAPTER_INVALID', `${source} has no ${file}: it is no PEFT adapter.`, {
      data: { source, file },
    });
  },
  async isComplete(directory) {
    const has = (name: string) => exists(directory, name);
    return (
      (await has(ADAPTER_CONFIG)) &&
      ((await has(ADAPTER_WEIGHTS)) || (await has(ADAPTER_TORCH_WEIGHTS)))
    );
  },
};

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
