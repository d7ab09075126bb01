import { mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';

import type { LoraxErrorCode } from '../../../src/errors.js';
import { MODULES } from '../../../worker/addon.js';
import { readPeftAdapter } from '../../../worker/files/peft-adapter.js';
import { projections } from '../../../worker/files/peft-targets.js';
import {
  expectError,
  parse,
  temporaryDirectory,
  writeJson,
  writeSafetensors,
  type TensorSpec,
} from './fixtures.js';
import { global, pickle, text, torchFile, type TorchTensor } from './torch-fixtures.js';

const BASE = parse();
const ALL = projections(BASE);

/** What PEFT 0.21 writes. */
const CONFIG: Readonly<Record<string, unknown>> = {
  alora_invocation_tokens: null,
  alpha_pattern: {},
  arrow_config: null,
  auto_mapping: null,
  base_model_name_or_path: 'base',
  bias: 'none',
  corda_config: null,
  ensure_weight_tying: false,
  eva_config: null,
  exclude_modules: null,
  fan_in_fan_out: false,
  inference_mode: true,
  init_lora_weights: true,
  kasa_config: null,
  layer_replication: null,
  layers_pattern: null,
  layers_to_transform: null,
  loftq_config: {},
  lora_alpha: 16,
  lora_bias: false,
  lora_dropout: 0.05,
  lora_ga_config: null,
  megatron_config: null,
  megatron_core: 'megatron.core',
  modules_to_save: null,
  monteclora_config: null,
  peft_type: 'LORA',
  peft_version: '0.21.2',
  qalora_group_size: 16,
  r: 4,
  rank_pattern: {},
  revision: null,
  target_modules: ['q_proj', 'v_proj'],
  target_parameters: null,
  task_type: 'CAUSAL_LM',
  trainable_token_indices: null,
  use_bdlora: null,
  use_dora: false,
  use_qalora: false,
  use_rslora: false,
  velora_config: null,
};

type Tensors = Record<string, TensorSpec>;

interface Written {
  config?: Record<string, unknown>;
  /** Projections with tensors: a name ends in one of these. */
  modules?: string[];
  /** Rank of each; 4 unless given. */
  rank?: (name: string) => number;
  /** Tensor name of a projection's half. */
  key?: (name: string, half: 'A' | 'B') => string;
  dtype?: string;
  change?: (tensors: Tensors) => void;
}

function adapter(written: Written = {}): string {
  const at = temporaryDirectory();
  const { config = {}, modules = ['q_proj', 'v_proj'], rank = () => 4, dtype = 'F32' } = written;
  const key = written.key ?? ((name, half) => `base_model.model.${name}.lora_${half}.weight`);
  const tensors: Tensors = {};
  for (const { name, inputSize, outputSize } of ALL.values()) {
    if (!modules.some((each) => name.endsWith(each))) continue;
    tensors[key(name, 'A')] = { shape: [rank(name), inputSize], dtype };
    tensors[key(name, 'B')] = { shape: [outputSize, rank(name)], dtype };
  }
  written.change?.(tensors);
  writeJson(path.join(at, 'adapter_config.json'), { ...CONFIG, ...config });
  writeSafetensors(path.join(at, 'adapter_model.safetensors'), tensors);
  return at;
}

const read = (written?: Written) => readPeftAdapter(adapter(written), BASE);

/** "layer.module" of all modules. */
const summary = async (written: Written) =>
  (await read(written)).modules.map(({ layer, module }) => `${layer}.${MODULES[module]}`);

const SEVEN = MODULES.slice(0, 7);
const Q0 = 'model.layers.0.self_attn.q_proj';

async function refused(written: Written, code: LoraxErrorCode, ...parts: string[]) {
  const at = adapter(written);
  return expectError(() => readPeftAdapter(at, BASE), code, at, ...parts);
}

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

describe('adapter_model.bin', () => {
  const weights = () => {
    const tensors: Record<string, TorchTensor> = {};
    for (const { name, inputSize, outputSize } of ALL.values()) {
      if (!/[qv]_proj$/.test(name)) continue;
      tensors[`base_model.model.${name}.lora_A.weight`] = { shape: [4, inputSize] };
      tensors[`base_model.model.${name}.lora_B.weight`] = { shape: [outputSize, 4] };
    }
    return torchFile(tensors);
  };

  test('is read where there are no safetensors', async () => {
    const at = adapter();
    const safe = await readPeftAdapter(at, BASE);
    writeFileSync(path.join(at, 'adapter_model.bin'), weights());
    expect(await readPeftAdapter(at, BASE)).toEqual(safe);
    rmSync(path.join(at, 'adapter_model.safetensors'));
    const torch = await readPeftAdapter(at, BASE);
    expect(torch.files).toEqual([path.join(at, 'adapter_model.bin')]);
    const shapes = ({ modules }: typeof safe) =>
      modules.map(({ a, b, ...rest }) => ({
        ...rest,
        a: [a?.rows, a?.cols],
        b: [b?.rows, b?.cols],
      }));
    expect(shapes(torch)).toEqual(shapes(safe));
    expect(torch.hash).not.toBe(safe.hash);
    const other = weights();
    other[torch.modules[0]!.a!.offset]! ^= 1;
    writeFileSync(path.join(at, 'adapter_model.bin'), other);
    expect((await readPeftAdapter(at, BASE)).hash).not.toBe(torch.hash);
  });

  test('that names a function is refused, not run', async () => {
    const at = adapter();
    rmSync(path.join(at, 'adapter_model.safetensors'));
    const data = pickle({}, [text('x'), global('os', 'system'), Buffer.from(')R')]);
    const bytes = torchFile({}, [{ name: 'adapter_model/data.pkl', data }]);
    writeFileSync(path.join(at, 'adapter_model.bin'), bytes);
    const parts = ['adapter_model.bin', 'os.system', 'safe_serialization'];
    await expectError(() => readPeftAdapter(at, BASE), 'ADAPTER_UNSUPPORTED', ...parts);
  });
});

const tensor = (name: string) => `base_model.model.${name}`;

describe('biases of B and DoRA', () => {
  const each = (ending: string) => (t: Tensors) => {
    for (const { name, outputSize } of ALL.values()) {
      if (/[qv]_proj$/.test(name)) t[tensor(`${name}.${ending}`)] = { shape: [outputSize] };
    }
  };

  test('are one value per output', async () => {
    const bias = await read({ config: { lora_bias: true }, change: each('lora_B.bias') });
    expect(bias.modules[1]).toMatchObject({ module: 2, bBias: { rows: 1, cols: 8 } });
    expect(bias.alone).toBeUndefined();
    for (const ending of ['lora_magnitude_vector', 'lora_magnitude_vector.default.weight']) {
      const dora = await read({ config: { use_dora: true }, change: each(ending) });
      expect(dora.modules[0]).toMatchObject({ module: 0, magnitude: { rows: 1, cols: 16 } });
      expect(dora.alone).toBe('is DoRA');
    }
  });

  test('are there if and only if the config says so', async () => {
    const bias = { change: each('lora_B.bias') };
    await refused(bias, 'ADAPTER_INVALID', 'lora_bias: is false', 'lora_B.bias');
    await refused({ config: { lora_bias: true } }, 'ADAPTER_INVALID', 'lora_bias: is true', 'none');
    const dora = { change: each('lora_magnitude_vector') };
    await refused(dora, 'ADAPTER_INVALID', 'use_dora: is false', 'lora_magnitude_vector');
    await refused({ config: { use_dora: true } }, 'ADAPTER_INVALID', 'use_dora: is true', 'none');
    const both = { use_dora: true, lora_bias: true };
    await refused({ config: both }, 'ADAPTER_INVALID', 'lora_bias: cannot go with use_dora');
  });

  test('of another shape', async () => {
    const change = (t: Tensors) => {
      each('lora_B.bias')(t);
      t[tensor(`${Q0}.lora_B.bias`)] = { shape: [17] };
    };
    const parts = [`${Q0}.lora_B.bias`, 'expected shape [16], found [17]', 'another base model'];
    await refused({ config: { lora_bias: true }, change }, 'ADAPTER_INVALID', ...parts);
  });
});

describe('head and embedding', () => {
  const LORA: Tensors = {
    [tensor('lm_head.lora_A.weight')]: { shape: [4, 16] },
    [tensor('lm_head.lora_B.weight')]: { shape: [32, 4] },
    [tensor('model.embed_tokens.lora_embedding_A')]: { shape: [4, 32] },
    [tensor('model.embed_tokens.lora_embedding_B')]: { shape: [16, 4] },
  };
  const only = (part: string): Tensors =>
    Object.fromEntries(Object.entries(LORA).filter(([name]) => name.includes(part)));
  const whole = (name: string, ending = 'weight'): Tensors => ({
    [tensor(`${name}.${ending}`)]: { shape: [32, 16] },
  });
  const writing =
    (...tensors: Tensors[]) =>
    (t: Tensors) =>
      Object.assign(t, ...tensors);
  const Q = ['q_proj'];
  const of = async (written: Written, base = BASE) => {
    const spec = await readPeftAdapter(adapter({ modules: Q, ...written }), base);
    return spec.modules.filter(({ module }) => module >= 7);
  };
  const TIED = parse({ tie_word_embeddings: true });

  test('have LoRAs of their own', async () => {
    const target_modules = ['q_proj', 'lm_head', 'embed_tokens'];
    const found = await of({ config: { target_modules }, change: writing(LORA) });
    expect(found).toMatchObject([
      { layer: 0, module: 7, rank: 4, a: { rows: 4, cols: 16 }, b: { rows: 32, cols: 4 } },
      { layer: 0, module: 8, rank: 4, a: { rows: 4, cols: 32 }, b: { rows: 16, cols: 4 } },
    ]);
    const head = { config: { target_modules: ['q_proj', 'lm_head'] } };
    expect(await of({ ...head, change: writing(only('lm_head')) })).toHaveLength(1);
    await refused({ ...head, modules: Q }, 'ADAPTER_INVALID', 'covers lm_head');
    const change = writing(LORA);
    const parts = ['target_modules', 'does not cover model.embed_tokens'];
    await refused({ ...head, modules: Q, change }, 'ADAPTER_INVALID', ...parts);
  });

  test('are whole where modules_to_save names them', async () => {
    const config = { target_modules: Q, modules_to_save: ['embed_tokens', 'lm_head'] };
    const change = writing(whole('lm_head'), whole('model.embed_tokens'));
    const found = await of({ config, change });
    expect(found).toMatchObject([
      { module: 7, rank: 0, whole: { rows: 32, cols: 16 } },
      { module: 8, rank: 0, whole: { rows: 32, cols: 16 } },
    ]);
    expect(found[0]).not.toHaveProperty('a');
    expect((await read({ config, modules: Q, change })).alone).toContain('holds whole modules');
    const one = { config, modules: Q, change: writing(whole('lm_head')) };
    await refused(one, 'ADAPTER_INVALID', 'modules_to_save: names embed_tokens');
  });

  test('of a tied model: trained weights are a copy, the base’s own are both', async () => {
    const saved = { target_modules: Q, modules_to_save: ['embed_tokens'] };
    const change = writing(whole('model.embed_tokens'));
    expect((await of({ config: saved, change }, TIED)).map(({ module }) => module)).toEqual([8]);
    const config = { target_modules: Q };
    const [head, embedding] = await of({ config, change }, TIED);
    expect([head?.module, embedding?.module]).toEqual([7, 8]);
    expect(head?.whole).toEqual(embedding?.whole);
    expect((await of({ config, change })).map(({ module }) => module)).toEqual([8]);
  });

  test('have the base’s own weights beside their LoRA', async () => {
    const config = { target_modules: ['q_proj', 'embed_tokens'] };
    const base = whole('model.embed_tokens', 'base_layer.weight');
    const change = writing(only('embed_tokens'), base);
    expect(await of({ config, change })).toMatchObject([{ module: 8, rank: 4, whole: {}, a: {} }]);
    const both = { ...config, modules_to_save: ['embed_tokens'] };
    const parts = ['modules_to_save', 'which has a LoRA as well'];
    await refused({ config: both, modules: Q, change }, 'ADAPTER_UNSUPPORTED', ...parts);
  });

  test('are adapted together with ensure_weight_tying, where the model ties them', async () => {
    const config = { target_modules: ['q_proj', 'embed_tokens'], ensure_weight_tying: true };
    expect(await of({ config, change: writing(LORA) }, TIED)).toHaveLength(2);
    expect(await of({ config, change: writing(only('embed_tokens')) })).toHaveLength(1);
    await refused({ config, modules: Q, change: writing(LORA) }, 'ADAPTER_INVALID', 'lm_head');
  });

  test('have tensors of their own names', async () => {
    const config = { target_modules: ['q_proj', 'embed_tokens'] };
    const change = writing({ [tensor('model.embed_tokens.lora_A.weight')]: { shape: [4, 32] } });
    await refused({ config, modules: Q, change }, 'ADAPTER_INVALID', 'not named as PEFT');
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
