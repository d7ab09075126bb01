// Thousands of adapters under S-LoRA's trace: the same requests at the same times over few adapters and
// over many, and what the bytes predict of their ratio.
//
//     npm run bench:trace -- [--adapters 5,200] [--rate 10|saturate] [--duration 120] [--alpha 1] [--cv 1]
//         [--input 8,512] [--output 8,512] [--seed 42] [--slo 6] [--csv FILE] [--requests]
//         [--memory-gbps N] [--copy-gbps N] [--rank 8] [--targets q_proj,k_proj,v_proj,o_proj]
//       of the real clock:
//         [--model FOLDER | --shape llama2-7b --folder FOLDER] [--device auto] [--memory-bytes N]
//         [--host-memory-bytes N | N,N,... (of each case)] [--distinct-files] [--saturate-requests 600]
//       --clock virtual, no device: the native engine over computed costs (bench/native/trace_bench.cc)
//         [--shape llama2-7b] [--pool-gb N] [--peak-tflops N] [--step-us N]
//
// Arrivals are open loop. `--rate saturate` first measures what the first case can do with all requests at
// hand, and then sends 1.05 of that. Adapters are hard links to one file of weights, with a scale
// each; with `--distinct-files` each has a file of its own.
// Writes FILE and FILE-state (CSV), FILE (SVG), and with `--requests` FILE-requests.
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { commitOf } from './machine.mjs';
import { figuresOf } from './trace/measures.mjs';
import { OPTIONS, readOptions } from './trace/options.mjs';
import { plotTrace } from './trace/plot.mjs';
import { FORMULA, predict } from './trace/prediction.mjs';
import { RealClock } from './trace/real-clock.mjs';
import { describe, writeCsv } from './trace/report.mjs';
import { makeTrace } from './trace/slora-trace.mjs';
import { VirtualClock } from './trace/virtual-clock.mjs';

/** Of what the first case can do, so that a queue builds up. */
const OVERLOAD = 1.05;

const root = fileURLToPath(new URL('..', import.meta.url));
const say = (line) => process.stdout.write(`${line}\n`);
const options = readOptions(parseArgs({ options: OPTIONS }).values, root);
const { counts } = options;

const begin = performance.now();
const Clock = options.clock === 'real' ? RealClock : VirtualClock;
const clock = await Clock.create(options, Math.max(...counts));
say(`made ready in ${((performance.now() - begin) / 1e3).toFixed(1)} s`);
const rate = await chooseRate();

const measured = [];
for (const adapters of counts) {
  say(`${adapters} adapters at ${rate} requests/s for ${options.trace.duration} s ...`);
  const trace = makeTrace({ ...options.trace, rate, adapters });
  const run = await clock.run(adapters, trace);
  measured.push({ adapters, trace, run, figures: figuresOf(run, options) });
}
const inputs = clock.predictionInputs(measured[0].run);
const cases = measured.map((each) => {
  const workload = { ...each, alpha: options.trace.alpha };
  return { ...each, prediction: predict({ ...inputs, workload }) };
});
const [first] = cases;
for (const each of cases) {
  each.ratio = each.figures.requestsPerSecond / first.figures.requestsPerSecond;
  each.predictedRatio = each.prediction.requestsPerSecond / first.prediction.requestsPerSecond;
  Object.assign(each, { clock: options.clock, rate, ...options.trace });
  each.adapterPages = inputs.adapter.pages;
  say(`\n${describe(each)}`);
}

const machine = clock.describe(first.run);
const comments = [
  `${machine}; commit ${commitOf(root)}`,
  options.described,
  `prediction: ${FORMULA.join('; ')}`,
  `of the prediction: ${describeInputs(inputs)}`,
];
const files = writeCsv(options.csv, cases, comments, options);
files.push(plotTrace(options.csv, cases, machine));
say(`\n${machine}\nof the prediction: ${describeInputs(inputs)}`);
for (const file of files) say(`wrote ${path.relative(process.cwd(), file)}`);

async function chooseRate() {
  if (options.rate !== 'saturate') return options.rate;
  const count = options.saturateRequests;
  const trace = makeTrace({ ...options.trace, rate: count, duration: 1, adapters: counts[0] });
  const atOnce = trace.map((request) => ({ ...request, atSeconds: 0 }));
  const capacity = await clock.capacity(counts[0], atOnce);
  say(`${counts[0]} adapters saturate at ${capacity.toFixed(3)} requests/s`);
  return Number((OVERLOAD * capacity).toFixed(2));
}

function describeInputs({ step, rates, from }) {
  const gbps = (rate) => `${(rate / 1e6).toFixed(1)} GB/s`;
  return (
    `a step of the first case takes ${step.fixed.toFixed(4)} ms + ${step.prefill.toFixed(6)} a prefill ` +
    `token + ${step.decode.toFixed(6)} a decode token; memory ${gbps(rates.memory)} (${from.memory}); ` +
    `copies ${gbps(rates.copy)} (${from.copy})`
  );
}
