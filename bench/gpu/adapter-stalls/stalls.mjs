// Streams that decode while adapters come in, beside the same streams undisturbed. Used by
// adapter-stalls.mjs.
//
// What counts is the time between tokens from the first hint to the last arrival; of the undisturbed
// streams, the same stretch of their run. No row joins meanwhile.
import { setTimeout as sleep } from 'node:timers/promises';

import { dropFromCache, registerAnew, weightsOf } from './files.mjs';
import { quantile, timeTokens } from './streams.mjs';

/** Hints come once all streams have decoded so long. */
const SETTLE_MS = 200;
const STREAM_ADAPTERS = 8;
/** Loads are over when none came for so long. */
const QUIET_MS = 500;

export async function measureStalls(engine, bench) {
  const { say, note, rounds, host, disk } = bench;
  const own = host.slice(0, STREAM_ADAPTERS).map(({ name }) => name);
  const coming = { host: host.slice(STREAM_ADAPTERS), disk };
  const all = { undisturbed: [], loading: [] };
  let [loads, reads] = [0, 0];
  for (let round = 0; round <= rounds; round++) {
    const kinds = round % 2 === 0 ? ['undisturbed', 'loading'] : ['loading', 'undisturbed'];
    const runs = {};
    for (const kind of kinds) {
      runs[kind] = await runStreams(engine, bench, own, kind === 'loading' ? coming : undefined);
    }
    if (round === 0) continue; // buffers are made, graphs recorded
    const { from, to } = runs.loading;
    for (const kind of kinds) {
      const { gaps } = runs[kind];
      const counted = gaps.filter(({ at }) => at >= from && at <= to).map(({ ms }) => ms);
      if (counted.length === 0)
        throw new Error('the streams ended before the loads: more --tokens');
      all[kind].push(...counted);
      const [p50, p99] = [quantile(counted, 0.5), quantile(counted, 0.99)];
      const came = kind === 'loading' ? [runs.loading.loads, runs.loading.reads] : [0, 0];
      note('between-tokens-p50', round, kind, p50, ...came);
      note('between-tokens-p99', round, kind, p99, ...came);
      say(
        `round ${round}, ${kind.padEnd(11)}: p50 ${p50.toFixed(3)} ms, p99 ${p99.toFixed(3)} over ` +
          `${((to - from) / 1e3).toFixed(2)} s; ${came[0]} came into the pool, ${came[1]} were read`,
      );
    }
    loads += runs.loading.loads;
    reads += runs.loading.reads;
  }
  const ratio = quantile(all.loading, 0.99) / quantile(all.undisturbed, 0.99);
  say(
    `NO-STALL p99 between tokens ${ratio.toFixed(3)}x of undisturbed (bar 1.10x), ` +
      `${loads / rounds} loads into the pool and ${reads / rounds} reads from disk a round`,
  );
  if (loads === 0) {
    say(
      'NO-STALL nothing came into the pool: hints of this engine bring adapters to host memory only',
    );
  }
}

/** Times are ms from when all streams had a token. `gaps`: { at, ms } of each token. */
async function runStreams(engine, { streams, tokens, prompt }, adapters, coming) {
  if (coming !== undefined) await makeCold(engine, coming);
  const last = new Float64Array(streams).fill(NaN);
  const gaps = [];
  let numStarted = 0;
  let start = NaN;
  let firstEnd = Infinity;
  const now = () => performance.now();
  const onToken = (stream) => {
    const at = now();
    if (Number.isNaN(last[stream])) {
      if (++numStarted === streams) start = at;
    } else {
      gaps.push({ at, ms: at - last[stream] });
    }
    last[stream] = at;
  };
  const done = Promise.all(
    Array.from({ length: streams }, async (_, i) => {
      const adapter = adapters[i % adapters.length];
      await timeTokens(engine, { adapter, prompt, tokens, onToken: () => onToken(i) });
      firstEnd = Math.min(firstEnd, now());
    }),
  );
  let came = {};
  while (Number.isNaN(start) && firstEnd === Infinity) await sleep(5);
  if (coming !== undefined) {
    await sleep(SETTLE_MS);
    came = await bringIn(engine, coming, start);
    if (start + came.to > firstEnd)
      throw new Error('the streams ended before the loads: more --tokens');
  }
  await done;
  return { gaps: gaps.map(({ at, ms }) => ({ at: at - start, ms })), ...came };
}

/** Until all have come as far as this engine brings them on a hint. */
async function bringIn(engine, { host, disk }, start) {
  const { totals: before } = await engine.stats();
  const from = performance.now() - start;
  await Promise.all([...host, ...disk].map(({ name }) => engine.adapters.prefetch(name)));
  let to = performance.now() - start;
  let [loads, reads] = [0, 0];
  for (let quietSince = performance.now(); performance.now() - quietSince < QUIET_MS;) {
    const { totals } = await engine.stats();
    reads = (totals.hostReads ?? 0) - (before.hostReads ?? 0) + disk.length;
    if (totals.adapterLoads - before.adapterLoads > loads) {
      loads = totals.adapterLoads - before.adapterLoads;
      quietSince = performance.now();
      to = quietSince - start;
    }
    if (loads >= host.length + disk.length) break;
    await sleep(10);
  }
  return { from, to, loads, reads };
}

/** Those on disk are known by their folder alone, and their files are in no cache. */
async function makeCold(engine, { host, disk }) {
  await registerAnew(engine, host);
  const known = new Set((await engine.adapters.list()).map(({ name }) => name));
  for (const { name, folder } of disk) {
    if (known.has(name)) await engine.adapters.remove(name);
    dropFromCache(weightsOf(folder));
  }
}
