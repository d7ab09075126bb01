// What a flood of one tenant costs the others: their time to first token with it and without it, and
// what the flood's turns cost in throughput.
//
//     node bench/fairness.mjs [--model FOLDER] [--device cpu] [--rounds 5] [--seconds 12]
//         [--tenants 4] [--times 50] [--load 0.3] [--max-batch-tokens 32] [--csv FILE]
//
// Four tenants send requests at random times (Poisson), together `load` of what the engine was found to
// serve. In one kind of round they are alone; in the next a fifth sends `times` as many requests as all of
// them together; in a third, the same crowd has one name, so that there is no fairness between them: that
// is what throughput is compared with. A newcomer waits for the step that runs, so steps are no longer
// here than a prompt; and the machine should have nothing else to do. The kinds take turns in one run, so
// that a slow minute hits all. Arrivals are the same in all kinds of a round. Every request's sample is in
// the CSV.
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
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
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '12' },
    tenants: { type: 'string', default: '4' },
    times: { type: 'string', default: '50' },
    load: { type: 'string', default: '0.3' },
    'max-batch-tokens': { type: 'string', default: '32' },
    prompt: { type: 'string', default: '64' },
    output: { type: 'string', default: '32' },
    csv: { type: 'string', default: path.join(root, `bench/results/fairness-cpu-${today}.csv`) },
  },
});
const number = (key) => Number(values[key]);
const [seconds, numTenants, times] = ['seconds', 'tenants', 'times'].map(number);
const KINDS = ['alone', 'with flood', 'one name'];

const engine = createEngine({
  ...{ model: values.model, device: values.device },
  maxBatchTokens: number('max-batch-tokens'),
});
const { deviceDescription, vocabSize } = await engine.ready();
console.log(`bench: ${deviceDescription}`);

let state = 1;
const random = () => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return state / 2 ** 32;
};
/** Around the mean, half as long to one and a half times as long. */
const around = (mean) => Math.max(1, Math.round(mean * (0.5 + random())));

const capacity = await findCapacity();
const rate = number('load') * capacity;
console.log(`bench: about ${capacity.toFixed(1)} requests/s; the others send ${rate.toFixed(1)}`);

const rows = ['round,kind,tenant,arrival_ms,first_token_ms,total_ms,output_tokens,outcome'];
const samples = new Map(KINDS.map((kind) => [kind, []]));
for (let round = 0; round <= number('rounds'); round++) {
  const others = arrivals(rate, (i) => `other ${i % numTenants}`);
  const flood = arrivals(times * rate, () => 'flood');
  for (const kind of round % 2 === 0 ? KINDS : [...KINDS].reverse()) {
    const crowd = kind === 'alone' ? others : [...others, ...flood].sort((a, b) => a.at - b.at);
    const done = await play(crowd, kind);
    if (round === 0) continue; // buffers are made, speeds are measured
    samples.get(kind).push(done);
    for (const each of done.requests) {
      const ms = [each.at, each.firstMs, each.totalMs].map((value) => value?.toFixed(1) ?? '');
      rows.push(`${round},${kind},${each.tenant},${ms.join()},${each.tokens},${each.outcome}`);
    }
  }
  console.log(`bench: round ${round} of ${values.rounds}${round === 0 ? ' (not counted)' : ''}`);
}
await engine.dispose();
report();

/** Requests of random lengths at random times, all within the round. */
function arrivals(perSecond, tenantOf) {
  const list = [];
  let at = 0;
  for (let i = 0; ; i++) {
    at += (-Math.log(1 - random()) / perSecond) * 1000;
    if (at > seconds * 1000) return list;
    const promptTokens = Array.from({ length: around(number('prompt')) }, () =>
      Math.floor(1000 + random() * (vocabSize - 1000)),
    );
    list.push({ at, tenant: tenantOf(i), promptTokens, outputs: around(number('output')) });
  }
}

/** What it serves when there is always more to do, requests/s. */
async function findCapacity() {
  let rate = 0;
  for (const count of [50, 200]) {
    const begin = performance.now();
    const all = Array.from({ length: count }, () => {
      const promptTokens = Array.from({ length: around(number('prompt')) }, () =>
        Math.floor(1000 + random() * (vocabSize - 1000)),
      );
      return ask(engine, { promptTokens, outputs: around(number('output')) }, begin, {});
    });
    await Promise.all(all);
    rate = count / ((performance.now() - begin) / 1000);
  }
  return rate;
}

