import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';

import { readCheckpoint } from '../../../worker/files/checkpoint.js';
import {
  LLAMA,
  expectError,
  modelTensors,
  parse,
  temporaryDirectory,
  writeJson,
  writeSafetensors,
  type TensorSpec,
} from './fixtures.js';

type Tensors = Record<string, TensorSpec>;

/** A model in one file; `change` edits its tensors before they are written. */
function model(config: Record<string, unknown> = {}, change: (t: Tensors) => void = () => {}) {
  const at = temporaryDirectory();
  writeJson(path.join(at, 'config.json'), { ...LLAMA, ...config });
  const tensors = modelTensors(parse(config));
  change(tensors);
  writeSafetensors(path.join(at, 'model.safetensors'), tensors);
  return at;
}

/** The same in two shards with an index. */
function sharded(changeMap: (map: Record<string, unknown>) => void = () => {}) {
  const at = temporaryDirectory();
  writeJson(path.join(at, 'config.json'), LLAMA);
  const entries = Object.entries(modelTensors(parse()));
  const weightMap: Record<string, unknown> = {};
  [entries.slice(0, 9), entries.slice(9)].forEach((part, i) => {
    const name = `model-0000${i + 1}-of-00002.safetensors`;
    writeSafetensors(path.join(at, name), Object.fromEntries(part));
    for (const [tensor] of part) weightMap[tensor] = name;
  });
  changeMap(weightMap);
  const index = { metadata: { total_size: 1 }, weight_map: weightMap };
  writeJson(path.join(at, 'model.safetensors.index.json'), index);
  return at;
}

describe('a complete model', () => {
  test('names every weight with its place, rows and columns', async () => {
    const at = model();
    const spec = await readCheckpoint(at);
    expect(spec.files).toEqual([path.join(at, 'model.safetensors')]);
    expect(spec.tensors).toHaveLength(1 + 2 * 9 + 2);
    const find = (name: string) => spec.tensors.find((tensor) => tensor.name === name);
    expect(find('model.norm.weight')).toMatchObject({ rows: 1, cols: 16, dtype: 'BF16', file: 0 });
    expect(find('model.layers.1.self_attn.k_proj.weight')).toMatchObject({ rows: 8, cols: 16 });
    expect(find('model.layers.0.mlp.down_proj.weight')).toMatchObject({ rows: 16, cols: 24 });
    expect(find('lm_head.weight')).toMatchObject({ rows: 32, cols: 16 });
  });

  test('tied: no head is needed, and one in the file is not used', async () => {
    const tied = { tie_word_embeddings: true };
    const head = (spec: { tensors: { name: string }[] }) =>
      spec.tensors.filter((tensor) => tensor.name === 'lm_head.weight').length;
    expect(head(await readCheckpoint(model(tied)))).toBe(0);
    const withHead = model(tied, (t) => (t['lm_head.weight'] = { shape: [32, 16] }));
    expect(head(await readCheckpoint(withHead))).toBe(0);
  });

  test('Qwen2 biases and Qwen3 norms are part of it', async () => {
    const qwen2 = {
      architectures: ['Qwen2ForCausalLM'],
      model_type: 'qwen2',
      attention_bias: null,
    };
    const names = (await readCheckpoint(model(qwen2))).tensors.map((tensor) => tensor.name);
    expect(names).toContain('model.layers.1.self_attn.v_proj.bias');
    const qwen3 = { architectures: ['Qwen3ForCausalLM'], model_type: 'qwen3' };
    const more = (await readCheckpoint(model(qwen3))).tensors.map((tensor) => tensor.name);
    expect(more).toContain('model.layers.1.self_attn.q_norm.weight');
  });

  test('shards', async () => {
    const spec = await readCheckpoint(sharded());
    expect(spec.files).toHaveLength(2);
    expect(new Set(spec.tensors.map((tensor) => tensor.file))).toEqual(new Set([0, 1]));
  });

  test('old rotary buffers do not matter, dtypes may be mixed', async () => {
    const at = model({}, (t) => {
      t['model.layers.0.self_attn.rotary_emb.inv_freq'] = { shape: [2] };
      t['model.norm.weight'] = { shape: [16], dtype: 'F32' };
    });
    const spec = await readCheckpoint(at);
    expect(spec.tensors.some((tensor) => tensor.name.includes('inv_freq'))).toBe(false);
  });
});

