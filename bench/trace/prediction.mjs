// What the bytes say of a case, from the steps that the first case measured: S-LoRA's argument, that KV
// and adapters share one pool, so that adapters cost rows, and that a step reads each adapter it uses.
//
//   t(R)   = fixed + decode R + prefill R I/O + D(R) A / memory [+ R/O miss A / copy, where a load
//            stops the step]
//   X(R)   = R / (O t(R)), at most copy / (miss A)
//   R      = the most rows with R (I + O/2) / block + R + D(R) a <= pages, or those that the rate needs
//   miss   = the larger of: adapters used at all, a request; what the pool's rest cannot hold
//   total  = max(last arrival, n / X) + O t(R);   requests/s = n / total
//
// I, O: tokens of a prompt, of an answer; D(R): distinct adapters of R rows; A, a: an adapter's bytes and
// pages; a page a row is the scheduler's reserve. Used by bench/trace.mjs.

export const FORMULA = [
  't(R) = fixed + decode R + prefill R I/O + D(R) A/memory [+ R/O miss A/copy where loads stop steps]',
  'X(R) = R / (O t(R)) <= copy / (miss A)',
  'R: most rows with R (I + O/2)/block + R + D(R) a <= pages, or those the rate needs',
  'miss = max(adapters used / requests, what the rest of the pool cannot hold)',
  'requests/s = n / (max(last arrival, n / X) + O t(R))',
];

/**
 * ms of a step = fixed + prefill * prefill tokens + decode * decode tokens + adapters * adapterMs: least
 * squares over `steps`, `adapterMs` given. What comes out below 0 is left out and the rest fitted anew.
 */
export function fitSteps(steps, adapterMs) {
  const usual = withoutOutliers(steps);
  const columns = {
    fixed: () => 1,
    prefill: (s) => s.prefillTokens,
    decode: (s) => s.decodeTokens,
  };
  let names = Object.keys(columns);
  for (;;) {
    const rows = usual.map((step) => names.map((name) => columns[name](step)));
    const values = usual.map((step) => Math.max(0, step.ms - adapterMs * step.adapters));
    const fitted = leastSquares(rows, values);
    const kept = names.filter((_, i) => fitted[i] >= 0);
    if (kept.length === names.length) {
      return { fixed: 0, prefill: 0, decode: 0, ...zip(names, fitted) };
    }
    names = kept;
  }
}

/** ms of a step that does next to nothing but read the weights: of the fastest hundredth. */
export function fastestStep(steps) {
  const decodes = steps.filter((step) => step.prefillTokens === 0 && step.decodeTokens > 0);
  const sorted = decodes.map((step) => step.ms).sort((a, b) => a - b);
  if (sorted.length === 0) throw new Error('no step was measured that decodes alone');
  return sorted[Math.floor(sorted.length / 100)];
}

/**
 * `workload`: { trace, adapters, alpha }; `pool`: { pages, blockTokens, maxRows }; `adapter`: { bytes, pages };
 * `step`: of fitSteps; `rates`: { memory, copy } bytes/ms; `loadsStopSteps`: as on the CPU.
 */
export function predict({ workload, pool, adapter, step, rates, loadsStopSteps }) {
  const { trace, adapters } = workload;
  const count = trace.length;
  const lastArrival = trace.at(-1).atSeconds * 1e3;
  const average = (key) => trace.reduce((sum, request) => sum + request[key], 0) / count;
  const [prompt, output] = [average('inputTokens'), average('outputTokens')];
  const shares = popularity(adapters, workload.alpha);
  const distinct = (draws) => shares.reduce((sum, p) => sum + 1 - (1 - p) ** draws, 0);
  const kvPages = (prompt + output / 2) / pool.blockTokens;

  const missAt = (rows) => {
    const capacity = Math.floor(Math.max(0, pool.pages - rows * kvPages) / adapter.pages);
    const held = shares.slice(-capacity).reduce((sum, p) => sum + p, 0); // popular ones come last
    return Math.max(distinct(count) / count, capacity > 0 ? 1 - held : 1);
  };
  const stepMs = (rows) => {
    const loads = loadsStopSteps
      ? ((rows / output) * missAt(rows) * adapter.bytes) / rates.copy
      : 0;
    const tokens = step.decode * rows + step.prefill * rows * (prompt / output);
    return step.fixed + tokens + (distinct(rows) * adapter.bytes) / rates.memory + loads;
  };
  const perMs = (rows) =>
    Math.min(rows / (output * stepMs(rows)), rates.copy / (missAt(rows) * adapter.bytes));
  const fits = (rows) => rows * (kvPages + 1) + distinct(rows) * adapter.pages <= pool.pages;

  let mostRows = 1;
  while (mostRows < pool.maxRows && fits(mostRows + 1)) mostRows++;
  const rate = count / lastArrival;
  let rows = 1;
  while (rows < mostRows && perMs(rows) < rate) rows++;
  const total = Math.max(lastArrival, count / perMs(rows)) + output * stepMs(rows);
  return {
    ...{ rows, mostRows, stepMs: stepMs(rows), distinctAdapters: distinct(rows) },
    ...{ missRate: missAt(rows), capacityPerSecond: perMs(mostRows) * 1e3 },
    requestsPerSecond: (count / total) * 1e3,
  };
}

/** Of adapter i: it is drawn as floor(n x), x of density alpha x^(alpha - 1). */
function popularity(adapters, alpha) {
  const upTo = (i) => (i / adapters) ** alpha;
  const shares = Array.from({ length: adapters }, (_, i) => upTo(i + 1) - upTo(i));
  return shares.sort((a, b) => a - b);
}

/** Without the slowest hundredth: first steps of a shape, whatever the machine did beside. */
function withoutOutliers(steps) {
  if (steps.length < 10)
    throw new Error(`${steps.length} steps were measured: too few to predict from`);
  return [...steps].sort((a, b) => a.ms - b.ms).slice(0, Math.ceil(steps.length * 0.99));
}

const zip = (names, values) => Object.fromEntries(names.map((name, i) => [name, values[i]]));

/** Normal equations, solved by elimination; what depends on others gets 0. */
function leastSquares(rows, values) {
  const n = rows[0].length;
  const dot = (f, g) => rows.reduce((sum, row, r) => sum + f(row, r) * g(row, r), 0);
  const column = (i) => (row) => row[i];
  const matrix = Array.from({ length: n }, (_, i) => [
    ...Array.from({ length: n }, (_, j) => dot(column(i), column(j))),
    dot(column(i), (_, r) => values[r]),
  ]);
  for (let i = 0; i < n; i++) {
    const pivot = matrix[i][i];
    if (Math.abs(pivot) < 1e-9) continue;
    for (let k = 0; k < n; k++) {
      if (k === i) continue;
      const factor = matrix[k][i] / pivot;
      matrix[k] = matrix[k].map((value, j) => value - factor * matrix[i][j]);
    }
  }
  return matrix.map((row, i) => (Math.abs(row[i]) < 1e-9 ? 0 : row[n] / row[i]));
}
