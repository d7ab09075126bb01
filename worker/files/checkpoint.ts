/**
 * A Hugging Face model directory -> NativeModelSpec: where every weight of the decoder lies.
 *
 * The expected names and shapes follow from the config; a tensor that is missing, of another shape
 * or not expected is an error that names it. Native code may take the result as complete. Only
 * headers are read here.
 */
import { readdir } from 'node:fs/promises';
import path from 'node:path';

import { LoraxError } from '../../src/errors.js';
import type { DecoderConfig, NativeModelSpec, NativeTensor } from '../addon.js';
import { MODEL_CODES, fileError, isJsonObject, readJsonObject, show } from './config-reader.js';
import { readDecoderConfig } from './decoder-config.js';
import { readSafetensors, type SafetensorsFile, type SafetensorsTensor } from './safetensors.js';

const SINGLE = 'model.safetensors';
const INDEX = 'model.safetensors.index.json';

/** Left in files by old conversions; recomputed from the config. */
const HARMLESS_EXTRA = /(^|\.)rotary_emb\.inv_freq$/;

export async function readCheckpoint(directory: string): Promise<NativeModelSpec> {
  const root = path.resolve(directory);
  const names = await listDirectory(root);
  const config = await readDecoderConfig(root);
  const shards = await readShards(root, names);

  const tensors = new Map<string, { tensor: SafetensorsTensor; file: number }>();
  shards.forEach((shard, file) => {
    for (const tensor of shard.tensors.values()) tensors.set(tensor.name, { tensor, file });
  });
  const expected = expectedTensors(config);
  const spec: NativeModelSpec = { config, files: shards.map((shard) => shard.path), tensors: [] };
  for (const [name, shape] of expected) {
    const found = tensors.get(name);
    if (found === undefined) throw missingTensor(root, name, config);
    const path = shards[found.file]?.path ?? root;
    spec.tensors.push(nativeTensor(found.tensor, found.file, shape, path));
  }
  for (const [name, { file }] of tensors) {
    if (expected.has(name) || HARMLESS_EXTRA.test(name)) continue;
    // transformers ties the head whatever the file holds.
    if (name === 'lm_head.weight' && config.tiedEmbeddings) continue;
    throw new LoraxError(
      'MODEL_UNSUPPORTED',
      `${shards[file]?.path}: ${name}: a ${config.architecture} with this config.json has no ` +
        'such weight; leaving it out would change the result',
      { data: { file: shards[file]?.path, field: name } },
    );
  }
  return spec;
}

/** Hugging Face name -> shape, in the order the decoder runs. */
export function expectedTensors(config: DecoderConfig): Map<string, number[]> {
  const { hiddenSize, intermediateSize, headDim, vocabSize } = config;
  const q = config.numHeads * headDim;
  const kv = config.numKvHeads * headDim;
  const expected = new Map<string, number[]>();
  expected.set('model.embed_tokens.weight', [vocabSize, hiddenSize]);
  for (let layer = 0; layer < config.numLayers; layer++) {
    const add = (name: string, ...shape: number[]) =>
      expected.set(`model.layers.${layer}.${name}`, shape);
    add('input_layernorm.weight', hiddenSize);
    add('self_attn.q_proj.weight', q, hiddenSize);
    add('self_attn.k_proj.weight', kv, hiddenSize);
    add('self_attn.v_proj.weight', kv, hiddenSize);
    if (config.qkvBias) {
      add('self_attn.q_proj.bias', q);
      add('self_attn.k_proj.bias', kv);
      add('self_attn.v_proj.bias', kv);
    }
    if (config.qkNorm) {
      add('self_attn.q_norm.weight', headDim);
      add('self_attn.k_norm.weight', headDim);
    }
    add('self_attn.o_proj.weight', hiddenSize, q);
    add('post_attention_layernorm.weight', hiddenSize);
    add('mlp.gate_proj.weight', intermediateSize, hiddenSize);
    add('mlp.up_proj.weight', intermediateSize, hiddenSize);
    add('mlp.down_proj.weight', hiddenSize, intermediateSize);
  }
  expected.set('model.norm.weight', [hiddenSize]);
  if (!config.tiedEmbeddings) expected.set('lm_head.weight', [vocabSize, hiddenSize]);
  return expected;
}

