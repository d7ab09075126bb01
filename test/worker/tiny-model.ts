// A model directory as small as they come: one Llama layer of zeros and the chatml tokenizer.
import { cp, mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fixtureDirectory } from './fixtures.js';

const CONFIG = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  hidden_size: 8,
  intermediate_size: 16,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  num_key_value_heads: 2,
  hidden_act: 'silu',
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  max_position_embeddings: 256,
  vocab_size: 600,
  tie_word_embeddings: true,
  torch_dtype: 'bfloat16',
  eos_token_id: 522,
};

export async function writeTinyModel(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true });
  await cp(fixtureDirectory('chatml'), directory, { recursive: true });
  await writeFile(path.join(directory, 'config.json'), JSON.stringify(CONFIG));
  const layer = 'model.layers.0.';
  const shapes: Record<string, number[]> = {
    'model.embed_tokens.weight': [600, 8],
    'model.norm.weight': [8],
    [`${layer}input_layernorm.weight`]: [8],
    [`${layer}post_attention_layernorm.weight`]: [8],
    [`${layer}mlp.gate_proj.weight`]: [16, 8],
    [`${layer}mlp.up_proj.weight`]: [16, 8],
    [`${layer}mlp.down_proj.weight`]: [8, 16],
  };
  for (const name of ['q', 'k', 'v', 'o']) shapes[`${layer}self_attn.${name}_proj.weight`] = [8, 8];
  const header: Record<string, object> = {};
  let offset = 0;
  for (const [name, shape] of Object.entries(shapes)) {
    const bytes = 2 * shape.reduce((product, size) => product * size, 1);
    header[name] = { dtype: 'BF16', shape, data_offsets: [offset, offset + bytes] };
    offset += bytes;
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  await writeFile(
    path.join(directory, 'model.safetensors'),
    Buffer.concat([length, json, Buffer.alloc(offset)]),
  );
}
