// Figures of a run, whichever clock it went by. Used by bench/trace.mjs and case.mjs.

/** `numbers` need no order; NaN where there are none. */
export function spread(numbers) {
  const sorted = Float64Array.from(numbers).sort();
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
  const sum = sorted.reduce((total, value) => total + value, 0);
  return {
    ...{ count: sorted.length, mean: sum / sorted.length },
    ...{ p50: at(0.5) ?? NaN, p99: at(0.99) ?? NaN, max: sorted.at(-1) ?? NaN },
  };
}

export const mean = (numbers) => numbers.reduce((sum, value) => sum + value, 0) / numbers.length;

/**
 * `run.requests`: { atSeconds, inputTokens, outputTokens, tokens, firstSeconds, lastSeconds, failure }, times
 * from the trace's start; time to first token counts from when the request was due. S-LoRA counts
 * requests over the time from the start to the end of the last one.
 */
export function figuresOf(run, { sloSeconds }) {
  const done = run.requests.filter((request) => request.failure === '');
  const seconds = Math.max(...done.map((request) => request.lastSeconds));
  const toFirst = done.map((request) => request.firstSeconds - request.atSeconds);
  const { adapterHits, adapterLoads, adapterEvictions } = run.totals;
  const { hostReads, hostDrops } = run.totals;
  const needs = adapterHits + adapterLoads;
  const share = (part, whole) => (whole > 0 ? part / whole : NaN);
  return {
    requests: run.requests.length,
    finished: done.length,
    seconds,
    requestsPerSecond: done.length / seconds,
    outputTokensPerSecond: done.reduce((sum, { tokens }) => sum + tokens, 0) / seconds,
    toFirst: spread(toFirst),
    between: run.between,
    sloAttainment: share(toFirst.filter((s) => s <= sloSeconds).length, run.requests.length),
    ...{ adapterHits, adapterLoads, adapterEvictions },
    poolHitRate: share(adapterHits, needs),
    // Of the adapters that were not in the pool, those that were in host memory. Where an engine has no
    // budget for host memory, all are.
    ...{ hostReads, hostDrops },
    hostHitRate: share(adapterLoads - (hostReads ?? 0), adapterLoads),
    preemptions: run.totals.preemptions,
    cachedTokens: run.totals.cachedTokens,
    runningMean: mean(busy(run, 'running')),
    waitingMax: Math.max(0, ...run.states.map((state) => state.waiting)),
    kvPagesMean: mean(busy(run, 'kv')),
    adapterPagesMean: mean(busy(run, 'adapter')),
  };
}

/** Of the seconds in which requests still came. */
function busy(run, key) {
  const last = run.requests.at(-1).atSeconds;
  const states = run.states.filter((state) => state.second <= last);
  return (states.length > 0 ? states : run.states).map((state) => state[key]);
}

/**
 * Requests/s that an engine can do, of a run whose requests were all sent at once: while it is full, from
 * the first quarter that is done to the third.
 */
export function capacityFrom(run) {
  const failed = run.requests.find((request) => request.failure !== '');
  if (failed !== undefined) throw new Error(`a request failed: ${failed.failure}`);
  const ends = run.requests.map((request) => request.lastSeconds).sort((a, b) => a - b);
  const [from, to] = [ends.length >> 2, (3 * ends.length) >> 2];
  return (to - from) / (ends[to] - ends[from]);
}
