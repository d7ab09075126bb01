import { mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';

import { readPeftAdapter } from '../../../worker/files/peft-adapter.js';
import { expectError, temporaryDirectory, writeJson } from './fixtures.js';
import {
  BASE,
  type Tensors,
  CONFIG,
  type Written,
  adapter,
  read,
  summary,
  SEVEN,
  Q0,
  refused,
} from './peft-directories.js';

describe('directories as people have them', () => {
  test('the plain case', async () => {
    const spec = await read();
    expect(spec.hash).toMatch(/^[0-9a-f]{64}$/);
    expect(spec.modules).toHaveLength(4);
    expect(spec.modules[0]).toMatchObject({ layer: 0, module: 0, rank: 4, scale: 4 });
    expect(spec.modules[1]).toMatchObject({
      module: 2,
      a: { rows: 4, cols: 16, dtype: 'F32', file: 0 },
      b: { rows: 8, cols: 4 },
    });
    const { size } = { size: readFileSync(spec.files[0] as string).length };
    const ends = spec.modules.flatMap(({ a, b }) =>
      [a!, b!].map((t) => t.offset + t.rows * t.cols * 4),
    );
    expect(Math.max(...ends)).toBe(size);
  });

  test.each(['F32', 'F16', 'BF16'])('%s', async (dtype) => {
    expect((await read({ dtype })).modules[0]?.a?.dtype).toBe(dtype);
  });

  test.each<[string, Written['key']]>([
    ['without prefix', (name, half) => `${name}.lora_${half}.weight`],
    ['with .default', (name, half) => `base_model.model.${name}.lora_${half}.default.weight`],
    ['with neither', (name, half) => `${name}.lora_${half}.default.weight`],
  ])('keys %s', async (_name, key) => {
    expect((await read({ key })).modules).toHaveLength(4);
  });

  test('all-linear is all seven projections', async () => {
    const spec = await read({ modules: SEVEN, config: { target_modules: 'all-linear' } });
    expect(spec.modules).toHaveLength(14);
    const down = spec.modules[6];
    expect(down).toMatchObject({ a: { rows: 4, cols: 24 }, b: { rows: 16, cols: 4 } });
  });

  test('a list may hold endings, full names and names of other models', async () => {
    const config = { target_modules: ['self_attn.k_proj', Q0, 'c_attn'] };
    expect(await summary({ modules: ['k_proj', Q0], config })).toEqual([
      '0.q_proj',
      '0.k_proj',
      '1.k_proj',
    ]);
  });

  test('a regular expression matches whole names, flags and named groups included', async () => {
    const config = {
      target_modules: String.raw`(?i)MODEL\.layers\.(?P<n>\d+)\.(self_attn|mlp)\.(o|up)_proj`,
    };
    const modules = ['o_proj', 'up_proj'];
    expect(await summary({ modules, config })).toHaveLength(4);
    const part = { target_modules: String.raw`layers\.\d+\.self_attn\.o_proj` };
    await refused({ modules: ['o_proj'], config: part }, 'ADAPTER_INVALID', 'matches none');
  });

  test('exclude_modules, as list and as regular expression', async () => {
    const target_modules = ['q_proj', 'v_proj'];
    const list = { target_modules, exclude_modules: ['v_proj', 'layers.1.self_attn.q_proj'] };
    expect(await summary({ modules: [Q0], config: list })).toEqual(['0.q_proj']);
    const regex = { target_modules, exclude_modules: String.raw`.*\.1\..*|.*v_proj` };
    expect(await summary({ modules: [Q0], config: regex })).toEqual(['0.q_proj']);
  });

  test('layers_to_transform with and without layers_pattern', async () => {
    const modules = ['layers.1.self_attn.q_proj'];
    const q = { target_modules: ['q_proj'] };
    for (const layers of [1, [1], [1, 7]]) {
      const config = { ...q, layers_to_transform: layers };
      expect(await summary({ modules, config })).toEqual(['1.q_proj']);
      const patterns = ['layers', ['h', 'layers']].map((layers_pattern) => ({
        ...config,
        layers_pattern,
      }));
      for (const each of patterns) {
        expect(await summary({ modules, config: each })).toEqual(['1.q_proj']);
      }
    }
    const everywhere = { ...q, layers_to_transform: [], layers_pattern: 'layers' };
    expect(await summary({ modules: ['q_proj'], config: everywhere })).toHaveLength(2);
    // A full name is taken in any layer.
    const named = { target_modules: [Q0], layers_to_transform: [1] };
    expect(await summary({ modules: [Q0], config: named })).toEqual(['0.q_proj']);
    const elsewhere = { ...q, layers_to_transform: [1], layers_pattern: 'h' };
    await refused({ modules, config: elsewhere }, 'ADAPTER_INVALID', 'matches none');
  });

  test('rank_pattern and alpha_pattern: the first key that matches a name’s end', async () => {
    const spec = await read({
      config: {
        rank_pattern: { [String.raw`layers\.1\.self_attn\.v_proj`]: 2, v_proj: 8 },
        alpha_pattern: { 'self_attn.q_proj': 1, [`^${Q0}`]: 99, proj: 99 },
      },
      rank: (name) => (name.endsWith('q_proj') ? 4 : name.includes('.1.') ? 2 : 8),
    });
    expect(spec.modules.map(({ rank, scale }) => [rank, scale])).toEqual([
      [4, 1 / 4],
      [8, 16 / 8],
      [4, 1 / 4],
      [2, 16 / 2],
    ]);
  });

  test('a key anchored with ^ matches whole names only', async () => {
    const config = { rank_pattern: { [`^${Q0}`]: 2, '^q_proj': 3 } };
    const rank = (name: string) => (name === Q0 ? 2 : 4);
    const spec = await read({ config, rank });
    expect(spec.modules.map((module) => module.rank)).toEqual([2, 4, 4, 4]);
  });

  test('use_rslora divides by the root of the rank', async () => {
    expect((await read({ config: { use_rslora: true } })).modules[0]?.scale).toBe(16 / 2);
  });

  test.each(['all', 'lora_only'])('bias: %s, where the base has none to train', async (bias) => {
    expect((await read({ config: { bias } })).modules).toHaveLength(4);
    const change = (t: Tensors) => (t[`base_model.model.${Q0}.base_layer.bias`] = { shape: [16] });
    await refused({ config: { bias }, change }, 'ADAPTER_UNSUPPORTED', 'base_layer.bias', 'bias');
  });

  test('old configs without newer fields, and null target_modules', async () => {
    const at = adapter();
    const minimal = { peft_type: 'LORA', r: 4, lora_alpha: 8, target_modules: null };
    writeJson(path.join(at, 'adapter_config.json'), minimal);
    expect((await readPeftAdapter(at, BASE)).modules).toHaveLength(4);
  });
});

describe('not supported: refused by name', () => {
  test.each<[string, unknown]>([
    ['modules_to_save', ['lm_head', 'norm']],
    ['modules_to_save', ['score']],
    ['bias', 'some'],
    ['fan_in_fan_out', true],
    ['alora_invocation_string', 'Assistant:'],
    ['trainable_token_indices', [3]],
    ['target_parameters', ['experts.weight']],
    ['layer_replication', [[0, 1]]],
    ['use_qalora', true],
    ['velora_config', { a: 1 }],
    ['kasa_config', { beta: 1 }],
    ['use_bdlora', { nblocks: 2 }],
    ['arrow_config', { top_k: 3 }],
    ['monteclora_config', { num_samples: 8 }],
    ['megatron_config', { x: 1 }],
    ['init_lora_weights', 'pissa'],
    ['init_lora_weights', 'loftq'],
    ['task_type', 'SEQ_CLS'],
    ['peft_type', 'IA3'],
    ['peft_type', 'ADALORA'],
    ['some_new_feature', 0.5],
    ['some_new_feature', 'on'],
  ])('%s: %j', async (field, value) => {
    const error = await refused({ config: { [field]: value } }, 'ADAPTER_UNSUPPORTED', field);
    expect(error.data['field']).toBe(field);
  });

  test.each([[null], [false], [[]], [{}], ['']])('an unknown field at %j is off', async (value) => {
    expect((await read({ config: { some_new_feature: value } })).modules).toHaveLength(4);
  });

  test.each<[string, string, string]>([
    ['a trained norm', 'base_model.model.model.norm.weight', 'modules_to_save'],
    ['a bias of the base', `base_model.model.${Q0}.bias`, 'bias'],
    [
      'rows of the embedding',
      'base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta',
      'trainable_token_indices',
    ],
  ])('a tensor that is %s', async (_name, tensor, part) => {
    const change = (t: Tensors) => (t[tensor] = { shape: [2, 2] });
    await refused({ change }, 'ADAPTER_UNSUPPORTED', tensor, part);
  });

  test('a vocabulary of another size', async () => {
    for (const name of ['lm_head', 'model.embed_tokens']) {
      const change = (t: Tensors) => {
        t[`base_model.model.${name}.weight`] = { shape: [34, 16] };
      };
      const part = 'a vocabulary of 34 tokens, where the base model has 32';
      await refused({ change }, 'ADAPTER_UNSUPPORTED', `${name}.weight`, part);
    }
  });

  test('other element types', async () => {
    await refused({ dtype: 'F64' }, 'ADAPTER_UNSUPPORTED', 'dtype F64', 'lora_A');
  });

  test('pickles under names that PEFT does not know', async () => {
    const at = adapter();
    rmSync(path.join(at, 'adapter_model.safetensors'));
    writeFileSync(path.join(at, 'adapter_model.pt'), '');
    const work = () => readPeftAdapter(at, BASE);
    await expectError(work, 'ADAPTER_UNSUPPORTED', 'adapter_model.pt', 'adapter_model.bin');
  });
});

describe('config and tensors that disagree', () => {
  test('tensors that target_modules does not cover', async () => {
    const written = { modules: ['q_proj', 'v_proj', 'o_proj'] };
    await refused(written, 'ADAPTER_INVALID', 'target_modules', 'layers.0.self_attn.o_proj');
  });

  test('targets without tensors', async () => {
    const change = (t: Tensors) => {
      for (const half of ['A', 'B']) {
        delete t[`base_model.model.model.layers.1.self_attn.v_proj.lora_${half}.weight`];
      }
    };
    await refused({ change }, 'ADAPTER_INVALID', 'target_modules', 'layers.1.self_attn.v_proj');
  });

  test('another rank than the config says', async () => {
    const part = 'expected shape [4,16], found [8,16]: adapter_config.json gives rank 4';
    await refused({ rank: () => 8 }, 'ADAPTER_INVALID', `${Q0}.lora_A.weight`, part);
  });

  test('another base model: sizes', async () => {
    const change = (t: Tensors) => {
      t[`base_model.model.${Q0}.lora_A.weight`] = { shape: [4, 32] };
    };
    const part = 'expected shape [4,16], found [4,32]: it was trained on another base model';
    await refused({ change }, 'ADAPTER_INVALID', `${Q0}.lora_A.weight`, part);
  });

  test('another base model: layers', async () => {
    const name = 'base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight';
    const change = (t: Tensors) => (t[name] = { shape: [4, 16] });
    await refused({ change }, 'ADAPTER_INVALID', name, '2 layers', 'another base model');
  });

  test('another base model: modules', async () => {
    const name = 'base_model.model.model.layers.0.self_attn.qkv_proj.lora_A.weight';
    const change = (t: Tensors) => (t[name] = { shape: [4, 16] });
    await refused({ change }, 'ADAPTER_INVALID', name, 'no projection');
  });

  test('A without B, B without A', async () => {
    for (const [gone, there] of [
      ['A', 'B'],
      ['B', 'A'],
    ]) {
      const change = (t: Tensors) => delete t[`base_model.model.${Q0}.lora_${gone}.weight`];
      const parts = [`${Q0}.lora_${gone}.weight: missing`, `lora_${there}.weight is there`];
      await refused({ change }, 'ADAPTER_INVALID', ...parts);
    }
  });

  test('one weight under two names', async () => {
    const change = (t: Tensors) => (t[`${Q0}.lora_A.weight`] = { shape: [4, 16] });
    await refused({ change }, 'ADAPTER_INVALID', 'names the same weight');
  });

  test('three dimensions', async () => {
    const change = (t: Tensors) => {
      t[`base_model.model.${Q0}.lora_A.weight`] = { shape: [1, 4, 16] };
    };
    await refused({ change }, 'ADAPTER_INVALID', 'two dimensions', '[1,4,16]');
  });
});

describe('invalid', () => {
  test.each<[string, unknown]>([
    ['r', 0],
    ['r', -4],
    ['r', '4'],
    ['lora_alpha', 'x'],
    ['rank_pattern', { q_proj: 0 }],
    ['rank_pattern', ['q_proj']],
    ['alpha_pattern', { q_proj: 'x' }],
    ['target_modules', 7],
    ['target_modules', ['q_proj', 7]],
    ['target_modules', []],
    ['target_modules', ['nothing']],
    ['target_modules', '('],
    ['exclude_modules', '['],
    ['layers_to_transform', ['1']],
    ['layers_pattern', 'layers'],
    ['use_rslora', 1],
    ['peft_type', null],
  ])('%s: %j', async (field, value) => {
    await refused({ config: { [field]: value } }, 'ADAPTER_INVALID', field);
  });

  test('a string as target_modules cannot go with layers', async () => {
    const config = { target_modules: '.*q_proj', layers_to_transform: [0] };
    await refused({ config }, 'ADAPTER_INVALID', 'layers_to_transform');
  });

  test('rank 0 in the tensors', async () => {
    await refused({ rank: () => 0 }, 'ADAPTER_INVALID', 'rank 0');
  });

  // Python's re does not come back from these.
  test.each<[string, unknown]>([
    ['target_modules', String.raw`([\w.]+)+!`],
    ['exclude_modules', String.raw`(.*\.)*(.*\.)*(.*\.)*(.*_)*(.*)*x`],
    ['rank_pattern', { [String.raw`([\w.]+)+!`]: 4 }],
  ])('%s that never ends is refused in time', async (field, value) => {
    const start = performance.now();
    await refused({ config: { [field]: value } }, 'ADAPTER_UNSUPPORTED', field, 'backtracks');
    expect(performance.now() - start).toBeLessThan(5000);
  });

  test('no tensors, truncated weights, broken config, missing files', async () => {
    await refused({ modules: [] }, 'ADAPTER_INVALID', 'holds no LoRA tensors');

    const at = adapter();
    const weights = path.join(at, 'adapter_model.safetensors');
    const work = () => readPeftAdapter(at, BASE);
    writeFileSync(weights, readFileSync(weights).subarray(0, -4));
    await expectError(work, 'ADAPTER_INVALID', 'adapter_model.safetensors', 'reach past');
    rmSync(weights);
    await expectError(work, 'ADAPTER_INVALID', 'adapter_model.safetensors: no such file');
    writeFileSync(path.join(at, 'adapter_config.json'), '{');
    writeFileSync(weights, '');
    await expectError(work, 'ADAPTER_INVALID', 'adapter_config.json', 'not valid JSON');
    rmSync(path.join(at, 'adapter_config.json'));
    await expectError(work, 'ADAPTER_INVALID', 'adapter_config.json: no such file');
    rmSync(at, { recursive: true });
    await expectError(work, 'ADAPTER_INVALID', at);
    mkdirSync(at);
  });
});

describe('links', () => {
  test('out of the directory are refused', async () => {
    const elsewhere = adapter();
    const at = adapter();
    for (const name of ['adapter_model.safetensors', 'adapter_config.json']) {
      rmSync(path.join(at, name));
      symlinkSync(path.join(elsewhere, name), path.join(at, name));
      await expectError(() => readPeftAdapter(at, BASE), 'ADAPTER_INVALID', name, 'outside');
      rmSync(path.join(at, name));
      writeFileSync(path.join(at, name), readFileSync(path.join(elsewhere, name)));
    }
  });

  test('within it, to it, and into the hub cache’s blobs are fine', async () => {
    const at = adapter();
    const expected = (await readPeftAdapter(at, BASE)).hash;
    const link = path.join(temporaryDirectory(), 'link');
    symlinkSync(at, link);
    expect((await readPeftAdapter(link, BASE)).hash).toBe(expected);

    const repo = temporaryDirectory();
    const snapshot = path.join(repo, 'snapshots', 'abc');
    mkdirSync(snapshot, { recursive: true });
    mkdirSync(path.join(repo, 'blobs'));
    for (const name of ['adapter_model.safetensors', 'adapter_config.json']) {
      writeFileSync(path.join(repo, 'blobs', `${name}-sha`), readFileSync(path.join(at, name)));
      symlinkSync(`../../blobs/${name}-sha`, path.join(snapshot, name));
    }
    expect((await readPeftAdapter(snapshot, BASE)).hash).toBe(expected);
  });
});

describe('content hash', () => {
  test('is of content: not of the place, nor of the order of fields', async () => {
    const one = adapter();
    const two = adapter();
    const reordered = Object.fromEntries(Object.entries(CONFIG).reverse());
    writeJson(path.join(two, 'adapter_config.json'), reordered);
    const { hash } = await readPeftAdapter(one, BASE);
    expect((await readPeftAdapter(two, BASE)).hash).toBe(hash);
  });

  test('changes with any byte of the weights and any setting', async () => {
    const at = adapter();
    const { hash } = await readPeftAdapter(at, BASE);
    const weights = path.join(at, 'adapter_model.safetensors');
    const bytes = readFileSync(weights);
    bytes[bytes.length - 1] = 8;
    writeFileSync(weights, bytes);
    expect((await readPeftAdapter(at, BASE)).hash).not.toBe(hash);
    expect((await read({ config: { lora_alpha: 17 } })).hash).not.toBe(hash);
  });
});
