// What a run of bench/trace.mjs leaves: a CSV with a line a case, beside it the engine's state each second
// and, where wanted, the requests one by one. Used by bench/trace.mjs.
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';

/** [column, value of a case { figures, run, prediction, ratio, ... }]: '' where there is none. */
const COLUMNS = [
  ['clock', (c) => c.clock],
  ['adapters', (c) => c.adapters],
  ['rate', (c) => c.rate],
  ['alpha', (c) => c.alpha],
  ['cv', (c) => c.cv],
  ['duration_s', (c) => c.duration],
  ['requests', (c) => c.figures.requests],
  ['finished', (c) => c.figures.finished],
  ['total_s', (c) => c.figures.seconds],
  ['requests_per_s', (c) => c.figures.requestsPerSecond],
  ['of_first_case', (c) => c.ratio],
  ['predicted_requests_per_s', (c) => c.prediction.requestsPerSecond],
  ['predicted_of_first_case', (c) => c.predictedRatio],
  ['output_tokens_per_s', (c) => c.figures.outputTokensPerSecond],
  ...['mean', 'p50', 'p99'].map((key) => [`first_token_${key}_s`, (c) => c.figures.toFirst[key]]),
  ...['mean', 'p50', 'p99'].map((key) => [
    `between_tokens_${key}_ms`,
    (c) => c.figures.between[key] * 1e3,
  ]),
  ['slo_attainment', (c) => c.figures.sloAttainment],
  ['adapter_hits', (c) => c.figures.adapterHits],
  ['adapter_loads', (c) => c.figures.adapterLoads],
  ['adapter_evictions', (c) => c.figures.adapterEvictions],
  ['pool_hit_rate', (c) => c.figures.poolHitRate],
  ['host_reads', (c) => c.figures.hostReads],
  ['host_drops', (c) => c.figures.hostDrops],
  ['host_hit_rate', (c) => c.figures.hostHitRate],
  ['preemptions', (c) => c.figures.preemptions],
  ['cached_tokens', (c) => c.figures.cachedTokens],
  ['running_mean', (c) => c.figures.runningMean],
  ['waiting_max', (c) => c.figures.waitingMax],
  ['kv_pages_mean', (c) => c.figures.kvPagesMean],
  ['adapter_pages_mean', (c) => c.figures.adapterPagesMean],
  ['pool_pages', (c) => c.run.info.numPages],
  ['page_bytes', (c) => c.run.info.pageBytes],
  ['adapter_bytes', (c) => c.run.adapterBytes],
  ['adapter_pages', (c) => c.adapterPages],
  ['predicted_rows', (c) => c.prediction.rows],
  ['predicted_most_rows', (c) => c.prediction.mostRows],
  ['predicted_step_ms', (c) => c.prediction.stepMs],
  ['predicted_distinct_adapters', (c) => c.prediction.distinctAdapters],
  ['predicted_miss_rate', (c) => c.prediction.missRate],
  ['predicted_capacity_per_s', (c) => c.prediction.capacityPerSecond],
  ['cpu_s', (c) => c.run.cpuSeconds],
  ['register_s', (c) => c.run.registerSeconds],
  ['client_loop_delay_p99_ms', (c) => c.run.client?.loopDelayP99Ms],
  ['client_utilization', (c) => c.run.client?.utilization],
  ['client_sent_late_p99_ms', (c) => c.run.client?.sentLateP99Ms],
  ['client_overhead_p99_ms', (c) => c.run.client?.overheadP99Ms],
];

const STATE = ['second', 'running', 'waiting', 'free', 'kv', 'cold', 'adapter', 'retiring'];
const STATE_COLUMNS = [...STATE, 'adapterLoads', 'hostBytes'];
const REQUEST_COLUMNS = [
  ...[
    'atSeconds',
    'adapter',
    'inputTokens',
    'outputTokens',
    'tokens',
    'firstSeconds',
    'lastSeconds',
  ],
  'failure',
];

