// Models of a given shape made of random numbers, as directories that both the package and the
// benchmarks without Node read: safetensors shards, and tensors.txt, which lists them for
// bench/gpu/common/dummy_model.cc. Speed does not depend on the values.
//
//     node bench/gpu/make-model.mjs FOLDER [--shape llama-8b|llama2-7b|smollm2-135m|tiny]
//
// Llama-3.1-8B's takes 16 GB of disk or, on a tmpfs, of memory; it is written once, all shards at a
// time. Its adapters: make-adapters.mjs.
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';

const demo = fileURLToPath(new URL('../../models/demo', import.meta.url));

export const SHAPES = {
  'llama-8b': {
    ...{ vocab: 128256, hidden: 4096, intermediate: 14336, layers: 32 },
    ...{ heads: 32, kvHeads: 8, headDim: 128 },
  },
  'llama2-7b': {
    ...{ vocab: 32000, hidden: 4096, intermediate: 11008, layers: 32 },
    ...{ heads: 32, kvHeads: 32, headDim: 128, contextTokens: 4096, ropeTheta: 10000 },
  },
  'smollm2-135m': {
    ...{ vocab: 49152, hidden: 576, intermediate: 1536, layers: 30 },
    ...{ heads: 9, kvHeads: 3, headDim: 64, tiedEmbeddings: true },
  },
  // To try things out without a GPU.
  tiny: {
    ...{ vocab: 4096, hidden: 256, intermediate: 640, layers: 2 },
    ...{ heads: 4, kvHeads: 2, headDim: 64 },
  },
};

const NUM_SHARDS = 8;

/** [out, in] of the seven projections. */
export function projections({ hidden, intermediate, heads, kvHeads, headDim }) {
  return {
    'self_attn.q_proj': [heads * headDim, hidden],
    'self_attn.k_proj': [kvHeads * headDim, hidden],
    'self_attn.v_proj': [kvHeads * headDim, hidden],
    'self_attn.o_proj': [hidden, heads * headDim],
    'mlp.gate_proj': [intermediate, hidden],
    'mlp.up_proj': [intermediate, hidden],
    'mlp.down_proj': [hidden, intermediate],
  };
}

/** Random bf16 of the size of trained weights: sign, small exponent, mantissa. */
export function randomBlock(values) {
  const block = new Uint16Array(values);
  let state = 12345;
  for (let i = 0; i < values; i++) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    block[i] = ((state >>> 16) & 0x807f) | ((119 + ((state >>> 8) % 3)) << 7);
  }
  return Buffer.from(block.buffer);
}

const bytesOf = ([, shape]) => 2 * shape.reduce((a, b) => a * b);

