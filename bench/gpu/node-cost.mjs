// What Node costs: the same streams through the AI SDK provider and through the native engine alone,
// on one device, taking turns in one run.
//
//     node bench/gpu/node-cost.mjs FOLDER [--streams 64] [--adapters 0] [--rounds 5] [--csv FILE]
//         [--short 64] [--long 192] [--shape llama-8b] [--device cuda] [--memory-bytes N]
//         [--engine PROGRAM]
//
// Makes the model in FOLDER if need be. The native engine is engine_bench, a process of its own that
// holds the weights a second time; whoever's turn it is not is idle. A step's time is the difference
// of two runs over the difference of their lengths; the last line compares tokens/s.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { makeAdapters } from './make-adapters.mjs';
import { makeModel, SHAPES } from './make-model.mjs';
import { ProviderStreams } from './provider.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    streams: { type: 'string', default: '64' },
    adapters: { type: 'string', default: '0' },
    rounds: { type: 'string', default: '5' },
    short: { type: 'string', default: '64' },
    long: { type: 'string', default: '192' },
    shape: { type: 'string', default: 'llama-8b' },
    device: { type: 'string', default: 'cuda' },
    'memory-bytes': { type: 'string', default: String(12 * 2 ** 30) },
    engine: { type: 'string', default: `${root}.gpu/bench/engine_bench` },
    csv: { type: 'string' },
  },
});
const [folder] = positionals;
const shape = SHAPES[values.shape];
if (folder === undefined || shape === undefined) throw new Error('node-cost.mjs FOLDER [options]');
const [streams, adapters, rounds, shorter, longer, memoryBytes] = [
  'streams',
  'adapters',
  'rounds',
  'short',
  'long',
  'memory-bytes',
].map((name) => Number(values[name]));
const { device } = values;

const say = (line) => process.stdout.write(`${line}\n`);

/** engine_bench --serve: a line in, a line out. */
class NativeStreams {
  constructor() {
    const options = ['--memory-bytes', String(memoryBytes), '--adapters', String(adapters)];
    const args = [folder, '--device', device, ...options, '--serve'];
    this.child = spawn(values.engine, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.exited = new Promise((resolve, reject) => {
      this.child.on('error', reject);
      this.child.on('exit', (code) => resolve(code));
    });
    this.lines = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]();
  }

  async expect(word) {
    const { value, done } = await Promise.race([
      this.lines.next(),
      this.exited.then(() => ({ done: true })),
    ]);
    const [, seconds] = new RegExp(`^${word} ([0-9.]+)$`).exec(value ?? '') ?? [];
    if (done || seconds === undefined) throw new Error(`engine_bench said: ${value ?? 'nothing'}`);
    return Number(seconds);
  }

  ready() {
    return this.expect('ready');
  }

  async run(lengths, tokens) {
    this.child.stdin.write(`run ${tokens} ${lengths.join(' ')}\n`);
    return { seconds: await this.expect('done') };
  }

  async dispose() {
    this.child.stdin.end();
    if ((await this.exited) !== 0) throw new Error('engine_bench failed');
  }
}

const median = (numbers) => [...numbers].sort((a, b) => a - b)[numbers.length >> 1];

const made = performance.now();
await makeModel(folder, shape);
const directories = await makeAdapters(folder, shape, adapters);
say(`model: ${((performance.now() - made) / 1e3).toFixed(1)} s`);

const begun = performance.now();
const provider = new ProviderStreams({ model: folder, device, memoryBytes, adapters: directories });
await provider.run(1, 1);
const firstToken = (performance.now() - begun) / 1e3;
const description = await provider.describe();
const { promptTokens } = await provider.run(streams, 16);
const native = new NativeStreams();
const nativeFirstToken = await native.ready();
await native.run(promptTokens, 16);
say(`${description}`);
say(
  `first token: provider ${firstToken.toFixed(2)} s, native ${nativeFirstToken.toFixed(2)} s; ` +
    `prompts of ${Math.min(...promptTokens)} to ${Math.max(...promptTokens)} tokens`,
);

const sides = {
  native: (tokens) => native.run(promptTokens, tokens),
  provider: (tokens) => provider.run(streams, tokens),
};
const samples = [];
for (let round = 0; round < rounds; round++) {
  // Whoever goes first takes turns too.
  const order = round % 2 === 0 ? ['native', 'provider'] : ['provider', 'native'];
  const steps = {};
  for (const side of order) {
    const [t1, t2] = [(await sides[side](shorter)).seconds, (await sides[side](longer)).seconds];
    const stepMs = ((t2 - t1) / (longer - shorter)) * 1e3;
    samples.push({ round, side, t1, t2, stepMs });
    steps[side] = stepMs;
  }
  say(
    `round ${round}: native ${steps.native.toFixed(3)} ms a step, ` +
      `provider ${steps.provider.toFixed(3)}, ${(steps.native / steps.provider).toFixed(3)}x`,
  );
}
await provider.dispose();
await native.dispose();

const of = (side, key) => median(samples.filter((one) => one.side === side).map((s) => s[key]));
const speed = (side) => Math.round((streams * 1e3) / of(side, 'stepMs'));
if (values.csv !== undefined) {
  const lines = samples.map(({ round, side, t1, t2, stepMs }) =>
    [side, streams, adapters, round, t1.toFixed(4), t2.toFixed(4), stepMs.toFixed(4)].join(','),
  );
  const header = `side,streams,adapters,round,seconds_of_${shorter},seconds_of_${longer},step_ms`;
  fs.writeFileSync(values.csv, `# ${description}\n${header}\n${lines.join('\n')}\n`);
}
say(
  `NODE-COST ${streams} streams, ${adapters} adapters: native ${speed('native')} tokens/s, ` +
    `provider ${speed('provider')} tokens/s, ` +
    `${(of('native', 'stepMs') / of('provider', 'stepMs')).toFixed(3)}x (bar 0.97); whole runs of ` +
    `${longer}: ${(of('native', 't2') / of('provider', 't2')).toFixed(3)}x`,
);
