// `npm run bench`: prefill and decode of SmolLM2, lorax-js beside node-llama-cpp and transformers.
//
//   npm run bench -- [--rounds 5] [--only lorax,transformers] [--cases prefill,16,16x8] [--csv FILE]
//                    [--dummy FOLDER] [--python PATH]
//
// `--dummy` fetches nothing: random weights of SmolLM2's shape, made in FOLDER, without llama.cpp;
// `--python` is then one that has torch, transformers and peft. `taskset -c 0,1 node bench/run.mjs ...`
// gives all peers the same two cores.
//
// Each peer is a process that stays loaded; every case is asked of every peer once a round, in turn,
// so that a slow minute of the machine hits all of them. Prints medians, writes every sample as CSV.

import { mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { commitOf, describeMachine } from './machine.mjs';
import { Peer } from './peer.mjs';
import { PLACES, setUp, setUpDummy } from './setup.mjs';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    only: { type: 'string', default: '' },
    cases: { type: 'string', default: '' },
    tokens: { type: 'string', default: '64' },
    csv: { type: 'string' },
    dummy: { type: 'string' },
    python: { type: 'string' },
  },
});
const tokens = Number(values.tokens);
const isDummy = values.dummy !== undefined;
const asCommand = (name) => (name.includes(path.sep) ? path.resolve(name) : name);
const places = isDummy
  ? await setUpDummy(path.resolve(values.dummy), asCommand(values.python ?? PLACES.python))
  : PLACES;
const picked = (list, name) => list === '' || list.split(',').includes(name);

const decode = (sequences, adapters = 0) => ({
  name: adapters ? `${sequences}x${adapters}` : `${sequences}`,
  command: { case: 'decode', sequences, adapters, tokens, prompt: 32 },
});
const CASES = [
  { name: 'prefill', command: { case: 'prefill', prompt: 512, adapters: 0 } },
  { name: 'prefill+1', command: { case: 'prefill', prompt: 512, adapters: 1 } },
  ...[1, 4, 8, 16].map((sequences) => decode(sequences)),
  ...[1, 4, 8].map((adapters) => decode(16, adapters)),
].filter((each) => picked(values.cases, each.name));

const lockStepOrAlone = (command) => command.case === 'prefill' || command.sequences >= 1;
const inBench = (file) => path.join(places.root, 'bench', file);
const llama = (name, model, args, serves) => ({
  name,
  command: process.execPath,
  args: [
    'llama-peer.mjs',
    '--model',
    path.join(places.gguf, model),
    '--adapters',
    places.gguf,
    // Its own default is more threads than these machines have cores, which spin on each other.
    '--threads',
    String(os.availableParallelism()),
    ...args,
  ],
  cwd: inBench('peers'),
  serves,
});
const PEERS = [
  {
    name: 'lorax',
    command: process.execPath,
    args: [inBench('lorax-peer.mjs'), '--model', places.model, '--adapters', places.adapters],
    cwd: places.root,
    serves: () => true,
  },
  llama('llama.cpp BF16', 'model-BF16.gguf', [], lockStepOrAlone),
  llama('llama.cpp Q8_0', 'model-Q8_0.gguf', [], lockStepOrAlone),
  llama(
    'llama.cpp Q8_0, loops',
    'model-Q8_0.gguf',
    ['--style', 'loops'],
    (command) => command.case === 'decode' && command.sequences > 1,
  ),
  llama(
    'llama.cpp Q8_0, 1 thread',
    'model-Q8_0.gguf',
    ['--threads', '1'],
    (command) => command.case === 'decode' && command.sequences === 1,
  ),
  {
    name: 'transformers bf16',
    command: places.python,
    args: ['transformers_peer.py', '--model', places.model, '--adapters', places.adapters],
    cwd: inBench('peers'),
    serves: () => true,
  },
].filter(
  ({ name }) =>
    picked(values.only, name.split(' ')[0].replace(',', '')) &&
    !(isDummy && name.startsWith('llama.cpp')),
);

