/** PEFT directories as tests want them, for the tests of peft-adapter.ts. */
import path from 'node:path';
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

export const BASE = parse();
export const ALL = projections(BASE);

/** What PEFT 0.21 writes. */
export const CONFIG: Readonly<Record<string, unknown>> = {
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

export type Tensors = Record<string, TensorSpec>;

export interface Written {
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

export function adapter(written: Written = {}): string {
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

export const read = (written?: Written) => readPeftAdapter(adapter(written), BASE);

/** "layer.module" of all modules. */
export const summary = async (written: Written) =>
  (await read(written)).modules.map(({ layer, module }) => `${layer}.${MODULES[module]}`);

export const SEVEN = MODULES.slice(0, 7);
export const Q0 = 'model.layers.0.self_attn.q_proj';

export async function refused(written: Written, code: LoraxErrorCode, ...parts: string[]) {
  const at = adapter(written);
  return expectError(() => readPeftAdapter(at, BASE), code, at, ...parts);
}