/** A round: every request at its time, whatever became of those before; what waits at its end is left. */
async function play(crowd, kind) {
  const begin = performance.now();
  const before = (await engine.stats()).totals;
  const over = new AbortController();
  const requests = [];
  const running = [];
  for (const { at, tenant, ...request } of crowd) {
    const ahead = begin + at - performance.now();
    if (ahead > 1) await sleep(ahead);
    const view = kind === 'one name' ? engine.tenant('all') : engine.tenant(tenant);
    const sample = { at, tenant, tokens: 0, outcome: 'open' };
    requests.push(sample);
    running.push(ask(view, request, begin + at, sample, over.signal));
  }
  const { totals } = await engine.stats();
  const ms = performance.now() - begin;
  // Those of the others are waited for: what they saw is what counts.
  if (kind === 'one name') over.abort();
  await Promise.all(running.filter((_, i) => requests[i].tenant !== 'flood'));
  over.abort();
  await Promise.all(running);
  const of = (key) => (totals[key] - before[key]) / (ms / 1000);
  const computed = of('promptTokens') - of('cachedTokens') + of('outputTokens');
  return { requests, computed, outputs: of('outputTokens') };
}

async function ask(view, { promptTokens, outputs }, begin, sample, signal) {
  const sampling = { maxOutputTokens: outputs, temperature: 0, ignoreEos: true };
  try {
    for await (const event of view.generate({ promptTokens, sampling, signal })) {
      if (event.type !== 'delta') continue;
      sample.firstMs ??= performance.now() - begin;
      sample.tokens += event.tokenIds.length;
    }
    sample.outcome = 'finished';
  } catch (error) {
    sample.outcome = error.code ?? error.name;
  }
  sample.totalMs = performance.now() - begin;
}

function report() {
  const machine = `${describeMachine()}; ${deviceDescription}`;
  const flat = (kind) => samples.get(kind).flatMap(({ requests }) => requests);
  const firsts = (kind, tenant) =>
    flat(kind)
      .filter((each) => each.tenant.startsWith(tenant) && each.firstMs !== undefined)
      .map(({ firstMs }) => firstMs);
  console.log(`\n${machine}\n${values.rounds} rounds of ${seconds} s each, in turn`);
  for (const kind of KINDS) {
    const all = flat(kind).filter(({ tenant }) => tenant !== 'flood');
    const lost = all.filter(({ outcome }) => outcome !== 'finished').length;
    const of = firsts(kind, 'other');
    const speeds = samples.get(kind).map(({ computed }) => computed);
    console.log(
      `${kind.padEnd(10)} first token of the others: p50 ${quantile(of, 0.5).toFixed(1)}, p99 ` +
        `${quantile(of, 0.99).toFixed(1)} ms (${of.length} requests, ${lost} without an answer); ` +
        `${quantile(speeds, 0.5).toFixed(0)} tokens/s computed`,
    );
  }
  const ratio = (q) =>
    quantile(firsts('with flood', 'other'), q) / quantile(firsts('alone', 'other'), q);
  const speed = (kind) =>
    quantile(
      samples.get(kind).map(({ computed }) => computed),
      0.5,
    );
  console.log(`p50 with the flood, against without: ${ratio(0.5).toFixed(2)}x`);
  console.log(`p99 with the flood, against without: ${ratio(0.99).toFixed(2)}x (at most 1.5)`);
  console.log(
    `throughput with turns for tenants, against one line for all: ` +
      `${(speed('with flood') / speed('one name')).toFixed(3)}x (at least 0.95)`,
  );
  mkdirSync(path.dirname(values.csv), { recursive: true });
  const options = `--times ${times} --load ${values.load} --max-batch-tokens ${values['max-batch-tokens']}`;
  writeFileSync(
    values.csv,
    `# ${machine}; commit ${commitOf(root)}; ${path.basename(values.model)} ${options}\n${rows.join('\n')}\n`,
  );
  console.log(`Every request: ${path.relative(process.cwd(), values.csv)}`);
}

function quantile(list, q) {
  const sorted = [...list].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? NaN;
}
