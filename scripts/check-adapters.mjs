// Thousands of adapters through a small pool: every answer is the one that the same request gets alone
// (test/e2e/suites/many-adapters.mjs). The last line sums up; what went wrong comes before.
//     npm run check:adapters -- [--adapters 2000] [--resident 40] [--requests 20000] [--rank 4]
//         [--device cpu] [--concurrency 64] [--seed 1]
import { parseArgs } from 'node:util';

import { runManyAdapters } from '../test/e2e/suites/many-adapters.mjs';

const { values } = parseArgs({
  options: {
    adapters: { type: 'string', default: '2000' },
    resident: { type: 'string', default: '40' },
    requests: { type: 'string', default: '20000' },
    rank: { type: 'string', default: '4' },
    device: { type: 'string', default: 'cpu' },
    concurrency: { type: 'string', default: '64' },
    seed: { type: 'string', default: '1' },
  },
});
const number = (key) => Number(values[key]);
const begin = performance.now();
const seconds = () => ((performance.now() - begin) / 1e3).toFixed(0);
const { problems, summary, deviceDescription } = await runManyAdapters({
  ...{ adapters: number('adapters'), resident: number('resident'), requests: number('requests') },
  ...{ rank: number('rank'), concurrency: number('concurrency'), seed: number('seed') },
  device: values.device,
  say: (line) => console.log(`adapters: ${line} after ${seconds()} s`),
});
console.log(deviceDescription);
for (const problem of problems) console.log(`adapters: PROBLEM: ${problem}`);
console.log(summary);
process.exitCode = problems.length > 0 ? 1 : 0;
