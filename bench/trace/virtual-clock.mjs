// The virtual clock: bench/native/trace_bench.cc, which drives the native engine over a model of computed
// costs. No device, no weights, and the same figures each time. Used by bench/trace.mjs.
//
// The constants, where no option gives them, are an H100's (SXM, 80 GB) at what kernels reach of them.
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { projections, SHAPES } from '../gpu/make-model.mjs';
import { capacityFrom, spread } from './measures.mjs';
import { fitSteps } from './prediction.mjs';
import { formatTrace } from './slora-trace.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const H100 = { memoryGbps: 3000, copyGbps: 50, peakTflops: 650, stepUs: 400, memoryGb: 80 };
/** Buffers and graphs, of what is left beside the weights; then memoryFraction's default. */
const [BUFFERS_GB, MEMORY_FRACTION] = [2, 0.9];
/** As native/cuda has them. */
const [BLOCK_TOKENS, BATCH_TOKENS, MAX_ROWS] = [16, 2048, 256];

export class VirtualClock {
  static create(options) {
    const program = path.join(root, '.cache/bench/trace_bench');
    mkdirSync(path.dirname(program), { recursive: true });
    const source = path.join(root, 'bench/native/trace_bench.cc');
    const flags = ['-std=c++20', '-O2', `-I${path.join(root, 'native')}`, '-lpthread'];
    const compiler = process.env.CXX ?? 'c++';
    const args = [source, path.join(root, 'build/libcore.a'), ...flags, '-o', program];
    const built = spawnSync(compiler, args, { stdio: ['ignore', 'inherit', 'inherit'] });
    if (built.status !== 0) {
      throw new Error(
        `${compiler} could not build ${source}; build/libcore.a is of \`npm run build\``,
      );
    }
    return new VirtualClock(program, options);
  }

  constructor(program, { virtual, memoryGbps, copyGbps }) {
    this.program = program;
    const shape = SHAPES[virtual.shape];
    this.machine = {
      memory: (memoryGbps ?? H100.memoryGbps) * 1e9,
      copy: (copyGbps ?? H100.copyGbps) * 1e9,
      peak: (virtual.peakTflops ?? H100.peakTflops) * 1e12,
      stepSeconds: (virtual.stepUs ?? H100.stepUs) / 1e6,
    };
    const { vocab, hidden, layers, heads, kvHeads, headDim } = shape;
    const modules = Object.entries(projections(shape));
    const layer = modules.reduce((sum, [, [rows, cols]]) => sum + rows * cols, 0);
    this.parameters = layers * layer + vocab * hidden;
    this.weightBytes = 2 * this.parameters;
    this.kvTokenBytes = 2 * 2 * layers * kvHeads * headDim;
    this.pageBytes = BLOCK_TOKENS * this.kvTokenBytes;
    const embeddingBytes = shape.tiedEmbeddings ? 0 : 2 * vocab * hidden;
    const left = (H100.memoryGb - BUFFERS_GB) * 1e9 - this.weightBytes - embeddingBytes;
    const poolBytes = virtual.poolGb === undefined ? left * MEMORY_FRACTION : virtual.poolGb * 1e9;
    this.pages = Math.floor(poolBytes / this.pageBytes);
    const adapted = modules.filter(([name]) => virtual.targets.includes(name.split('.')[1]));
    Object.assign(this, adapterImage(adapted, layers, virtual.rank, this.pageBytes));
    this.attentionFlops = 4 * layers * heads * headDim;
    Object.assign(this, { shape, name: virtual.shape });
  }