/** `comments`: the machine, the settings, how the prediction is made. Returns the files. */
export function writeCsv(file, cases, comments, { requests }) {
  mkdirSync(path.dirname(file), { recursive: true });
  const front = comments.map((line) => `# ${line}`).join('\n');
  const write = (suffix, header, lines) => {
    const name = file.replace(/(\.csv)?$/, `${suffix}.csv`);
    const text = lines.map((line) => line.map(cell).join(','));
    writeFileSync(name, `${[front, header.join(','), ...text].join('\n')}\n`);
    return name;
  };
  const files = [
    write(
      '',
      COLUMNS.map(([name]) => name),
      cases.map((each) => COLUMNS.map(([, value]) => value(each))),
    ),
    write(
      '-state',
      ['adapters', ...STATE_COLUMNS],
      cases.flatMap((c) =>
        c.run.states.map((s) => [c.adapters, ...STATE_COLUMNS.map((k) => s[k])]),
      ),
    ),
  ];
  if (requests) {
    const line = (c) => (r) => [c.adapters, ...REQUEST_COLUMNS.map((key) => r[key])];
    const lines = cases.flatMap((c) => c.run.requests.map(line(c)));
    files.push(write('-requests', ['adapters', ...REQUEST_COLUMNS], lines));
  }
  return files;
}

function cell(value) {
  if (value === undefined || Number.isNaN(value)) return '';
  if (typeof value !== 'number' || Number.isInteger(value)) return value;
  return Number(value.toPrecision(6));
}

/** A case on the terminal. */
export function describe({ adapters, figures, run, ratio, prediction, predictedRatio }) {
  const percent = (share) => (Number.isNaN(share) ? '-' : `${(100 * share).toFixed(1)} %`);
  const { toFirst, between } = figures;
  const lines = [
    `${adapters} adapters: ${figures.finished} of ${figures.requests} requests in ` +
      `${figures.seconds.toFixed(1)} s: ${figures.requestsPerSecond.toFixed(3)} requests/s, ` +
      `${figures.outputTokensPerSecond.toFixed(0)} output tokens/s`,
    `  first token: mean ${toFirst.mean.toFixed(3)} s, p50 ${toFirst.p50.toFixed(3)}, p99 ` +
      `${toFirst.p99.toFixed(3)}; in time: ${percent(figures.sloAttainment)}`,
    `  between tokens: mean ${(between.mean * 1e3).toFixed(2)} ms, p50 ` +
      `${(between.p50 * 1e3).toFixed(2)}, p99 ${(between.p99 * 1e3).toFixed(2)}`,
    `  adapters: ${figures.adapterLoads} loads, ${figures.adapterEvictions} evictions; in the pool ` +
      `${percent(figures.poolHitRate)} of the times, of the others in host memory ` +
      `${percent(figures.hostHitRate)}; ${figures.preemptions} preemptions`,
    `  of the first case: ${ratio.toFixed(3)}x; the bytes predict ${predictedRatio.toFixed(3)}x ` +
      `(${prediction.requestsPerSecond.toFixed(3)} requests/s, ${prediction.rows} of at most ` +
      `${prediction.mostRows} rows, steps of ${prediction.stepMs.toFixed(2)} ms)`,
  ];
  if (run.client !== undefined) {
    const { utilization, sentLateP99Ms, loopDelayP99Ms, overheadP99Ms } = run.client;
    lines.push(
      `  the client: ${percent(utilization)} busy; p99 of requests sent late ` +
        `${sentLateP99Ms.toFixed(1)} ms, of the event loop's delay ${loopDelayP99Ms.toFixed(1)}, of ` +
        `what a first token takes beyond the engine ${overheadP99Ms.toFixed(1)}; ` +
        `registered in ${run.registerSeconds.toFixed(1)} s`,
    );
  }
  return lines.join('\n');
}