async function listDirectory(root: string): Promise<Set<string>> {
  try {
    return new Set(await readdir(root));
  } catch (error) {
    throw fileError(root, 'MODEL_INVALID', error);
  }
}

async function readShards(root: string, names: Set<string>): Promise<SafetensorsFile[]> {
  if (names.has(SINGLE)) return [await readSafetensors(path.join(root, SINGLE), 'MODEL_INVALID')];
  if (names.has(INDEX)) return readIndexed(root);
  const other = [...names].find((name) => /\.(bin|pt|pth|gguf|onnx)$/.test(name));
  if (other !== undefined) {
    throw new LoraxError(
      'MODEL_UNSUPPORTED',
      `${path.join(root, other)}: only safetensors are supported; convert the model with ` +
        "transformers' save_pretrained",
      { data: { file: path.join(root, other) } },
    );
  }
  throw new LoraxError('MODEL_INVALID', `${root}: neither ${SINGLE} nor ${INDEX} is there`, {
    data: { file: path.join(root, SINGLE) },
  });
}

/** Every tensor is in the shard the index names, in no other, and in the index. */
async function readIndexed(root: string): Promise<SafetensorsFile[]> {
  const file = path.join(root, INDEX);
  const invalid = (field: string, message: string) =>
    new LoraxError('MODEL_INVALID', `${file}: ${field}: ${message}`, { data: { file, field } });
  const weightMap = (await readJsonObject(file, MODEL_CODES))['weight_map'];
  if (!isJsonObject(weightMap)) throw invalid('weight_map', 'expected an object of file names');

  const shardNames = new Set<string>();
  for (const [tensor, shard] of Object.entries(weightMap)) {
    // A plain name: nothing outside this directory can be meant.
    if (typeof shard !== 'string' || !/^[^/\\]+\.safetensors$/.test(shard)) {
      throw invalid(tensor, `${show(shard)} is not the name of a safetensors file beside it`);
    }
    shardNames.add(shard);
  }
  const shards: SafetensorsFile[] = [];
  const seen = new Set<string>();
  for (const name of [...shardNames].sort()) {
    const shard = await readSafetensors(path.join(root, name), 'MODEL_INVALID');
    for (const tensor of shard.tensors.keys()) {
      const listed = Object.hasOwn(weightMap, tensor) ? weightMap[tensor] : undefined;
      if (listed !== name) {
        throw invalid(tensor, `lies in ${name}, but weight_map says ${show(listed ?? null)}`);
      }
      seen.add(tensor);
    }
    shards.push(shard);
  }
  for (const [tensor, shard] of Object.entries(weightMap)) {
    if (!seen.has(tensor)) throw invalid(tensor, `weight_map says ${show(shard)}, not found there`);
  }
  return shards;
}

function nativeTensor(
  tensor: SafetensorsTensor,
  file: number,
  shape: number[],
  path: string,
): NativeTensor {
  const data = { file: path, field: tensor.name };
  const { name, dtype, offset } = tensor;
  if (tensor.shape.length !== shape.length || tensor.shape.some((n, i) => n !== shape[i])) {
    throw new LoraxError(
      'MODEL_INVALID',
      `${path}: ${name}: config.json asks for shape ${show(shape)}, found ${show(tensor.shape)}`,
      { data: { ...data, expected: shape, found: tensor.shape } },
    );
  }
  if (dtype !== 'F32' && dtype !== 'F16' && dtype !== 'BF16') {
    throw new LoraxError(
      'MODEL_UNSUPPORTED',
      `${path}: ${name}: dtype ${dtype} is not supported; use BF16, F16 or F32`,
      { data },
    );
  }
  const [rows, cols] = shape.length === 1 ? [1, shape[0]] : shape;
  return { name, file, dtype, rows: rows ?? 1, cols: cols ?? 1, offset };
}

function missingTensor(root: string, name: string, config: DecoderConfig): LoraxError {
  const hint =
    name === 'lm_head.weight'
      ? ' (if the head is the embedding, config.json needs "tie_word_embeddings": true)'
      : '';
  return new LoraxError(
    'MODEL_INVALID',
    `${root}: no tensor ${name}, which a ${config.architecture} with ${config.numLayers} layers ` +
      `needs${hint}`,
    { data: { file: root, field: name } },
  );
}
