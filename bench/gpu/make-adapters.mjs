// Adapters of a model's shape made of random numbers, PEFT directories by the thousand.
//
//     node bench/gpu/make-adapters.mjs FOLDER COUNT [--shape llama2-7b] [--rank 16]
//         [--targets q_proj,k_proj,v_proj,o_proj] [--links]
//
// An adapter is its content, config and weights. With `--links` all have one file of weights, by hard
// links, and a `lora_alpha` each: thousands take the disk of one. Without, each has a file of its own,
// whose weights lie in another order. Called by bench/trace.mjs and the benchmarks beside this file.
import fs from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';

import { projections, randomBlock, safetensorsFront, SHAPES } from './make-model.mjs';

export const TARGETS = Object.keys(projections(SHAPES.tiny)).map((name) => name.split('.')[1]);

/** Files written at once. */
const WRITERS = 8;

/** What a model directory says of itself: any of the Llama family, not just those made here. */
export function shapeOf(folder) {
  const config = JSON.parse(fs.readFileSync(path.join(folder, 'config.json'), 'utf8'));
  const heads = config.num_attention_heads;
  return {
    ...{ hidden: config.hidden_size, intermediate: config.intermediate_size },
    ...{ layers: config.num_hidden_layers, vocab: config.vocab_size, heads },
    kvHeads: config.num_key_value_heads ?? heads,
    headDim: config.head_dim ?? config.hidden_size / heads,
    tiedEmbeddings: config.tie_word_embeddings ?? false,
  };
}

/** Directories of `count` adapters under `folder`/adapters; those that are there already stay. */
export async function makeAdapters(folder, shape, count, options = {}) {
  const { rank = 16, targets = TARGETS, links = false } = options;
  const unknown = targets.find((target) => !TARGETS.includes(target));
  if (unknown !== undefined) {
    throw new Error(`no projection is called ${unknown}: ${TARGETS.join(', ')} are`);
  }
  const tensors = tensorsOf(shape, rank, targets);
  const of = targets.length === TARGETS.length ? '' : `-${targets.map((name) => name[0]).join('')}`;
  const name = `r${rank}${of}${links ? '-links' : ''}`;
  const root = path.join(folder, 'adapters');
  const directories = Array.from({ length: count }, (_, i) => path.join(root, `${name}-${i}`));
  const missing = directories
    .map((directory, i) => ({ directory, i }))
    .filter(({ directory }) => !fs.existsSync(path.join(directory, 'adapter_config.json')));
  if (missing.length === 0) return directories;

  const { front, dataBytes } = safetensorsFront(tensors);
  const data = repeated(randomBlock(1 << 20), dataBytes);
  const shared = path.join(root, `${name}.safetensors`);
  fs.mkdirSync(root, { recursive: true });
  if (links && !fs.existsSync(shared)) await writeWhole(shared, [front, data]);
  const write = async ({ directory, i }) => {
    fs.mkdirSync(directory, { recursive: true });
    const weights = path.join(directory, 'adapter_model.safetensors');
    if (links) {
      fs.rmSync(weights, { force: true });
      await fs.promises.link(shared, weights);
    } else {
      const at = (2 * (i + 1)) % dataBytes;
      await writeWhole(weights, [front, data.subarray(at), data.subarray(0, at)]);
    }
    // The last file: a directory that has it is whole.
    const alpha = 2 * rank + (links ? i / 4096 : 0);
    fs.writeFileSync(
      path.join(directory, 'adapter_config.json'),
      JSON.stringify({
        ...{ peft_type: 'LORA', task_type: 'CAUSAL_LM', bias: 'none' },
        ...{ r: rank, lora_alpha: alpha, target_modules: targets },
      }),
    );
  };
  await inParallel(missing, WRITERS, write);
  return directories;
}

/** Runs `work` on every item, `most` at once, in order. */
export async function inParallel(items, most, work) {
  let next = 0;
  const worker = async () => {
    while (next < items.length) await work(items[next++]);
  };
  await Promise.all(Array.from({ length: Math.min(most, items.length) }, worker));
}

function tensorsOf(shape, rank, targets) {
  const modules = Object.entries(projections(shape));
  return Array.from({ length: shape.layers }, (_, layer) =>
    modules
      .filter(([module]) => targets.includes(module.split('.')[1]))
      .flatMap(([module, [rows, cols]]) => {
        const prefix = `base_model.model.model.layers.${layer}.${module}`;
        return [
          [`${prefix}.lora_A.weight`, [rank, cols]],
          [`${prefix}.lora_B.weight`, [rows, rank]],
        ];
      }),
  ).flat();
}

/** `block` again and again, `bytes` of it. */
function repeated(block, bytes) {
  const out = Buffer.allocUnsafe(bytes);
  for (let at = 0; at < bytes; at += block.length) block.copy(out, at, 0, bytes - at);
  return out;
}

async function writeWhole(file, buffers) {
  const out = await fs.promises.open(file, 'w');
  try {
    for (const buffer of buffers) {
      for (let at = 0; at < buffer.length;) {
        at += (await out.write(buffer, at, buffer.length - at)).bytesWritten;
      }
    }
  } finally {
    await out.close();
  }
}

if (process.argv[1] && pathToFileURL(path.resolve(process.argv[1])).href === import.meta.url) {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      shape: { type: 'string' },
      rank: { type: 'string', default: '16' },
      targets: { type: 'string', default: TARGETS.join(',') },
      links: { type: 'boolean', default: false },
    },
  });
  const [folder, count] = positionals;
  if (folder === undefined || !(Number(count) > 0)) {
    throw new Error('make-adapters.mjs FOLDER COUNT [options]');
  }
  const shape = values.shape === undefined ? shapeOf(folder) : SHAPES[values.shape];
  if (shape === undefined) throw new Error(`shapes: ${Object.keys(SHAPES).join(', ')}`);
  const begin = performance.now();
  const { links } = values;
  const [rank, targets] = [Number(values.rank), values.targets.split(',')];
  await makeAdapters(folder, shape, Number(count), { rank, targets, links });
  const seconds = ((performance.now() - begin) / 1e3).toFixed(1);
  process.stdout.write(`make-adapters: ${count} in ${folder}/adapters (${seconds} s)\n`);
}
