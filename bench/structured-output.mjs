// What masks cost: a batch of 16 on SmolLM2, all free, and the same batch with half of it under schemas.
//
//     node bench/structured-output.mjs [--model FOLDER] [--device cpu] [--rounds 9] [--tokens 160]
//         [--csv FILE]
//
// Both take turns in one run, so that a slow minute of the machine hits both. Tokens are counted from
// the moment all 16 have their first to the moment one ends. Constrained rows jump over tokens that are
// forced, which is why the free rows of the mixed batch are shown by themselves too: what their
// neighbours' masks cost them. Prints medians; writes every round as CSV.
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
    rounds: { type: 'string', default: '9' },
    tokens: { type: 'string', default: '160' },
    csv: {
      type: 'string',
      default: path.join(root, `bench/results/structured-output-${today}.csv`),
    },
  },
});
const rounds = Number(values.rounds);
const maxOutputTokens = Number(values.tokens);
const ROWS = 16;

const list = (properties) => ({
  type: 'array',
  items: {
    ...{ type: 'object', properties, required: Object.keys(properties) },
    additionalProperties: false,
  },
});
/** Lists, so that none ends before the budget makes it. */
const SCHEMAS = [
  list({ title: { type: 'string' }, year: { type: 'integer', minimum: 1900, maximum: 2030 } }),
  list({
    name: { type: 'string', maxLength: 40 },
    role: { enum: ['admin', 'editor', 'viewer'] },
    tags: { type: 'array', items: { type: 'string' }, maxItems: 4 },
  }),
  list({
    day: { type: 'string', format: 'date' },
    note: { anyOf: [{ type: 'string' }, { type: 'null' }] },
  }),
  { type: 'array', items: { type: 'string', pattern: '^[A-Z][a-z ]{10,60}[.!?]$' } },
].map((schema) => ({ ...schema, minItems: 3 }));

const engine = createEngine({ model: values.model, device: values.device });
const { deviceDescription } = await engine.ready();
console.log(`bench: ${deviceDescription}`);

const rows = ['round,batch,tokens_per_second,free_tokens_per_second_and_row'];
const samples = { free: [], half: [] };
const freeRows = { free: [], half: [] };
for (let round = 0; round <= rounds; round++) {
  const order = round % 2 === 0 ? ['free', 'half'] : ['half', 'free'];
  for (const batch of order) {
    const { tokensPerSecond, freeRow } = await run(batch === 'half' ? ROWS / 2 : 0, round);
    if (round === 0) continue; // grammars are compiled, caches filled
    samples[batch].push(tokensPerSecond);
    freeRows[batch].push(freeRow);
    rows.push(`${round},${batch},${tokensPerSecond.toFixed(1)},${freeRow.toFixed(2)}`);
  }
}
await engine.dispose();

const machine = `${describeMachine()}; ${deviceDescription}`;
console.log(`\n${machine}\nmedians of ${rounds} rounds in turn, ${ROWS} rows`);
for (const batch of ['free', 'half']) {
  const [all, row] = [median(samples[batch]), median(freeRows[batch])];
  console.log(
    `${batch.padEnd(6)} ${all.toFixed(1).padStart(8)} tokens/s, ${row.toFixed(2)} a free row`,
  );
}
const ratio = (of) => (median(of.half) / median(of.free)).toFixed(3);
console.log(`half under schemas, of all free: ${ratio(samples)}x; a free row: ${ratio(freeRows)}x`);
mkdirSync(path.dirname(values.csv), { recursive: true });
writeFileSync(values.csv, `# ${machine}; commit ${commitOf(root)}\n${rows.join('\n')}\n`);
console.log(`Every round: ${path.relative(process.cwd(), values.csv)}`);

/** Tokens/s of a batch in which `constrained` rows have schemas, while all rows run. */
async function run(constrained, round) {
  const times = Array.from({ length: ROWS }, () => []); // [row] of [ms, tokens]
  const ends = await Promise.all(times.map((own, row) => generate(row, constrained, round, own)));
  const from = Math.max(...times.map(([first]) => first[0]));
  const to = Math.min(...ends);
  const tokensOf = (own) =>
    own.filter(([ms]) => ms > from && ms <= to).reduce((sum, [, tokens]) => sum + tokens, 0);
  const seconds = (to - from) / 1000;
  const all = times.reduce((sum, own) => sum + tokensOf(own), 0);
  const free = times.slice(constrained).reduce((sum, own) => sum + tokensOf(own), 0);
  return { tokensPerSecond: all / seconds, freeRow: free / (ROWS - constrained) / seconds };
}

async function generate(row, constrained, round, times) {
  const isConstrained = row < constrained;
  const request = {
    messages: [{ role: 'user', content: `Write list number ${row} of round ${round}.` }],
    ...(isConstrained
      ? { constraint: { type: 'json', schema: SCHEMAS[row % SCHEMAS.length] } }
      : {}),
    sampling: {
      ...{ maxOutputTokens, temperature: 1, seed: round * ROWS + row },
      ignoreEos: !isConstrained,
    },
  };
  for await (const event of engine.generate(request)) {
    if (event.type === 'delta') times.push([performance.now(), event.tokenIds.length]);
  }
  return performance.now();
}

function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