/** The front of a safetensors file of bf16 `tensors` [name, shape], and where in the rest each begins. */
export function safetensorsFront(tensors, metadata = {}) {
  const header = { __metadata__: { format: 'pt', ...metadata } };
  let end = 0;
  const begins = tensors.map((tensor) => {
    const begin = end;
    end += bytesOf(tensor);
    header[tensor[0]] = { dtype: 'BF16', shape: tensor[1], data_offsets: [begin, end] };
    return begin;
  });
  const text = Buffer.from(JSON.stringify(header));
  const padded = Buffer.concat([text, Buffer.alloc((8 - (text.length % 8)) % 8, 0x20)]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  return { front: Buffer.concat([length, padded]), begins, dataBytes: end };
}

/** Writes one safetensors file of bf16 values; the offset of each tensor in the file. */
async function writeSafetensors(file, tensors, block) {
  const { front, begins } = safetensorsFront(tensors);
  const out = await fs.promises.open(file, 'w');
  try {
    await out.writeFile(front);
    for (const tensor of tensors) {
      const ones = Buffer.from(new Uint16Array(tensor[1].at(-1)).fill(0x3f80).buffer);
      const from = tensor[0].includes('norm') ? ones : block;
      for (let left = bytesOf(tensor); left > 0;) {
        left -= (await out.write(from, 0, Math.min(left, from.length))).bytesWritten;
      }
    }
    return begins.map((begin) => front.length + begin);
  } finally {
    await out.close();
  }
}

function writeJson(file, value) {
  fs.writeFileSync(file, JSON.stringify(value));
}

/** Config and tokenizer: the demo's, its vocabulary filled up with words to the shape's size. */
function writeConfig(folder, shape) {
  const read = (name) => JSON.parse(fs.readFileSync(path.join(demo, name), 'utf8'));
  writeJson(path.join(folder, 'config.json'), {
    ...read('config.json'),
    ...{ vocab_size: shape.vocab, hidden_size: shape.hidden },
    ...{ intermediate_size: shape.intermediate, num_hidden_layers: shape.layers },
    ...{ num_attention_heads: shape.heads, num_key_value_heads: shape.kvHeads },
    ...{ head_dim: shape.headDim, rope_theta: shape.ropeTheta ?? 500000 },
    max_position_embeddings: shape.contextTokens ?? 131072,
    tie_word_embeddings: shape.tiedEmbeddings ?? false,
  });
  const tokenizer = read('tokenizer.json');
  const known = Math.max(...Object.values(tokenizer.model.vocab)) + 1;
  for (let id = known; id < shape.vocab; id++) tokenizer.model.vocab[`w${id}`] = id;
  writeJson(path.join(folder, 'tokenizer.json'), tokenizer);
  for (const file of ['tokenizer_config.json', 'generation_config.json']) {
    fs.copyFileSync(path.join(demo, file), path.join(folder, file));
  }
}

function tensorsOf(shape) {
  const { vocab, hidden, layers } = shape;
  const tensors = [['model.embed_tokens.weight', [vocab, hidden]]];
  for (let layer = 0; layer < layers; layer++) {
    const prefix = `model.layers.${layer}.`;
    tensors.push([`${prefix}input_layernorm.weight`, [hidden]]);
    tensors.push([`${prefix}post_attention_layernorm.weight`, [hidden]]);
    for (const [name, dims] of Object.entries(projections(shape))) {
      tensors.push([`${prefix}${name}.weight`, dims]);
    }
  }
  tensors.push(['model.norm.weight', [hidden]]);
  if (!shape.tiedEmbeddings) tensors.push(['lm_head.weight', [vocab, hidden]]);
  return tensors;
}

/** A model directory of `shape`, unless it is there already. */
export async function makeModel(folder, shape) {
  const done = path.join(folder, 'done');
  const key = JSON.stringify(shape);
  if (fs.existsSync(done) && fs.readFileSync(done, 'utf8') === key) return;
  fs.mkdirSync(folder, { recursive: true });
  writeConfig(folder, shape);
  const tensors = tensorsOf(shape);
  const total = tensors.reduce((sum, tensor) => sum + bytesOf(tensor), 0);
  const shards = Array.from({ length: NUM_SHARDS }, () => []);
  let before = 0;
  for (const tensor of tensors) {
    shards[Math.floor((before / total) * NUM_SHARDS)].push(tensor);
    before += bytesOf(tensor);
  }
  const count = String(NUM_SHARDS).padStart(5, '0');
  const names = shards.map((_, i) => `model-${String(i + 1).padStart(5, '0')}-of-${count}`);
  const files = names.map((name) => `${name}.safetensors`);
  const block = randomBlock(1 << 23);
  const offsets = await Promise.all(
    shards.map((shard, i) => writeSafetensors(path.join(folder, files[i]), shard, block)),
  );
  writeJson(path.join(folder, 'model.safetensors.index.json'), {
    metadata: { total_size: total },
    weight_map: Object.fromEntries(
      shards.flatMap((shard, i) => shard.map(([name]) => [name, files[i]])),
    ),
  });
  const { vocab, hidden, intermediate, layers, heads, kvHeads, headDim } = shape;
  const lines = [
    [vocab, hidden, intermediate, layers, heads, kvHeads, headDim].join(' '),
    [files.length, ...files].join(' '),
    ...shards.flatMap((shard, i) =>
      shard.map(([name, dims], t) => {
        const [rows, cols] = dims.length === 1 ? [1, dims[0]] : dims;
        return [name, i, rows, cols, offsets[i][t]].join(' ');
      }),
    ),
  ];
  fs.writeFileSync(path.join(folder, 'tensors.txt'), `${lines.join('\n')}\n`);
  fs.writeFileSync(done, key);
}

if (process.argv[1] && pathToFileURL(path.resolve(process.argv[1])).href === import.meta.url) {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { shape: { type: 'string', default: 'llama-8b' } },
  });
  const [folder] = positionals;
  const shape = SHAPES[values.shape];
  if (folder === undefined || shape === undefined) {
    throw new Error(`make-model.mjs FOLDER [--shape ${Object.keys(SHAPES).join('|')}]`);
  }
  const begin = performance.now();
  await makeModel(folder, shape);
  const seconds = ((performance.now() - begin) / 1e3).toFixed(1);
  process.stdout.write(`make-model: ${values.shape} in ${folder} (${seconds} s)\n`);
}
