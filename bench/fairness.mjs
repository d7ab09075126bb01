// What a flood of one tenant costs the others: their time to first token with it and without it, and
// what the flood's turns cost in throughput.
//
//     node bench/fairness.mjs [--model FOLDER] [--device cpu] [--rounds 5] [--seconds 12]
//         [--tenants 4] [--times 50] [--load 0.3] [--prompt 64] [--output 32] [--max-batch-tokens N]
//         [--csv FILE]
//
// Four tenants send requests at random times (Poisson), together `load` of what the engine was found to
// serve, from a second before each round on. In one kind of round they are alone; in the next a fifth sends
// `times` as many requests as all of them together; in a third, the same crowd has one name, so that there
// is no fairness between them: that is what throughput is compared with. The engine has its own options, but
// for those named. The machine should have nothing else to do. The kinds take turns in one run, so that a
// slow minute hits all. Arrivals and lengths are the same in all kinds of a round, the tokens are not: no
// prompt is found in a cache. How far the ratios are chance, a bootstrap over rounds and the requests in them
// says. Every request of the others is in the CSV.
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
    'max-batch-tokens': { type: 'string' }, // the engine's own
    prompt: { type: 'string', default: '64' },
    output: { type: 'string', default: '32' },
    csv: { type: 'string' },
  },
});
const number = (key) => Number(values[key]);
const [seconds, numTenants, times] = ['seconds', 'tenants', 'times'].map(number);
const KINDS = ['alone', 'with flood', 'one name'];
/** What is measured before the rounds takes no longer, however long those are. */
const firstSeconds = Math.min(seconds, 8);
/** The others are there before a flood is; what they see then is not counted. */
const LEAD_MS = 1000;

const csv = values.csv ?? path.join(root, `bench/results/fairness-${values.device}-${today}.csv`);
const batch = values['max-batch-tokens'];

