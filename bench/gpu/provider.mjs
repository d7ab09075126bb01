// The same streams as engine_bench, through the AI SDK provider as users write it.
//
//   node bench/gpu/provider.mjs FOLDER [STREAMS] [SHORT] [LONG] [ADAPTERS]
//
// Makes a model of Llama-3.1-8B's shape from random numbers in FOLDER (16 GB, once), and, with
// ADAPTERS, so many rank-16 adapters over which the streams are spread. Prints milliseconds a step
// and tokens/s, as engine_bench does.
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { streamText } from 'ai';

// bench/ is a package of its own, so the one above has no name here.
import { createLorax } from '../../dist/index.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const [folder = '/tmp/llama-8b', streams = 64, shorter = 64, longer = 192, adapters = 0] =
  process.argv.slice(2).map((value, index) => (index === 0 ? value : Number(value)));

const HIDDEN = 4096;
const INNER = 14336;
const KV = 1024;
const LAYERS = 32;
const VOCAB = 128256;
const PROJECTIONS = {
  'self_attn.q_proj': [HIDDEN, HIDDEN],
  'self_attn.k_proj': [KV, HIDDEN],
  'self_attn.v_proj': [KV, HIDDEN],
  'self_attn.o_proj': [HIDDEN, HIDDEN],
  'mlp.gate_proj': [INNER, HIDDEN],
  'mlp.up_proj': [INNER, HIDDEN],
  'mlp.down_proj': [HIDDEN, INNER],
};

/** Random bf16 of the size of trained weights: sign, small exponent, mantissa. */
function randomBlock(values) {
  const block = new Uint16Array(values);
  let state = 12345;
  for (let i = 0; i < values; i++) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    block[i] = ((state >>> 16) & 0x807f) | ((119 + ((state >>> 8) % 3)) << 7);
  }
  return Buffer.from(block.buffer);
}

