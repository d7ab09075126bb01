/** A model directory as small as they come: Llama layers of zeros or random numbers, a fixture's tokenizer. */
import { cp, mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fixtureDirectory, type FixtureName } from './fixtures.js';
import { Random } from './random.js';

export interface TinyModelOptions {
  tokenizer?: FixtureName;
  /** Of random weights; unset: zeros. */
  seed?: number;
  hiddenSize?: number;
  contextTokens?: number;
}

const VOCAB = 600;
const EOS: Record<FixtureName, number> = { chatml: 522, llama3: 492, sentencepiece: 2 };

export async function writeTinyModel(
  directory: string,
  { tokenizer = 'chatml', seed, hiddenSize = 8, contextTokens = 256 }: TinyModelOptions = {},
): Promise<void> {
  const config = {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    hidden_size: hiddenSize,
    intermediate_size: 2 * hiddenSize,
    num_hidden_layers: 1,
    num_attention_heads: 2,
    num_key_value_heads: 2,
    hidden_act: 'silu',
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    max_position_embeddings: contextTokens,
    vocab_size: VOCAB,
    tie_word_embeddings: true,
    torch_dtype: 'bfloat16',
    eos_token_id: EOS[tokenizer],
  };
  await mkdir(directory, { recursive: true });
  await cp(fixtureDirectory(tokenizer), directory, { recursive: true });
  await writeFile(path.join(directory, 'config.json'), JSON.stringify(config));
  const layer = 'model.layers.0.';
  const shapes: Record<string, number[]> = {
    'model.embed_tokens.weight': [VOCAB, hiddenSize],
    'model.norm.weight': [hiddenSize],
    [`${layer}input_layernorm.weight`]: [hiddenSize],
    [`${layer}post_attention_layernorm.weight`]: [hiddenSize],
    [`${layer}mlp.gate_proj.weight`]: [2 * hiddenSize, hiddenSize],
    [`${layer}mlp.up_proj.weight`]: [2 * hiddenSize, hiddenSize],
    [`${layer}mlp.down_proj.weight`]: [hiddenSize, 2 * hiddenSize],
  };
  for (const name of ['q', 'k', 'v', 'o']) {
    shapes[`${layer}self_attn.${name}_proj.weight`] = [hiddenSize, hiddenSize];
  }
  const header: Record<string, object> = {};
  const data: Buffer[] = [];
  let offset = 0;
  for (const [name, shape] of Object.entries(shapes)) {
    const values = seed === undefined ? zeros(shape) : randoms(shape, seed + offset);
    header[name] = { dtype: 'BF16', shape, data_offsets: [offset, offset + values.length] };
    data.push(values);
    offset += values.length;
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  await writeFile(
    path.join(directory, 'model.safetensors'),
    Buffer.concat([length, json, ...data]),
  );
}

const count = (shape: number[]) => shape.reduce((product, size) => product * size, 1);

function zeros(shape: number[]): Buffer {
  return Buffer.alloc(2 * count(shape));
}

/** bfloat16, spread so that logits differ by a few units; gains are about one. */
function randoms(shape: number[], seed: number): Buffer {
  const random = new Random(seed);
  const isGain = shape.length === 1;
  const spread = isGain ? 0.2 : 2 / Math.sqrt(shape[1] ?? 1);
  const values = Buffer.alloc(2 * count(shape));
  const float = new DataView(new ArrayBuffer(4));
  for (let at = 0; at < values.length; at += 2) {
    float.setFloat32(0, (isGain ? 1 : 0) + (2 * random.next() - 1) * spread);
    values.writeUInt16LE(float.getUint16(0), at);
  }
  return values;
}