  run(adapters, trace) {
    const settings = {
      ...{ adapters, vocab: this.shape.vocab, hidden: this.shape.hidden },
      context_tokens: this.shape.contextTokens ?? 131072,
      ...{ pages: this.pages, page_bytes: this.pageBytes, block_tokens: BLOCK_TOKENS },
      ...{ batch_tokens: BATCH_TOKENS, rows: MAX_ROWS },
      ...{ adapter_pages: this.adapterPages, adapter_bytes: this.adapterBytes },
      ...{ weight_bytes: this.weightBytes, parameters: this.parameters },
      ...{ attention_flops: this.attentionFlops, kv_token_bytes: this.kvTokenBytes },
      ...{ memory_rate: this.machine.memory, peak_rate: this.machine.peak },
      ...{ copy_rate: this.machine.copy, step_seconds: this.machine.stepSeconds },
    };
    const folder = mkdtempSync(path.join(os.tmpdir(), 'lorax-trace-'));
    try {
      const file = path.join(folder, 'trace');
      writeFileSync(file, formatTrace(trace));
      const args = Object.entries(settings).map(([name, value]) => `${name}=${value}`);
      const child = spawnSync(this.program, [file, ...args], {
        encoding: 'utf8',
        maxBuffer: 2 ** 30,
      });
      if (child.status !== 0) throw new Error(child.stderr || String(child.error ?? child.signal));
      return { ...readRun(child.stdout, trace), ...this.#facts() };
    } finally {
      rmSync(folder, { recursive: true });
    }
  }

  capacity(adapters, trace) {
    return capacityFrom(this.run(adapters, trace));
  }

  describe() {
    const { memory, copy, peak, stepSeconds } = this.machine;
    return (
      `virtual clock: ${this.name} with ${(memory / 1e9).toFixed(0)} GB/s memory, ` +
      `${(peak / 1e12).toFixed(0)} TFLOP/s, ${(copy / 1e9).toFixed(0)} GB/s copies, ` +
      `${(stepSeconds * 1e6).toFixed(0)} us a step, a pool of ` +
      `${((this.pages * this.pageBytes) / 1e9).toFixed(1)} GB`
    );
  }

  /** For prediction.mjs. */
  predictionInputs({ steps }) {
    const rates = { memory: this.machine.memory / 1e3, copy: this.machine.copy / 1e3 };
    return {
      pool: { pages: this.pages, blockTokens: BLOCK_TOKENS, maxRows: MAX_ROWS },
      adapter: { bytes: this.adapterBytes, pages: this.adapterPages },
      ...{ step: fitSteps(steps, this.adapterBytes / rates.memory), rates },
      loadsStopSteps: false,
      from: { memory: 'given', copy: 'given' },
    };
  }

  #facts() {
    const info = { numPages: this.pages, pageBytes: this.pageBytes, blockTokens: BLOCK_TOKENS };
    return { info, adapterBytes: this.adapterBytes };
  }
}

/** As native/cuda/adapter_image.h packs it: ranks in groups of 16, a slice within a page. */
function adapterImage(modules, layers, rank, pageBytes) {
  const groups = Math.ceil(rank / 16);
  const slices = modules.flatMap(([, [rows, cols]]) => [
    Math.ceil(cols / 32) * 1024,
    Math.ceil(rows / 16) * 512,
  ]);
  const bytes = layers * groups * slices.reduce((sum, slice) => sum + slice, 0);
  const tables = layers * 7 * 32; // entries and groups, at the front
  const adapterBytes = bytes + tables;
  return { adapterBytes, adapterPages: Math.ceil(adapterBytes / pageBytes) };
}

/** The lines of trace_bench, as client.mjs returns a run. */
function readRun(text, trace) {
  const states = [];
  const steps = [];
  const between = [];
  const requests = [];
  const totals = {};
  const device = {};
  for (const line of text.trimEnd().split('\n')) {
    const [kind, ...words] = line.split(' ');
    const numbers = words.map(Number);
    if (kind === 'state') {
      const [second, running, waiting, free, kv, cold, adapter, retiring, adapterLoads] = numbers;
      const pages = { free, kv, cold, adapter, retiring };
      states.push({ second, running, waiting, ...pages, adapterLoads });
    } else if (kind === 'step') {
      const [prefillTokens, decodeTokens, adapters, seconds] = numbers;
      steps.push({ prefillTokens, decodeTokens, adapters, ms: seconds * 1e3 });
    } else if (kind === 'between') {
      between.push(numbers[0]);
    } else if (kind === 'request') {
      const [tokens, firstSeconds, lastSeconds] = numbers;
      const request = trace[requests.length];
      requests.push({ ...request, tokens, firstSeconds, lastSeconds, failure: words[3] ?? '' });
    } else if (kind === 'total') {
      totals[words[0]] = numbers[1];
    } else if (kind === 'device') {
      device[words[0]] = numbers[1];
    } else {
      throw new Error(`trace_bench wrote: ${line}`);
    }
  }
  return { requests, between: spread(between), states, steps, totals, device };
}
