// `npm run bench`: prefill and decode of SmolLM2, lorax-js beside node-llama-cpp and transformers.
//
//   npm run bench -- [--rounds 5] [--only lorax,transformers] [--cases prefill,16,16x8] [--csv FILE]
//
// Each peer is a process that stays loaded; every case is asked of every peer once a round, in turn,
// so that a slow minute of the machine hits all of them. Prints medians, writes every sample as CSV.

import { mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { commitOf, describeMachine } from './machine.mjs';
import { Peer } from './peer.mjs';
import { PLACES, setUp } from './setup.mjs';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    only: { type: 'string', default: '' },
    cases: { type: 'string', default: '' },
    tokens: { type: 'string', default: '64' },
    csv: { type: 'string' },
  },
});
const tokens = Number(values.tokens);
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
const inBench = (file) => path.join(PLACES.root, 'bench', file);
const llama = (name, model, args, serves) => ({
  name,
  command: process.execPath,
  args: [
    'llama-peer.mjs',
    '--model',
    path.join(PLACES.gguf, model),
    '--adapters',
    PLACES.gguf,
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
    args: [inBench('lorax-peer.mjs'), '--model', PLACES.model, '--adapters', PLACES.adapters],
    cwd: PLACES.root,
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
    command: PLACES.python,
    args: ['transformers_peer.py', '--model', PLACES.model, '--adapters', PLACES.adapters],
    cwd: inBench('peers'),
    serves: () => true,
  },
].filter((peer) => picked(values.only, peer.name.split(' ')[0].replace(',', '')));

for (const reason of setUp()) console.log(`bench: ${reason}`);
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
    PLACES.root,
    'bench/results',
    `smollm2-cpu-${new Date().toISOString().slice(0, 10)}.csv`,
  );
mkdirSync(path.dirname(csv), { recursive: true });
writeFileSync(csv, `# ${machine}; commit ${commitOf(PLACES.root)}\n${rows.join('\n')}\n`);
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

/** What eight adapters may cost at most, if bytes read were all there is. */
function printBars() {
  const bytesBelow = (directory) =>
    readdirSync(directory, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.name.endsWith('.safetensors'))
      .reduce((sum, entry) => sum + statSync(path.join(entry.parentPath, entry.name)).size, 0);
  const base = medianOf('16', 'lorax');
  const mixed = medianOf('16x8', 'lorax');
  if (base === undefined || mixed === undefined) return;
  const weights = bytesBelow(PLACES.model);
  const adapters = bytesBelow(PLACES.adapters);
  const predicted = weights / (weights + adapters);
  console.log(
    `\n16 over 8 adapters: ${(mixed / base).toFixed(3)}x our own base; the bytes ` +
      `(${(adapters / 1e6).toFixed(0)} MB beside ${(weights / 1e6).toFixed(0)} MB) predict ${predicted.toFixed(3)}x`,
  );
}
