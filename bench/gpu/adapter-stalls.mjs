// What loading adapters costs those who do not wait for them, and those who do.
//
//     node bench/gpu/adapter-stalls.mjs [--shape llama-8b --folder FOLDER | --model FOLDER] [--device auto]
//         [--streams 64] [--tokens 600] [--host-adapters 200] [--disk-adapters 20] [--rank 16]
//         [--host-memory-bytes N] [--rounds 3] [--samples 20] [--only stalls,host,disk] [--csv FILE]
//
// stalls: the time between tokens of streams on a few adapters while others come in through prefetch
//   hints, from host memory and from disk, beside the same streams undisturbed; in turn.
// host: request to first token of an adapter that is in host memory alone, beside one in the pool.
// disk: the same from a file that is in no cache, beside reading the file once (`dd iflag=direct`).
//
// The pool holds all; what is to be cold is registered anew, which leaves it in host memory. What came from
// where is counted by the engine, and shown: a sample that was not what it should be is left out.
// FOLDER must be on a disk: a tmpfs has no direct reads. Rank 16 on an 8B shape is 84 MB.
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { createEngine } from '../../dist/engine.mjs'; // bench/ is a package of its own
import { commitOf, describeMachine } from '../machine.mjs';
import { coldStartFromDisk, coldStartFromHost } from './adapter-stalls/cold-start.mjs';
import { registerAnew } from './adapter-stalls/files.mjs';
import { measureStalls } from './adapter-stalls/stalls.mjs';
import { makeAdapters, shapeOf } from './make-adapters.mjs';
import { makeModel, projections, SHAPES } from './make-model.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const today = new Date().toISOString().slice(0, 10);
const { values } = parseArgs({
  options: {
    shape: { type: 'string' },
    folder: { type: 'string' },
    model: { type: 'string', default: path.join(root, 'models/demo') },
    device: { type: 'string', default: 'auto' },
    streams: { type: 'string', default: '64' },
    tokens: { type: 'string', default: '600' },
    'host-adapters': { type: 'string', default: '200' },
    'disk-adapters': { type: 'string', default: '20' },
    'host-memory-bytes': { type: 'string' },
    rank: { type: 'string', default: '16' },
    rounds: { type: 'string', default: '3' },
    samples: { type: 'string', default: '20' },
    only: { type: 'string', default: 'stalls,host,disk' },
    csv: { type: 'string', default: path.join(root, `bench/results/adapter-stalls-${today}.csv`) },
  },
});
const number = (name) => {
  const value = Number(values[name]);
  if (!Number.isInteger(value) || value < 1) throw new Error(`--${name}: expected a count`);
  return value;
};
const counts = ['streams', 'tokens', 'rank', 'rounds', 'samples'].map(number);
const [streams, tokens, rank, rounds, samples] = counts;
const [inHost, onDisk] = ['host-adapters', 'disk-adapters'].map(number);
const wanted = values.only.split(',');
const say = (line) => process.stdout.write(`${line}\n`);

const made = performance.now();
if (values.shape !== undefined) {
  if (values.folder === undefined) throw new Error('--shape makes a model in --folder');
  mkdirSync(values.folder, { recursive: true });
  await makeModel(values.folder, SHAPES[values.shape]);
}
const model = values.shape === undefined ? values.model : values.folder;
const shape = shapeOf(model);
const folder = values.folder ?? path.join(root, '.cache/bench/stalls', path.basename(model));
const hostFolders = await makeAdapters(folder, shape, inHost, { rank, links: true });
const diskFolders = await makeAdapters(folder, shape, onDisk, { rank });
say(`model and adapters: ${((performance.now() - made) / 1e3).toFixed(1)} s`);

const STREAM_PROMPT = 128;
const rows = [];
const note = (measure, round, kind, ms, loads = '', reads = '') =>
  rows.push([measure, round, kind, ms.toFixed(4), loads, reads].join(','));
const bench = { say, note, streams, tokens, rounds, samples, prompt: STREAM_PROMPT };

let machine;
if (wanted.includes('stalls') || wanted.includes('host')) {
  const hostMemoryBytes = values['host-memory-bytes'];
  const options = {
    sources: [{ folder: path.join(folder, 'adapters') }],
    memoryBytes: poolBytes(inHost + onDisk, streams * (STREAM_PROMPT + tokens)),
    ...(hostMemoryBytes === undefined ? {} : { hostMemoryBytes: Number(hostMemoryBytes) }),
  };
  await withEngine(options, async (engine) => {
    const host = hostFolders.map((directory, i) => ({ name: `host-${i}`, folder: directory }));
    const disk = diskFolders.map((directory) => ({
      name: path.basename(directory),
      folder: directory,
    }));
    const begin = performance.now();
    await registerAnew(engine, host);
    say(`registered ${inHost} in ${((performance.now() - begin) / 1e3).toFixed(1)} s`);
    if (wanted.includes('stalls')) await measureStalls(engine, { ...bench, host, disk });
    if (wanted.includes('host')) await coldStartFromHost(engine, { ...bench, host });
  });
}
if (wanted.includes('disk')) await fromDisk();

mkdirSync(path.dirname(values.csv), { recursive: true });
const settings =
  `${streams} streams of ${tokens} tokens; ${inHost} adapters of rank ${rank} in host memory, ${onDisk} on ` +
  `disk; the pool has room for all`;
writeFileSync(
  values.csv,
  `# ${machine}; commit ${commitOf(root)}\n# ${settings}\nmeasure,round,kind,ms,loads,reads\n` +
    `${rows.join('\n')}\n`,
);
say(`${machine}\nEvery sample: ${path.relative(process.cwd(), values.csv)}`);

/**
 * An engine with room for fewer than there are on disk, in host memory and in the pool, where it has a budget for
 * host memory.
 */
async function fromDisk() {
  const disk = diskFolders.map((directory, i) => ({ name: `disk-${i}`, folder: directory }));
  const few = Math.max(2, Math.floor(onDisk / 4));
  const memoryBytes = poolBytes(few, 4096);
  const measure = (again) => (engine) => coldStartFromDisk(engine, { ...bench, disk, again });
  try {
    await withEngine({ memoryBytes, hostMemoryBytes: few * imageBytes() }, measure(true));
  } catch (error) {
    if (error.code !== 'INVALID_OPTIONS' || !error.message.includes('hostMemoryBytes')) throw error;
    say('This engine has no budget for host memory: a first load each, hashed too.');
    await withEngine({ memoryBytes }, measure(false));
  }
}

async function withEngine(options, use) {
  const { device } = values;
  const engine = createEngine({ model, device, ...options });
  try {
    const info = await engine.ready();
    machine = `${describeMachine()}; ${info.deviceDescription}`;
    await use(engine);
  } finally {
    await engine.dispose();
  }
}

/** An adapter as it is packed: ranks in groups of 16. */
function imageBytes() {
  const dims = Object.values(projections(shape)).reduce(
    (sum, [rows, cols]) => sum + rows + cols,
    0,
  );
  return 2 * shape.layers * dims * 16 * Math.ceil(rank / 16);
}

/** With a tenth to spare: images have tables too, and pages are whole. */
function poolBytes(adapters, kvTokens) {
  const tokenBytes = 4 * shape.layers * shape.kvHeads * shape.headDim;
  return Math.ceil(1.1 * (kvTokens * tokenBytes + adapters * imageBytes())) + 2 ** 24;
}
