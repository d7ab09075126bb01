// Does the time that the server takes over an API key tell how nearly right it is?
//
//     node bench/key-timing.mjs [--samples 200000] [--csv FILE]
//
// After dudect (Reparaz, Balasch, Verbauwhede 2017, "Dude, is my code constant time?"): wrong keys of two
// kinds in random order, one call each between two readings of the clock, the slowest samples left out, and
// Welch's t between the two kinds. |t| above 4.5 is a leak. As the control, that this machine and so many
// samples would show one, the same keys go through a comparison that ends at the first difference.
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { createJiti } from 'jiti';
import { commitOf, describeMachine } from './machine.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const today = new Date().toISOString().slice(0, 10);
const { values } = parseArgs({
  options: {
    samples: { type: 'string', default: '200000' },
    csv: { type: 'string', default: path.join(root, `bench/results/key-timing-${today}.csv`) },
  },
});
const samples = Number(values.samples);
/** dudect's. */
const LEAK = 4.5;
/** Of the samples: the rest is the scheduler and the collector. */
const KEPT = 0.9;

const jiti = createJiti(import.meta.url);
const { KeyRing } = await jiti.import('../src/server/access/key-ring.ts');

const digit = () => Math.floor(Math.random() * 16).toString(16);
const key = (length) => Array.from({ length }, digit).join('');
const LENGTH = 64;
const keys = Array.from({ length: 16 }, () => key(LENGTH));
const ring = new KeyRing();
keys.forEach((each, index) => ring.add(each, index, 'keys'));

const other = (character) => (character === '0' ? '1' : '0');
const [first, last] = [keys[0], keys.at(-1)];
const CLASSES = {
  'wrong at once': () => other(first[0]) + key(LENGTH - 1),
  'wrong at its last character': () => first.slice(0, -1) + other(first.at(-1)),
  'the last one, wrong at its last character': () => last.slice(0, -1) + other(last.at(-1)),
};

/** What nobody should do. */
function naive(text) {
  for (const each of keys) {
    let at = 0;
    while (at < each.length && each[at] === text[at]) at++;
    if (at === each.length) return each;
  }
  return undefined;
}

function welch(a, b) {
  const of = (all) => {
    const kept = Float64Array.from(all)
      .sort()
      .subarray(0, Math.floor(all.length * KEPT));
    const mean = kept.reduce((sum, x) => sum + x, 0) / kept.length;
    const variance = kept.reduce((sum, x) => sum + (x - mean) ** 2, 0) / (kept.length - 1);
    return { mean, error: variance / kept.length };
  };
  const [x, y] = [of(a), of(b)];
  return { t: (x.mean - y.mean) / Math.sqrt(x.error + y.error), x: x.mean, y: y.mean };
}

function compare(find, kinds) {
  const WARM_UP = 10_000;
  // All of them beforehand: what making one leaves in the caches must not differ between the kinds.
  const asked = Array.from({ length: samples + WARM_UP }, () => {
    const kind = Math.random() < 0.5 ? 0 : 1;
    return { kind, bytes: Buffer.from(CLASSES[kinds[kind]]()) };
  });
  const times = [[], []];
  asked.forEach(({ kind, bytes }, i) => {
    const text = bytes.toString('latin1');
    const begin = process.hrtime.bigint();
    find(text);
    const ns = Number(process.hrtime.bigint() - begin);
    if (i >= WARM_UP) times[kind].push(ns);
  });
  return welch(...times);
}

const machine = `${describeMachine()}; commit ${commitOf(root)}`;
console.log(machine);
const rows = [];
const names = Object.keys(CLASSES);
for (const [what, find] of [
  ['keys of the server', (text) => ring.find(text)],
  ['control: ends at the first difference', naive],
]) {
  for (const kind of names.slice(1)) {
    const { t, x, y } = compare(find, [names[0], kind]);
    const verdict = Math.abs(t) > LEAK ? 'leaks' : 'does not tell';
    rows.push([what, kind, x.toFixed(1), y.toFixed(1), t.toFixed(2), verdict]);
    console.log(
      `${what}: ${names[0]} ${x.toFixed(1)} ns, ${kind} ${y.toFixed(1)} ns, t = ${t.toFixed(2)}: ${verdict}`,
    );
  }
}
const columns = ['what', 'kind', `ns of '${names[0]}'`, 'ns of the kind', 't', 'verdict'];
const lines = [columns, ...rows].map((row) => row.map((each) => JSON.stringify(each)).join(','));
mkdirSync(path.dirname(values.csv), { recursive: true });
writeFileSync(values.csv, `# ${machine}; ${samples} samples\n${lines.join('\n')}\n`);
console.log(`bench: ${values.csv}`);
