// The real clock: an engine of the package over a model, each case in a process of its own, so that none
// finds what another left in the pool, in host memory or in its heap. Used by bench/trace.mjs.
import { fork } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import os from 'node:os';

import { makeAdapters, shapeOf } from '../gpu/make-adapters.mjs';
import { makeModel, projections, SHAPES } from '../gpu/make-model.mjs';
import { describeMachine } from '../machine.mjs';
import { capacityFrom } from './measures.mjs';
import { fastestStep, fitSteps } from './prediction.mjs';

/** EngineLimits::max_sequences of native/engine/engine.h. */
const MAX_ROWS = 256;
/** What a PCIe 5 x16 link copies, bytes/ms, where none is given. */
const PCIE_5 = 50e6;

export class RealClock {
  /** Makes what is missing of the model and of `count` adapters. */
  static async create({ real, memoryGbps, copyGbps }, count) {
    if (real.shape !== undefined) {
      mkdirSync(real.folder, { recursive: true });
      await makeModel(real.model, SHAPES[real.shape]);
    }
    const shape = shapeOf(real.model);
    const { rank, targets, distinctFiles } = real;
    const settings = { rank, targets, links: !distinctFiles };
    const directories = await makeAdapters(real.folder, shape, count, settings);
    return new RealClock(real, { memoryGbps, copyGbps }, shape, directories);
  }

  constructor(real, given, shape, directories) {
    Object.assign(this, { real, given, shape, directories });
    // A machine that others use gives what it has left.
    this.beside = `; load ${os.loadavg()[0].toFixed(1)} before, priority ${os.getPriority()}`;
  }

  /** { requests, between, states, steps, totals, client, info, ... } of case.mjs. */
  run(adapters, trace) {
    return inProcess(this.#task(adapters, trace));
  }

  /** Requests/s; `trace` comes at once. */
  async capacity(adapters, trace) {
    return capacityFrom(await this.run(adapters, trace));
  }

  describe({ info }) {
    return `${describeMachine()}; ${info.deviceDescription}${this.beside}`;
  }

  /** For prediction.mjs. */
  predictionInputs({ info, steps, adapterBytes }) {
    const onCpu = info.device === 'cpu';
    const { memoryGbps, copyGbps } = this.given;
    const memory =
      memoryGbps === undefined ? weightBytes(this.shape) / fastestStep(steps) : memoryGbps * 1e6;
    const copy = copyGbps === undefined ? (onCpu ? copyRate() : PCIE_5) : copyGbps * 1e6;
    return {
      pool: { pages: info.numPages, blockTokens: info.blockTokens, maxRows: MAX_ROWS },
      adapter: { bytes: adapterBytes, pages: Math.ceil(adapterBytes / info.pageBytes) },
      step: fitSteps(steps, adapterBytes / memory),
      rates: { memory, copy },
      loadsStopSteps: onCpu,
      from: {
        memory: memoryGbps === undefined ? "the weights' bytes over the fastest step" : 'given',
        copy: copyGbps === undefined ? (onCpu ? 'measured: a copy in memory' : 'PCIe 5') : 'given',
      },
    };
  }

  #task(adapters, trace) {
    const { model, device, memoryBytes } = this.real;
    const hostMemoryBytes = this.real.hostMemoryBytes.get(adapters);
    const engineOptions = {
      // Nobody is refused, nor are those that warm up.
      ...{ model, device, maxQueued: trace.length + 64 },
      ...(memoryBytes === undefined ? {} : { memoryBytes }),
      ...(hostMemoryBytes === undefined ? {} : { hostMemoryBytes }),
    };
    return { engineOptions, trace, directories: this.directories.slice(0, adapters) };
  }
}

function inProcess(task) {
  return new Promise((resolve, reject) => {
    // structured clone: NaN stays NaN.
    const child = fork(new URL('./case.mjs', import.meta.url), { serialization: 'advanced' });
    let answer;
    child.once('message', (message) => (answer = message));
    child.once('error', reject);
    child.once('exit', (code, signal) => {
      if (answer !== undefined && 'result' in answer) resolve(answer.result);
      else reject(new Error(answer?.error ?? `a case's process ended: ${signal ?? code}`));
    });
    child.send(task);
  });
}

/** Of all that a step reads: the layers and the head, in bf16. */
function weightBytes(shape) {
  const layer = Object.values(projections(shape)).reduce(
    (sum, [rows, cols]) => sum + rows * cols,
    0,
  );
  return 2 * (shape.layers * layer + shape.vocab * shape.hidden);
}

/** Bytes/ms, the median of a few copies that no cache holds. */
function copyRate() {
  const [from, to] = [Buffer.alloc(1 << 27, 1), Buffer.alloc(1 << 27, 2)];
  const rates = Array.from({ length: 5 }, () => {
    const begin = performance.now();
    from.copy(to);
    return from.length / (performance.now() - begin);
  });
  return rates.sort((a, b) => a - b)[2];
}
