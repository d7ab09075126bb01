// PEFT directories of random weights for the demo model, the same for a seed. Plain JavaScript, as
// suites that run for long outside of vitest need them.
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const demo = fileURLToPath(new URL('../../../models/demo', import.meta.url));

/** Numbers in [0, 1), the same for a seed. */
export function randomNumbers(seed) {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** One PEFT directory: random bf16 values of any of the projections. */
export function writeAdapter(directory, { rank, seed, alpha = rank }) {
  const random = randomNumbers(seed);
  const config = JSON.parse(fs.readFileSync(path.join(demo, 'config.json'), 'utf8'));
  const { hidden_size: hidden, intermediate_size: inner, head_dim: headDim } = config;
  const [q, kv] = [config.num_attention_heads * headDim, config.num_key_value_heads * headDim];
  const shapes = {
    'self_attn.q_proj': [q, hidden],
    'self_attn.k_proj': [kv, hidden],
    'self_attn.v_proj': [kv, hidden],
    'self_attn.o_proj': [hidden, q],
    'mlp.gate_proj': [inner, hidden],
    'mlp.up_proj': [inner, hidden],
    'mlp.down_proj': [hidden, inner],
  };
  // Half of them are on all seven.
  const modules = Object.keys(shapes).filter(
    (module) => seed % 2 === 0 || module.endsWith('q_proj') || random() < 0.5,
  );
  const header = {};
  let end = 0;
  const add = (name, rows, cols) => {
    header[name] = {
      dtype: 'BF16',
      shape: [rows, cols],
      data_offsets: [end, end + 2 * rows * cols],
    };
    end += 2 * rows * cols;
  };
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    for (const module of modules) {
      const prefix = `base_model.model.model.layers.${layer}.${module}`;
      add(`${prefix}.lora_A.weight`, rank, shapes[module][1]);
      add(`${prefix}.lora_B.weight`, shapes[module][0], rank);
    }
  }
  // Sign, an exponent around 2^-5, mantissa.
  const values = Uint16Array.from({ length: end / 2 }, () => {
    const bits = random() * 2 ** 32;
    return ((bits >>> 16) & 0x807f) | ((121 + ((bits >>> 8) % 3)) << 7);
  });
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  fs.mkdirSync(directory);
  fs.writeFileSync(
    path.join(directory, 'adapter_model.safetensors'),
    Buffer.concat([length, text, Buffer.from(values.buffer)]),
  );
  const peft = {
    ...{ peft_type: 'LORA', task_type: 'CAUSAL_LM', r: rank, lora_alpha: alpha, bias: 'none' },
    target_modules: modules.map((module) => module.split('.')[1]),
  };
  fs.writeFileSync(path.join(directory, 'adapter_config.json'), JSON.stringify(peft));
}
