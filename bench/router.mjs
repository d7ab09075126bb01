// Replicas behind the real endpoint picker of the Gateway API Inference Extension and a real Envoy, without a
// cluster: how many requests find their adapter in the page pool of the replica that they come to.
//
//     node bench/router.mjs [--concurrency 12] [--tokens 8] [--csv FILE]
//
// Needs Go 1.26 and Python 3. The picker is built once (minutes). It reads a stand-in of the Kubernetes API
// (bench/router/kubernetes-api.mjs) that has an InferencePool and two pods, 127.0.0.2 and 127.0.0.3, and
// scrapes /metrics of each every 50 ms. Each load (bench/router/load.mjs) and way to pick (pickers.mjs) starts with
// two fresh replicas. Popularity falls as 1/rank. Hits and loads are the engines' own counters.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { writeAdapter } from '../test/e2e/suites/random-adapter.mjs';
import { commitOf, describeMachine } from './machine.mjs';
import { freePort, startGateway } from './router/gateway.mjs';
import { LOADS, runLoad, zipf } from './router/load.mjs';
import { PICKERS } from './router/pickers.mjs';
import { getPrograms } from './router/programs.mjs';
import { startReplicas } from './router/replicas.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const today = new Date().toISOString().slice(0, 10);
const { values } = parseArgs({
  options: {
    concurrency: { type: 'string', default: '12' },
    tokens: { type: 'string', default: '8' },
    csv: { type: 'string', default: path.join(root, `bench/results/router-cpu-${today}.csv`) },
  },
});
const [concurrency, tokens] = [values.concurrency, values.tokens].map(Number);
const ADAPTERS = 200;
const addresses = ['127.0.0.2', '127.0.0.3'];

const folder = mkdtempSync(path.join(tmpdir(), 'lorax-bench-router-'));
const adapterFolder = path.join(folder, 'adapters');
mkdirSync(adapterFolder);
const names = Array.from({ length: ADAPTERS }, (_, i) => `a${i}`);
for (const [i, name] of names.entries()) {
  writeAdapter(path.join(adapterFolder, name), { rank: 4, seed: 2 * i });
}
const programs = getPrograms();
const machine = `${describeMachine()}; commit ${commitOf(root)}`;
console.log(machine);

const rows = [];

/** From empty pools, then on with them full; a row for each. */
async function measure([loadName, load], [picker, config]) {
  const { pages, requests, promptOf } = load;
  const port = await freePort(addresses);
  const replicas = await startReplicas({
    ...{ addresses, port, adapterFolder, memory: pages * 65536 },
  });
  let gateway;
  try {
    gateway = await startGateway({ programs, folder, addresses, port, config });
    const adapters = zipf(names, 7);
    const seen = new Set();
    let before = await replicas.counters();
    for (const phase of ['from empty', 'steady']) {
      const asked = await runLoad({
        ...{ url: gateway.url, adapters, promptOf, count: requests, concurrency, tokens },
      });
      const after = await replicas.counters();
      const each = (key) => after.map((replica, i) => replica[key] - before[i][key]);
      const sum = (key) => each(key).reduce((a, b) => a + b);
      // The first time that an adapter is asked for, no replica can have it.
      const first = [...asked].filter((name) => !seen.has(name)).length;
      for (const name of asked) seen.add(name);
      const row = {
        ...{ load: loadName, pages, picker, phase, requests: sum('finished') },
        ...{ hits: sum('hits'), loads: sum('loads') },
        ...{ firstLoads: first, evictions: sum('evictions') },
        hitRate: sum('hits') / (sum('hits') + sum('loads')),
        hitRateWithoutFirst: sum('hits') / (sum('hits') + sum('loads') - first),
        cachedTokens: sum('cachedTokens') / sum('promptTokens'),
        shareOfFirstReplica: each('finished')[0] / sum('finished'),
      };
      if (row.requests !== requests) throw new Error(`${row.requests} of ${requests} were served`);
      rows.push(row);
      console.log(
        `${loadName}; ${picker}; ${phase}: hit rate ${row.hitRate.toFixed(3)}, without first loads ` +
          `${row.hitRateWithoutFirst.toFixed(3)}; ${row.loads} loads (${first} first), ` +
          `${(100 * row.shareOfFirstReplica).toFixed(0)} % to the first replica`,
      );
      before = after;
    }
    for (const line of gateway.complaints().slice(0, 5)) console.log(`  ${line}`);
  } finally {
    await gateway?.stop();
    await replicas.stop();
  }
}

try {
  for (const load of Object.entries(LOADS)) {
    for (const picker of Object.entries(PICKERS)) await measure(load, picker);
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}

const columns = Object.keys(rows[0]);
const shown = (value) =>
  typeof value === 'number' ? Number(value.toFixed(4)) : /,/.test(value) ? `"${value}"` : value;
const lines = rows.map((row) => columns.map((column) => shown(row[column])).join(','));
mkdirSync(path.dirname(values.csv), { recursive: true });
writeFileSync(values.csv, `# ${machine}\n${columns.join(',')}\n${lines.join('\n')}\n`);
console.log(`bench: ${values.csv}`);