for (const reason of isDummy ? [] : setUp()) console.log(`bench: ${reason}`);
const peers = [];
for (const how of PEERS) {
  try {
    const peer = new Peer(how);
    console.log(`bench: ${how.name}: ${await peer.ready()}`);
    peers.push(peer);
  } catch (error) {
    console.log(`bench: left out: ${error.message}`);
  }
}

const machine = describeMachine();
const samples = new Map(); // case -> peer -> tokens/s of each round
const rows = ['case,peer,round,tokens_per_second,cpu_seconds'];
for (let round = 0; round <= Number(values.rounds); round++) {
  for (const { name, command } of CASES) {
    for (const peer of rotated(peers, round).filter((each) => each.serves(command))) {
      const answer = await peer.ask(command);
      if (round === 0) continue; // caches, lazy loading, clocks
      const of = samples.get(name) ?? samples.set(name, new Map()).get(name);
      of.set(peer.name, [...(of.get(peer.name) ?? []), answer.tokensPerSecond]);
      const cpu = answer.cpuSeconds?.toFixed(3) ?? '';
      rows.push(`${name},"${peer.name}",${round},${answer.tokensPerSecond.toFixed(1)},${cpu}`);
    }
  }
  console.log(`bench: round ${round} of ${values.rounds}${round === 0 ? ' (not counted)' : ''}`);
}
await Promise.all(peers.map((peer) => peer.stop()));

printTable();
printBars();
const csv =
  values.csv ??
  path.join(
    places.root,
    'bench/results',
    `${isDummy ? 'smollm2-shape' : 'smollm2'}-cpu-${new Date().toISOString().slice(0, 10)}.csv`,
  );
mkdirSync(path.dirname(csv), { recursive: true });
writeFileSync(csv, `# ${machine}; commit ${commitOf(places.root)}\n${rows.join('\n')}\n`);
console.log(`\nEvery sample: ${path.relative(process.cwd(), csv)}`);

function rotated(list, by) {
  const at = by % list.length;
  return [...list.slice(at), ...list.slice(0, at)];
}

function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function medianOf(caseName, peerName) {
  const of = samples.get(caseName)?.get(peerName);
  return of ? median(of) : undefined;
}

function printTable() {
  console.log(
    `\n${machine}\ntokens/s, medians of ${values.rounds} rounds in turn; NxK: N sequences over K adapters of rank 16\n`,
  );
  const width = Math.max(...peers.map((peer) => peer.name.length));
  console.log([''.padEnd(width), ...CASES.map((each) => each.name.padStart(10))].join(''));
  for (const peer of peers) {
    const cells = CASES.map((each) => {
      const value = medianOf(each.name, peer.name);
      return (value === undefined ? '' : value.toFixed(value < 100 ? 1 : 0)).padStart(10);
    });
    console.log([peer.name.padEnd(width), ...cells].join(''));
  }
}

/** Ratios that the table does not show at a glance. */
function printBars() {
  const ratio = (what, above, below) => {
    if (above === undefined || below === undefined) return;
    console.log(`${what.padEnd(45)} ${(above / below).toFixed(3)}x`);
  };
  console.log('');
  const prefill = medianOf('prefill', 'lorax');
  ratio('prompt of 512, against transformers', prefill, medianOf('prefill', 'transformers bf16'));
  ratio('prompt of 512 with an adapter, against none', medianOf('prefill+1', 'lorax'), prefill);
  const mixed = medianOf('16x8', 'lorax');
  ratio('16 over 8 adapters, against none', mixed, medianOf('16', 'lorax'));
  if (mixed === undefined) return;
  // What eight adapters may cost at most, if bytes read were all there is.
  const adapters = bytesBelow(places.adapters);
  const weights = bytesBelow(places.model) - (isDummy ? adapters : 0); // one folder holds both
  const megabytes = (bytes) => `${(bytes / 1e6).toFixed(0)} MB`;
  const bytes = `${megabytes(adapters)} beside ${megabytes(weights)}`;
  ratio(`  what the bytes predict, ${bytes}`, weights, weights + adapters);
}

function bytesBelow(directory) {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.name.endsWith('.safetensors'))
    .reduce((sum, entry) => sum + statSync(path.join(entry.parentPath, entry.name)).size, 0);
}
