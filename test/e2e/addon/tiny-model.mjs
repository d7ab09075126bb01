// A random decoder on disk and its NativeEngineConfig: what the addon's own tests load. Plain
// JavaScript, because child processes and worker threads run it.
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const built = fileURLToPath(new URL('../../../build/Release/lorax.node', import.meta.url));

/** The addon as built; LORAX_TEST_ADDON names another build of it. */
export function loadAddon() {
  return createRequire(import.meta.url)(process.env.LORAX_TEST_ADDON ?? built);
}

/** Values around zero, the same for the same seed (mulberry32). */
function randomValues(seed, count, spread) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  return Float32Array.from({ length: count }, () => (2 * next() - 1) * spread);
}

/** Appends tensors to one file; says where each lies. */
class TensorFile {
  #parts = [];
  #bytes = 0;

  add(name, rows, cols, values) {
    const offset = this.#bytes;
    this.#parts.push(Buffer.from(values.buffer));
    this.#bytes += values.byteLength;
    return { name, file: 0, dtype: 'F32', rows, cols, offset };
  }

  write(file) {
    fs.writeFileSync(file, Buffer.concat(this.#parts));
  }
}

const shape = {
  vocabSize: 384,
  hiddenSize: 96,
  intermediateSize: 192,
  numLayers: 3,
  numHeads: 6,
  numKvHeads: 2,
  headDim: 16,
};

function projections() {
  const { hiddenSize, intermediateSize, numHeads, numKvHeads, headDim } = shape;
  const q = numHeads * headDim;
  const kv = numKvHeads * headDim;
  return [
    ['self_attn.q_proj', q, hiddenSize],
    ['self_attn.k_proj', kv, hiddenSize],
    ['self_attn.v_proj', kv, hiddenSize],
    ['self_attn.o_proj', hiddenSize, q],
    ['mlp.gate_proj', intermediateSize, hiddenSize],
    ['mlp.up_proj', intermediateSize, hiddenSize],
    ['mlp.down_proj', hiddenSize, intermediateSize],
  ];
}

/** Writes the model into `folder`; returns a NativeEngineConfig for it. */
export function tinyConfig(folder, overrides = {}) {
  const file = new TensorFile();
  const tensors = [];
  let seed = 1;
  const matrix = (name, rows, cols, spread) =>
    tensors.push(file.add(name, rows, cols, randomValues(seed++, rows * cols, spread)));
  const gain = (name, cols) =>
    tensors.push(file.add(name, 1, cols, new Float32Array(cols).fill(1)));
  const { vocabSize, hiddenSize, numLayers } = shape;
  matrix('model.embed_tokens.weight', vocabSize, hiddenSize, 1.5);
  for (let layer = 0; layer < numLayers; ++layer) {
    const prefix = `model.layers.${layer}.`;
    gain(`${prefix}input_layernorm.weight`, hiddenSize);
    gain(`${prefix}post_attention_layernorm.weight`, hiddenSize);
    for (const [name, rows, cols] of projections()) {
      matrix(`${prefix}${name}.weight`, rows, cols, 2 / Math.sqrt(cols));
    }
  }
  gain('model.norm.weight', hiddenSize);
  const weights = path.join(folder, 'model.bin');
  if (!fs.existsSync(weights)) {
    file.write(`${weights}.${process.pid}`);
    fs.renameSync(`${weights}.${process.pid}`, weights);
  }
  return {
    model: {
      config: {
        architecture: 'LlamaForCausalLM',
        ...shape,
        rmsNormEps: 1e-5,
        contextTokens: 4096,
        tiedEmbeddings: true,
        qkvBias: false,
        qkNorm: false,
        slidingWindow: 0,
        ropeTheta: 10000,
        rope: { type: 'default' },
      },
      files: [weights],
      tensors,
    },
    device: 'cpu',
    precision: 'float32',
    memoryBytes: 16 << 20,
    hostMemoryBytes: 1 << 30,
    maxBatchTokens: 256,
    maxQueued: 64,
    threads: 2,
    isa: 'auto',
    cuda: {
      plugin: '',
      device: 0,
      memoryFraction: 0.9,
      cacheDirectory: '',
      deterministic: false,
    },
    ...overrides,
  };
}

/** Writes a random adapter on every projection; returns its NativeAdapterSpec. */
export function tinyAdapter(folder, { seed = 1, rank = 4 } = {}) {
  const file = new TensorFile();
  const numbers = [];
  let names = '';
  let numModules = 0;
  const add = (name, rows, cols, values) => {
    const { file: at, offset } = file.add(name, rows, cols, values);
    numbers.push(at, 0, rows, cols, offset, name.length);
    names += name;
  };
  for (let layer = 0; layer < shape.numLayers; ++layer) {
    projections().forEach(([name, rows, cols], module) => {
      const full = `layers.${layer}.${name}`;
      const a = randomValues(1000 * seed + numModules, rank * cols, 2 / Math.sqrt(cols));
      const b = randomValues(2000 * seed + numModules++, rows * rank, 0.5);
      numbers.push(layer, module, rank, 1, 0b11); // A and B
      add(`${full}.lora_A.weight`, rank, cols, a);
      add(`${full}.lora_B.weight`, rows, rank, b);
    });
  }
  const weights = path.join(folder, `adapter-${seed}-${rank}-${process.pid}.bin`);
  file.write(weights);
  const modules = { numbers: Float64Array.from(numbers), names: Buffer.from(names) };
  return { hash: `${seed}-${rank}`, files: [weights], modules };
}

export function sampling(overrides = {}) {
  return {
    maxOutputTokens: 0,
    temperature: 0,
    topK: 0,
    topP: 1,
    minP: 0,
    repetitionPenalty: 1,
    frequencyPenalty: 0,
    presencePenalty: 0,
    logitBiasIds: new Int32Array(0),
    logitBiasValues: new Float32Array(0),
    seed: [1, 0],
    logprobs: -1,
    stopTokenIds: new Int32Array(0),
    ...overrides,
  };
}

/** Reads StepEvents records into one object per request. */
export class EventLog {
  requests = new Map();
  #waiting = new Map();

  /** What createEngine takes as onEvents. */
  onEvents = ({ ints, floats, failures }) => {
    let f = 0;
    for (let i = 0; i < ints.length;) {
      const [kind, id] = [ints[i], ints[i + 1]];
      const request = this.of(id);
      if (request.end) throw new Error(`request ${id} got event ${kind} after its end`);
      if (kind === 1) {
        i += 4;
      } else if (kind === 2) {
        const [count, top] = [ints[i + 2], ints[i + 3]];
        request.tokens.push(...ints.subarray(i + 4, i + 4 + count));
        i += 4 + count + count * Math.max(top, 0);
        const floatCount = top < 0 ? 0 : count * (1 + top);
        request.logprobs.push(...floats.subarray(f, f + floatCount));
        f += floatCount;
      } else if (kind === 3 || kind === 5) {
        request.end = kind === 3 ? { reason: ints[i + 2] } : { failure: failures[ints[i + 2]] };
        i += 4;
      } else if (kind === 4) {
        request.end = { aborted: true };
        i += 3;
      } else if (kind === 6) {
        request.end = { embedding: floats.slice(f, f + ints[i + 2]) };
        f += ints[i + 2];
        i += 3;
      } else {
        throw new Error(`unknown event ${kind}`);
      }
      this.#waiting.get(id)?.();
    }
  };

  of(id) {
    if (!this.requests.has(id)) this.requests.set(id, { tokens: [], logprobs: [], end: null });
    return this.requests.get(id);
  }

  /** Waits until `done(request)`; keeps the process alive meanwhile, as a port would. */
  async until(id, done) {
    const alive = setInterval(() => {}, 1000);
    try {
      while (!done(this.of(id))) await new Promise((resolve) => this.#waiting.set(id, resolve));
    } finally {
      clearInterval(alive);
    }
    return this.of(id);
  }

  ended(id) {
    return this.until(id, (request) => request.end !== null);
  }

  streaming(id, count = 3) {
    return this.until(id, (request) => request.tokens.length >= count);
  }
}

/** An engine with a log; `prompt` starts the endless request 1 in it. */
export async function startEngine(config, { prompt } = {}) {
  const log = new EventLog();
  const progress = [];
  const engine = await loadAddon().createEngine(config, log.onEvents, (loaded, total) =>
    progress.push([loaded, total]),
  );
  if (prompt) engine.submit(1, Int32Array.from(prompt), [], sampling());
  return { engine, log, progress };
}