const engine = createEngine({
  ...{ model: values.model, device: values.device },
  ...(batch === undefined ? {} : { maxBatchTokens: Number(batch) }),
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

const rows = [
  'round,kind,tenant,arrival_ms,sent_ms,queue_ms,engine_first_ms,first_token_ms,total_ms,output_tokens,outcome',
];
const samples = new Map(KINDS.map((kind) => [kind, []]));
for (let round = 0; round <= number('rounds'); round++) {
  const length = round === 0 ? firstSeconds / 3 : seconds;
  const others = arrivals(length, rate, (i) => `other ${i % numTenants}`, LEAD_MS);
  const flood = arrivals(length, times * rate, () => 'flood');
  for (const kind of round % 2 === 0 ? KINDS : [...KINDS].reverse()) {
    const crowd = kind === 'alone' ? others : [...others, ...flood].sort((a, b) => a.at - b.at);
    const done = await play(crowd, kind);
    if (round === 0) continue; // buffers are made, speeds are measured
    samples.get(kind).push(done);
    for (const each of done.requests.filter(isCounted)) {
      const times = [
        each.at,
        each.sentMs,
        each.queueMs,
        each.engineFirstMs,
        each.firstMs,
        each.totalMs,
      ];
      const ms = times.map((value) => value?.toFixed(1) ?? '');
      rows.push(`${round},${kind},${each.tenant},${ms.join()},${each.tokens},${each.outcome}`);
    }
  }
  const told =
    round === 0 ? ['not counted'] : KINDS.map((kind) => tellRound(samples.get(kind).at(-1)));
  console.log(`bench: round ${round} of ${values.rounds}: ${told.join('; ')}`);
}
await engine.dispose();
report();

/** Requests of random lengths at random times, from so long before until so many seconds after 0. */
function arrivals(length, perSecond, tenantOf, leadMs = 0) {
  const list = [];
  let at = -leadMs;
  for (let i = 0; ; i++) {
    at += (-Math.log(1 - random()) / perSecond) * 1000;
    if (at > length * 1000) return list;
    list.push({ at, tenant: tenantOf(i), ...randomRequest() });
  }
}

function randomRequest() {
  return { inputs: around(number('prompt')), outputs: around(number('output')) };
}

function withPrompt(request) {
  const token = () => Math.floor(1000 + random() * (vocabSize - 1000));
  return { ...request, promptTokens: Array.from({ length: request.inputs }, token) };
}

/**
 * What it serves when there is always more to do, requests/s: by the tokens that it computes in the
 * second half of the time, when as many run as can.
 */
async function findCapacity() {
  const begin = performance.now();
  const open = new Set();
  let over = false;
  const line = async () => {
    while (!over) {
      const sample = { tokens: 0, over: new AbortController() };
      open.add(sample);
      await ask(engine, withPrompt(randomRequest()), begin, sample);
      open.delete(sample);
    }
  };
  const lines = Array.from({ length: 600 }, line);
  await sleep(firstSeconds * 500);
  const [before, from] = [await computedTokens(), performance.now()];
  await sleep(firstSeconds * 500);
  const computed = (await computedTokens()) - before;
  const perSecond = computed / ((performance.now() - from) / 1000);
  if (computed === 0)
    throw new Error(`nothing was computed in ${firstSeconds / 2} s: raise --seconds`);
  over = true;
  giveUpWaiting(open);
  await Promise.all(lines);
  return perSecond / (number('prompt') + number('output'));
}

async function computedTokens() {
  return computedOf((await engine.stats()).totals);
}

function computedOf(totals) {
  return totals.promptTokens - totals.cachedTokens + totals.outputTokens;
}

/** A round: every request at its time, whatever became of those before; what waits at its end is given up. */
async function play(requested, kind) {
  const crowd = requested.map(withPrompt);
  const begin = performance.now() + LEAD_MS;
  let before;
  const requests = [];
  const running = [];
  for (const { at, tenant, ...request } of crowd) {
    const ahead = begin + at - performance.now();
    if (ahead > 1) await sleep(ahead);
    if (at >= 0) before ??= engine.stats();
    const view = kind === 'one name' ? engine.tenant('all') : engine.tenant(tenant);
    const sample = { at, tenant, tokens: 0, outcome: 'open', over: new AbortController() };
    requests.push(sample);
    running.push(ask(view, request, begin + at, sample));
  }
  const { totals } = await engine.stats();
  const ms = performance.now() - begin;
  const { totals: first } = await before;
  const computed = (computedOf(totals) - computedOf(first)) / (ms / 1000);
  const steps = totals.steps - first.steps;
  // Those of the others are waited for, and nothing is given up before: what they saw is what counts.
  if (kind !== 'one name') await Promise.all(running.filter((_, i) => isOther(requests[i])));
  giveUpWaiting(requests);
  await Promise.all(running);
  return { requests, computed, stepMs: ms / steps };
}

/** What runs goes on to its end: hundreds cut off at once would be what the engine knows of lengths. */
function giveUpWaiting(samples) {
  for (const { queueMs, over } of samples) if (queueMs === undefined) over.abort();
}

async function ask(view, { promptTokens, outputs }, begin, sample) {
  const { signal } = sample.over;
  const sampling = { maxOutputTokens: outputs, temperature: 0, ignoreEos: true };
  try {
    sample.sentMs = performance.now() - begin;
    for await (const event of view.generate({ promptTokens, sampling, signal })) {
      // What the engine itself says, since it was sent: the rest is on the way.
      if (event.type === 'start') sample.queueMs = event.queueMs;
      if (event.type === 'finish') sample.engineFirstMs = event.timing.timeToFirstTokenMs;
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

function tellRound({ computed, stepMs }) {
  return `${computed.toFixed(0)} tokens/s, ${stepMs.toFixed(1)} ms a step`;
}

function report() {
  const machine = `${describeMachine()}; ${deviceDescription}`;
  console.log(`\n${machine}\n${values.rounds} rounds of ${seconds} s each, in turn`);
  for (const kind of KINDS) {
    const rounds = samples.get(kind);
    const all = rounds.flatMap(({ requests }) => requests.filter(isCounted));
    const lost = all.filter(({ outcome }) => outcome !== 'finished').length;
    const of = rounds.flatMap((round) => firsts(round));
    const speeds = rounds.map(({ computed }) => computed);
    const stepMs = quantile(
      rounds.map((round) => round.stepMs),
      0.5,
    );
    console.log(
      `${kind.padEnd(10)} first token of the others: p50 ${quantile(of, 0.5).toFixed(1)}, p99 ` +
        `${quantile(of, 0.99).toFixed(1)} ms (${of.length} requests, ${lost} without an answer); ` +
        `${quantile(speeds, 0.5).toFixed(0)} tokens/s computed, ` +
        `${stepMs.toFixed(1)} ms a step`,
    );
  }
  const numRounds = samples.get('alone').length;
  const each = Array.from({ length: numRounds }, (_, i) => i);
  tell('p50 with the flood, against without', each, (draw) => ratioOfFirsts(draw, 0.5, 0));
  tell('p99 with the flood, against without (at most 1.5)', each, (draw) =>
    ratioOfFirsts(draw, 0.99, 0),
  );
  tell('  of those that came after the first fifth of a round', each, (draw) =>
    ratioOfFirsts(draw, 0.99, seconds * 200),
  );
  tell('throughput against one line for all (at least 0.95)', each, (draw) => {
    const sum = (kind) =>
      draw.rounds.reduce((total, i) => total + samples.get(kind)[i].computed, 0);
    return sum('with flood') / sum('one name');
  });
  mkdirSync(path.dirname(csv), { recursive: true });
  const options =
    `--times ${times} --load ${values.load} --prompt ${values.prompt} --output ${values.output} ` +
    `--max-batch-tokens ${batch ?? '(default)'}`;
  writeFileSync(
    csv,
    `# ${machine}; commit ${commitOf(root)}; ${path.basename(values.model)} ${options}\n${rows.join('\n')}\n`,
  );
  console.log(`Every request of the others: ${path.relative(process.cwd(), csv)}`);
}

/** A figure of all rounds, and where nine tenths of those of resampled rounds and requests lie. */
function tell(name, rounds, figure) {
  const same = (list) => list;
  const again = (list) => list.map(() => list[Math.floor(random() * list.length)]);
  const drawn = Array.from({ length: 1000 }, () =>
    figure({ rounds: again(rounds), requests: again }),
  );
  const [low, high] = [0.05, 0.95].map((q) => quantile(drawn, q).toFixed(3));
  const value = figure({ rounds, requests: same }).toFixed(3);
  console.log(`${name}: ${value}x (${low} to ${high} by chance)`);
}

function ratioOfFirsts(draw, q, fromMs) {
  const of = (kind) =>
    quantile(
      draw.rounds.flatMap((i) => draw.requests(firsts(samples.get(kind)[i], fromMs))),
      q,
    );
  return of('with flood') / of('alone');
}

function isOther({ tenant }) {
  return tenant !== 'flood';
}

function isCounted(request) {
  return isOther(request) && request.at >= 0;
}

/** Of the others that came so late in a round, ms. */
function firsts({ requests }, fromMs = 0) {
  return requests
    .filter((each) => isCounted(each) && each.firstMs !== undefined && each.at >= fromMs)
    .map(({ firstMs }) => firstMs);
}

function quantile(list, q) {
  const sorted = [...list].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? NaN;
}
