import { rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, test } from 'vitest';

import { readPeftAdapter } from '../../../worker/files/peft-adapter.js';
import { expectError, parse } from './fixtures.js';
import {
  BASE,
  ALL,
  type Tensors,
  type Written,
  adapter,
  read,
  Q0,
  refused,
} from './peft-directories.js';
import { global, pickle, text, torchFile, type TorchTensor } from './torch-fixtures.js';

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