function writeSafetensors(file, tensors) {
  const header = {};
  let offset = 0;
  for (const [name, shape] of tensors) {
    const bytes = 2 * shape.reduce((a, b) => a * b);
    header[name] = { dtype: 'BF16', shape, data_offsets: [offset, offset + bytes] };
    offset += bytes;
  }
  const text = Buffer.from(JSON.stringify(header));
  const padded = Buffer.concat([text, Buffer.alloc((8 - (text.length % 8)) % 8, 0x20)]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  const out = fs.openSync(file, 'w');
  fs.writeSync(out, Buffer.concat([length, padded]));
  const block = randomBlock(1 << 23);
  const ones = Buffer.from(new Uint16Array(HIDDEN).fill(0x3f80).buffer);
  for (const [name, shape] of tensors) {
    let left = 2 * shape.reduce((a, b) => a * b);
    const from = name.includes('norm') ? ones : block;
    while (left > 0) left -= fs.writeSync(out, from, 0, Math.min(left, from.length));
  }
  fs.closeSync(out);
}

function makeModel() {
  if (fs.existsSync(path.join(folder, 'done'))) return;
  fs.mkdirSync(folder, { recursive: true });
  const demo = path.join(root, 'models', 'demo');
  const config = JSON.parse(fs.readFileSync(path.join(demo, 'config.json'), 'utf8'));
  Object.assign(config, {
    ...{ vocab_size: VOCAB, hidden_size: HIDDEN, intermediate_size: INNER },
    ...{ num_hidden_layers: LAYERS, num_attention_heads: 32, num_key_value_heads: 8 },
    ...{ head_dim: 128, max_position_embeddings: 131072, rope_theta: 500000 },
    tie_word_embeddings: false,
  });
  fs.writeFileSync(path.join(folder, 'config.json'), JSON.stringify(config));
  // The demo's tokenizer, filled up with words of its own to the vocabulary's size.
  const tokenizer = JSON.parse(fs.readFileSync(path.join(demo, 'tokenizer.json'), 'utf8'));
  const known = Math.max(...Object.values(tokenizer.model.vocab)) + 1;
  for (let id = known; id < VOCAB; id++) tokenizer.model.vocab[`w${id}`] = id;
  fs.writeFileSync(path.join(folder, 'tokenizer.json'), JSON.stringify(tokenizer));
  for (const file of ['tokenizer_config.json', 'generation_config.json']) {
    fs.copyFileSync(path.join(demo, file), path.join(folder, file));
  }
  const tensors = [['model.embed_tokens.weight', [VOCAB, HIDDEN]]];
  for (let layer = 0; layer < LAYERS; layer++) {
    const prefix = `model.layers.${layer}.`;
    tensors.push([`${prefix}input_layernorm.weight`, [HIDDEN]]);
    tensors.push([`${prefix}post_attention_layernorm.weight`, [HIDDEN]]);
    for (const [name, shape] of Object.entries(PROJECTIONS)) {
      tensors.push([`${prefix}${name}.weight`, shape]);
    }
  }
  tensors.push(['model.norm.weight', [HIDDEN]], ['lm_head.weight', [VOCAB, HIDDEN]]);
  writeSafetensors(path.join(folder, 'model.safetensors'), tensors);
  fs.writeFileSync(path.join(folder, 'done'), '');
}

function makeAdapter(name) {
  const directory = path.join(folder, 'adapters', name);
  if (fs.existsSync(path.join(directory, 'adapter_config.json'))) return directory;
  fs.mkdirSync(directory, { recursive: true });
  const tensors = [];
  for (let layer = 0; layer < LAYERS; layer++) {
    for (const [module, [out, into]] of Object.entries(PROJECTIONS)) {
      const prefix = `base_model.model.model.layers.${layer}.${module}`;
      tensors.push([`${prefix}.lora_A.weight`, [16, into]]);
      tensors.push([`${prefix}.lora_B.weight`, [out, 16]]);
    }
  }
  writeSafetensors(path.join(directory, 'adapter_model.safetensors'), tensors);
  const config = {
    ...{ peft_type: 'LORA', task_type: 'CAUSAL_LM', r: 16, lora_alpha: 32, bias: 'none' },
    target_modules: Object.keys(PROJECTIONS).map((name) => name.split('.')[1]),
  };
  fs.writeFileSync(path.join(directory, 'adapter_config.json'), JSON.stringify(config));
  return directory;
}

makeModel();
const names = Array.from({ length: adapters }, (_, i) => `adapter-${i}`);
const begin = performance.now();
const lorax = createLorax({
  model: folder,
  device: 'cuda',
  adapters: Object.fromEntries(names.map((name) => [name, makeAdapter(name)])),
});

async function run(tokens) {
  const start = performance.now();
  const one = async (i) => {
    const result = streamText({
      model: lorax(names.length > 0 ? names[i % names.length] : 'base'),
      prompt: Array.from({ length: 40 }, (_, t) => `${(i * 37 + t) % 97}`).join(' '),
      maxOutputTokens: tokens,
      temperature: 0,
      providerOptions: { lorax: { ignoreEos: true } },
      onError: ({ error }) => {
        throw error;
      },
    });
    for await (const _ of result.textStream);
    const { outputTokens } = await result.usage;
    if (outputTokens !== tokens) throw new Error(`${outputTokens} tokens, not ${tokens}`);
  };
  await Promise.all(Array.from({ length: streams }, (_, i) => one(i)));
  return (performance.now() - start) / 1e3;
}

await run(1);
console.log(
  `provider: first token of ${streams} streams after ${Math.round(performance.now() - begin)} ms`,
);
await run(16);
for (let round = 0; round < 3; round++) {
  const [t1, t2] = [await run(shorter), await run(longer)];
  const step = (t2 - t1) / (longer - shorter);
  console.log(
    `provider: ${streams} streams, ${adapters} adapters, ${(step * 1e3).toFixed(3)} ms a step, ` +
      `${Math.round(streams / step)} tokens/s`,
  );
}
await lorax.dispose();
