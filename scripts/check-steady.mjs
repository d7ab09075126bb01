// "Steady", for long: many requests with random aborts, ranks and lengths over more adapters than
// the pool holds (test/e2e/suites/steady.mjs). The last line sums up; what went wrong comes before.
//     node scripts/check-steady.mjs [--requests 30000] [--device auto] [--adapters 200]
//         [--memory-bytes N] [--concurrency 160] [--seed 1]
import { parseArgs } from 'node:util';

import { runSteady } from '../test/e2e/suites/steady.mjs';

const { values } = parseArgs({
  options: {
    requests: { type: 'string', default: '30000' },
    device: { type: 'string', default: 'auto' },
    adapters: { type: 'string', default: '200' },
    'memory-bytes': { type: 'string', default: String(12 * 2 ** 20) },
    concurrency: { type: 'string', default: '160' },
    seed: { type: 'string', default: '1' },
  },
});
const begin = performance.now();
const seconds = () => ((performance.now() - begin) / 1e3).toFixed(0);
const { problems, summary, deviceDescription } = await runSteady({
  requests: Number(values.requests),
  device: values.device,
  adapters: Number(values.adapters),
  memoryBytes: Number(values['memory-bytes']),
  concurrency: Number(values.concurrency),
  seed: Number(values.seed),
  say: (line) => console.log(`steady: ${line} after ${seconds()} s`),
});
console.log(deviceDescription);
for (const problem of problems) console.log(`steady: PROBLEM: ${problem}`);
console.log(summary);
process.exitCode = problems.length > 0 ? 1 : 0;
