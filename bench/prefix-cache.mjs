// What a shared prefix saves: time to first token with a system prompt that was computed before, beside
// the same request in a scope of its own, which finds nothing.
//
//     node bench/prefix-cache.mjs [--model FOLDER] [--device cpu] [--rounds 7] [--adapter NAME=FOLDER]
//         [--csv FILE]
//
// First one request at a time, for system prompts of several lengths; then a crowd of 16 that arrives at
// once on one system prompt. Both kinds take turns in one run, so that a slow minute of the machine hits
// both. Prints medians; writes every round as CSV.
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { createEngine } from '../dist/engine.mjs'; // bench/ is a package of its own: no self-reference
import { commitOf, describeMachine } from './machine.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const today = new Date().toISOString().slice(0, 10);
const { values } = parseArgs({
  options: {
    model: { type: 'string', default: path.join(root, '.cache/models/SmolLM2-135M-Instruct') },
    device: { type: 'string', default: 'cpu' },
    rounds: { type: 'string', default: '7' },
    adapter: { type: 'string' },
    csv: { type: 'string', default: path.join(root, `bench/results/prefix-cache-${today}.csv`) },
  },
});
const rounds = Number(values.rounds);
const LENGTHS = [128, 256, 512, 1024, 1800];
const QUESTION_TOKENS = 24;
const CROWD = 16;
const CROWD_LENGTH = 512;
const KINDS = ['shared', 'alone'];

const engine = createEngine({ model: values.model, device: values.device });
const { deviceDescription, vocabSize } = await engine.ready();
let adapter;
if (values.adapter !== undefined) {
  const [name, folder] = values.adapter.split('=');
  await engine.adapters.add(name, folder);
  adapter = name;
}
console.log(`bench: ${deviceDescription}`);

const rows = ['round,requests,system_tokens,prefix,cached_tokens,first_token_ms,all_done_ms'];
const samples = new Map();
let numScopes = 0;
let state = 1;

for (let round = 0; round <= rounds; round++) {
  for (const length of LENGTHS) await inTurn(round, 1, length);
  await inTurn(round, CROWD, CROWD_LENGTH);
}
const { totals } = await engine.stats();
await engine.dispose();

const machine = `${describeMachine()}; ${deviceDescription}`;
console.log(`\n${machine}\nmedians of ${rounds} rounds in turn; time to first token`);
for (const [requests, length] of [...LENGTHS.map((length) => [1, length]), [CROWD, CROWD_LENGTH]]) {
  const of = (kind, what) =>
    median(samples.get(`${requests} ${length} ${kind}`).map((s) => s[what]));
  const [shared, alone] = KINDS.map((kind) => of(kind, 'firstMs'));
  const done = KINDS.map((kind) => of(kind, 'doneMs').toFixed(1));
  console.log(
    `${String(requests).padStart(2)} x ${String(length).padStart(4)} + ${QUESTION_TOKENS} tokens: ` +
      `${shared.toFixed(2).padStart(8)} ms with the prefix there, ${alone.toFixed(2).padStart(8)} ms ` +
      `without: ${(alone / shared).toFixed(1)}x (all done: ${done.join(' and ')} ms)`,
  );
}
console.log(`${totals.cachedTokens} of ${totals.promptTokens} prompt tokens were found`);
mkdirSync(path.dirname(values.csv), { recursive: true });
writeFileSync(values.csv, `# ${machine}; commit ${commitOf(root)}\n${rows.join('\n')}\n`);
console.log(`Every round: ${path.relative(process.cwd(), values.csv)}`);

async function inTurn(round, requests, length) {
  for (const kind of round % 2 === 0 ? KINDS : [...KINDS].reverse()) {
    const begin = performance.now();
    const answers = await Promise.all(
      Array.from({ length: requests }, (_, i) => firstToken(round, i, length, kind)),
    );
    const doneMs = performance.now() - begin;
    if (round === 0) continue; // buffers are made, the shared prefix is computed
    const firstMs = median(answers.map((answer) => answer.firstMs));
    const cached = median(answers.map((answer) => answer.cachedTokens));
    const key = `${requests} ${length} ${kind}`;
    samples.set(key, [...(samples.get(key) ?? []), { firstMs, doneMs }]);
    rows.push(
      `${round},${requests},${length},${kind},${cached},${firstMs.toFixed(3)},${doneMs.toFixed(3)}`,
    );
  }
}

async function firstToken(round, index, length, kind) {
  const system = Array.from({ length }, (_, i) => 1000 + ((i * 37 + length) % (vocabSize - 1000)));
  const question = Array.from({ length: QUESTION_TOKENS }, () => 1000 + random(vocabSize - 1000));
  const request = {
    ...{ promptTokens: [...system, ...question], adapter },
    ...(kind === 'alone' ? { cacheScope: `alone ${numScopes++}` } : {}),
    sampling: { maxOutputTokens: 4, temperature: 0, ignoreEos: true, seed: round * CROWD + index },
  };
  const begin = performance.now();
  let [firstMs, cachedTokens] = [NaN, NaN];
  for await (const event of engine.generate(request)) {
    if (event.type === 'start') cachedTokens = event.cachedTokens;
    if (event.type === 'delta' && Number.isNaN(firstMs)) firstMs = performance.now() - begin;
  }
  return { firstMs, cachedTokens };
}

function random(bound) {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * bound);
}

function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