describe('a wrong model', () => {
  test.each<[string, (t: Tensors) => void, 'MODEL_INVALID' | 'MODEL_UNSUPPORTED', string]>([
    [
      'a missing tensor',
      (t) => delete t['model.layers.1.mlp.up_proj.weight'],
      'MODEL_INVALID',
      'no tensor model.layers.1.mlp.up_proj.weight',
    ],
    [
      'a missing head',
      (t) => delete t['lm_head.weight'],
      'MODEL_INVALID',
      '"tie_word_embeddings": true',
    ],
    [
      'a transposed tensor',
      (t) => (t['model.layers.0.mlp.down_proj.weight'] = { shape: [24, 16] }),
      'MODEL_INVALID',
      'model.layers.0.mlp.down_proj.weight: config.json asks for shape [16,24], found [24,16]',
    ],
    [
      'a norm with two dimensions',
      (t) => (t['model.norm.weight'] = { shape: [1, 16] }),
      'MODEL_INVALID',
      'model.norm.weight: config.json asks for shape [16], found [1,16]',
    ],
    [
      'a bias a Llama does not have',
      (t) => (t['model.layers.0.self_attn.q_proj.bias'] = { shape: [16] }),
      'MODEL_UNSUPPORTED',
      'model.layers.0.self_attn.q_proj.bias',
    ],
    [
      'a third layer',
      (t) => (t['model.layers.2.input_layernorm.weight'] = { shape: [16] }),
      'MODEL_UNSUPPORTED',
      'model.layers.2.input_layernorm.weight',
    ],
    [
      'fp8 weights',
      (t) => (t['model.norm.weight'] = { shape: [16], dtype: 'F8_E4M3' }),
      'MODEL_UNSUPPORTED',
      'dtype F8_E4M3',
    ],
  ])('%s', async (_name, change, code, part) => {
    const at = model({}, change);
    await expectError(() => readCheckpoint(at), code, at, part);
  });

  test.each<[string, (map: Record<string, unknown>) => void, string]>([
    [
      'a tensor in another shard than the index says',
      (map) => (map['model.norm.weight'] = 'model-00001-of-00002.safetensors'),
      'model.norm.weight: lies in model-00002',
    ],
    [
      'a missing shard',
      (map) => (map['model.norm.weight'] = 'model-00003-of-00003.safetensors'),
      'model.norm.weight',
    ],
    ['a tensor not in the index', (map) => delete map['model.norm.weight'], 'model.norm.weight'],
    [
      'an index of more than there is',
      (map) => (map['ghost'] = 'model-00001-of-00002.safetensors'),
      'ghost: weight_map says',
    ],
    [
      'a shard elsewhere',
      (map) => (map['model.norm.weight'] = '../model.safetensors'),
      'model.norm.weight: "../model.safetensors" is not the name',
    ],
  ])('%s', async (_name, change, part) => {
    const at = sharded(change);
    await expectError(() => readCheckpoint(at), 'MODEL_INVALID', at, part);
  });

  test('a shard that is gone', async () => {
    const at = sharded();
    rmSync(path.join(at, 'model-00002-of-00002.safetensors'));
    const part = 'model-00002-of-00002.safetensors: no such file';
    await expectError(() => readCheckpoint(at), 'MODEL_INVALID', part);
  });

  test('no weights, other formats, no config, no directory', async () => {
    const at = model();
    rmSync(path.join(at, 'model.safetensors'));
    await expectError(() => readCheckpoint(at), 'MODEL_INVALID', 'model.safetensors');
    writeFileSync(path.join(at, 'pytorch_model.bin'), '');
    await expectError(() => readCheckpoint(at), 'MODEL_UNSUPPORTED', 'pytorch_model.bin');
    rmSync(path.join(at, 'config.json'));
    await expectError(() => readCheckpoint(at), 'MODEL_INVALID', 'config.json: no such file');
    mkdirSync(path.join(at, 'config.json'));
    await expectError(() => readCheckpoint(at), 'MODEL_INVALID', 'config.json');
    const nowhere = path.join(at, 'nowhere');
    await expectError(() => readCheckpoint(nowhere), 'MODEL_INVALID', nowhere);
  });

  test('a config that is not JSON', async () => {
    const at = model();
    writeFileSync(path.join(at, 'config.json'), '{"vocab_size": NaN}');
    await expectError(() => readCheckpoint(at), 'MODEL_INVALID', 'config.json: not valid JSON');
    writeFileSync(path.join(at, 'config.json'), '[]');
    await expectError(() => readCheckpoint(at), 'MODEL_INVALID', 'expected a JSON object');
  });
});
