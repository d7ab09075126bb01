// The options of bench/trace.mjs, read and checked.
import path from 'node:path';

import { SHAPES } from '../gpu/make-model.mjs';

const text = (value) =>
  value === undefined ? { type: 'string' } : { type: 'string', default: value };

export const OPTIONS = {
  clock: text('real'),
  adapters: text('5,200'),
  rate: text('10'),
  duration: text('120'),
  alpha: text('1'),
  cv: text('1'),
  input: text('8,512'),
  output: text('8,512'),
  seed: text('42'),
  slo: text('6'),
  csv: text(),
  requests: { type: 'boolean', default: false },
  // The real clock.
  model: text(),
  shape: text(),
  folder: text(),
  device: text('auto'),
  'memory-bytes': text(),
  'host-memory-bytes': text(),
  rank: text('8'),
  targets: text('q_proj,k_proj,v_proj,o_proj'),
  'distinct-files': { type: 'boolean', default: false },
  'saturate-requests': text('600'),
  // Both clocks.
  'memory-gbps': text(),
  'copy-gbps': text(),
  // The virtual clock; where unset, what virtual-clock.mjs has.
  'peak-tflops': text(),
  'pool-gb': text(),
  'step-us': text(),
};

/** `root`: of the project. */
export function readOptions(values, root) {
  const number = (name, least = 0) => {
    const value = Number(values[name]);
    if (!(value > least)) throw new Error(`--${name}: expected a number above ${least}`);
    return value;
  };
  const optional = (name) => (values[name] === undefined ? undefined : number(name));
  const range = (name) => {
    const [least, end] = values[name].split(',').map(Number);
    if (!(Number.isInteger(least) && Number.isInteger(end) && least > 0 && end > least)) {
      throw new Error(`--${name}: expected LEAST,MOST+1 in tokens, e.g. 8,512`);
    }
    return [least, end];
  };
  const { clock } = values;
  if (clock !== 'real' && clock !== 'virtual') throw new Error('--clock: real or virtual');
  const counts = values.adapters.split(',').map(Number);
  if (!counts.every((count) => Number.isInteger(count) && count > 0)) {
    throw new Error('--adapters: expected numbers of adapters, e.g. 5,2000');
  }
  const trace = {
    ...{ alpha: number('alpha'), cv: number('cv'), duration: number('duration') },
    ...{ input: range('input'), output: range('output'), seed: Number(values.seed) },
  };
  /** By the number of adapters; one for all where one is given. */
  const ofEachCase = (name) => {
    const given = values[name]?.split(',').map(Number) ?? [];
    if (
      !given.every((value) => value > 0) ||
      (given.length > 1 && given.length !== counts.length)
    ) {
      throw new Error(`--${name}: expected a number, or one for each of --adapters`);
    }
    return new Map(counts.map((count, i) => [count, given[Math.min(i, given.length - 1)]]));
  };
  const today = new Date().toISOString().slice(0, 10);
  const { shape } = values;
  if (shape !== undefined && !(shape in SHAPES)) {
    throw new Error(`--shape: ${Object.keys(SHAPES).join(', ')}`);
  }
  if (shape !== undefined && (values.model !== undefined || values.folder === undefined)) {
    throw new Error('--shape makes a model in --folder; it excludes --model');
  }
  const model =
    shape === undefined ? (values.model ?? path.join(root, 'models/demo')) : values.folder;
  return {
    ...{ clock, counts, trace, sloSeconds: number('slo') },
    rate: values.rate === 'saturate' ? 'saturate' : number('rate'),
    csv: values.csv ?? path.join(root, `bench/results/trace-${clock}-${today}.csv`),
    requests: values.requests,
    saturateRequests: number('saturate-requests', 8),
    memoryGbps: optional('memory-gbps'),
    copyGbps: optional('copy-gbps'),
    real: {
      ...{ model: path.resolve(model), shape, distinctFiles: values['distinct-files'] },
      // Adapters of a model that is not ours to write to.
      folder: path.resolve(
        values.folder ?? path.join(root, '.cache/bench/trace', path.basename(model)),
      ),
      ...{ rank: number('rank'), targets: values.targets.split(',') },
      device: values.device,
      memoryBytes: optional('memory-bytes'),
      hostMemoryBytes: ofEachCase('host-memory-bytes'),
    },
    virtual: {
      ...{ peakTflops: optional('peak-tflops'), poolGb: optional('pool-gb') },
      ...{ stepUs: optional('step-us'), rank: number('rank'), targets: values.targets.split(',') },
      shape: shape ?? 'llama2-7b',
    },
    described:
      `S-LoRA's trace: seed ${values.seed}, alpha ${values.alpha}, cv ${values.cv}, ${values.duration} s, ` +
      `inputs ${values.input}, outputs ${values.output}; rank ${values.rank} on ${values.targets}, ` +
      `${values['distinct-files'] ? 'a file each' : 'one file, a scale each'}; in time: first token ` +
      `within ${values.slo} s`,
  };
}
